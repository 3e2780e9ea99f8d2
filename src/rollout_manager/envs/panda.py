"""The stand-in arm's tabletop tasks as an environment: the physics and the controllers of `arm_node`, in lockstep.

An action is what a policy node sends at one tick. It goes through the same messages to the same controllers, which
interpolate for a period of the robot, so that the joints move as they do in real time.
"""

from importlib.metadata import version

import numpy as np

from rollout_manager.arms.arm import Arm
from rollout_manager.arms.controlled_arm import ControlledArm
from rollout_manager.env import Landmarks, StepResult
from rollout_manager.envs.landmarks import model_landmarks
from rollout_manager.envs.panda_tasks import TASKS, Judge, TabletopTask, check_model, check_task, look, set_up
from rollout_manager.exceptions import SimulatorError
from vla_policy_node.command_messages import command_message
from vla_policy_node.messages import rosbags_maker
from vla_policy_node.observation import Float32Array, Float64Array, Readings
from vla_policy_node.spec import RobotSpec, load_spec


class PandaEnv:
    """All tabletop tasks as one `Env`. A seed fixes the initial state to the bit."""

    def __init__(self, spec: RobotSpec | None = None, moved: ControlledArm | None = None) -> None:
        """
        Args:
            spec: cameras, proprioception, action and controllers; without it the robot `panda`.
            moved: an arm that somebody else moves on, in real time; `step` is not for that one. None: one of its own.

        Raises:
            SimulatorError: the spec names a camera, joint or controller that the arm does not have.
        """
        self._spec = load_spec("panda") if spec is None else spec
        self._moved = ControlledArm(self._spec) if moved is None else moved
        self._arm = self._moved.arm
        check_model(self._arm)
        if unknown := [name for name in self._spec.joint_names if name not in self._arm.joints]:
            raise SimulatorError(
                f"robot '{self._spec.name}': joint '{unknown[0]}' is not one of panda's: {', '.join(self._arm.joints)}"
            )
        # One of its own, so that looking changes nothing.
        self._eyes = Arm(cameras=self._spec.cameras)
        self._make = rosbags_maker()
        self._task: TabletopTask | None = None
        self._start: Float64Array = np.zeros(3)
        self._now_ns = 0

    @property
    def name(self) -> str:
        return "panda"

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(TASKS)

    def instruction(self, task: str) -> str:
        """Raises: SimulatorError: unknown task."""
        return check_task(task).instruction

    def default_time_limit(self, task: str) -> int:
        """Raises: SimulatorError: unknown task."""
        return check_task(task).time_limit

    def reset(self, task: str, seed: int) -> None:
        """Raises: SimulatorError: unknown task, or a negative seed."""
        found = check_task(task)
        if seed < 0:
            raise SimulatorError(f"panda: seed {seed} is negative; valid are 0, 1, 2, ...")
        set_up(self._arm, found, seed)
        self._task, self._judge, self._now_ns = found, Judge(found), 0
        self._start = np.array(self._arm.data.joint("cube").qpos[:3])
        self._moved.restart(0)

    def step(self, action: Float32Array) -> StepResult:
        """Raises: SimulatorError: not reset, or the action is not (A,) finite numbers."""
        self._ready()
        width = len(self._spec.action)
        if action.shape != (width,) or not np.isfinite(action).all():
            raise SimulatorError(f"panda: action {action.tolist()} is not {width} finite numbers")
        limited = np.clip(action, self._spec.action_low, self._spec.action_high).astype(np.float32)
        for command in self._spec.commands:
            message = command_message(self._make, self._spec, command, self._now_ns, limited)
            self._moved.command(command.topic, message, self._now_ns)
        self._now_ns += self._spec.period_ns
        self._moved.advance(self._now_ns)
        return self.judge()

    def judge(self) -> StepResult:
        """How the try stands after one more period. Raises: SimulatorError: not reset."""
        self._ready()
        return self._judge.step(look(self._arm, self._start), self._arm.fault)

    @property
    def fault(self) -> str:
        """Why the arm's hardware has stopped it; empty while it obeys."""
        return self._arm.fault

    def read(self, cameras: bool = True) -> Readings:
        """Raises: SimulatorError: not reset."""
        self._ready()
        images = self._eyes.images_of(self._arm.sight()) if cameras else {}
        return Readings(images, self._arm.joint_state(), self._arm.hand())

    def privileged_state(self) -> Float64Array:
        """Where the controllers want the joints (9,), where they are (9,), and the cube's place (3,): shape (21,)."""
        self._ready()
        target = self._moved.target(self._now_ns)
        return np.concatenate([target, self._arm.measured()[0], self._arm.data.joint("cube").qpos[:3]])

    def landmarks(self) -> Landmarks:
        """By the names of MuJoCo's model; `grip` is between the finger tips."""
        self._ready()
        return model_landmarks(self._arm.model, self._arm.data)

    def versions(self) -> dict[str, str]:
        """Versions of packages, and a digest of the model's file."""
        packages = {name: version(name) for name in ("mujoco", "numpy", "scipy")}
        return packages | {"panda_model": self._arm.digest}

    def close(self) -> None:
        self._eyes.close()

    def _ready(self) -> TabletopTask:
        if self._task is None:
            raise SimulatorError("panda: no task is set up; call reset(task, seed) first")
        return self._task

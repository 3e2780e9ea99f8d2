"""A scripted expert for the stand-in arm: the hand from place to place, in motions that the arm may make."""

from dataclasses import dataclass

import numpy as np
from ruckig import InputParameter, OutputParameter, Ruckig

from rollout_manager.envs.panda_tasks import HALF_CUBE, HOVER, LIFT, check_task
from rollout_manager.exceptions import SimulatorError
from vla_policy_node.exceptions import OutOfReachError
from vla_policy_node.inverse_kinematics import InverseKinematics
from vla_policy_node.kinematics import ArmModel
from vla_policy_node.observation import Float32Array, Float64Array
from vla_policy_node.spec import RobotSpec, load_spec

STATE_SIZE = 21
ARM_JOINTS = 7
OPEN, CLOSED, BROOM = 0.04, 0.01, 0.015
"""m that a finger is from the middle: open, closed on the cube as far as it goes, and as wide as pushes straight."""
DOWN = np.diag([1.0, -1.0, -1.0])
"""Rotation of a hand that points down with its fingers opening along the base's y."""
SHARES = {"velocity": 0.85, "acceleration": 0.4, "jerk": 0.2}
"""Of the robot's motion limits, so that its safety filter has nothing to slow down."""
ARRIVED = 0.015
"""rad at which the joints are where they were commanded."""
ASIDE = 0.06
"""m to the side, and up, by which the hand first misses where it goes: it shows the way back from there."""
STAY = 1000
"""Steps that the hand stays where all is done."""
LOW = 0.03
"""m above the table at which the hand pushes."""
BEHIND = 0.07
"""m from the cube's middle at which the hand goes down to push."""
GOAL_X = 0.66
"""m to which the cube is pushed: its far side well beyond the line."""


@dataclass(frozen=True)
class Waypoint:
    """Where the hand goes next, and what its fingers do on the way."""

    hand: Float64Array
    """m in the base's frame, (3,)."""
    finger: float
    stay: int = 0
    """Steps that it stays there."""


class PandaExpert:
    """Acts on the privileged state of `PandaEnv`. When its plan is carried out it looks again and plans anew."""

    def __init__(self, spec: RobotSpec | None = None) -> None:
        """Args: spec: its model, rate and motion limits are kept; without it, those of the robot `panda`.

        Raises:
            SimulatorError: the robot names no model of its arm.
        """
        self._spec = load_spec("panda") if spec is None else spec
        arm = self._spec.action[:ARM_JOINTS]
        if self._spec.kinematics is None:
            raise SimulatorError(f"panda expert: robot '{self._spec.name}' has no 'kinematics'")
        model = ArmModel(self._spec.kinematics, arm)
        self._inverse = InverseKinematics(model, 1 / self._spec.rate_hz, clearance=0.0)
        self._ruckig = Ruckig(ARM_JOINTS, 1 / self._spec.rate_hz)
        self._motion, self._next = InputParameter(ARM_JOINTS), OutputParameter(ARM_JOINTS)
        self._motion.max_velocity = [SHARES["velocity"] * d.velocity for d in arm]
        self._motion.max_acceleration = [SHARES["acceleration"] * d.acceleration for d in arm]
        self._motion.max_jerk = [SHARES["jerk"] * d.jerk for d in arm]
        self._finger_step = SHARES["velocity"] * self._spec.action[ARM_JOINTS].velocity / self._spec.rate_hz
        self.trouble = ""
        """What went wrong last, in words; empty where nothing did."""

    def reset(self, task: str, seed: int) -> None:
        """Raises: SimulatorError: unknown task."""
        check_task(task)
        self._task, self.trouble = task, ""
        self._random = np.random.default_rng([seed, 1])
        self._plan: list[Waypoint] = []
        self._begun = False

    def act(self, privileged_state: Float64Array) -> Float32Array:
        """Raises: SimulatorError: the state is not the arm's."""
        if privileged_state.shape != (STATE_SIZE,):
            raise SimulatorError(f"panda expert: state of shape {privileged_state.shape}, expected ({STATE_SIZE},)")
        commanded, measured, cube = np.split(privileged_state, [9, 18])
        if not self._begun:
            self._begin(commanded)
        if not self._plan:
            self._plan = self._plan_for(cube)
            self._head_for(self._plan[0])
        elif self._there(measured) and not self._stays():
            self._plan.pop(0)
            if not self._plan:
                self.trouble = f"'{self._task}' was not solved by the plan; it is planned anew"
                self._plan = self._plan_for(cube)
            self._head_for(self._plan[0])
        self._ruckig.update(self._motion, self._next)
        self._next.pass_to_input(self._motion)
        wide = self._plan[0].finger - self._finger
        self._finger += min(self._finger_step, max(-self._finger_step, wide))
        return np.array([*self._next.new_position, self._finger], np.float32)

    def _begin(self, commanded: Float64Array) -> None:
        """At rest, from where the joints were commanded last."""
        self._begun, self._waited = True, 0
        self._motion.current_position = commanded[:ARM_JOINTS].tolist()
        self._motion.current_velocity = self._motion.current_acceleration = [0.0] * ARM_JOINTS
        self._finger = float(commanded[ARM_JOINTS])
        self._target = commanded[:ARM_JOINTS].copy()

    def _head_for(self, waypoint: Waypoint) -> None:
        try:
            self._target = self._inverse.reach(self._target, waypoint.hand, DOWN)
        except OutOfReachError as error:
            raise SimulatorError(f"panda expert: {error}") from error
        self._motion.target_position = self._target.tolist()
        self._waited = 0

    def _there(self, measured: Float64Array) -> bool:
        """Whether the commands have arrived, and the joints with them."""
        sent = np.array(self._motion.current_position)
        finger = abs(self._finger - self._plan[0].finger) < 1e-6
        return finger and bool(np.abs(np.stack([sent, measured[:ARM_JOINTS]]) - self._target).max() < ARRIVED)

    def _stays(self) -> bool:
        self._waited += 1
        return self._waited <= self._plan[0].stay

    def _plan_for(self, cube: Float64Array) -> list[Waypoint]:
        x, y, z = cube
        aside = self._random.uniform((-ASIDE, -ASIDE, 0), ASIDE)
        if self._task == "reach_cube":
            above = np.array([x, y, z + HOVER])
            return [Waypoint(above + aside, OPEN), Waypoint(above, OPEN, stay=STAY)]
        if self._task == "push_cube":
            behind = x - BEHIND
            return [
                Waypoint(np.array([behind, y, z + HOVER]) + aside, BROOM),
                Waypoint(np.array([behind, y, z + HOVER]), BROOM),
                Waypoint(np.array([behind, y, LOW]), BROOM),
                Waypoint(np.array([(behind + GOAL_X) / 2, y, LOW]), BROOM),
                Waypoint(np.array([GOAL_X - HALF_CUBE, y, LOW]), BROOM),
            ]
        return [
            Waypoint(np.array([x, y, z + HOVER]) + aside, OPEN),
            Waypoint(np.array([x, y, z + HOVER]), OPEN),
            Waypoint(np.array([x, y, z]), OPEN),
            Waypoint(np.array([x, y, z]), CLOSED, stay=5),
            Waypoint(np.array([x, y, z + 1.5 * LIFT]), CLOSED, stay=15),
        ]

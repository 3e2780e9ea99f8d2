"""MetaWorld 3.x: a simulated Sawyer arm with 50 tasks, seen through any of a few cameras."""

import sys
from collections import OrderedDict
from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np

from rollout_manager.env import Landmarks, StepResult
from rollout_manager.envs.landmarks import model_landmarks
from rollout_manager.envs.metaworld_tasks import DEFAULT_TIME_LIMIT, INSTRUCTIONS, TIME_LIMITS
from rollout_manager.envs.rendering import FreeCamera, OffscreenRenderer, View, import_mujoco
from rollout_manager.exceptions import SimulatorError
from vla_policy_node.observation import Float32Array, Float64Array, Joints, Pose, Readings
from vla_policy_node.spec import RobotSpec, load_spec

CAMERAS: dict[str, FreeCamera | str] = {
    "front": FreeCamera(155, -35, 0.95, (0.0, 0.7, 0.12)),
    "left": FreeCamera(25, -35, 0.95, (0.0, 0.7, 0.12)),
    "side": FreeCamera(180, -15, 0.95, (0.0, 0.7, 0.15)),
    "top": FreeCamera(90, -89, 1.0, (0.0, 0.68, 0.1)),
    "wrist": "gripperPOV",
}
"""What a spec's cameras may be called. MetaWorld's own corner cameras render upside down and small."""

BASE_LINKS = ("pedestal", "pedestal_feet", "torso", "controller_box", "head", "screen")
FAR_LINKS = frozenset((*BASE_LINKS, "right_arm_base_link", "right_l0", "right_l1"))
"""Links that are barely in view and cost a third of a frame's time; they are not drawn."""
HIDDEN_GROUP = 5  # MuJoCo draws groups 0 to 2.

ARM_JOINTS = tuple(f"right_j{i}" for i in range(7))
GRIPPER = "gripper"
JOINT_NAMES = (*ARM_JOINTS, GRIPPER)
"""The arm's joints (rad) and the gripper's opening (0 closed, 1 open)."""
FULL_OPENING = 0.1  # m between the fingers where the opening is 1, as in MetaWorld's observation

SCENES_KEPT = 10
"""Tasks kept set up at a time: one takes 0.1 s to build, and some megabytes of textures."""


class _Scene:
    """One task's simulation, and its renderer once somebody looks."""

    def __init__(self, task: str, views: Mapping[str, View]) -> None:
        self._mujoco = import_mujoco()  # First, for the clear error where OpenGL is not there.
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        env = ALL_V3_ENVIRONMENTS[task]()
        env._partially_observable = False  # The experts need the goal.
        env._freeze_rand_vec = False
        env.seeded_rand_vec = True
        env._set_task_called = True
        env.max_path_length = sys.maxsize  # Time limits belong to the caller; past its own MetaWorld raises.
        env.__dict__.pop("sawyer_observation_space", None)  # Cached as made for the partial observation.
        env.touching_object = partial(_touches, env)
        self.env: Any = env
        self._views = views
        self._renderer: OffscreenRenderer | None = None
        model = env.model
        for geom in range(model.ngeom):
            if model.body(model.geom_bodyid[geom]).name in FAR_LINKS:
                model.geom_group[geom] = HIDDEN_GROUP
        self.arm_qpos = [model.joint(name).qposadr[0] for name in ARM_JOINTS]
        self.arm_qvel = [model.joint(name).dofadr[0] for name in ARM_JOINTS]
        self._at_reset = self._mujoco.MjData(model)
        self.seen: Any = env.data
        """The state that sensors see."""
        self.finger_qvel = [model.joint(name).dofadr[0] for name in ("r_close", "l_close")]

    def reset(self, seed: int) -> Float64Array:
        """The full observation, shape (39,)."""
        self.env.seed(seed)
        state: Float64Array = self.env.reset()[0]
        # MetaWorld moves goals and fixtures after its last forward pass, so what its data says of where things are is
        # old until the first step, and so would be the first image. A copy is brought up to date for the sensors:
        # in the original it would change the rollout.
        for name in ("qpos", "qvel", "mocap_pos", "mocap_quat"):
            getattr(self._at_reset, name)[:] = getattr(self.env.data, name)
        self._mujoco.mj_forward(self.env.model, self._at_reset)
        self.seen = self._at_reset
        return state

    def step(self, action: Float32Array) -> tuple[Float64Array, Mapping[str, Any]]:
        """The full observation, shape (39,), and MetaWorld's info."""
        state, _, _, _, info = self.env.step(action)
        self.seen = self.env.data
        return state, info

    def images(self) -> dict[str, Any]:
        if self._renderer is None:
            self._renderer = OffscreenRenderer(self.env.model, self._views)
        return self._renderer.render(self.seen)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
        self.env.close()


def _touches(env: Any, object_geom: int) -> bool:
    """MetaWorld's `touching_object` without its loops over all contacts, which cost a quarter of a step."""
    data = env.data
    pairs = data.contact.geom
    touched = (pairs == object_geom).any(axis=1)
    for pad in ("leftpad_geom", "rightpad_geom"):
        contacts = np.flatnonzero(touched & (pairs == data.geom(pad).id).any(axis=1))
        if not sum(data.efc_force[data.contact.efc_address[i]] for i in contacts) > 0:
            return False
    return True


class MetaWorldEnv:
    """All tasks of MetaWorld as one `Env`. A seed fixes the initial state to the bit."""

    def __init__(self, spec: RobotSpec | None = None) -> None:
        """Args: spec: cameras, proprioception and action; without it the robot `metaworld`.

        Raises:
            SimulatorError: the spec names a camera, joint or action that the simulator does not have.
        """
        self._spec = load_spec("metaworld") if spec is None else spec
        _check_spec(self._spec)
        self._views = {c.name: View(CAMERAS[c.name], c.height, c.width) for c in self._spec.cameras}
        self._scenes: OrderedDict[str, _Scene] = OrderedDict()
        self._scene: _Scene | None = None
        self._state: Float64Array = np.empty(0)
        self._first_info: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        return "metaworld"

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(INSTRUCTIONS)

    def instruction(self, task: str) -> str:
        """Raises: SimulatorError: unknown task."""
        return INSTRUCTIONS[check_task(task)]

    def default_time_limit(self, task: str) -> int:
        """Raises: SimulatorError: unknown task."""
        return TIME_LIMITS.get(check_task(task), DEFAULT_TIME_LIMIT)

    def reset(self, task: str, seed: int) -> None:
        """Raises: SimulatorError: unknown task, or a negative seed."""
        check_task(task)
        if seed < 0:
            raise SimulatorError(f"metaworld: seed {seed} is negative; valid are 0, 1, 2, ...")
        self._scene = self._scene_of(task)
        self._state = self._scene.reset(seed)
        self._first_info = None

    def step(self, action: Float32Array) -> StepResult:
        """Raises: SimulatorError: not reset, or the action is not (4,) finite numbers."""
        scene = self._ready()
        if action.shape != (4,) or not np.isfinite(action).all():
            raise SimulatorError(f"metaworld: action {action.tolist()} is not 4 finite numbers")
        limited = np.clip(action, self._spec.action_low, self._spec.action_high).astype(np.float32)
        self._state, info = scene.step(limited)
        self._first_info = self._first_info or info
        success = bool(info["success"] > 0.5)
        return StepResult(success, 1.0 if success else partial_credit(self._first_info, info))

    def read(self, cameras: bool = True) -> Readings:
        """Raises: SimulatorError: not reset."""
        scene = self._ready()
        data = scene.seen
        right, left = data.qvel[scene.finger_qvel]
        position = np.append(data.qpos[scene.arm_qpos], self._state[3])
        velocity = np.append(data.qvel[scene.arm_qvel], (left - right) / FULL_OPENING)
        w, x, y, z = data.body("hand").xquat
        pose = Pose(self._state[:3].copy(), np.array([x, y, z, w]))
        return Readings(scene.images() if cameras else {}, Joints(JOINT_NAMES, position, velocity), pose)

    def privileged_state(self) -> Float64Array:
        """MetaWorld's full observation, shape (39,): hand and objects now, one step ago, and the goal."""
        self._ready()
        state: Float64Array = self._state.copy()
        return state

    def landmarks(self) -> Landmarks:
        """By the names of MuJoCo's model; `tcp` is between the fingers, `goal` is MetaWorld's target."""
        scene = self._ready()
        found = model_landmarks(scene.env.model, scene.seen)
        own = {"tcp": np.array(scene.env.tcp_center), "goal": np.array(scene.env._target_pos)}
        return Landmarks({**found.positions, **own}, found.joints)

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("metaworld", "mujoco", "gymnasium", "numpy")}

    def close(self) -> None:
        for scene in self._scenes.values():
            scene.close()
        self._scenes.clear()
        self._scene = None

    def _ready(self) -> _Scene:
        if self._scene is None:
            raise SimulatorError("metaworld: no task is set up; call reset(task, seed) first")
        return self._scene

    def _scene_of(self, task: str) -> _Scene:
        if task not in self._scenes:
            if len(self._scenes) >= SCENES_KEPT:
                self._scenes.popitem(last=False)[1].close()
            self._scenes[task] = _Scene(task, self._views)
        self._scenes.move_to_end(task)
        return self._scenes[task]


def partial_credit(first: Mapping[str, Any], now: Mapping[str, Any]) -> float:
    """Partial credit in [0, 1] from MetaWorld's info of an episode's first step and of this one.

    The share of the object's distance to its target that is made up for. Five tasks (assembly, box-close,
    disassemble, door-open, hammer) give no distance; there it is the gain in MetaWorld's `in_place_reward`, which
    rises to 1, as a share of what was to be gained.
    """
    if (distance := float(first["obj_to_target"])) > 0:
        credit = 1.0 - float(now["obj_to_target"]) / distance
    elif (start := float(first["in_place_reward"])) < 1:
        credit = (float(now["in_place_reward"]) - start) / (1.0 - start)
    else:
        credit = 0.0
    return min(max(credit, 0.0), 1.0)


def check_task(task: str) -> str:
    """The task's name as it is. Raises: SimulatorError: MetaWorld has no such task."""
    if task not in INSTRUCTIONS:
        near = get_close_matches(task, INSTRUCTIONS, n=5, cutoff=0.4)
        hint = f"near ones are {', '.join(near)}" if near else f"some are {', '.join(list(INSTRUCTIONS)[:5])}"
        raise SimulatorError(f"task '{task}' is not one of MetaWorld's {len(INSTRUCTIONS)}; {hint}")
    return task


def _check_spec(spec: RobotSpec) -> None:
    for what, names, valid in (
        ("camera", spec.camera_names, tuple(CAMERAS)),
        ("joint", spec.joint_names, JOINT_NAMES),
    ):
        if unknown := [name for name in names if name not in valid]:
            raise SimulatorError(
                f"robot '{spec.name}': {what} '{unknown[0]}' is not one of MetaWorld's: {', '.join(valid)}"
            )
    if len(spec.action) != 4:
        raise SimulatorError(
            f"robot '{spec.name}': {len(spec.action)} action dimensions ({', '.join(spec.action_names)}); "
            "MetaWorld takes 4: the hand's displacement in x, y, z and the gripper"
        )

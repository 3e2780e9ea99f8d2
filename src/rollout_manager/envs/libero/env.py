"""LIBERO as an `Env`: 130 tasks of a simulated Panda arm, seen from the front and from its wrist."""

import os
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rollout_manager.env import Landmarks, StepResult
from rollout_manager.envs.landmarks import model_landmarks
from rollout_manager.envs.libero.asset_digest import asset_digest
from rollout_manager.envs.libero.light import RECIPE
from rollout_manager.envs.libero.package import find_assets, load_package
from rollout_manager.envs.libero.problem import RATE_HZ
from rollout_manager.envs.libero.scene import LiberoScene, check_look, check_seed
from rollout_manager.envs.libero.suites import LiberoTask, all_tasks, find_task
from rollout_manager.envs.rendering import OffscreenRenderer, View, import_mujoco
from rollout_manager.exceptions import SimulatorError
from vla_policy_node.observation import Float32Array, Float64Array, ImageArray, Joints, Pose, Readings
from vla_policy_node.spec import RobotSpec, load_spec

CAMERAS = {"front": "agentview", "wrist": "robot0_eye_in_hand"}
"""What a spec's cameras may be called, and LIBERO's names of them."""

JOINTS = {f"panda_joint{i}": f"robot0_joint{i}" for i in range(1, 8)} | {
    f"panda_finger_joint{i}": f"gripper0_finger_joint{i}" for i in (1, 2)
}
"""The arm's joints (rad) and the fingers (m), by the names that a real Panda's driver gives them."""
HAND, BASE = "gripper0_grip_site", "robot0_link0"
"""Between the finger pads; what `ee_pose` is the pose of."""
COLLISION_GROUP = 0

TIME_LIMITS = {
    "libero_spatial": 220,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}
"""Steps, by suite: a little more than the longest human demonstration, as OpenVLA's evaluation has them
(experiments/robot/libero/run_libero_eval.py), which others follow. Settling is not counted."""

LOOK_VARIABLE = "ENCORE_LIBERO_LOOK"
SCENES_KEPT = {"light": 8, "full": 2}
"""Tasks kept set up at a time, by look. One takes 50 MB light, 250 MB full and more; to build one takes half a second,
and some seconds more the first time that its models are made light."""


class _Viewed:
    """A scene, and its renderer once somebody looks."""

    def __init__(self, scene: LiberoScene, views: dict[str, View], full_quality: bool) -> None:
        self.scene = scene
        self._views, self._full_quality = views, full_quality
        self._renderer: OffscreenRenderer | None = None
        model = scene.model
        self._qpos = np.array([model.joint(name).qposadr[0] for name in JOINTS.values()])
        self._qvel = np.array([model.joint(name).dofadr[0] for name in JOINTS.values()])
        self._hand, self._base = model.site(HAND).id, model.body(BASE).id
        self._mujoco = import_mujoco()

    def images(self) -> dict[str, ImageArray]:
        if self._renderer is None:
            self._renderer = OffscreenRenderer(
                self.scene.model, self._views, full_quality=self._full_quality, hidden=[COLLISION_GROUP]
            )
        return self._renderer.render(self.scene.data)

    def joints(self) -> Joints:
        data = self.scene.data
        return Joints(tuple(JOINTS), data.qpos[self._qpos].copy(), data.qvel[self._qvel].copy())

    def hand(self) -> Pose:
        """In the arm's own frame: where the arm stands in the world differs from scene to scene by up to a metre."""
        data, quaternion = self.scene.data, np.empty(4)
        base = data.xmat[self._base].reshape(3, 3)
        position = base.T @ (data.site_xpos[self._hand] - data.xpos[self._base])
        self._mujoco.mju_mat2Quat(quaternion, (base.T @ data.site_xmat[self._hand].reshape(3, 3)).ravel())
        return Pose(position, np.roll(quaternion, -1))  # MuJoCo: w first.

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
        self.scene.close()


class LiberoEnv:
    """All tasks of LIBERO as one `Env`. A seed fixes the initial state to the bit: see `LiberoScene.reset`."""

    def __init__(
        self, spec: RobotSpec | None = None, assets: Path | str | None = None, look: str | None = None
    ) -> None:
        """Nothing is built yet, but what is missing is said.

        Args:
            spec: cameras, proprioception and action; without it the robot `libero`.
            assets: a folder of LIBERO's models; without it the one in ENCORE_LIBERO_ASSETS, or the package's own.
            look: `light` or `full`, LIBERO's stock picture; without it the one in ENCORE_LIBERO_LOOK, or `light`.

        Raises:
            SimulatorError: LIBERO or its assets are not there, or the spec names what the simulator does not have.
        """
        self._spec = load_spec("libero") if spec is None else spec
        _check_spec(self._spec)
        self._look: Any = look or os.environ.get(LOOK_VARIABLE) or "light"
        check_look(self._look)
        self._assets = find_assets(None if assets is None else Path(assets))
        self._tasks = {task.name: task for task in all_tasks()}
        self._views = {c.name: View(CAMERAS[c.name], c.height, c.width) for c in self._spec.cameras}
        self._scenes: OrderedDict[str, _Viewed] = OrderedDict()
        self._current: _Viewed | None = None

    @property
    def name(self) -> str:
        return "libero"

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self._tasks)

    def instruction(self, task: str) -> str:
        """Raises: SimulatorError: unknown task."""
        return self._task(task).instruction

    def default_time_limit(self, task: str) -> int:
        """Raises: SimulatorError: unknown task."""
        return TIME_LIMITS[self._task(task).suite]

    def reset(self, task: str, seed: int) -> None:
        """Set up the benchmark's initial state `seed`, 0 to 49, or a placement sampled with it, from 1000 on.

        Raises:
            SimulatorError: unknown task or seed, or the scene cannot be built.
        """
        found = self._task(task)
        check_seed(seed)
        self._current = None
        viewed = self._viewed(found)
        viewed.scene.reset(seed)
        self._current = viewed

    def step(self, action: Float32Array) -> StepResult:
        """Raises: SimulatorError: not reset, or the action is not (7,) finite numbers."""
        scene = self._ready().scene
        if action.shape != (7,) or not np.isfinite(action).all():
            raise SimulatorError(f"libero: action {action.tolist()} is not 7 finite numbers")
        limited = np.clip(action, self._spec.action_low, self._spec.action_high).astype(np.float32)
        scene.step(limited.astype(np.float64))
        satisfied = scene.satisfied()
        return StepResult(all(satisfied), sum(satisfied) / len(satisfied))

    def read(self, cameras: bool = True) -> Readings:
        """Raises: SimulatorError: not reset."""
        viewed = self._ready()
        return Readings(viewed.images() if cameras else {}, viewed.joints(), viewed.hand())

    def privileged_state(self) -> Float64Array:
        """All positions and velocities of the scene, qpos then qvel, shape (nq + nv,); see `LiberoScene.set_state`."""
        data = self._ready().scene.data
        return np.concatenate([data.qpos, data.qvel])

    def landmarks(self) -> Landmarks:
        """By the names of MuJoCo's model: an object's body is its BDDL name and `_main`."""
        scene = self._ready().scene
        return model_landmarks(scene.model, scene.data)

    def versions(self) -> dict[str, str]:
        """Of the packages and MuJoCo, of the assets (a digest) and of the look."""
        return dict(self._versions)

    def close(self) -> None:
        for viewed in self._scenes.values():
            viewed.close()
        self._scenes.clear()
        self._current = None

    @cached_property
    def _versions(self) -> dict[str, str]:
        look = RECIPE if self._look == "light" else self._look
        own = {"numpy": np.__version__, "libero_assets": asset_digest(self._assets), "libero_look": look}
        return {**load_package().versions, **own}

    def _ready(self) -> _Viewed:
        if self._current is None:
            raise SimulatorError("libero: no task is set up; call reset(task, seed) first")
        return self._current

    def _task(self, name: str) -> LiberoTask:
        if name not in self._tasks:
            meant = find_task(name)
            raise SimulatorError(f"task '{name}' is no full name; it means '{meant.name}'")
        return self._tasks[name]

    def _viewed(self, task: LiberoTask) -> _Viewed:
        if task.name not in self._scenes:
            if len(self._scenes) >= SCENES_KEPT[self._look]:
                self._scenes.popitem(last=False)[1].close()
            scene = LiberoScene(task, self._assets, self._look)
            self._scenes[task.name] = _Viewed(scene, self._views, self._look == "full")
        self._scenes.move_to_end(task.name)
        return self._scenes[task.name]


def _check_spec(spec: RobotSpec) -> None:
    for what, names, valid in (
        ("camera", spec.camera_names, tuple(CAMERAS)),
        ("joint", spec.joint_names, tuple(JOINTS)),
    ):
        if unknown := [name for name in names if name not in valid]:
            raise SimulatorError(
                f"robot '{spec.name}': {what} '{unknown[0]}' is not one of LIBERO's: {', '.join(valid)}"
            )
    if len(spec.action) != 7:
        raise SimulatorError(
            f"robot '{spec.name}': {len(spec.action)} action dimensions ({', '.join(spec.action_names)}); "
            "LIBERO takes 7: the hand's displacement in x, y, z, its rotation about them and the gripper"
        )
    if spec.rate_hz != RATE_HZ:
        raise SimulatorError(f"robot '{spec.name}': rate_hz {spec.rate_hz:g}; LIBERO's is {RATE_HZ}")

"""The scripted expert for LIBERO: privileged state in, action out."""

from collections import OrderedDict

import numpy as np

from rollout_manager.envs.libero.package import find_assets
from rollout_manager.envs.libero.scene import LiberoScene
from rollout_manager.envs.libero.suites import find_task
from rollout_manager.exceptions import SimulatorError
from rollout_manager.experts.libero.imagination import Imagination
from rollout_manager.experts.libero.motion import Motion
from rollout_manager.experts.libero.plan import Plan
from rollout_manager.experts.libero.world import World
from vla_policy_node.observation import Float32Array, Float64Array

SCENES_KEPT = 2
"""A scene takes seconds to build, and some hundred megabytes."""


class LiberoExpert:
    """Solves any task of LIBERO from any state; it needs the task's name, the seed and the state alone."""

    def __init__(self) -> None:
        self._scenes: OrderedDict[str, tuple[LiberoScene, World, Imagination]] = OrderedDict()
        self._scene: LiberoScene | None = None
        self._plan: Plan | None = None
        self._motion: Motion[None] | None = None

    def reset(self, task: str, seed: int) -> None:
        """Raises: SimulatorError: unknown task or seed, or LIBERO or its assets are not there."""
        self._scene, self._world, self._imagination = self._scene_of(task)
        self._scene.reset(seed)  # It draws where the fixtures stand, which no state says.
        self._imagination.rest()
        self._home = self._world.hand
        self._plan = self._motion = None

    def act(self, privileged_state: Float64Array) -> Float32Array:
        """The action, shape (7,), for a state [qpos, qvel], shape (nq + nv,).

        Raises:
            SimulatorError: no task is set up, or the state is of another scene.
        """
        scene = self._scene
        if scene is None:
            raise SimulatorError("libero expert: no task is set up; call reset(task, seed) first")
        size = scene.model.nq + scene.model.nv
        if privileged_state.shape != (size,):
            raise SimulatorError(
                f"libero expert: state of shape {privileged_state.shape}, but {scene.task.name} has ({size},)"
            )
        scene.set_state(privileged_state[: scene.model.nq], privileged_state[scene.model.nq :])
        if self._motion is None:
            self._plan = Plan(self._world, self._imagination, self._home)
            self._motion = self._plan.motion()
        return np.clip(next(self._motion), -1.0, 1.0).astype(np.float32)

    @property
    def trouble(self) -> str:
        """What went wrong last in this episode; empty where nothing did."""
        return self._plan.trouble if self._plan is not None else ""

    def close(self) -> None:
        """Free the scenes."""
        for scene, _, _ in self._scenes.values():
            scene.close()
        self._scenes.clear()
        self._scene = None

    def _scene_of(self, text: str) -> tuple[LiberoScene, World, Imagination]:
        task = find_task(text)
        if task.name not in self._scenes:
            if len(self._scenes) >= SCENES_KEPT:
                self._scenes.popitem(last=False)[1][0].close()
            scene = LiberoScene(task, find_assets())
            world = World(scene)
            self._scenes[task.name] = scene, world, Imagination(world)
        self._scenes.move_to_end(task.name)
        return self._scenes[task.name]

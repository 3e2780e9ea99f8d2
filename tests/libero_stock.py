"""LIBERO as it comes, through its own wrapper, to hold ours against."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rollout_manager.envs.libero.initial_states import read_initial_states
from rollout_manager.envs.libero.package import ASSETS_VARIABLE, find_assets, load_package
from rollout_manager.envs.libero.scene import SETTLING, SETTLING_STEPS
from rollout_manager.envs.libero.suites import LiberoTask
from vla_policy_node.observation import Float64Array

needs_assets = pytest.mark.skipif(
    not os.environ.get(ASSETS_VARIABLE), reason=f"{ASSETS_VARIABLE} names no folder with LIBERO's assets"
)


class StockLibero:
    """LIBERO's `ControlEnv`, or with cameras its `OffScreenRenderEnv`, with its observations and hard resets."""

    def __init__(self, task: LiberoTask, assets: Path | None = None, size: int = 0, cameras: int = 2) -> None:
        """Args: size: pixels of the cameras' sides, 0 for none; cameras: the first of LIBERO's two, or both."""
        package = load_package()
        package.use_assets(find_assets(assets))
        from libero.libero.envs.env_wrapper import ControlEnv, OffScreenRenderEnv

        bddl = str(task.bddl_file)
        if size:
            names = ["agentview", "robot0_eye_in_hand"][:cameras]
            self.env: Any = OffScreenRenderEnv(
                bddl_file_name=bddl, camera_names=names, camera_heights=size, camera_widths=size
            )
        else:
            self.env = ControlEnv(bddl_file_name=bddl, has_offscreen_renderer=False, use_camera_obs=False)
        self._states = read_initial_states(task.states_file)

    @property
    def model(self) -> Any:
        return self.env.sim.model._model

    @property
    def data(self) -> Any:
        return self.env.sim.data._data

    def reset(self, state: int) -> None:
        """The benchmark's initial state of this number, settled; fixtures are drawn with it as seed."""
        # Each hard reset adds what it draws for drawers and knobs once more, so the fixtures after it would depend on
        # how many there were before.
        self.env.env.object_property_initializers.clear()
        np.random.seed(state)
        self.env.reset()
        self.env.set_init_state(self._states[state])
        for _ in range(SETTLING_STEPS):
            self.env.step(SETTLING)

    def step(self, action: Float64Array) -> tuple[Any, bool]:
        """The observation, and success as the benchmark reads it."""
        if context := self.env.sim._render_context_offscreen:
            context.gl_ctx.make_current()  # It takes no care of others', and would draw into theirs.
        observation, _, done, _ = self.env.step(action)
        return observation, bool(done)

    def close(self) -> None:
        self.env.close()

"""MetaWorld's own scripted policies: 98 % success over the 50 tasks."""

import warnings

import numpy as np

from rollout_manager.envs.metaworld import check_task
from rollout_manager.envs.rendering import import_mujoco
from rollout_manager.exceptions import SimulatorError
from vla_policy_node.observation import Float32Array, Float64Array

STATE_SIZE = 39


class MetaWorldExpert:
    """Acts on MetaWorld's full observation."""

    trouble = ""
    """These policies do not know whether they get on."""

    def reset(self, task: str, seed: int) -> None:
        """Raises: SimulatorError: unknown task."""
        import_mujoco()  # First, for the clear error where OpenGL is not there: MetaWorld imports it.
        from metaworld.policies import ENV_POLICY_MAP

        self._policy = ENV_POLICY_MAP[check_task(task)]()

    def act(self, privileged_state: Float64Array) -> Float32Array:
        """Raises: SimulatorError: the state is not MetaWorld's."""
        if privileged_state.shape != (STATE_SIZE,):
            raise SimulatorError(f"metaworld expert: state of shape {privileged_state.shape}, expected ({STATE_SIZE},)")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It warns at every step that its action will be clipped.
            action = self._policy.get_action(privileged_state)
        clipped: Float32Array = np.clip(action, -1.0, 1.0).astype(np.float32)
        return clipped

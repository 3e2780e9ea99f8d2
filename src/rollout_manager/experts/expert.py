"""Scripted experts by name, and the noise that widens what their demonstrations show."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from rollout_manager.exceptions import SimulatorError
from vla_policy_node.observation import Float32Array, Float64Array
from vla_policy_node.spec import RobotSpec


class Expert(Protocol):
    """Solves tasks from a simulator's privileged state."""

    def reset(self, task: str, seed: int) -> None:
        """Start an episode. Raises: SimulatorError: it has no script for the task."""
        ...

    def act(self, privileged_state: Float64Array) -> Float32Array:
        """The action, shape (A,), for a state, shape (S,)."""
        ...

    @property
    def trouble(self) -> str:
        """What went wrong last in this episode, in words; empty where nothing did."""
        ...


def _metaworld() -> Expert:
    from rollout_manager.experts.metaworld import MetaWorldExpert

    return MetaWorldExpert()


def _libero() -> Expert:
    from rollout_manager.experts.libero.expert import LiberoExpert

    return LiberoExpert()


def _panda() -> Expert:
    from rollout_manager.experts.panda import PandaExpert

    return PandaExpert()


EXPERTS: dict[str, Callable[[], Expert]] = {"metaworld": _metaworld, "libero": _libero, "panda": _panda}


def make_expert(environment: str) -> Expert:
    """The expert of an environment. Raises: SimulatorError: it has none."""
    if environment not in EXPERTS:
        raise SimulatorError(
            f"environment '{environment}' has no scripted expert; those that have: {', '.join(EXPERTS)}"
        )
    return EXPERTS[environment]()


FADING = ("libero",)
"""Environments whose expert's noise fades as the hand slows."""


def expert_noise(environment: str, spec: RobotSpec, scale: float, correlation: float) -> "ActionNoise":
    """The noise of an environment's expert. Raises: SimulatorError: as `ActionNoise`."""
    return ActionNoise(spec, scale, correlation, fades=environment in FADING)


class ActionNoise:
    """Noise on executed actions: the demonstrator drifts off its path and shows the way back (DART, Laskey 2017).

    Executed is clean + noise; the clean action is the label. The noise is a stationary AR(1) process a dimension,
    n_t = c n_{t-1} + sqrt(1 - c^2) s e_t with e_t ~ N(0, 1), s = `scale` x the spec's `noise_range`.
    """

    def __init__(self, spec: RobotSpec, scale: float, correlation: float = 0.0, fades: bool = False) -> None:
        """
        Args:
            fades: as the hand slows: where grasping wants millimetres, a hand that has arrived must stay.

        Raises:
            SimulatorError: a scale below 0, or a correlation outside [0, 1).
        """
        if scale < 0 or not 0 <= correlation < 1:
            raise SimulatorError(
                f"action noise of scale {scale} and correlation {correlation}: "
                "valid are scale >= 0 and correlation in [0, 1)"
            )
        moves = np.array([d.hold != "last" for d in spec.action])
        self._deviation = scale * spec.noise_range
        self._fades = fades
        self._full_speed = np.where(moves, (spec.action_high - spec.action_low) / 2, np.inf)
        self._low, self._high = spec.action_low, spec.action_high
        self._correlation = correlation
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Start an episode; the seed fixes all of its noise."""
        self._rng = np.random.default_rng(seed)
        self._noise = self._deviation * self._rng.standard_normal(len(self._deviation))

    def apply(self, action: Float32Array) -> Float32Array:
        """The action to execute for a clean one, shape (A,), within the limits."""
        share = min(1.0, float(np.max(np.abs(action) / self._full_speed))) if self._fades else 1.0
        executed = np.clip(action + share * self._noise, self._low, self._high).astype(np.float32)
        c = self._correlation
        fresh = self._deviation * self._rng.standard_normal(len(self._deviation))
        self._noise = c * self._noise + np.sqrt(1 - c * c) * fresh
        return executed

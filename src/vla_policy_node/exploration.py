"""Exploration: a policy wrapped so that a retry of the same initial state goes another way."""

import math
from collections.abc import Sequence

import numpy as np

from vla_policy_node.exceptions import SpecError
from vla_policy_node.observation import Float32Array, Observation
from vla_policy_node.policy import ActionChunk, Policy
from vla_policy_node.spec import RobotSpec

BIAS_SHARE = 0.2
"""Share of the noise's variance that stays the same all through an episode; the rest is drawn anew a chunk."""


class Explore:
    """Adds Gaussian noise that is the same for all actions of a chunk.

    Noise drawn anew each step averages out within a few steps and leads nowhere; an offset held for a chunk displaces
    the hand, so the states that follow are new ones. In an episode with bias b and chunk offsets c_k, an action of
    chunk k is a + (sqrt(s) b + sqrt(1 - s) c_k) * scale * (high - low) / 2 with b, c_k ~ N(0, 1), s = `BIAS_SHARE`.
    """

    def __init__(self, policy: Policy, scale: float, dimensions: Sequence[str] | None = None) -> None:
        """
        Args:
            scale: standard deviation as a share of half the action range; at 0 the policy is unchanged.
            dimensions: names of the action's dimensions that get noise; None: those that hold at zero, so that a
                gripper or another target is left alone.

        Raises:
            SpecError: a dimension is unknown or has no finite range, or the scale is negative or not finite.
        """
        if not (math.isfinite(scale) and scale >= 0):
            raise SpecError(f"exploration scale {scale} is not a number from 0 on")
        self._policy = policy
        self.scale = scale
        self._deviation = scale * _half_range(policy.spec, dimensions)
        self.reset(0)

    @property
    def spec(self) -> RobotSpec:
        """The robot that the policy was made for."""
        return self._policy.spec

    def reset(self, seed: int) -> None:
        """Start a new episode: `seed` fixes its bias and all its offsets."""
        self._policy.reset(seed)
        self._random = np.random.default_rng(seed)
        self._bias = self._random.standard_normal(len(self._deviation))

    def act(self, observation: Observation) -> ActionChunk:
        """The policy's chunk, displaced; not limited."""
        chunk = self._policy.act(observation)
        if not self.scale:
            return chunk
        offset = self._random.standard_normal(len(self._deviation))
        noise = math.sqrt(BIAS_SHARE) * self._bias + math.sqrt(1 - BIAS_SHARE) * offset
        return ActionChunk(chunk.stamp_ns, (chunk.actions + noise * self._deviation).astype(np.float32))


def _half_range(spec: RobotSpec, dimensions: Sequence[str] | None) -> Float32Array:
    """Half the range of each dimension that gets noise, 0 for the others; shape (A,)."""
    names = [d.name for d in spec.action if d.hold == "zero"] if dimensions is None else list(dimensions)
    half = np.zeros(len(spec.action), np.float32)
    for name in names:
        if name not in spec.action_names:
            raise SpecError(f"exploration: dimension '{name}' is not one of {', '.join(spec.action_names)}")
        i = spec.action_names.index(name)
        half[i] = (spec.action_high[i] - spec.action_low[i]) / 2
        if not np.isfinite(half[i]):
            raise SpecError(f"exploration: dimension '{name}' has no finite range")
    return half

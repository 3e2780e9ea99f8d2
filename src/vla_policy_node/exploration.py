"""Exploration: a policy wrapped so that a retry of the same initial state goes another way."""

import math

import numpy as np

from vla_policy_node.exceptions import SpecError
from vla_policy_node.observation import Observation
from vla_policy_node.policy import ActionChunk, Policy
from vla_policy_node.spec import RobotSpec

BIAS_SHARE = 0.2
"""Share of the noise's variance that stays the same all through an episode; the rest is drawn anew a chunk."""


class Explore:
    """Adds Gaussian noise that is the same for all actions of a chunk.

    Noise drawn anew each step averages out within a few steps and leads nowhere; an offset held for a chunk displaces
    the hand, so the states that follow are new ones. In an episode with bias b and chunk offsets c_k, an action of
    chunk k is a + (sqrt(s) b + sqrt(1 - s) c_k) * scale * r with b, c_k ~ N(0, 1), s = `BIAS_SHARE`, r the spec's
    `noise_range`, which leaves a gripper or another target alone.
    """

    def __init__(self, policy: Policy, scale: float) -> None:
        """Args: scale: standard deviation as a share of half the action range; at 0 the policy is unchanged.

        Raises:
            SpecError: the scale is negative or not finite, or a dimension that gets noise has no finite range.
        """
        if not (math.isfinite(scale) and scale >= 0):
            raise SpecError(f"exploration scale {scale} is not a number from 0 on")
        self._policy = policy
        self.scale = scale
        if unlimited := [
            d.name for d, r in zip(policy.spec.action, policy.spec.noise_range, strict=True) if r == math.inf
        ]:
            raise SpecError(f"exploration: {', '.join(unlimited)} has no finite range")
        self._deviation = scale * policy.spec.noise_range
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

"""Exploration: a policy wrapped so that a retry of the same initial state goes another way."""

import math
from dataclasses import replace

import numpy as np

from vla_policy_node.committed import Committed
from vla_policy_node.exceptions import SpecError
from vla_policy_node.observation import ImageArray, Observation
from vla_policy_node.policy import ActionChunk, Policy
from vla_policy_node.spec import RobotSpec

BIAS_SHARE = 0.2
"""Share of the noise's variance that stays the same all through an episode; the rest is drawn anew a chunk."""


def exploring(policy: Policy, scale: float) -> "Explore | ShiftedAim":
    """The policy, exploring as its robot says (`RobotSpec.explore`); at scale 0 unchanged.

    Raises:
        SpecError: as `Explore` and `ShiftedAim`.
    """
    return ShiftedAim(policy, scale) if policy.spec.explore == "aim" else Explore(policy, scale)


class ShiftedAim:
    """Shows the policy shifted pictures, or its hand elsewhere, by the same all through an episode.

    A policy that misses aims beside the thing, and does so again however its hand is pushed about: it sees where it has
    got to and corrects. Shown the scene or its hand a little aside it aims a little aside, and now and then that is
    right. What is recorded is what there was, with the aim that succeeded: just what the policy did not know.
    """

    def __init__(self, policy: Policy, scale: float) -> None:
        """Args: scale: how far, as a share of `aim` of each camera and of each value of proprioception.

        Raises:
            SpecError: the scale is negative or not finite.
        """
        _check(scale)
        self._policy, self._scale = policy, scale
        self.reset(0)

    @property
    def spec(self) -> RobotSpec:
        """The robot that the policy drives."""
        return self._policy.spec

    def reset(self, seed: int) -> None:
        """Start a new episode: `seed` fixes its shifts."""
        self._policy.reset(seed)
        random, spec = np.random.default_rng(seed), self.spec
        pictures = np.array([[camera.aim] for camera in spec.cameras]) * random.standard_normal((len(spec.cameras), 2))
        self._shares = dict(zip(spec.camera_names, self._scale * pictures, strict=True))
        aims = np.array([value.aim for value in spec.proprioception])
        self._offset = (self._scale * aims * random.standard_normal(len(aims))).astype(np.float32)

    def act(self, observation: Observation, committed: Committed | None = None) -> ActionChunk:
        """The policy's chunk for what it is shown."""
        if not self._scale:
            return self._policy.act(observation, committed)
        images = {name: shifted(image, *self._shares[name]) for name, image in observation.images.items()}
        proprioception = observation.proprioception + self._offset
        return self._policy.act(replace(observation, images=images, proprioception=proprioception), committed)


def shifted(image: ImageArray, down: float, right: float) -> ImageArray:
    """An image (H, W, 3) moved by whole pixels, by shares of its height and width; its edges are repeated."""
    height, width = image.shape[:2]
    y, x = round(down * height), round(right * width)
    if not y and not x:
        return image
    rows = np.clip(np.arange(height) - y, 0, height - 1)
    columns = np.clip(np.arange(width) - x, 0, width - 1)
    return np.asarray(image[rows[:, None], columns], np.uint8)


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
        _check(scale)
        spec = policy.spec
        self._policy = policy
        self.scale = scale
        if unlimited := [d.name for d, r in zip(spec.action, spec.noise_range, strict=True) if r == math.inf]:
            raise SpecError(f"exploration: {', '.join(unlimited)} has no finite range")
        self._deviation = scale * spec.noise_range
        self.reset(0)

    @property
    def spec(self) -> RobotSpec:
        """The robot that the policy drives."""
        return self._policy.spec

    def reset(self, seed: int) -> None:
        """Start a new episode: `seed` fixes its bias and all its offsets."""
        self._policy.reset(seed)
        self._random = np.random.default_rng(seed)
        self._bias = self._random.standard_normal(len(self._deviation))

    def act(self, observation: Observation, committed: Committed | None = None) -> ActionChunk:
        """The policy's chunk, displaced where it is free; not limited."""
        chunk = self._policy.act(observation, committed)
        if not self.scale:
            return chunk
        offset = self._random.standard_normal(len(self._deviation))
        noise = math.sqrt(BIAS_SHARE) * self._bias + math.sqrt(1 - BIAS_SHARE) * offset
        # What is committed was displaced when it was made.
        free = 1.0 if committed is None else 1 - committed.weights(len(chunk.actions))[:, None]
        return ActionChunk(chunk.stamp_ns, (chunk.actions + free * (noise * self._deviation)).astype(np.float32))


def _check(scale: float) -> None:
    if not (math.isfinite(scale) and scale >= 0):
        raise SpecError(f"exploration scale {scale} is not a number from 0 on")

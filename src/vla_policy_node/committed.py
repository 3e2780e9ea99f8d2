"""What of a chunk that is being carried out a new one has to go on from: real-time chunking's soft mask, pure.

Source: Black, Galliker and Levine (2025), Real-Time Execution of Action Chunking Flow Policies, arXiv 2506.07339.
While the network thinks, the old chunk goes on. So the first actions of the new one are fixed already, those after
them should not depart from the old one at once, and only those beyond the old one's end are free.
"""

import math
from dataclasses import dataclass

import numpy as np

from vla_policy_node.exceptions import PolicyNodeError
from vla_policy_node.observation import Float32Array


def soft_mask(delay: int, overlap: int, horizon: int) -> Float32Array:
    """How much each action of a new chunk is bound to the old one: shape (horizon,), from 1, bound, to 0, free.

        W_i = 1                            i < d
        W_i = c_i (e^c_i - 1) / (e - 1)    d <= i < n,   c_i = (n - i) / (n - d + 1)
        W_i = 0                            n <= i

    with d the delay and n the overlap, both in actions and at most the horizon (equation 5 of the paper, where n is
    H - s). An overlap shorter than the delay is bound as far as it goes.

    Raises:
        PolicyNodeError: `delay` or `overlap` is negative.
    """
    if min(delay, overlap) < 0:
        raise PolicyNodeError(f"soft mask: delay {delay} or overlap {overlap} is negative")
    overlap = min(overlap, horizon)
    delay = min(delay, overlap)
    index = np.arange(horizon)
    decay = np.clip((overlap - index) / (overlap - delay + 1), 0.0, 1.0)
    weights = np.where(index < delay, 1.0, decay * np.expm1(decay) / (math.e - 1))
    return np.asarray(weights, np.float32)


@dataclass(frozen=True)
class Committed:
    """The actions that go on, one a tick, while a policy answers an observation."""

    actions: Float32Array
    """Shape (N, A), N at least 1, in the spec's units, finite: what is left of the chunk that is carried out, its first
    action for the tick of the observation."""
    delay: int
    """How many of them will have been carried out before the answer is there, as far as is known; from 0 on."""

    def __post_init__(self) -> None:
        if self.actions.ndim != 2 or not len(self.actions):
            raise PolicyNodeError(f"committed: actions of shape {self.actions.shape}, expected (N, A), N at least 1")
        if not np.isfinite(self.actions).all():
            raise PolicyNodeError("committed: an action is not finite")
        if self.delay < 0:
            raise PolicyNodeError(f"committed: delay {self.delay} is negative")

    def weights(self, horizon: int) -> Float32Array:
        """The soft mask of a chunk of so many actions: shape (horizon,)."""
        return soft_mask(self.delay, len(self.actions), horizon)

    def padded(self, horizon: int) -> Float32Array:
        """The actions that a chunk of so many is to go on from, shape (horizon, A); 0 where it is free."""
        padded = np.zeros((horizon, self.actions.shape[1]), np.float32)
        kept = self.actions[:horizon]
        padded[: len(kept)] = kept
        return padded

    def blended(self, actions: Float32Array) -> Float32Array:
        """A chunk that was made without them (H, A), led over from them: W_i old_i + (1 - W_i) new_i.

        Where it is bound it is the old one to the bit, and one that agrees with the old one stays as it is.
        """
        weights, old = self.weights(len(actions))[:, None], self.padded(len(actions))
        return np.where(weights == 1, old, actions + weights * (old - actions)).astype(np.float32)

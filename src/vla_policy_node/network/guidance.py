"""From noise to a chunk along a velocity field, freely or guided to go on from a chunk that is being carried out.

Source of the guidance: Black, Galliker and Levine (2025), Real-Time Execution of Action Chunking Flow Policies, arXiv
2506.07339, after Pokle et al. (2024), Training-free Linear Image Inverses via Flows, arXiv 2310.04432. Their time is
that of the flow head: 0 where all is noise, 1 at the actions.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

LIMIT = 5.0
"""Largest weight of the guidance, beta of the paper, which finds it enough; without a limit a few steps diverge."""

Velocity = Callable[[Tensor, float], Tensor]
"""Where to go from chunks (B, H, A) at a time in [0, 1): their velocities (B, H, A)."""


class Guidance(NamedTuple):
    """What chunks are drawn towards."""

    actions: Tensor
    """Shape (H, A), normalised; of no effect where the weight is 0."""
    weights: Tensor
    """Shape (H,), from 0, free, to 1, bound: see `committed.soft_mask`."""


def guidance_weight(time: float, limit: float = LIMIT) -> float:
    """(1 - t) / (t r^2) with r^2 = (1 - t)^2 / (t^2 + (1 - t)^2), at most the limit: equations 2 and 4 of the paper."""
    denominator = time * (1 - time)
    return min(limit, (time**2 + (1 - time) ** 2) / denominator) if denominator > 0 else limit


def follow(velocity: Velocity, noise: Tensor, steps: int, guidance: Guidance | None = None) -> Tensor:
    """The chunks (B, H, A) that Euler's method comes to from noise (B, H, A) in so many steps."""
    chunk = noise
    for step in range(steps):
        time = step / steps
        moved = velocity(chunk, time) if guidance is None else guided(velocity, chunk, time, guidance)
        chunk = chunk + moved / steps
    return chunk


def guided(velocity: Velocity, chunk: Tensor, time: float, guidance: Guidance) -> Tensor:
    """The velocity that also leads towards what is bound, (B, H, A).

        v + w(t) (Y - A1)^T diag(W) dA1/dA    with A1 = A + (1 - t) v(A, t), the chunk that v leads to

    Nothing of it may come from `torch.inference_mode`, for it is differentiated.
    """
    with torch.enable_grad():
        place = chunk.detach().requires_grad_()
        plain = velocity(place, time)
        end = place + (1 - time) * plain
        error = guidance.weights[:, None] * (guidance.actions - end.detach())
        (pull,) = torch.autograd.grad(end, place, error)
    return plain.detach() + guidance_weight(time) * pull

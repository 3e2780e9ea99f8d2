"""The head that learns how to come from noise to a chunk: conditional flow matching (Lipman et al., 2023, arXiv
2210.02747), as pi0 uses it (Black et al., 2024, arXiv 2410.24164).

On the straight way from noise e to actions a, x_t = (1 - t) e + t a, the velocity is a - e wherever one is. The head
learns it from x_t, t and what is seen, and follows it from t = 0 to 1. Where demonstrations differ it gives one or the
other of what they do, never the middle, and not the same each time.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

WAVES = 32
"""Sines, and as many cosines, that say what time it is; a period each, from 4 down to 0.004 of the way."""


class Course(NamedTuple):
    """Where on their ways from noise to actions some chunks are. K of them may belong to each of B observations."""

    noisy: Tensor
    """Shape (B * K, H, A), normalised; those of one observation stand together."""
    time: Tensor
    """Shape (B * K,), from 0, where all is noise, to 1."""


class FlowHead(nn.Module):
    """Tells the decoder's queries where on the way they are, and reads off them where to go from there."""

    periods: Tensor

    def __init__(self, d_model: int, action_dimensions: int) -> None:
        super().__init__()
        self.place = nn.Linear(action_dimensions, d_model)
        self.moment = nn.Sequential(nn.Linear(2 * WAVES, d_model), nn.GELU(), nn.Linear(d_model, d_model))
        self.velocity = nn.Linear(d_model, action_dimensions)
        self.register_buffer("periods", torch.logspace(math.log10(4), math.log10(0.004), WAVES), persistent=False)

    def queries(self, queries: Tensor, course: Course) -> Tensor:
        """The decoder's queries (H, D) with where each chunk of a course is: (B * K, H, D)."""
        phases = course.time[:, None] * (2 * math.pi / self.periods)
        moment = self.moment(torch.cat([phases.sin(), phases.cos()], -1))
        return torch.as_tensor(queries + self.place(course.noisy) + moment[:, None])

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, H, D) to velocities (B, H, A) of normalised actions."""
        velocities: Tensor = self.velocity(features)
        return velocities

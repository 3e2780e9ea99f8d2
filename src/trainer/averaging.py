"""The running mean of the weights: a policy that jitters less from one gradient step to the next (Polyak, 1992)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

AVERAGE = "average"
"""Name of the mean in the optimizer's state of a parameter, where it is saved and resumed with the rest."""
WARM_UP = 10
"""The mean begins with the last few steps: its decay is at most (1 + n) / (10 + n) after n steps."""


class WeightAverage:
    """Keeps the exponential running mean of a network's trained weights; with decay 0 the weights themselves."""

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, decay: float) -> None:
        """Args: decay: of the mean in a step, in [0, 1)."""
        self._weights = [p for p in network.parameters() if p.requires_grad]
        self._optimizer, self._decay = optimizer, decay

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Take the weights in, after gradient step number `steps`, the first being 1."""
        if not self._decay:
            return
        decay = min(self._decay, (1 + steps) / (WARM_UP + steps))
        for weight in self._weights:
            state = self._optimizer.state[weight]
            if AVERAGE not in state:
                state[AVERAGE] = weight.detach().clone()
            state[AVERAGE].lerp_(weight, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within this the network has the mean as its weights."""
        if not self._decay:
            yield
            return
        own = [weight.detach().clone() for weight in self._weights]
        try:
            _set(self._weights, [self._optimizer.state[weight].get(AVERAGE, weight) for weight in self._weights])
            yield
        finally:
            _set(self._weights, own)


def _set(weights: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.data.copy_(value)

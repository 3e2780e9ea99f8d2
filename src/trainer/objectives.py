"""What a network is trained for, by its action head."""

from collections.abc import Callable

import torch
from torch import Tensor

from trainer.losses import masked_l1, masked_mse
from vla_policy_node.network.flow_head import Course

Predict = Callable[[Course | None], Tensor]
"""What the network gives for a batch, in float32; of a flow head, for a course of its chunks."""
Objective = Callable[[Predict, Tensor, Tensor, torch.Generator], Tensor]
"""The loss, a scalar, of a prediction, normalised actions (B, H, A), their mask (B, H), and a generator on the CPU."""

WAYS = 4
"""Ways from noise to actions that are learned from each observation: what costs is to look, not to decode."""


def regression(predict: Predict, target: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """The chunk itself: mean absolute error."""
    return masked_l1(predict(None), target, mask)


def flow_matching(predict: Predict, target: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """The velocity a - e on the way x_t = (1 - t) e + t a, e ~ N(0, 1), t ~ U(0, 1): mean squared error.

    Lipman et al., 2023, arXiv 2210.02747, equation 23 with sigma_min 0.
    """
    target, mask = target.repeat_interleave(WAYS, 0), mask.repeat_interleave(WAYS, 0)
    noise = torch.randn(target.shape, generator=generator).to(target.device)
    time = torch.rand(len(target), generator=generator).to(target.device)
    share = time[:, None, None]
    predicted = predict(Course((1 - share) * noise + share * target, time))
    return masked_mse(predicted, target - noise, mask)


OBJECTIVES: dict[str, Objective] = {"regression": regression, "flow": flow_matching}
"""By the head that a network's configuration names."""

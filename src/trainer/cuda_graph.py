"""The network's passes as CUDA graphs: launched at once instead of kernel by kernel.

A small network's gradient step is a thousand kernels of some microseconds. Launched one by one from Python they took 29
ms on an H100, which worked for 6 of them.
"""

from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn

from vla_policy_node.network.vla import VLANetwork

Arguments = tuple[Tensor, ...]
"""Of the network: images, proprioception, language features and their mask."""


def can_be_graphed(network: VLANetwork, device: torch.device, parts: int) -> bool:
    """Whether the network's passes are the same kernels on tensors of the same shape at every step.

    They are not where the instructions' tokens have as many columns as the longest of a batch, nor where a flow head
    takes other arguments, nor, as far as is known, in other people's encoders.

    Args:
        parts: that a batch is computed in, by processes or one after the other. A graph's gradients lie where the
            next part's will lie, so that they cannot be summed.
    """
    config = network.config
    plain = config.head == "regression" and config.vision.kind == "convolution"
    fixed = config.language.frozen and config.language.pooling == "mean"
    return device.type == "cuda" and parts == 1 and plain and fixed


def graphed(network: nn.Module, example: Arguments, precision: AbstractContextManager[object]) -> nn.Module:
    """The network, whose passes in training mode are from now on replayed from graphs captured with the example.

    Args:
        example: arguments like those that will come, of the same shapes; their values do not matter.
        precision: what the passes are made within.
    """
    network.train()
    with precision:
        captured: Any = torch.cuda.make_graphed_callables(network, tuple(torch.empty_like(x) for x in example))
    return cast(nn.Module, captured)

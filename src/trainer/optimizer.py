"""The optimizer of a training run and its schedule."""

import math

import torch
from torch import nn

from trainer.config import OptimizerConfig


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """Of gradient step `step`, from 0: in each cycle a linear rise over the warm-up, then half a cosine down to
    `final_share` (Loshchilov and Hutter, 2017, SGDR, with cycles of one length)."""
    length = math.ceil(steps / config.cycles)
    # The step after the last one, which a finished run asks for, still belongs to the last cycle.
    cycle = min(step // length, config.cycles - 1)
    highest = config.learning_rate * (config.restart_share if cycle else 1.0)
    return highest * _share_of_highest(step - cycle * length, length, config)


def _share_of_highest(step: int, steps: int, config: OptimizerConfig) -> float:
    """Within a cycle."""
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    share = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    return config.final_share + (1 - config.final_share) * cosine


def make_optimizer(network: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices and kernels, not biases, norms and other vectors.

    Fused on a GPU, where launching its kernels takes longer than they do. Not on a CPU: there its last digits depend on
    where memory lies, and a resumed run would end otherwise.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    fused = all(p.is_cuda for p in trained)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=fused)

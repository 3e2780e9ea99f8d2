"""Losses as pure functions of tensors."""

from torch import Tensor


def masked_l1(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error over the steps that exist.

        L = sum_bh m_bh * (1/A) sum_a |p_bha - t_bha|  /  sum_bh m_bh

    Args:
        predicted: normalised actions, shape (B, H, A).
        target: likewise.
        mask: 1 for steps inside the episode, 0 for padding, shape (B, H).

    Returns:
        A scalar; 0 where the mask is empty, with zero gradients.
    """
    return _masked_mean((predicted - target).abs(), mask)


def masked_mse(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the steps that exist; arguments as `masked_l1`."""
    return _masked_mean((predicted - target).square(), mask)


def _masked_mean(error: Tensor, mask: Tensor) -> Tensor:
    weights = mask.to(error.dtype)
    return (error.mean(dim=-1) * weights).sum() / weights.sum().clamp(min=1)

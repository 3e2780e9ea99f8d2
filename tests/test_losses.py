"""Losses: hand arithmetic and what the mask promises."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.losses import masked_l1, masked_mse


def test_by_hand() -> None:
    predicted = torch.tensor([[[1.0, 2.0], [0.0, 0.0], [9.0, 9.0]]])
    target = torch.tensor([[[0.0, 0.0], [2.0, -4.0], [0.0, 0.0]]])
    mask = torch.tensor([[True, True, False]])
    # Step 0: (1 + 2) / 2 = 1.5; step 1: (2 + 4) / 2 = 3; mean 2.25. Squares: (1 + 4) / 2 and (4 + 16) / 2; 6.25.
    assert masked_l1(predicted, target, mask).item() == 2.25
    assert masked_mse(predicted, target, mask).item() == 6.25


@settings(deadline=None)  # the first backward pass starts torch's threads
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_padding_has_neither_loss_nor_gradient(seed: int, kept: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(3, 6, 2, generator=generator)
    predicted = torch.randn(3, 6, 2, generator=generator, requires_grad=True)
    mask = torch.arange(6).expand(3, 6) < kept
    for loss in (masked_l1, masked_mse):
        value = loss(predicted, target, mask)
        torch.testing.assert_close(value, loss(predicted[:, :kept], target[:, :kept], mask[:, :kept]))
        (gradient,) = torch.autograd.grad(value, predicted)
        assert (gradient[:, kept:] == 0).all()
        assert (gradient[:, :kept] != 0).all()


def test_an_empty_mask_gives_zero_and_no_nan() -> None:
    predicted = torch.ones(2, 3, 4, requires_grad=True)
    value = masked_l1(predicted, torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool))
    value.backward()  # type: ignore[no-untyped-call]
    assert value.item() == 0.0
    assert predicted.grad is not None
    assert (predicted.grad == 0).all()


def test_a_perfect_prediction_costs_nothing() -> None:
    actions = torch.randn(2, 3, 4)
    assert (
        masked_l1(actions, actions, torch.ones(2, 3)).item()
        == 0.0
        == masked_mse(actions, actions, torch.ones(2, 3)).item()
    )

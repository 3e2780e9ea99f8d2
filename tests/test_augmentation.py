"""Augmentation: what moves, by how much, and that a generator fixes it."""

import pytest
import torch

from trainer.augmentation import augment, recolour, shift, shift_and_scale, shift_at_once
from trainer.config import AugmentationConfig
from vla_policy_node.network.images import to_network


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _ramp(count: int, size: int = 12) -> torch.Tensor:
    """Images whose red is the column and whose green is the row."""
    line = torch.arange(size, dtype=torch.float32)
    image = torch.stack([line.expand(size, size), line[:, None].expand(size, size), torch.zeros(size, size)])
    return image.expand(count, 3, size, size).contiguous()


def _pixels(count: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=_generator())


def test_a_shift_moves_whole_images_by_whole_pixels_and_repeats_edges() -> None:
    moved = shift(_ramp(64).movedim(1, -1), 2, _generator()).movedim(-1, 1)
    line = torch.arange(12, dtype=torch.float32)
    seen = set()
    for image in moved:
        dx, dy = int(image[0, 5, 5]) - 5, int(image[1, 5, 5]) - 5
        seen.add((dx, dy))
        assert torch.equal(image[0], (line + dx).clamp(0, 11).expand(12, 12))
        assert torch.equal(image[1], (line + dy).clamp(0, 11)[:, None].expand(12, 12))
    assert {dx for dx, _ in seen} == {-2, -1, 0, 1, 2} == {dy for _, dy in seen}


def test_the_shift_of_a_gpu_is_the_shift_of_a_cpu() -> None:
    images = _pixels(32, 9)
    corners = torch.randint(0, 7, (32, 2), generator=_generator(3))
    assert torch.equal(shift_at_once(images, 3, corners), shift(images, 3, _generator(3)))


def test_bilinear_shift_and_scale_is_the_map_it_says() -> None:
    moved = shift_and_scale(_ramp(64, 33), 3, 0.2, _generator())
    # On a ramp, a zoom by z about the centre and a shift by d give column / z + const: slopes within 1 / [0.8, 1.2].
    slope_x = moved[:, 0, 16, 17] - moved[:, 0, 16, 16]
    slope_y = moved[:, 1, 17, 16] - moved[:, 1, 16, 16]
    torch.testing.assert_close(slope_x, slope_y, atol=1e-4, rtol=0)
    assert ((slope_x > 1 / 1.2 - 1e-4) & (slope_x < 1 / 0.8 + 1e-4)).all()
    assert slope_x.max() - slope_x.min() > 0.2
    centre = moved[:, 0, 16, 16] - 16
    assert centre.abs().max() <= 3 + 1e-4
    assert centre.abs().max() > 1


def test_no_change_asked_for_gives_none() -> None:
    images = _pixels(4, 8)
    none = AugmentationConfig(shift_px=0, scale=0.0, gain=0.0, offset=0.0)
    assert torch.equal(augment(images, none, _generator()), to_network(images))


def test_colours_change_by_channel_and_not_by_pixel() -> None:
    images = torch.ones(2000, 3, 2, 2)
    changed = recolour(images.clone(), 0.1, 0.0, _generator())
    assert (changed == changed[:, :, :1, :1]).all()
    assert changed[:, :, 0, 0].mean().item() == pytest.approx(1.0, abs=0.01)
    assert changed[:, :, 0, 0].std().item() == pytest.approx(0.1, abs=0.01)
    offset = recolour(torch.zeros(2000, 3, 2, 2), 5.0, 0.2, _generator())
    assert offset[:, :, 0, 0].std().item() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("scale", [0.0, 0.1])
def test_the_generator_decides_and_images_differ(scale: float) -> None:
    images = _pixels(1, 16).expand(8, 16, 16, 3)
    config = AugmentationConfig(shift_px=3, scale=scale)
    first, again = augment(images, config, _generator(1)), augment(images, config, _generator(1))
    assert torch.equal(first, again)
    assert first.shape == (8, 3, 16, 16)
    assert first.dtype == torch.float32
    assert not torch.equal(first, augment(images, config, _generator(2)))
    assert not torch.equal(first[0], first[1])

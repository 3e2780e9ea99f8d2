"""Random changes to training images that leave the right action as it is. Pure torch; a generator fixes them all."""

import torch
from torch import Tensor
from torch.nn import functional

from trainer.config import AugmentationConfig


def augment(images: Tensor, config: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Shift, scale and recolour each image of a batch on its own.

    Args:
        images: RGB in [-1, 1], f32, shape (N, 3, H, W).
        config: how much of each.
        generator: on the CPU; the same state gives the same images.

    Returns:
        Same shape and dtype. Colours may leave [-1, 1], as a brighter lamp would; edges are repeated.
    """
    if config.scale > 0:
        images = shift_and_scale(images, config.shift_px, config.scale, generator)
    elif config.shift_px > 0:
        images = shift(images, config.shift_px, generator)
    return recolour(images, config.gain, config.offset, generator)


def shift(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Move each image by whole pixels, up to `pixels` each way; (N, 3, H, W) to the same."""
    count, _, height, width = images.shape
    moves = torch.randint(-pixels, pixels + 1, (2, count, 1), generator=generator)
    rows = (torch.arange(height) + moves[0]).clamp(0, height - 1).to(images.device)
    columns = (torch.arange(width) + moves[1]).clamp(0, width - 1).to(images.device)
    numbers = torch.arange(count, device=images.device)
    # Indices at both ends of the slice put the channels last; the copy is moved back, not the pixels.
    return images[numbers[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def shift_and_scale(images: Tensor, pixels: int, scale: float, generator: torch.Generator) -> Tensor:
    """Zoom each image by a factor in [1 - scale, 1 + scale] and move it by up to `pixels`, bilinearly."""
    count, _, height, width = images.shape
    zoom = 1 + scale * (2 * torch.rand(count, generator=generator) - 1)
    moves = pixels * (2 * torch.rand(count, 2, generator=generator) - 1)
    transform = torch.zeros(count, 2, 3)
    # A sampling grid spans [-1, 1] over the image, so a pixel is 2 / size wide.
    transform[:, 0, 0] = transform[:, 1, 1] = 1 / zoom
    transform[:, 0, 2] = 2 * moves[:, 0] / width
    transform[:, 1, 2] = 2 * moves[:, 1] / height
    grid = functional.affine_grid(transform.to(images.device), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def recolour(images: Tensor, gain: float, offset: float, generator: torch.Generator) -> Tensor:
    """Multiply each channel by 1 + N(0, gain^2) and add N(0, offset^2)."""
    if gain == 0 and offset == 0:
        return images
    noise = torch.randn(2, images.shape[0], 3, 1, 1, generator=generator).to(images.device)
    return images * (1 + gain * noise[0]) + offset * noise[1]

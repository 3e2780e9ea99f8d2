"""Random changes to training images that leave the right action as it is. Pure torch; a generator fixes them all."""

import torch
from torch import Tensor
from torch.nn import functional

from trainer.config import AugmentationConfig
from vla_policy_node.network.images import to_network


def augment(images: Tensor, config: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Shift, scale and recolour each image of a batch on its own.

    Args:
        images: RGB, uint8, shape (N, H, W, 3).
        config: how much of each.
        generator: on the CPU; the same state gives the same images.

    Returns:
        In [-1, 1], f32, shape (N, 3, H, W). Colours may leave that range, as a brighter lamp would; edges are repeated.
    """
    if config.scale > 0:
        moved = shift_and_scale(to_network(images), config.shift_px, config.scale, generator)
    else:
        moved = to_network(shift(images, config.shift_px, generator))
    return recolour(moved, config.gain, config.offset, generator)


def shift(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Move each image by whole pixels, up to `pixels` each way; (N, H, W, 3) to the same, of any dtype."""
    if pixels == 0:
        return images
    count, height, width, _ = images.shape
    if images.is_cuda:
        return shift_at_once(images, pixels, torch.randint(0, 2 * pixels + 1, (count, 2), generator=generator))
    wider = _repeat_edges(_repeat_edges(images, 1, pixels), 2, pixels)
    corners = torch.randint(0, 2 * pixels + 1, (count, 2), generator=generator).tolist()
    # Slices copy rows; a single advanced index over rows and columns copies pixel by pixel, ten times as slowly.
    return torch.stack([wider[i, y : y + height, x : x + width] for i, (y, x) in enumerate(corners)])


def shift_at_once(images: Tensor, pixels: int, corners: Tensor) -> Tensor:
    """`shift` in one kernel, for a GPU: to launch one for each image would take longer than a training step."""
    count, height, width, _ = images.shape
    y, x = corners.to(images.device).T - pixels
    rows = (torch.arange(height, device=images.device) + y[:, None]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + x[:, None]).clamp(0, width - 1)
    numbers = torch.arange(count, device=images.device)
    return images[numbers[:, None, None], rows[:, :, None], columns[:, None, :]]


def _repeat_edges(images: Tensor, axis: int, pixels: int) -> Tensor:
    first, last = images.narrow(axis, 0, 1), images.narrow(axis, images.shape[axis] - 1, 1)
    return torch.cat([*[first] * pixels, images, *[last] * pixels], axis)


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
    """Multiply each channel by 1 + N(0, gain^2) and add N(0, offset^2), in place."""
    if gain == 0 and offset == 0:
        return images
    noise = torch.randn(2, images.shape[0], 3, 1, 1, generator=generator).to(images.device)
    return images.mul_(1 + gain * noise[0]).add_(offset * noise[1])

"""From camera images to what the network takes; the same for a live observation and for a training batch."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from vla_policy_node.observation import ImageArray


def stack_images(images: Mapping[str, ImageArray], cameras: Sequence[str], height: int, width: int) -> ImageArray:
    """One observation's images in the order of `cameras`, resized by pixel area: uint8 RGB (C, height, width, 3)."""
    return np.stack([resize(images[name], height, width) for name in cameras])


def resize(image: ImageArray, height: int, width: int) -> ImageArray:
    """An RGB image (H, W, 3) as (height, width, 3); unchanged where it has that size."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = height * width < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)


def to_network(images: Tensor) -> Tensor:
    """uint8 (..., H, W, 3) to float32 (..., 3, H, W) in [-1, 1]: 0 is -1, 255 is 1."""
    return images.movedim(-1, -3).to(torch.float32).div_(127.5).sub_(1.0)

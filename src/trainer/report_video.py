"""Films of episodes: the same initial state under two policies, side by side, as an animated WebP or GIF."""

import io
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainer.exceptions import TrainerError

Frames = Sequence[npt.NDArray[np.uint8]]
"""RGB images, each of shape (height, width, 3)."""

SUCCESS, NO_SUCCESS, RUNNING = (42, 157, 92), (201, 72, 59), (29, 39, 51)
GAP, BORDER, HOLD_FRAMES = 8, 5, 12


def side_by_side(left: Frames, right: Frames, left_success: bool, right_success: bool) -> list[npt.NDArray[np.uint8]]:
    """One film of two: what ended waits for the other in a frame of its outcome's colour, green for success.

    Raises:
        TrainerError: a film has no image, or the images differ in size.
    """
    sizes = {frame.shape for frame in (*left, *right)}
    if not left or not right or len(sizes) != 1:
        raise TrainerError(f"films of {len(left)} and {len(right)} images of sizes {sorted(sizes)}: not one size")
    length = max(len(left), len(right)) + HOLD_FRAMES
    gap = np.full((next(iter(sizes))[0] + 2 * BORDER, GAP, 3), 255, np.uint8)
    return [
        np.concatenate([_at(left, left_success, i), gap, _at(right, right_success, i)], axis=1) for i in range(length)
    ]


def _at(frames: Frames, success: bool, index: int) -> npt.NDArray[np.uint8]:
    ended = index >= len(frames) - 1
    colour = (SUCCESS if success else NO_SUCCESS) if ended else RUNNING
    height, width, _ = frames[0].shape
    framed = np.full((height + 2 * BORDER, width + 2 * BORDER, 3), colour, np.uint8)
    framed[BORDER:-BORDER, BORDER:-BORDER] = frames[min(index, len(frames) - 1)]
    return framed


def animation(frames: Frames, frames_per_second: float, kind: Literal["webp", "gif"] = "webp") -> bytes:
    """An endless animation of the frames. Raises: TrainerError: there are none."""
    if not frames:
        raise TrainerError("an animation needs at least one image")
    images = [Image.fromarray(frame) for frame in frames]
    if kind == "gif":
        images = [image.quantize(128) for image in images]
    options: dict[str, object] = {"quality": 60, "method": 2} if kind == "webp" else {"optimize": True}
    content = io.BytesIO()
    images[0].save(
        content,
        kind.upper(),
        save_all=True,
        append_images=images[1:],
        duration=round(1000 / frames_per_second),
        loop=0,
        **options,
    )
    return content.getvalue()

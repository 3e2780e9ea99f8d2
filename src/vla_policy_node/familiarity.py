"""Does the robot look as it did in the data that a policy was trained on? A camera that was mounted upside down, or
joints in degrees, give a policy that fails without a word of error. Pure."""

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np

from vla_policy_node.normalization import VIEW, Statistics
from vla_policy_node.observation import Float64Array, ImageArray, Observation
from vla_policy_node.spec import RobotSpec

OTHERWISE: Mapping[str, Callable[[Float64Array], Float64Array]] = {
    "upside down": lambda view: view[::-1, ::-1],
    "mirrored left to right": lambda view: view[:, ::-1],
    "mirrored top to bottom": lambda view: view[::-1],
    "with red and blue swapped": lambda view: view[..., ::-1],
}
LESS = 1 / 3
"""Share of its distance (1 - correlation) from the training's mean picture that a turned one may have left, for
that to be told."""
UNLIKE = 0.2
"""Correlation with the training's mean picture below which a camera shows something else."""
FAR = 8.0
"""Standard deviations from the training's mean that a value of proprioception may be."""
NEAR = 4.0
"""Within so many it would be, if it were in another unit."""
UNITS = {"rad": ("degrees", 180 / np.pi), "m": ("millimetres", 1000.0)}
"""By unit, another that is taken for it, and how many times as large a value is in that."""


def view_of(image: ImageArray) -> Float64Array:
    """An RGB image (H, W, 3) as a mean colour for each of `VIEW` x `VIEW` parts of it, (VIEW, VIEW, 3), 0 to 255."""
    return np.asarray(cv2.resize(image, (VIEW, VIEW), interpolation=cv2.INTER_AREA), np.float64)


def typical_views(images: Sequence[ImageArray], most: int = 16) -> tuple[tuple[float, ...], ...]:
    """The views of N >= 1 images as the means of up to `most` groups (k-means), as `Statistics.views` has a camera's.

    One mean would not do: in several scenes it is like none of them.
    """
    views = np.stack([view_of(image).reshape(-1) for image in images]).astype(np.float32)
    centers = np.unique(views, axis=0)
    if len(centers) > most:
        cv2.setRNGSeed(0)
        stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 50, 0.1)
        centers = cv2.kmeans(views, most, np.empty(0, np.int32), stop, 3, cv2.KMEANS_PP_CENTERS)[2]
    return tuple(tuple(row) for row in np.round(centers.astype(np.float64), 1).tolist())


def unfamiliar(spec: RobotSpec, statistics: Statistics, observation: Observation) -> tuple[str, ...]:
    """What of an observation is unlike the training data, and what may be the reason; empty where nothing is."""
    views = dict(zip(spec.camera_names, statistics.views, strict=False))
    said = [
        _camera(name, observation.images[name], np.reshape(seen, (-1, VIEW, VIEW, 3))) for name, seen in views.items()
    ]
    for i, item in enumerate(spec.proprioception):
        value, mean, std = (
            float(observation.proprioception[i]),
            statistics.proprioception_mean[i],
            statistics.proprioception_std[i],
        )
        said.append(_value(item.name, item.unit, value, mean, std))
    return tuple(text for text in said if text)


def _camera(name: str, image: ImageArray, trained: Float64Array) -> str:
    now = view_of(image)
    as_it_is = _likeness(now, trained)
    turned = {how: _likeness(turn(now), trained) for how, turn in OTHERWISE.items()}
    best = max(turned, key=turned.__getitem__)
    if 1 - turned[best] < LESS * (1 - as_it_is) and turned[best] > UNLIKE:
        return (
            f"camera '{name}' is like the training data only {best} (correlation {turned[best]:.2f}, "
            f"{as_it_is:.2f} as it is): is it mounted or read otherwise?"
        )
    if as_it_is < UNLIKE:
        return f"camera '{name}' shows something else than in the training data (correlation {as_it_is:.2f})"
    return ""


def _likeness(view: Float64Array, trained: Float64Array) -> float:
    """Correlation with that of the training's views (K, VIEW, VIEW, 3) that is most like it."""
    return max(_correlation(view, one) for one in trained)


def _correlation(one: Float64Array, other: Float64Array) -> float:
    """Pearson's, over all parts and colours; 0 where one of the pictures is of one colour."""
    a, b = one - one.mean(), other - other.mean()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum() / size) if size > 0 else 0.0


def _value(name: str, unit: str, value: float, mean: float, std: float) -> str:
    if abs(value - mean) <= FAR * std:
        return ""
    text = f"'{name}' is {value:.4g} {unit}, far from the training data's {mean:.4g}, standard deviation {std:.2g}"
    other, factor = UNITS.get(unit, ("", 1.0))
    if abs(value / factor - mean) <= NEAR * std:
        return f"{text}: is it in {other}?"
    if abs(value * factor - mean) <= NEAR * std:
        return f"{text}: was the training data in {other}?"
    return text

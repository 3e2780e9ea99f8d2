"""Statistics that bring proprioception and actions to a common scale: computed once at the first training, then kept.

Recomputing them on a policy's own rollouts shifts every input of a network that was trained with the old ones, so a
retrained checkpoint carries its parent's statistics.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from vla_policy_node.exceptions import SpecError
from vla_policy_node.spec import RobotSpec

ActionScaling = Literal["limits", "std"]
"""`limits`: the spec's limits become -1 and 1. `std`: zero mean and unit standard deviation of the data."""

VIEW = 8
"""Parts that a picture is cut into each way, of each of which the mean colour is kept."""

STD_FLOOR = 0.02
"""Least standard deviation of a value, in its unit (m, rad, 1): what varies less is not blown up to unit size."""


SCALES = ("proprioception_mean", "proprioception_std", "action_center", "action_scale")


@dataclass(frozen=True)
class Statistics:
    """`normalised = (raw - mean) / std` for proprioception (P values), `(raw - center) / scale` for actions (A)."""

    proprioception_mean: tuple[float, ...]
    proprioception_std: tuple[float, ...]
    action_center: tuple[float, ...]
    action_scale: tuple[float, ...]
    views: tuple[tuple[tuple[float, ...], ...], ...] = ()
    """What each camera showed: some typical views of VIEW x VIEW x 3 values of 0 to 255; empty where it is not known.
    No scale of anything: it tells a camera that is mounted otherwise."""

    def __post_init__(self) -> None:
        views = tuple(tuple(tuple(map(float, view)) for view in camera) for camera in self.views)
        object.__setattr__(self, "views", views)
        if any(len(view) != VIEW * VIEW * 3 or not all(map(math.isfinite, view)) for c in views for view in c):
            raise SpecError(f"statistics: views are not of {VIEW * VIEW * 3} finite values each")
        for item in SCALES:
            values = tuple(float(v) for v in getattr(self, item))
            object.__setattr__(self, item, values)
            if not all(math.isfinite(v) for v in values):
                raise SpecError(f"statistics: {item} {values} is not finite")
        for name in ("proprioception_std", "action_scale"):
            if not all(v > 0 for v in getattr(self, name)):
                raise SpecError(f"statistics: {name} {getattr(self, name)} is not positive")
        for a, b in (("proprioception_mean", "proprioception_std"), ("action_center", "action_scale")):
            if len(getattr(self, a)) != len(getattr(self, b)):
                raise SpecError(f"statistics: {len(getattr(self, a))} {a}, but {len(getattr(self, b))} {b}")

    def check(self, spec: RobotSpec) -> None:
        """Raises: SpecError: they are of another size than the robot's proprioception and action."""
        have = (len(self.proprioception_mean), len(self.action_center))
        wanted = (len(spec.proprioception), len(spec.action))
        if have != wanted:
            raise SpecError(f"statistics: for {have} (proprioception, action) values, robot '{spec.name}' has {wanted}")
        if self.views and len(self.views) != len(spec.cameras):
            raise SpecError(
                f"statistics: views of {len(self.views)} cameras, robot '{spec.name}' has {len(spec.cameras)}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Lists of numbers, as `from_dict` takes them."""
        return {name: list(values) for name, values in asdict(self).items()}

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> "Statistics":
        """Raises: SpecError: a key is unknown or missing, or a value is not a list of finite numbers."""
        known = {f.name for f in fields(Statistics)}
        if set(content) | {"views"} != known:
            raise SpecError(f"statistics: keys {', '.join(sorted(content))}; expected {', '.join(sorted(known))}")
        try:
            return Statistics(**{name: tuple(values) for name, values in content.items()})
        except (TypeError, ValueError) as error:
            raise SpecError(f"statistics: {error}") from error


def compute_statistics(
    spec: RobotSpec,
    proprioception: npt.NDArray[np.floating[Any]],
    actions: npt.NDArray[np.floating[Any]],
    scaling: ActionScaling = "limits",
) -> Statistics:
    """The statistics of a data set.

    Args:
        proprioception: shape (N, P), in the spec's units.
        actions: shape (N, A), in the spec's units.
        scaling: how actions are normalised; dimensions without finite limits are always scaled by `std`.

    Raises:
        SpecError: unknown scaling, no data, or data of another width than the spec's.
    """
    if scaling not in get_args(ActionScaling):
        raise SpecError(f"action scaling '{scaling}' is not one of {', '.join(get_args(ActionScaling))}")
    for name, data, width in (
        ("proprioception", proprioception, len(spec.proprioception)),
        ("actions", actions, len(spec.action)),
    ):
        if data.ndim != 2 or data.shape[1] != width or not len(data):
            raise SpecError(f"statistics: {name} of shape {data.shape}, robot '{spec.name}' needs (N, {width}), N > 0")
    low, high = spec.action_low.astype(np.float64), spec.action_high.astype(np.float64)
    by_limits = np.isfinite(low) & np.isfinite(high) & (scaling == "limits")
    low, high = np.where(by_limits, low, 0.0), np.where(by_limits, high, 0.0)
    center = np.where(by_limits, (low + high) / 2, actions.mean(0, dtype=np.float64))
    scale = np.where(by_limits, (high - low) / 2, _floored_std(actions))
    mean = proprioception.mean(0, dtype=np.float64)
    return Statistics(*(tuple(v.tolist()) for v in (mean, _floored_std(proprioception), center, scale)))


def _floored_std(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    return np.asarray(np.maximum(values.std(0, dtype=np.float64), STD_FLOOR))

"""The last gate before the robot: whatever comes in, what goes out is finite and within limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from vla_policy_node.exceptions import SpecError
from vla_policy_node.observation import Float32Array
from vla_policy_node.spec import RobotSpec

LimitMode = Literal["clamp", "reject"]
"""`clamp`: a value beyond a limit is moved to the limit. `reject`: the robot holds instead."""


@dataclass(frozen=True)
class SafeCommand:
    """What may be sent to the robot."""

    action: Float32Array
    """Shape (A,), in the spec's units, finite and within its limits."""
    held: bool
    """The action is the spec's hold, not what was asked for."""
    reasons: tuple[str, ...]
    """Why it was held or limited; empty where what was asked for is sent unchanged."""


class SafetyFilter:
    """Checks each action against the spec and holds where it cannot be sent. Remembers what was sent last."""

    def __init__(self, spec: RobotSpec, mode: LimitMode = "clamp") -> None:
        """Raises: SpecError: unknown mode."""
        if mode not in get_args(LimitMode):
            raise SpecError(f"limit mode '{mode}' is not one of {', '.join(get_args(LimitMode))}")
        self._spec = spec
        self._mode = mode
        # A spec may leave a dimension unlimited; what is sent stays finite all the same.
        largest = np.finfo(np.float32).max
        self._low = np.maximum(spec.action_low, -largest)
        self._high = np.minimum(spec.action_high, largest)
        self._holds_last = np.array([d.hold == "last" for d in spec.action])
        self.reset()

    def reset(self, last: Float32Array | None = None) -> None:
        """Start a new episode.

        Args:
            last: shape (A,), what counts as sent last: for a robot commanded by position, where it stands now. Without
                it, and wherever it is not finite, the value nearest to 0 within the limits.
        """
        neutral = self._limited(np.zeros(len(self._spec.action)))
        if last is None or last.shape != neutral.shape:
            self._last = neutral
        else:
            self._last = self._limited(np.where(np.isfinite(last), last, neutral))

    def check(self, action: npt.ArrayLike | None, reasons: Sequence[str] = ()) -> SafeCommand:
        """The command to send for an action.

        Args:
            action: shape (A,), in the spec's units; None where there is none.
            reasons: why the robot has to hold whatever the action (stale input, ...).
        """
        wanted, why = self._wanted(action, tuple(reasons))
        if wanted is None:
            return self._hold(why)
        limited = self._limited(wanted)
        beyond = self._beyond(wanted, limited)
        if beyond and self._mode == "reject":
            return self._hold(beyond)
        self._last = limited
        return SafeCommand(limited.copy(), False, beyond)

    def hold(self, reasons: Sequence[str]) -> SafeCommand:
        """The command that keeps the robot still: `zero` dimensions at 0, `last` ones as sent last."""
        return self._hold(tuple(reasons))

    def _hold(self, reasons: tuple[str, ...]) -> SafeCommand:
        self._last = self._limited(np.where(self._holds_last, self._last, 0.0))
        return SafeCommand(self._last.copy(), True, reasons)

    def _wanted(
        self, action: npt.ArrayLike | None, reasons: tuple[str, ...]
    ) -> tuple[npt.NDArray[np.float64] | None, tuple[str, ...]]:
        """The action as float64, or None and why it cannot be sent."""
        if reasons or action is None:
            return None, reasons or ("action: none",)
        try:
            values = np.asarray(action, np.float64)
        except (TypeError, ValueError, OverflowError):
            return None, (f"action: {action!r:.80} is not a vector of numbers",)
        if values.shape != (len(self._spec.action),):
            return None, (f"action: shape {values.shape}, robot '{self._spec.name}' takes {len(self._spec.action)}",)
        if not np.isfinite(values).all():
            names = np.array(self._spec.action_names)[~np.isfinite(values)]
            return None, tuple(f"action: {name} is not finite" for name in names)
        return values, ()

    def _limited(self, values: npt.NDArray[np.float64] | Float32Array) -> Float32Array:
        # Limits are float32, and rounding is monotone: what is clipped as float64 stays within as float32.
        return np.clip(values, self._low, self._high).astype(np.float32)

    def _beyond(self, wanted: npt.NDArray[np.float64], limited: Float32Array) -> tuple[str, ...]:
        outside = (wanted < self._low) | (wanted > self._high)
        return tuple(
            f"action: {self._spec.action_names[i]} {wanted[i]:.4g} is beyond its limit {limited[i]:.4g}"
            for i in np.flatnonzero(outside)
        )

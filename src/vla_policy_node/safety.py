"""The last gate before the robot: whatever comes in, what goes out is finite, within limits, and can be followed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from vla_policy_node.exceptions import SpecError
from vla_policy_node.motion import ActionMotion
from vla_policy_node.observation import Float32Array
from vla_policy_node.spec import NANOSECONDS, RobotSpec

LimitMode = Literal["clamp", "reject"]
"""`clamp`: a value beyond a limit is moved to the limit. `reject`: the robot holds instead."""


SHORTEST_NS = 1_000_000
"""What counts as having passed where a clock stood still or went back."""
AT_REST = 1e-6
"""How far from 0 a speed or a displacement that is sent still counts as none, in its unit."""
SLOWED = 0.02
"""Share of a dimension's range that what is sent stays behind what was asked for before it is said."""


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
    """Checks each action against the spec and holds where it cannot be sent. Remembers what was sent last.

    Limits of position come first, then how far what is sent may be from where a joint is measured, then how fast it
    may change. The first two are clamped or rejected, as the mode says; the last is always kept by going more slowly.
    """

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
        self._lead = np.array([d.lead for d in spec.action])
        self._motion = ActionMotion(spec.action, spec.rate_hz)
        self.reset()

    def reset(self, last: Float32Array | None = None) -> None:
        """Start a new episode at rest.

        Args:
            last: shape (A,), what counts as sent last: for a robot commanded by position, where it stands now. Without
                it, and wherever it is not finite, the value nearest to 0 within the limits.
        """
        neutral = self._limited(np.zeros(len(self._spec.action)))
        known = last is not None and last.shape == neutral.shape
        start = np.where(np.isfinite(last), last, neutral) if known and last is not None else neutral
        self._last = self._limited(start)
        self._motion.start(start.astype(np.float64))
        self._sent_ns: int | None = None
        self._located = known or not self.watches_joints

    @property
    def located(self) -> bool:
        """Whether it is known what to begin with. Before, a robot commanded by position must be sent nothing."""
        return self._located

    @property
    def at_rest(self) -> bool:
        """Whether the last hold has brought the robot to rest."""
        return self._motion.still and bool(np.abs(self._last - self._still()).max() <= AT_REST)

    @property
    def watches_joints(self) -> bool:
        """Whether `check` makes use of proprioception."""
        return any(d.joint for d in self._spec.action)

    def check(
        self,
        action: npt.ArrayLike | None,
        reasons: Sequence[str] = (),
        proprioception: Float32Array | None = None,
        now_ns: int | None = None,
    ) -> SafeCommand:
        """The command to send for an action.

        Args:
            action: shape (A,), in the spec's units; None where there is none.
            reasons: why the robot has to hold whatever the action (stale input, ...).
            proprioception: shape (P,), of the observation that is answered: the first one says where the robot stands,
                each one how far it is from what is to be sent. Without it neither is known.
            now_ns: when it is sent: of what may change in a period, less may where the last command was sent less than
                a period ago. Without it, it was a period.
        """
        measured = None if proprioception is None else self._measured(proprioception)
        if measured is not None and not self._located:
            self.reset(measured)
        wanted, why = self._wanted(action, tuple(reasons))
        if wanted is None:
            return self.hold(why, now_ns)
        limited = self._limited(wanted)
        beyond = self._beyond(wanted, limited)
        near, far = self._near(limited, measured)
        if (beyond or far) and self._mode == "reject":
            return self.hold(beyond + far, now_ns)
        sent = self._sent(self._motion.towards(near, self._since_last(now_ns)))
        slowed = self._slowed(near, sent)
        self._last = sent
        return SafeCommand(sent.copy(), False, beyond + far + slowed)

    def hold(self, reasons: Sequence[str], now_ns: int | None = None) -> SafeCommand:
        """The command that brings the robot to rest: `zero` dimensions at 0, `last` ones as sent last, and both as fast
        as their motion limits allow. Args: now_ns: as for `check`."""
        still = self._still()
        after_s = self._since_last(now_ns)
        self._last = self._sent(self._motion.stop(still.astype(np.float64), after_s, self._holds_last))
        return SafeCommand(self._last.copy(), True, tuple(reasons))

    def _still(self) -> Float32Array:
        """What holding comes to in the end: speeds and deltas at 0, targets as they are."""
        return self._limited(np.where(self._holds_last, self._last, 0.0))

    def _since_last(self, now_ns: int | None) -> float:
        """Time since the last command in seconds, at most a period, at least the shortest that a clock shows."""
        last, self._sent_ns = self._sent_ns, now_ns
        period_ns = self._spec.period_ns
        elapsed = period_ns if now_ns is None or last is None else now_ns - last
        return min(period_ns, max(SHORTEST_NS, elapsed)) / NANOSECONDS

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

    def _measured(self, proprioception: Float32Array) -> Float32Array:
        """Where each dimension's joint is, (A,); not a number where it commands none."""
        places = self._spec.measured_at
        return np.array([np.nan if place is None else proprioception[place] for place in places], np.float32)

    def _near(
        self, limited: Float32Array, measured: Float32Array | None
    ) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
        """The action no further from where joints are measured than their lead, and what was too far."""
        wanted = limited.astype(np.float64)
        if measured is None:
            return wanted, ()
        at = np.where(np.isfinite(measured), measured, wanted)
        near = np.clip(wanted, at - self._lead, at + self._lead)
        return near, tuple(
            f"action: {self._spec.action_names[i]} {wanted[i]:.4g} is more than {self._lead[i]:.4g} from "
            f"{self._spec.action[i].joint} at {at[i]:.4g}"
            for i in np.flatnonzero(near != wanted)
        )

    def _sent(self, values: npt.NDArray[np.float64]) -> Float32Array:
        """What is sent of what the motion limits gave: from outside the limits it may only be on its way back."""
        return self._limited(values) if not self._motion else values.astype(np.float32)

    def _slowed(self, wanted: npt.NDArray[np.float64], sent: Float32Array) -> tuple[str, ...]:
        if not self._motion:
            return ()
        behind = np.abs(wanted - sent) > SLOWED * (self._high.astype(np.float64) - self._low)
        return tuple(f"motion: {self._spec.action_names[i]} goes as fast as it may" for i in np.flatnonzero(behind))

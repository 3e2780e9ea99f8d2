"""The last gate before the robot: whatever comes in, what goes out is finite, within limits, and can be followed."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from vla_policy_node.limit_switches import Breach, LimitMode, rejecting
from vla_policy_node.motion import ActionMotion
from vla_policy_node.observation import Float32Array, Float64Array
from vla_policy_node.spec import NANOSECONDS, RobotSpec
from vla_policy_node.workspace import Workspace, make_workspace

SHORTEST_NS = 1_000_000
"""What counts as having passed where a clock stood still or went back."""
AT_REST = 1e-6
"""How far from 0 a speed or a displacement that is sent still counts as none, in its unit."""
SLOWED = 0.02
"""Share of a dimension's range that what is sent stays behind what was asked for before it is said."""
NEARBY = 0.05
"""rad or m that joints go at most towards a goal along a wall before they look anew."""
LEAST_SHARE = 0.05
"""Of a joint's limits, where all go together: what it needs to stop."""
ROUNDED = 1e-4
"""Share of a velocity that an action may be faster before it is rejected: what was sent last is float32."""
ALONG, BRAKES = "workspace: the hand goes slowly along a wall", "workspace: the hand brakes before a wall"


@dataclass(frozen=True)
class SafeCommand:
    """What may be sent to the robot."""

    action: Float32Array
    """Shape (A,), in the spec's units, finite and within its limits."""
    held: bool
    """The action is the spec's hold, not what was asked for."""
    reasons: tuple[str, ...]
    """Why it was held or limited; empty where what was asked for is sent unchanged."""
    joints: Float32Array = field(default_factory=lambda: np.empty(0, np.float32))
    """Of a robot whose hand is displaced: where its joints are sent, shape (J,), ordered as `KinematicsSpec.joints`."""

    @property
    def commanded(self) -> Float32Array:
        """What the controllers are sent, ordered as `RobotSpec.commanded`."""
        return np.concatenate([self.action, self.joints])


class SafetyFilter:
    """Checks each action against the spec and holds where it cannot be sent. Remembers what was sent last.

    Limits of position come first, then how far what is sent may be from where a joint is measured, then the workspace,
    then how fast it may change. Each clamps or rejects as the spec's `limits` or the mode says; what changes too fast
    is clamped by going more slowly.
    """

    def __init__(self, spec: RobotSpec, mode: LimitMode = "clamp") -> None:
        """Args: mode: of limits of place that the spec's `limits` does not name.

        Raises:
            SpecError: unknown mode, or the arm's model that its workspace needs does not fit the robot.
        """
        self._spec = spec
        self._rejecting = rejecting(spec.limits, mode)
        # A spec may leave a dimension unlimited; what is sent stays finite all the same.
        largest = np.finfo(np.float32).max
        self._low = np.maximum(spec.action_low, -largest)
        self._high = np.minimum(spec.action_high, largest)
        self._holds_last = np.array([d.hold == "last" for d in spec.action])
        self._lead = np.array([d.lead for d in spec.action])
        self._motion = ActionMotion(spec.action, spec.rate_hz)
        self._workspace = make_workspace(spec)
        self._begin(None)

    def reset(self, last: Float32Array | None = None) -> None:
        """Start a new episode at rest.

        Args:
            last: shape (A,), what counts as sent last: for a robot commanded by position, where it stands now. Without
                it, and wherever it is not finite, the value nearest to 0 within the limits.
        """
        self._begin(last)

    def _begin(self, last: Float32Array | None) -> None:
        neutral = self._limited(np.zeros(len(self._spec.action)))
        known = last is not None and last.shape == neutral.shape
        start = np.where(np.isfinite(last), last, neutral) if known and last is not None else neutral
        self._last = self._limited(start)
        self.sent = start.astype(np.float64)
        """What was sent last, or stands for it, (A,)."""
        self._motion.start(self.sent)
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
        self.locate(proprioception)
        wanted, why = self._wanted(action, tuple(reasons))
        if wanted is None:
            return self.hold(why, now_ns)
        inside, breaches = self.within(wanted, proprioception)
        breaches += self._too_fast(inside, now_ns)
        why = tuple(breach.text for breach in breaches)
        if any(breach.limit in self._rejecting for breach in breaches):
            return self.hold(why, now_ns)
        sent, braked = self._go(inside, self._since_last(now_ns))
        slowed = self._slowed(inside, sent)
        self._last = sent
        self.sent = sent.astype(np.float64)
        return SafeCommand(sent.copy(), False, why + (braked or slowed))

    def within(
        self, wanted: Float64Array, proprioception: Float32Array | None
    ) -> tuple[Float64Array, tuple[Breach, ...]]:
        """An action (A,) moved to where limits of position, lead and workspace let it, and why; nothing is sent."""
        limited = self._limited(wanted)
        beyond = self._beyond(wanted, limited)
        near, far = self._near(limited, None if proprioception is None else self._spec.measured(proprioception))
        inside, walls = (near, ()) if self._workspace is None else self._workspace.near(near, self.sent)
        return inside, beyond + far + tuple(Breach("workspace", wall) for wall in walls)

    def locate(self, proprioception: Float32Array | None) -> None:
        """Begin where the joints are measured, (P,), if that was not known yet."""
        if proprioception is not None and not self._located:
            self._begin(self._spec.measured(proprioception))

    def hold(self, reasons: Sequence[str], now_ns: int | None = None) -> SafeCommand:
        """The command that brings the robot to rest: `zero` dimensions at 0, `last` ones as sent last, and both as fast
        as their motion limits allow. Args: now_ns: as for `check`."""
        still = self._still()
        after_s = self._since_last(now_ns)
        self._last = self._sent(self._motion.stop(still.astype(np.float64), after_s, self._holds_last))
        self.sent = self._last.astype(np.float64)
        return SafeCommand(self._last.copy(), True, tuple(reasons))

    def _go(self, goal: Float64Array, after_s: float) -> tuple[Float32Array, tuple[str, ...]]:
        """What is sent on the way to a goal (A,): only what the arm can be stopped after within the workspace."""
        before = self._motion.state
        sent = self._sent(self._motion.towards(goal, after_s))
        if self._workspace is None or self._may_be_sent(sent):
            return sent, ()
        # Each joint as fast as it may carries the hand off the straight way. So all together, and not far.
        self._motion.state = before
        near, shares = self._together(self._workspace, goal)
        sent = self._sent(self._motion.towards(near, after_s, shares))
        if self._may_be_sent(sent):
            return sent, (ALONG,)
        self._motion.state = before
        still = self._still().astype(np.float64)
        return self._sent(self._motion.stop(still, after_s, self._holds_last)), (BRAKES,)

    def _may_be_sent(self, sent: Float32Array) -> bool:
        way = self._motion.way_to_rest(sent.astype(np.float64))
        return self._workspace is None or self._workspace.allows(way, self.sent)

    def _together(self, workspace: Workspace, goal: Float64Array) -> tuple[Float64Array, Float64Array]:
        """A goal nearby in the workspace on the way to another, (A,), and the shares that bring all there at once."""
        way = np.where(self._holds_last, goal - self.sent, 0.0)
        longest = max(float(np.abs(way).max()), np.finfo(np.float64).tiny)
        near, _ = workspace.near(
            np.where(self._holds_last, self.sent + way * min(1.0, NEARBY / longest), goal), self.sent
        )
        moved = np.where(self._holds_last, np.abs(near - self.sent), 0.0)
        shares = moved / max(float(moved.max()), np.finfo(np.float64).tiny)
        return near, np.where(self._holds_last, np.maximum(shares, LEAST_SHARE), 1.0)

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
    ) -> tuple[Float64Array | None, tuple[str, ...]]:
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

    def _limited(self, values: Float64Array | Float32Array) -> Float32Array:
        # Limits are float32, and rounding is monotone: what is clipped as float64 stays within as float32.
        return np.clip(values, self._low, self._high).astype(np.float32)

    def _beyond(self, wanted: Float64Array, limited: Float32Array) -> tuple[Breach, ...]:
        # What rounds to a limit is at it: 0.01 is a little more than its float32.
        with np.errstate(over="ignore"):
            rounded = wanted.astype(np.float32)
        outside = (rounded < self._low) | (rounded > self._high)
        names = self._spec.action_names
        return tuple(
            Breach("position", f"action: {names[i]} {wanted[i]:.4g} is beyond its limit {limited[i]:.4g}")
            for i in np.flatnonzero(outside)
        )

    def _near(self, limited: Float32Array, measured: Float32Array | None) -> tuple[Float64Array, tuple[Breach, ...]]:
        """The action no further from where joints are measured than their lead, and what was too far."""
        wanted = limited.astype(np.float64)
        if measured is None:
            return wanted, ()
        at = np.where(np.isfinite(measured), measured, wanted)
        near = np.clip(wanted, at - self._lead, at + self._lead)
        return near, tuple(
            Breach(
                "lead",
                f"action: {self._spec.action_names[i]} {wanted[i]:.4g} is more than {self._lead[i]:.4g} from "
                f"{self._spec.action[i].joint} at {at[i]:.4g}",
            )
            for i in np.flatnonzero(near != wanted)
        )

    def _too_fast(self, inside: Float64Array, now_ns: int | None) -> tuple[Breach, ...]:
        """What of an action (A,) asks for a faster change than its velocity, where that is rejected.

        Since the last command, but for a period at least: actions are so far apart, even where ticks are not.
        """
        if "velocity" not in self._rejecting:
            return ()
        since_ns = 0 if now_ns is None or self._sent_ns is None else now_ns - self._sent_ns
        asked = np.abs(inside - self.sent) * NANOSECONDS / max(self._spec.period_ns, since_ns)
        return tuple(
            Breach(
                "velocity",
                f"motion: {d.name} asks for {speed:.4g} {d.unit} a second, more than {d.velocity:.4g}",
            )
            for d, speed in zip(self._spec.action, asked, strict=True)
            if speed > d.velocity * (1 + ROUNDED)
        )

    def _sent(self, values: Float64Array) -> Float32Array:
        """What is sent of what the motion limits gave: from outside the limits it may only be on its way back."""
        return self._limited(values) if not self._motion else values.astype(np.float32)

    def _slowed(self, wanted: Float64Array, sent: Float32Array) -> tuple[str, ...]:
        if not self._motion:
            return ()
        behind = np.abs(wanted - sent) > SLOWED * (self._high.astype(np.float64) - self._low)
        return tuple(f"motion: {self._spec.action_names[i]} goes as fast as it may" for i in np.flatnonzero(behind))


def travelling(spec: RobotSpec) -> RobotSpec:
    """A robot that is sent far at once by somebody who leaves the way there to the filter: home, or to where a
    recording began. What is too far for a period is no mistake then, so velocity clamps."""
    return replace(spec, limits={**spec.limits, "velocity": "clamp"})

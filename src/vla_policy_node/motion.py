"""Commands that an arm can follow: what is sent never changes faster than velocity, acceleration and jerk allow.

Ruckig (Berscheid and Kroeger 2021, Jerk-limited Real-time Trajectory Generation with Arbitrary Target States) gives,
for each tick, the fastest motions from what was sent last to what is wanted now. Of one the first step is sent only if
the arm can still be stopped within the position limits from where it leads to; else the arm brakes. So from everything
that is ever sent there is a way to stop.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from ruckig import ControlInterface, InputParameter, Result, Ruckig, Trajectory

from vla_policy_node.action_spec import ActionDimension
from vla_policy_node.observation import Float64Array

TOLERANCE = 1e-9
"""Of a position limit, in the value's unit: rounding in Ruckig's extrema."""


@dataclass(frozen=True)
class Motion:
    """Where one commanded value is, and how it changes: units, units a second, and so on."""

    position: float
    velocity: float = 0.0
    acceleration: float = 0.0

    @property
    def still(self) -> bool:
        """Whether it stays where it is."""
        return self.velocity == 0.0 == self.acceleration


class MotionLimiter:
    """Limits one dimension of the action. Values are in its unit, time in seconds."""

    def __init__(self, dimension: ActionDimension, period_s: float) -> None:
        self._dimension, self._period_s = dimension, period_s
        self._ruckig = Ruckig(1, period_s)
        self._input = InputParameter(1)
        self.motion = Motion(0.0)
        self._target: float | None = None
        self._after_s, self._share = period_s, 1.0

    @property
    def still(self) -> bool:
        """Whether what was sent last stays as it is."""
        return self.motion.still

    @property
    def state(self) -> "tuple[Motion, float | None]":
        """All that what is sent next depends on; may be set again."""
        return self.motion, self._target

    @state.setter
    def state(self, state: "tuple[Motion, float | None]") -> None:
        self.motion, self._target = state

    def way_to_rest(self, step_s: float) -> list[float]:
        """Where it would be, so many seconds apart from now on, if it were stopped now: the last one is the rest."""
        if self.motion.still:
            return [self.motion.position]
        start, stopped = self.motion.position, self._braking(self.motion)
        times = np.append(np.arange(0.0, stopped.duration, step_s), stopped.duration)
        return [start + stopped.at_time(float(time))[0][0] for time in times]

    def start(self, position: float) -> None:
        """Stand still at a position, inside its limits or not; from outside it may only come back."""
        self.motion = Motion(position)
        self._target = None

    def towards(self, target: float, after_s: float | None = None, share: float = 1.0) -> float:
        """What to send next on the way to a target within the position limits.

        Args:
            after_s: how long after what was sent last, at most a period; None: a period.
            share: of its limits that it may take; it brakes with all of them.
        """
        self._after_s = self._period_s if after_s is None else after_s
        self._share = share
        if share < 1 and not self._has_time(share):
            return self._brake()
        # A target that moves is followed at its speed: to plan a rest at each of its places would lag behind it. But to
        # come by at full speed from near by, one would first go back: of the ways the one that gets nearest.
        speed = 0.0 if self._target is None else (target - self._target) / self._period_s
        self._target = target
        limit = share * self._dimension.velocity
        speeds = dict.fromkeys(min(limit, max(-limit, share * speed)) for share in (1.0, 0.5, 0.0))
        planned = [motion for velocity in speeds if (motion := self._plan(target, velocity)) is not None]
        safe = [motion for motion in planned if self._can_stop(motion)]
        if not safe:
            return self._brake()
        return self._go(min(safe, key=lambda motion: abs(motion.position - target)))

    def stop(self, after_s: float | None = None) -> float:
        """What to send next to come to rest as soon as the limits allow; `after_s` as for `towards`."""
        self._after_s = self._period_s if after_s is None else after_s
        return self._brake()

    def _brake(self) -> float:
        self._target = None
        if self.motion.still:
            return self.motion.position
        stopped = self._braking(self.motion)
        return self._go(self._at(stopped, min(self._after_s, stopped.duration), self.motion.position))

    def _go(self, motion: Motion) -> float:
        self.motion = motion
        return motion.position

    def _plan(self, target: float, velocity: float) -> Motion | None:
        """The motion one period on the fastest way to a target; None where there is no way."""
        self._set(self.motion, self._share)
        self._input.control_interface = ControlInterface.Position
        self._input.target_position, self._input.target_velocity = [target], [velocity]
        self._input.target_acceleration = [0.0]
        self._input.minimum_duration = self._period_s  # Not ahead of a target that moves within the limits.
        trajectory = Trajectory(1)
        if self._ruckig.calculate(self._input, trajectory) not in (Result.Working, Result.Finished):
            return None
        return self._at(trajectory, self._after_s)

    def _has_time(self, share: float) -> bool:
        """Whether its acceleration can be taken back with a share of the jerk before it is faster than it may be."""
        now = self.motion
        fastest = now.velocity + now.acceleration * abs(now.acceleration) / (2 * share * self._dimension.jerk)
        return abs(fastest) <= self._dimension.velocity

    def _can_stop(self, motion: Motion) -> bool:
        """Whether the arm can come to rest from there without leaving the limits, or, outside them, going further."""
        extrema, start = self._braking(motion).position_extrema[0], motion.position
        now, dimension = self.motion.position, self._dimension
        low, high = min(dimension.low, now), max(dimension.high, now)
        return bool(start + extrema.min >= low - TOLERANCE and start + extrema.max <= high + TOLERANCE)

    def _braking(self, motion: Motion) -> Trajectory:
        """The fastest way to rest, its positions counted from where it begins: where it ends is no matter here, and so
        Ruckig takes 0 for one of the extrema. Never refused: limits are positive, and any state may be slowed down."""
        self._set(Motion(0.0, motion.velocity, motion.acceleration))
        self._input.control_interface = ControlInterface.Velocity
        self._input.target_velocity = self._input.target_acceleration = [0.0]
        self._input.minimum_duration = None
        trajectory = Trajectory(1)
        self._ruckig.calculate(self._input, trajectory)
        return trajectory

    def _set(self, motion: Motion, share: float = 1.0) -> None:
        self._input.max_velocity = [share * self._dimension.velocity]
        self._input.max_acceleration = [share * self._dimension.acceleration]
        self._input.max_jerk = [share * self._dimension.jerk]
        self._input.current_position = [motion.position]
        self._input.current_velocity = [motion.velocity]
        self._input.current_acceleration = [motion.acceleration]

    def _at(self, trajectory: Trajectory, time_s: float, start: float = 0.0) -> Motion:
        position, velocity, acceleration = trajectory.at_time(time_s)
        # A profile of constant acceleration ends with it; at rest there is none.
        rest = time_s >= trajectory.duration and abs(velocity[0]) < TOLERANCE
        return Motion(start + position[0], 0.0 if rest else velocity[0], 0.0 if rest else acceleration[0])


class RateLimiter:
    """As `MotionLimiter`, for a dimension of which only the velocity is limited: it stops at once."""

    def __init__(self, dimension: ActionDimension, period_s: float) -> None:
        self._velocity, self._period_s = dimension.velocity, period_s
        self.state = 0.0
        """Where it was sent last: all that what is sent next depends on."""
        self.still = True
        """It stops at once."""

    def way_to_rest(self, step_s: float) -> list[float]:
        """Where it is."""
        return [self.state]

    def start(self, position: float) -> None:
        """Stand still at a position."""
        self.state = position

    def towards(self, target: float, after_s: float | None = None, share: float = 1.0) -> float:
        """What to send next on the way to a target."""
        step = share * self._velocity * (self._period_s if after_s is None else after_s)
        self.state += min(step, max(-step, target - self.state))
        return self.state

    def stop(self, after_s: float | None = None) -> float:
        """What was sent last."""
        return self.state


def make_limiter(dimension: ActionDimension, period_s: float) -> MotionLimiter | RateLimiter | None:
    """What limits how a dimension changes; None where nothing does."""
    if math.isfinite(dimension.acceleration):
        return MotionLimiter(dimension, period_s)
    return RateLimiter(dimension, period_s) if math.isfinite(dimension.velocity) else None


class ActionMotion:
    """All dimensions of an action that have motion limits; the others pass."""

    def __init__(self, dimensions: tuple[ActionDimension, ...], rate_hz: float) -> None:
        self._period_s = 1 / rate_hz
        found = {i: make_limiter(dimension, self._period_s) for i, dimension in enumerate(dimensions)}
        self._limiters = {i: limiter for i, limiter in found.items() if limiter is not None}

    def __bool__(self) -> bool:
        return bool(self._limiters)

    @property
    def still(self) -> bool:
        """Whether nothing that was sent last is on its way anywhere."""
        return all(limiter.still for limiter in self._limiters.values())

    def start(self, action: Float64Array) -> None:
        """Stand still at an action (A,)."""
        for i, limiter in self._limiters.items():
            limiter.start(float(action[i]))

    def towards(self, action: Float64Array, after_s: float, shares: Float64Array | None = None) -> Float64Array:
        """What to send of an action (A,) that is within its limits, so long after the last.

        Args: shares: (A,), of its limits that each dimension may take, so that they go together; None: all.
        """
        sent = np.array(action, np.float64)
        for i, limiter in self._limiters.items():
            sent[i] = limiter.towards(float(action[i]), after_s, 1.0 if shares is None else float(shares[i]))
        return sent

    @property
    def state(self) -> dict[int, Any]:
        """All that what is sent next depends on; may be set again, to take back what was not sent."""
        return {i: limiter.state for i, limiter in self._limiters.items()}

    @state.setter
    def state(self, state: dict[int, Any]) -> None:
        for i, limiter in self._limiters.items():
            limiter.state = state[i]

    def way_to_rest(self, sent: Float64Array) -> Float64Array:
        """Targets (N, A) on the way to rest if all were stopped now, half a period apart. Args: sent: (A,), the first.

        Those without motion limits are as they were sent.
        """
        ways = {i: limiter.way_to_rest(self._period_s / 2) for i, limiter in self._limiters.items()}
        path = np.tile(sent, (max(map(len, ways.values()), default=1), 1))
        for i, way in ways.items():
            path[: len(way), i], path[len(way) :, i] = way, way[-1]
        return path

    def stop(
        self, action: Float64Array, after_s: float, holds_last: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
    ) -> Float64Array:
        """What to send to come to rest: targets stop where they can, speeds and deltas go down to 0.

        Args: action: what dimensions without motion limits hold, (A,); holds_last: which dimensions are targets, (A,).
        """
        sent = np.array(action, np.float64)
        for i, limiter in self._limiters.items():
            sent[i] = limiter.stop(after_s) if holds_last[i] else limiter.towards(0.0, after_s)
        return sent

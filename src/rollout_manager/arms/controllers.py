"""What stands between ROS messages and an arm's joints: two controllers as ros2_control has them.

The joint trajectory controller and the forward command controller of Jazzy's ros2_controllers, with what they refuse
and how they interpolate. Pure: no clock and no ROS. Times are integer ns, positions rad, velocities rad/s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from scipy.interpolate import BPoly

from rollout_manager.exceptions import CommandRefusedError
from vla_policy_node.messages import duration_ns, stamp_of
from vla_policy_node.observation import Float64Array

FLOAT32_EPSILON = float(np.finfo(np.float32).eps)


class Controller(Protocol):
    """Says where the joints are to be."""

    def command(self, message: Any, now_ns: int, measured: Float64Array) -> None:
        """Take a command. Raises: CommandRefusedError: it is refused; what was commanded before goes on.

        Args: measured: positions and velocities of the joints now, shape (2, J).
        """
        ...

    def target(self, now_ns: int) -> Float64Array:
        """Positions, shape (J,), that the joints are to have now."""
        ...


@dataclass(frozen=True)
class _Waypoint:
    at_ns: int
    derivatives: Float64Array
    """Position, and velocity and acceleration where the message gives them: shape (1 to 3, J)."""


class JointTrajectoryController:
    """Follows trajectories: `trajectory_msgs/JointTrajectory`, each of which replaces the one before."""

    def __init__(self, joints: Sequence[str], positions: Float64Array, open_loop: bool = False) -> None:
        """
        Args:
            joints: their names.
            positions: where they are, shape (J,).
            open_loop: a trajectory begins at what was commanded last, not at where the joints are measured. Servos lag
                behind, so that to begin where they are is a jump back each time: see docs/deployment.md.
        """
        self._joints, self._open_loop = tuple(joints), open_loop
        self._waypoints = [_Waypoint(0, positions[None].copy())]
        self._way: tuple[_Waypoint, BPoly] | None = None

    def command(self, message: Any, now_ns: int, measured: Float64Array) -> None:
        """Follow a trajectory from where the joints are now, or from what was commanded last.

        Args: measured: positions and velocities, shape (2, J).

        Raises:
            CommandRefusedError: as ros2_controllers refuses it; the trajectory before goes on.
        """
        start_ns = stamp_of(message) or now_ns
        self._check(message, start_ns, now_ns)
        order = [list(message.joint_names).index(name) for name in self._joints]
        waypoints = [_waypoint(point, start_ns, order) for point in message.points]
        start = self._state(now_ns)[:2] if self._open_loop else measured.copy()
        self._waypoints, self._way = [_Waypoint(now_ns, start), *waypoints], None

    def target(self, now_ns: int) -> Float64Array:
        """Linear between positions, cubic where both ends have velocities, quintic where they have accelerations."""
        return np.asarray(self._state(now_ns, 1)[0])

    def _state(self, now_ns: int, orders: int = 3) -> Float64Array:
        """Position, velocity and acceleration now, the first `orders` of them: shape (orders, J)."""
        for before, after in pairwise(self._waypoints):
            if now_ns < after.at_ns:
                if self._way is None or self._way[0] is not after:
                    self._way = after, _polynomial(before, after)
                time_s = max(0, now_ns - before.at_ns) / 1e9
                return np.stack([self._way[1](time_s, nu=order) for order in range(orders)])
        last = self._waypoints[-1].derivatives[0]
        return np.stack([last, np.zeros_like(last), np.zeros_like(last)])[:orders]

    def _check(self, message: Any, start_ns: int, now_ns: int) -> None:
        """As `validate_trajectory_msg` of joint_trajectory_controller.cpp does, in its order and in its words."""
        names = list(message.joint_names)
        if len(names) != len(self._joints):
            raise CommandRefusedError(
                f"joints on incoming trajectory don't match the controller joints: {len(names)} instead of "
                f"{len(self._joints)}"
            )
        if not len(message.points):
            raise CommandRefusedError("empty trajectory received")
        ends_ns = start_ns + duration_ns(message.points[-1].time_from_start)
        if stamp_of(message) and ends_ns < now_ns:
            raise CommandRefusedError(
                f"trajectory with non-zero start time ends in the past, {(now_ns - ends_ns) / 1e6:.0f} ms ago"
            )
        if wrong := [name for name in names if name not in self._joints]:
            raise CommandRefusedError(f"incoming joint {wrong[0]} doesn't match the controller's joints")
        if repeated := [name for name in self._joints if names.count(name) != 1]:
            raise CommandRefusedError(f"joint {repeated[0]} is named {names.count(repeated[0])} times")
        for name, velocity in zip(names, message.points[-1].velocities, strict=False):
            if abs(velocity) > FLOAT32_EPSILON:
                raise CommandRefusedError(f"velocity of last trajectory point of joint {name} is not zero: {velocity}")
        for number, point in enumerate(message.points):
            _check_point(point, number, len(names))
        times = [duration_ns(point.time_from_start) for point in message.points]
        for i, (before, after) in enumerate(pairwise(times)):
            if after <= before:
                raise CommandRefusedError(f"time between points {i} and {i + 1} is not strictly increasing")


class ForwardCommandController:
    """Passes positions on at once: `std_msgs/Float64MultiArray`. Nothing limits how far they jump."""

    def __init__(self, joints: Sequence[str], positions: Float64Array) -> None:
        """Args: joints: their names; positions: where they are, shape (J,)."""
        self._joints = tuple(joints)
        self._target: Float64Array = positions.copy()

    def command(self, message: Any, now_ns: int, measured: Float64Array) -> None:
        """Raises: CommandRefusedError: another number of values than joints."""
        if len(message.data) != len(self._joints):
            raise CommandRefusedError(
                f"command size ({len(message.data)}) does not match number of interfaces ({len(self._joints)})"
            )
        self._target = np.array(message.data, np.float64)

    def target(self, now_ns: int) -> Float64Array:
        """What was commanded last."""
        return self._target


def _check_point(point: Any, number: int, joints: int) -> None:
    for field, needed in (("positions", True), ("velocities", False), ("accelerations", False)):
        count = len(getattr(point, field))
        if count != joints and (needed or count):
            raise CommandRefusedError(
                f"mismatch between joint_names size ({joints}) and {field} ({count}) at point #{number}"
            )
    if len(point.effort):
        raise CommandRefusedError("trajectories with effort fields are currently not supported")


def _waypoint(point: Any, start_ns: int, order: list[int]) -> _Waypoint:
    found = [point.positions]
    if len(point.velocities):
        found.append(point.velocities)
        if len(point.accelerations):
            found.append(point.accelerations)
    derivatives = np.array([np.asarray(values, np.float64)[order] for values in found])
    return _Waypoint(start_ns + duration_ns(point.time_from_start), derivatives)


def _polynomial(before: _Waypoint, after: _Waypoint) -> BPoly:
    """From one waypoint to the next, by seconds since the first, through all that both of them say."""
    known = min(len(before.derivatives), len(after.derivatives))
    seconds = (after.at_ns - before.at_ns) / 1e9
    return BPoly.from_derivatives([0.0, seconds], [before.derivatives[:known], after.derivatives[:known]])

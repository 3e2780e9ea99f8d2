"""The stand-in arm's controllers: arithmetic of their interpolation, and what ros2_control refuses."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from episodes import MAKE
from hypothesis import given
from hypothesis import strategies as st

from rollout_manager.arms.controllers import ForwardCommandController, JointTrajectoryController
from rollout_manager.exceptions import CommandRefusedError
from vla_policy_node.messages import make_header, vector_to_message

MS = 1_000_000
JOINTS = ("a", "b")
REST = np.zeros((2, 2))


def point(
    after_ms: int, positions: Sequence[float], velocities: Sequence[float] = (), **fields: Sequence[float]
) -> Any:
    seconds, rest = divmod(after_ms * MS, 1_000_000_000)
    given_fields = {"positions": positions, "velocities": velocities, "accelerations": (), "effort": (), **fields}
    return MAKE(
        "trajectory_msgs/msg/JointTrajectoryPoint",
        time_from_start=MAKE("builtin_interfaces/msg/Duration", sec=seconds, nanosec=rest),
        **{name: np.array(values, np.float64) for name, values in given_fields.items()},
    )


def trajectory(*points: Any, names: Sequence[str] = JOINTS, stamp_ns: int = 0) -> Any:
    header = make_header(MAKE, stamp_ns, "")
    kind = "trajectory_msgs/msg/JointTrajectory"
    return MAKE(kind, header=header, joint_names=list(names), points=list(points))


def controller() -> JointTrajectoryController:
    return JointTrajectoryController(JOINTS, np.zeros(2))


def at(arm: JointTrajectoryController, now_ms: float) -> list[float]:
    return [round(float(x), 9) for x in arm.target(round(now_ms * MS))]


def test_positions_alone_are_joined_by_lines_and_the_last_is_held() -> None:
    arm = controller()
    arm.command(trajectory(point(100, [1.0, -2.0]), point(200, [1.0, 0.0])), 1000 * MS, REST)
    assert at(arm, 1000) == [0.0, 0.0]
    assert at(arm, 1050) == [0.5, -1.0]
    assert at(arm, 1150) == [1.0, -1.0]
    assert at(arm, 9000) == [1.0, 0.0]


def test_with_velocities_at_both_ends_it_is_a_cubic_by_hand() -> None:
    # From 0 at rest to 1 at rest in T: 3 s^2 - 2 s^3 with s = t / T.
    arm = controller()
    arm.command(trajectory(point(200, [1.0, 0.0], [0.0, 0.0])), 0, REST)
    assert at(arm, 50)[0] == pytest.approx(3 * 0.25**2 - 2 * 0.25**3)
    assert at(arm, 100)[0] == pytest.approx(0.5)


def test_names_in_another_order_are_the_same_command() -> None:
    arm = controller()
    arm.command(trajectory(point(100, [5.0, 7.0]), names=("b", "a")), 0, REST)
    assert at(arm, 100) == [7.0, 5.0]


def test_a_new_trajectory_begins_where_the_joints_are_measured() -> None:
    arm = controller()
    arm.command(trajectory(point(100, [1.0, 1.0])), 0, REST)
    arm.command(trajectory(point(100, [1.0, 1.0])), 50 * MS, np.array([[0.3, 0.4], [0.0, 0.0]]))
    assert at(arm, 50) == [0.3, 0.4]
    assert at(arm, 100) == [0.65, 0.7]


def test_in_open_loop_it_begins_at_what_was_commanded() -> None:
    arm = JointTrajectoryController(JOINTS, np.zeros(2), open_loop=True)
    arm.command(trajectory(point(100, [1.0, 1.0])), 0, REST)
    arm.command(trajectory(point(100, [1.0, 1.0])), 50 * MS, np.array([[0.3, 0.4], [0.0, 0.0]]))
    assert at(arm, 50) == [0.5, 0.5]
    assert at(arm, 100) == [0.75, 0.75]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (trajectory(point(100, [1.0]), names=("a",)), "don't match the controller joints: 1 instead of 2"),
        (trajectory(), "empty trajectory"),
        (trajectory(point(100, [1.0, 1.0]), names=("a", "c")), "incoming joint c doesn't match"),
        (trajectory(point(100, [1.0, 1.0]), names=("a", "a")), "joint a is named 2 times"),
        (trajectory(point(100, [1.0])), r"size \(2\) and positions \(1\) at point #0"),
        (trajectory(point(100, [1.0, 1.0], [0.0])), r"size \(2\) and velocities \(1\) at point #0"),
        (trajectory(point(100, [1.0, 1.0], effort=[1.0, 1.0])), "effort fields are currently not supported"),
        (trajectory(point(100, [1.0, 1.0], [0.0, 0.1])), "last trajectory point of joint b is not zero: 0.1"),
        (trajectory(point(100, [1.0, 1.0]), point(100, [2.0, 2.0])), "points 0 and 1 is not strictly increasing"),
        (trajectory(point(100, [1.0, 1.0]), stamp_ns=5 * MS), "ends in the past, 895 ms ago"),
    ],
)
def test_what_ros2_control_refuses_is_refused_and_the_old_motion_goes_on(message: Any, why: str) -> None:
    arm = controller()
    arm.command(trajectory(point(100, [1.0, 1.0])), 950 * MS, REST)
    with pytest.raises(CommandRefusedError, match=why):
        arm.command(message, 1000 * MS, REST)
    assert at(arm, 1000) == [0.5, 0.5]


def test_a_forward_command_jumps_and_its_size_must_fit() -> None:
    arm = ForwardCommandController(JOINTS, np.zeros(2))
    arm.command(vector_to_message(MAKE, np.array([3.0, 4.0])), 0, REST)
    assert arm.target(0).tolist() == [3.0, 4.0]
    with pytest.raises(CommandRefusedError, match=r"command size \(3\) does not match number of interfaces \(2\)"):
        arm.command(vector_to_message(MAKE, np.zeros(3)), 0, REST)
    assert arm.target(1).tolist() == [3.0, 4.0]


FLOATS = st.lists(st.floats(-3, 3), min_size=2, max_size=2)


@given(st.lists(FLOATS, min_size=1, max_size=5), FLOATS)
def test_waypoints_are_met_and_lines_stay_between_them(waypoints: list[list[float]], start: list[float]) -> None:
    arm = controller()
    points = [point(100 * (i + 1), positions) for i, positions in enumerate(waypoints)]
    arm.command(trajectory(*points), 0, np.array([start, [0.0, 0.0]]))
    through: npt.NDArray[np.float64] = np.array([start, *waypoints])
    for i, positions in enumerate(through):
        np.testing.assert_allclose(arm.target(100 * i * MS), positions, atol=1e-9)
    for i in range(10 * len(waypoints)):
        before, after = through[i // 10], through[i // 10 + 1]
        found = arm.target(10 * i * MS)
        assert (found >= np.minimum(before, after) - 1e-9).all()
        assert (found <= np.maximum(before, after) + 1e-9).all()

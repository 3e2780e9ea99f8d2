"""Commands: float32 actions pass through ROS exactly, dimensions are mapped by name, and the rest is refused."""

from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vla_policy_node.commands import action_from_message, action_to_message, chunk_from_message, chunk_to_message
from vla_policy_node.exceptions import MessageError
from vla_policy_node.messages import rosbags_maker, stamp_of, typestore
from vla_policy_node.policy import ActionChunk
from vla_policy_node.spec import load_spec

MAKE = rosbags_maker()
SPEC = load_spec("metaworld")
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
ACTION = np.array([0.1, -0.2, 0.3, 1.0], np.float32)

floats32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def over_the_wire(message: Any) -> Any:
    return typestore().deserialize_cdr(bytes(typestore().serialize_cdr(message, TRAJECTORY)), TRAJECTORY)


@settings(deadline=None)
@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.just(4)), elements=floats32), st.integers(0, 2**60))
def test_chunks_come_back_bit_for_bit(actions: np.ndarray[Any, Any], stamp: int) -> None:
    back = chunk_from_message(SPEC, over_the_wire(chunk_to_message(MAKE, SPEC, ActionChunk(stamp, actions))))
    assert back.stamp_ns == stamp
    assert back.actions.dtype == np.float32
    np.testing.assert_array_equal(back.actions, actions)


@given(hnp.arrays(np.float32, 4, elements=floats32))
def test_actions_come_back_bit_for_bit(action: np.ndarray[Any, Any]) -> None:
    stamp, back = action_from_message(SPEC, over_the_wire(action_to_message(MAKE, SPEC, 12_345, action)))
    assert stamp == 12_345
    np.testing.assert_array_equal(back, action)


def test_points_follow_each_other_at_the_robots_rate() -> None:
    """At 80 Hz a period is 12.5 ms: point 81 is 1.0125 s after the observation."""
    message = chunk_to_message(MAKE, SPEC, ActionChunk(5, np.zeros((82, 4), np.float32)))
    times = [(p.time_from_start.sec, p.time_from_start.nanosec) for p in message.points]
    assert (times[0], times[1], times[81]) == ((0, 0), (0, 12_500_000), (1, 12_500_000))
    assert list(message.joint_names) == ["hand_dx", "hand_dy", "hand_dz", "gripper"]
    assert (stamp_of(message), message.header.frame_id) == (5, "world")


def test_dimensions_in_any_order_are_mapped_by_name() -> None:
    message = action_to_message(MAKE, SPEC, 1, ACTION)
    for order in permutations(range(4)):
        names = [SPEC.action_names[i] for i in order]
        point = replace(message.points[0], positions=ACTION.astype(np.float64)[list(order)])
        shuffled = replace(message, joint_names=names, points=[point])
        np.testing.assert_array_equal(action_from_message(SPEC, over_the_wire(shuffled))[1], ACTION)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["hand_dx", "hand_dy", "hand_dz"], "'gripper' is missing; valid are hand_dx, hand_dy, hand_dz, gripper"),
        (["hand_dx", "hand_dy", "hand_dz", "gripper", "elbow"], "'elbow' is unknown"),
        (["hand_dx", "hand_dx", "hand_dz", "gripper"], "'hand_dy' is missing, 'hand_dx' appears 2 times"),
        ([], "'hand_dx' is missing"),
    ],
)
def test_other_dimensions_are_refused_by_name(names: list[str], said: str) -> None:
    message = replace(action_to_message(MAKE, SPEC, 1, ACTION), joint_names=names)
    with pytest.raises(MessageError, match=said):
        action_from_message(SPEC, message)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_both_ways(value: float) -> None:
    bad = ACTION.copy()
    bad[2] = value
    with pytest.raises(MessageError, match=f"action 'hand_dz' is {value} at point 0"):
        action_to_message(MAKE, SPEC, 1, bad)
    message = action_to_message(MAKE, SPEC, 1, ACTION)
    message.points[0].positions[2] = value
    with pytest.raises(MessageError, match="action 'hand_dz' is"):
        action_from_message(SPEC, message)


def test_a_value_beyond_float32_is_refused() -> None:
    message = action_to_message(MAKE, SPEC, 1, ACTION)
    message.points[0].positions[0] = 1e300
    with pytest.raises(MessageError, match="'hand_dx' is inf"):
        action_from_message(SPEC, message)


def test_shapes_are_checked() -> None:
    with pytest.raises(MessageError, match=r"actions of shape \(1, 3\), but robot 'metaworld' has \(H, 4\)"):
        action_to_message(MAKE, SPEC, 1, ACTION[:3])
    with pytest.raises(MessageError, match=r"shape \(0, 4\)"):
        chunk_to_message(MAKE, SPEC, ActionChunk(1, np.zeros((0, 4), np.float32)))
    message = chunk_to_message(MAKE, SPEC, ActionChunk(1, np.zeros((2, 4), np.float32)))
    with pytest.raises(MessageError, match="command with 2 points; an action has exactly 1"):
        action_from_message(SPEC, message)
    with pytest.raises(MessageError, match="trajectory without points"):
        chunk_from_message(SPEC, replace(message, points=[]))
    short = replace(message.points[1], positions=np.zeros(3))
    with pytest.raises(MessageError, match="point 1 has 3 positions for 4 dimensions"):
        chunk_from_message(SPEC, replace(message, points=[message.points[0], short]))

"""The last gate: finite and within limits whatever comes in, and the spec's hold rules."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_robot import ROBOT

from vla_policy_node.action_spec import ActionDimension
from vla_policy_node.exceptions import SpecError
from vla_policy_node.observation import Float32Array
from vla_policy_node.safety import LimitMode, SafetyFilter


def f32(values: list[float]) -> Float32Array:
    return np.array(values, np.float32)


ANY_NUMBER = st.floats(allow_nan=True, allow_infinity=True)
ANYTHING = st.one_of(
    st.none(),
    st.lists(ANY_NUMBER, max_size=5),
    st.lists(ANY_NUMBER, min_size=3, max_size=3),
    st.lists(st.floats(-2, 2), min_size=3, max_size=3).map(lambda v: np.array(v, np.float32)),
    st.text(max_size=3),
    st.just(object()),
    st.just([10**400, 0, 0]),
    st.just([[0.0, 0.0, 0.0]]),
)


@given(st.sampled_from(["clamp", "reject"]), st.lists(ANYTHING, max_size=8))
def test_whatever_comes_in_the_output_is_finite_and_within_limits(mode: LimitMode, inputs: list[Any]) -> None:
    gate = SafetyFilter(ROBOT, mode)
    for given_action in inputs:
        command = gate.check(given_action)
        assert command.action.dtype == np.float32
        assert command.action.shape == (3,)
        assert np.isfinite(command.action).all()
        assert (command.action >= ROBOT.action_low).all()
        assert (command.action <= ROBOT.action_high).all()
        assert command.reasons or not command.held


@given(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3))
def test_an_action_within_limits_passes_bit_for_bit(share: list[float]) -> None:
    action = np.clip(
        ROBOT.action_low + np.array(share, np.float32) * (ROBOT.action_high - ROBOT.action_low),
        ROBOT.action_low,
        ROBOT.action_high,
    )
    command = SafetyFilter(ROBOT, "reject").check(action)
    assert not command.held
    assert command.reasons == ()
    np.testing.assert_array_equal(command.action, action)


def test_clamp_moves_to_the_limit_and_says_so() -> None:
    command = SafetyFilter(ROBOT).check([0.75, -3.0, 0.5])
    np.testing.assert_array_equal(command.action, f32([0.5, -2.0, 0.5]))
    assert not command.held
    assert command.reasons == ("action: up 0.75 is beyond its limit 0.5", "action: turn -3 is beyond its limit -2")


def test_reject_holds_instead() -> None:
    gate = SafetyFilter(ROBOT, "reject")
    gate.check([0.1, 0.2, 0.75])
    command = gate.check([0.75, 0.0, 0.0])
    assert command.held
    # Velocities stop, the gripper stays as it was sent.
    np.testing.assert_array_equal(command.action, f32([0, 0, 0.75]))


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (None, "action: none"),
        ([np.nan, 0, np.inf], "action: up is not finite"),
        ([0.0, 0.0], r"shape \(2,\), robot 'small' takes 3"),
        ("stop", "not a vector of numbers"),
    ],
)
def test_what_cannot_be_sent_is_held_with_its_reason(bad: Any, why: str) -> None:
    gate = SafetyFilter(ROBOT)
    gate.check([0.1, 0.2, 0.25])
    command = gate.check(bad)
    assert command.held
    assert re.search(why, command.reasons[0])
    np.testing.assert_array_equal(command.action, f32([0, 0, 0.25]))


def test_a_reason_holds_whatever_the_action() -> None:
    gate = SafetyFilter(ROBOT)
    command = gate.check([0.1, 0.1, 0.1], ["camera 'front': 300 ms old"])
    assert (command.held, command.reasons) == (True, ("camera 'front': 300 ms old",))
    assert gate.hold(["shutting down"]).reasons == ("shutting down",)


def test_reset_says_what_counts_as_sent_last() -> None:
    gate = SafetyFilter(ROBOT)
    gate.check([0, 0, 1.0])
    gate.reset()
    assert gate.check(None).action[2] == 0
    gate.reset(f32([0.4, 0.4, 0.6]))
    np.testing.assert_array_equal(gate.check(None).action, f32([0, 0, 0.6]))
    gate.reset(f32([np.nan, 0, np.nan]))
    assert gate.check(None).action[2] == 0


def test_zero_outside_the_limits_holds_at_the_nearest_limit() -> None:
    robot = replace(ROBOT, action=(ActionDimension("speed", "m/s", 0.5, 1.0),))
    assert SafetyFilter(robot).check(None).action[0] == 0.5


def test_what_is_sent_cannot_be_changed_from_outside() -> None:
    gate = SafetyFilter(ROBOT)
    gate.check([0, 0, 0.5]).action[:] = np.nan
    assert gate.check(None).action[2] == 0.5


def test_an_unlimited_dimension_still_gives_finite_commands() -> None:
    robot = replace(ROBOT, action=(ActionDimension("torque", "Nm", float("-inf"), float("inf")),))
    assert np.isfinite(SafetyFilter(robot).check([1e300]).action).all()


def test_unknown_mode() -> None:
    with pytest.raises(SpecError, match="'soft' is not one of clamp, reject"):
        SafetyFilter(ROBOT, "soft")  # type: ignore[arg-type]

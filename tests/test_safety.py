"""The last gate: finite and within limits whatever comes in, and the spec's hold rules."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motion_checks import MODES, SWITCHES, Switches
from small_robot import ROBOT

from vla_policy_node.action_spec import ActionDimension
from vla_policy_node.exceptions import SpecError
from vla_policy_node.limit_switches import Limit, LimitMode
from vla_policy_node.observation import Float32Array
from vla_policy_node.safety import SafetyFilter, travelling
from vla_policy_node.spec import RobotSpec


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


@given(MODES, SWITCHES, st.lists(ANYTHING, max_size=8))
def test_whatever_comes_in_the_output_is_finite_and_within_limits(
    mode: LimitMode, switches: Switches, inputs: list[Any]
) -> None:
    gate = SafetyFilter(replace(ROBOT, limits=switches), mode)
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


def arm(**changes: Any) -> RobotSpec:
    """Two joints of [-1, 1] rad that stand at 0; the second may go 2 rad/s at 10 Hz, and be led by 0.3 rad."""
    free = ActionDimension("a", "rad", -1, 1, "last", joint="elbow")
    kept = ActionDimension("b", "rad", -1, 1, "last", joint="grip", velocity=2.0, lead=0.3)
    return replace(ROBOT, action=(free, kept), **changes)


STANDS = f32([0.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("limit", "action", "why"),
    [
        ("position", [1.5, 0.0], "action: a 1.5 is beyond its limit 1"),
        ("lead", [0.0, 0.4], "action: b 0.4 is more than 0.3 from grip at 0"),
        ("velocity", [0.0, 0.25], "motion: b asks for 2.5 rad a second, more than 2"),
    ],
)
def test_each_limit_has_a_switch_of_its_own(limit: str, action: list[float], why: str) -> None:
    others: list[Limit] = ["position", "lead", "velocity"]
    reject = {limit: "reject"} | {other: "clamp" for other in others if other != limit}
    command = SafetyFilter(arm(limits=reject)).check(action, (), STANDS)
    assert command.held
    assert why in command.reasons
    np.testing.assert_array_equal(command.action, f32([0, 0]))
    clamp = {other: "reject" for other in others if other != limit} | {limit: "clamp"}
    if limit == "lead":  # What it is moved to is too far for a period as well.
        clamp["velocity"] = "clamp"
    assert not SafetyFilter(arm(limits=clamp)).check(action, (), STANDS).held


def test_the_one_switch_is_for_what_the_file_does_not_name_and_for_places_only() -> None:
    gate = SafetyFilter(arm(limits={"position": "clamp"}), "reject")
    assert not gate.check([1.5, 0.0], (), STANDS).held
    assert gate.check([0.0, 0.4], (), STANDS).held
    assert not gate.check([0.0, 0.25], (), STANDS).held, "too fast is gone to more slowly"


def test_what_is_too_fast_is_counted_from_what_was_sent_and_over_a_period_at_least() -> None:
    spec = arm(limits={"velocity": "reject"})
    gate, tick = SafetyFilter(spec), spec.period_ns
    assert not gate.check([0.0, 0.2], (), STANDS, 0).held
    assert gate.check([0.0, 0.45], (), f32([0, 0, 0.2]), tick).held
    early = gate.check([0.0, 0.4], (), f32([0, 0, 0.2]), tick + tick // 2)
    assert not early.held, "a tick that is early has the same action"
    assert early.action[1] == pytest.approx(0.3), "of which it sends what its time allows"
    assert not gate.check([0.0, 0.6], (), f32([0, 0, 0.3]), 3 * tick + tick // 2).held, "after two periods 0.4"


def test_a_robot_that_is_sent_far_at_once_goes_there() -> None:
    spec = arm(limits={"velocity": "reject", "lead": "reject"})
    assert SafetyFilter(spec).check([0.0, 0.29], (), STANDS).held
    assert not SafetyFilter(travelling(spec)).check([0.0, 0.29], (), STANDS).held
    assert travelling(spec).limits["lead"] == "reject"


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({"speed": "reject"}, "limits 'speed' is not one of position, velocity, acceleration, jerk, lead, workspace"),
        ({"lead": "soften"}, "limits: lead 'soften' is not one of clamp, reject"),
        ({"jerk": "reject"}, "limits: jerk can only clamp: an action says where"),
        ({"acceleration": "reject"}, "limits: acceleration can only clamp"),
        ("reject", "limits 'reject' is not limits with clamp or reject"),
    ],
)
def test_a_wrong_switch_is_refused(limits: Any, why: str) -> None:
    with pytest.raises(SpecError, match=f"robot 'small': {why}"):
        replace(ROBOT, limits=limits)
    with pytest.raises(SpecError, match=why):
        RobotSpec.from_dict(ROBOT.to_dict() | {"limits": limits})


def test_switches_are_read_from_a_file_and_make_no_other_robot() -> None:
    switched = RobotSpec.from_dict(ROBOT.to_dict() | {"limits": {"position": "reject", "jerk": "clamp"}})
    assert switched.limits == {"position": "reject", "jerk": "clamp"}
    assert switched.digest == ROBOT.digest

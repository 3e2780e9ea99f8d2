"""The way home: within every limit, to where the joints are measured there, and never without an end."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_policy_node.action_spec import ActionDimension
from vla_policy_node.exceptions import PolicyNodeError, SpecError
from vla_policy_node.homing import SETTLED_NS, Homing
from vla_policy_node.limit_switches import LimitMode
from vla_policy_node.observation import Float64Array, Joints
from vla_policy_node.safety import SafetyFilter, travelling
from vla_policy_node.spec import NANOSECONDS, ProprioceptionField, RobotSpec, load_spec

LIMITED = ActionDimension("a", "rad", -2, 2, "last", velocity=0.8, acceleration=4.0, jerk=60.0, joint="a", lead=0.3)
ARM = RobotSpec(
    name="arm",
    rate_hz=30.0,
    cameras=(),
    proprioception=tuple(ProprioceptionField(n, "joint_position", n, "rad") for n in "ab"),
    action=(LIMITED, replace(LIMITED, name="b", joint="b", velocity=0.5)),
    home={"a": -0.5, "b": 1.25},
)
PERIOD_S = ARM.period_ns / NANOSECONDS


def go_home(spec: RobotSpec, start: Float64Array, lag: float, seconds: float) -> tuple[Homing, Float64Array]:
    """The way from where the joints are, with servos that follow with a lag (share a period); what was sent (T, A)."""
    safety, at, sent = SafetyFilter(spec), start.copy(), []
    homing = Homing(spec, safety, 0, round(seconds * NANOSECONDS))
    now = 0
    while homing.state == "going":
        homing.joints(now, Joints(spec.joint_names, at.copy()))
        command = homing.step(now)
        assert command is not None
        sent.append(command.action.astype(np.float64))
        at = at + (sent[-1] - at) * lag
        now += spec.period_ns
    return homing, np.array(sent)


@settings(max_examples=60, deadline=None)
@given(a=st.floats(-2, 2), b=st.floats(-2, 2), lag=st.floats(0.3, 1.0))
def test_from_anywhere_it_comes_home_within_its_limits(a: float, b: float, lag: float) -> None:
    homing, sent = go_home(ARM, np.array([a, b]), lag, 30.0)
    assert homing.state == "home", homing.reason
    assert np.abs(sent[-1] - [-0.5, 1.25]).max() < 0.02
    # What is sent is float32: a step is exact to 2^-23 of a position of up to 2.
    rounding = 3e-7
    for k, dimension in enumerate(ARM.action):
        way = np.concatenate([[sent[0, k]], sent[:, k]])
        speed = np.diff(way) / PERIOD_S
        assert np.abs(speed).max() <= dimension.velocity + 2 * rounding / PERIOD_S
        assert np.abs(np.diff(speed)).max() / PERIOD_S <= dimension.acceleration + 4 * rounding / PERIOD_S**2
        assert (way >= -2).all()
        assert (way <= 2).all()


def test_its_time_is_that_of_the_slowest_joint() -> None:
    """1.5 rad at 0.5 rad/s take 3 s, and at 4 rad/s^2 an eighth of a second more to get up to it and come to rest."""
    homing, sent = go_home(ARM, np.array([-0.5, -0.25]), 1.0, 10.0)
    assert homing.state == "home"
    took = len(sent) * PERIOD_S - SETTLED_NS / NANOSECONDS
    assert 3.1 < took < 3.4
    assert np.abs(sent[:, 0] + 0.5).max() < 1e-6, "a joint that is home stays there"


def test_an_arm_that_is_blocked_is_not_pushed_and_fails_with_where_it_is() -> None:
    safety = SafetyFilter(ARM)
    homing = Homing(ARM, safety, 0, 2 * NANOSECONDS)
    for now in range(0, 3 * NANOSECONDS, ARM.period_ns):
        homing.joints(now, Joints(("a", "b"), np.array([0.4, 1.25])))
        command = homing.step(now)
        assert command is not None
        assert abs(command.action[0] - 0.4) <= 0.3, "never further than its lead"
    assert (homing.state, homing.reason) == ("failed", "not home within 2 s: a is at 0.400, home -0.500 rad")


@pytest.mark.parametrize("mode", ["clamp", "reject"])
def test_the_way_is_the_same_however_the_filter_takes_what_is_too_far(mode: LimitMode) -> None:
    spec = replace(ARM, action=(ARM.action[0], replace(ARM.action[1], high=0.7)), home={"a": -0.5, "b": 0.7})
    assert float(spec.action_high[1]) < 0.7, "home is on a limit that float32 cannot hold"
    safety = SafetyFilter(travelling(replace(spec, limits={"velocity": mode})), mode)
    homing, at = Homing(spec, safety, 0, 20 * NANOSECONDS), np.array([1.5, -1.5])
    for now in range(0, 10 * NANOSECONDS, ARM.period_ns):
        homing.joints(now, Joints(("a", "b"), at))
        command = homing.step(now)
        assert command is not None
        assert not (command.held and command.reasons)
        at = command.action.astype(np.float64)
    assert homing.state == "home"


def test_a_stop_ends_it_and_silence_sends_nothing() -> None:
    homing = Homing(ARM, SafetyFilter(ARM), 0, NANOSECONDS)
    assert homing.step(0) is None, "it is not known where the arm is"
    homing.joints(1, Joints(("a", "b"), np.array([0.4, 1.0])))
    assert homing.step(1) is not None
    command = homing.step(2, ("e-stop: pressed",))
    assert command is not None
    assert command.held
    assert (homing.state, homing.reason) == ("failed", "e-stop: pressed")


def test_what_has_no_home_stays_where_it_is() -> None:
    spec = replace(ARM, home={"b": 0.0})
    homing, sent = go_home(spec, np.array([0.7, -0.4]), 1.0, 10.0)
    assert homing.state == "home"
    assert np.abs(sent[:, 0] - 0.7).max() < 1e-6


@pytest.mark.parametrize(
    ("home", "says"),
    [
        ({"c": 0.0}, "home 'c' is not one of a, b"),
        ({"a": 2.5}, r"home: a 2.5 is not within its limits \[-2, 2\] rad"),
        ({"a": "up"}, "home: a 'up' is not within"),
        ([0.0], r"home \[0.0\] is not joints with their positions"),
    ],
)
def test_a_home_that_cannot_be_is_refused(home: object, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        replace(ARM, home=home)  # type: ignore[arg-type]


def test_by_joint_or_by_dimension_but_not_by_both() -> None:
    panda = load_spec("panda")
    assert replace(panda, home={"joint_2": -0.4}).home == {"joint_2": -0.4}
    with pytest.raises(SpecError, match="home of 'joint_2' is given twice"):
        replace(panda, home={"joint_2": -0.4, "panda_joint2": -0.4})
    with pytest.raises(PolicyNodeError, match="robot 'panda' has no home"):
        Homing(replace(panda, home={}), SafetyFilter(panda), 0, 1)


def test_a_home_changes_no_digest() -> None:
    assert replace(ARM, home={}).digest == ARM.digest
    assert RobotSpec.from_dict(ARM.to_dict()) == ARM

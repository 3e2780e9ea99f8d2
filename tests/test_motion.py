"""Motion limits: whatever is asked for, what is sent can be followed, and can be stopped within the limits."""

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motion_checks import MODES, SWITCHES, Switches, check_limits
from small_robot import ROBOT

from vla_policy_node.action_spec import ActionDimension
from vla_policy_node.exceptions import SpecError
from vla_policy_node.limit_switches import LimitMode
from vla_policy_node.motion import MotionLimiter
from vla_policy_node.safety import SafetyFilter
from vla_policy_node.spec import RobotSpec

PERIOD = 1 / 30
Floats = npt.NDArray[np.float64]


def joint(velocity: float = 2.0, acceleration: float = 10.0, jerk: float = 500.0, lead: float = math.inf) -> RobotSpec:
    """A robot of one joint in [-1, 1] rad that is commanded by position, at 30 Hz."""
    dimension = ActionDimension(
        "a", "rad", -1, 1, "last", velocity=velocity, acceleration=acceleration, jerk=jerk, joint="elbow", lead=lead
    )
    return replace(ROBOT, rate_hz=30.0, action=(dimension,))


def seen(elbow: float) -> npt.NDArray[np.float32]:
    """Proprioception of `ROBOT` with its elbow there."""
    return np.array([0.0, elbow, 0.0], np.float32)


COMMANDS = st.lists(
    st.one_of(st.none(), st.floats(-5, 5), st.just(math.nan), st.sampled_from([-1.0, 1.0])), min_size=1, max_size=60
)
LIMIT = st.floats(-0.5, 2).map(lambda x: 10**x)


JERK = st.one_of(st.just(math.inf), st.floats(1, 4).map(lambda x: 10**x))


@settings(deadline=None)
@given(COMMANDS, LIMIT, LIMIT, JERK, st.floats(-1, 1), MODES, SWITCHES)
def test_no_sequence_of_inputs_makes_a_command_leave_the_limits(
    commands: list[float | None],
    velocity: float,
    acceleration: float,
    jerk: float,
    start: float,
    mode: LimitMode,
    switches: Switches,
) -> None:
    spec = replace(joint(velocity, acceleration, jerk), limits=switches)
    gate = SafetyFilter(spec, mode)
    sent = [start]
    for wanted in commands:
        sent.append(float(gate.check(None if wanted is None else [wanted], (), seen(start)).action[0]))
    for _ in range(5):
        sent.append(float(gate.hold(("stopped",)).action[0]))
    check_limits(np.array(sent, np.float64), spec.action[0], PERIOD)


@settings(deadline=None)
@given(COMMANDS, st.sampled_from([-3.0, 2.0]), st.floats(0.05, 0.95))
def test_limits_that_leave_out_0_are_kept_as_any(commands: list[float | None], low: float, share: float) -> None:
    spec = replace(ROBOT, rate_hz=30.0, action=(replace(joint().action[0], low=low, high=low + 1),))
    gate = SafetyFilter(spec)
    sent = [low + share]
    for wanted in commands:
        asked = None if wanted is None else [low + 0.5 + wanted]
        sent.append(float(gate.check(asked, (), seen(low + share)).action[0]))
    check_limits(np.array(sent, np.float64), spec.action[0], PERIOD)


def test_a_joint_whose_limits_leave_out_0_moves_as_one_around_0() -> None:
    """The Panda's fourth joint goes from -3.07 to -0.07 rad."""
    around, apart = (
        MotionLimiter(joint().action[0], PERIOD),
        MotionLimiter(replace(joint().action[0], low=-3, high=-1), PERIOD),
    )
    around.start(0.3)
    apart.start(-1.7)
    for target in (0.5, 0.5, 0.1, -0.8, -1.0, -1.0, 0.9, 0.9, 1.0):
        assert apart.towards(target - 2) == pytest.approx(around.towards(target) - 2, abs=1e-9)
    assert apart.stop() == pytest.approx(around.stop() - 2, abs=1e-9)


@settings(deadline=None)
@given(COMMANDS, st.floats(-1, 1))
def test_a_hold_comes_to_rest_and_stays_there(commands: list[float | None], start: float) -> None:
    gate = SafetyFilter(joint())
    for wanted in commands:
        gate.check(None if wanted is None else [wanted], (), seen(start))
    # From 2 rad/s at 10 rad/s^2 it takes 0.2 s, and 0.04 s for the acceleration to rise and fall.
    held = [gate.hold(("stopped",)) for _ in range(12)]
    assert all(command.held and command.reasons == ("stopped",) for command in held)
    assert len({float(command.action[0]) for command in held[-4:]}) == 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.one_of(st.none(), st.floats(-5, 5))), min_size=1, max_size=40), LIMIT)
def test_ticks_that_come_early_do_not_make_it_faster(ticks: list[tuple[int, float | None]], velocity: float) -> None:
    spec = joint(velocity)
    gate = SafetyFilter(spec)
    gate.check([0.0], (), seen(0.0), 0)
    now, last = 0, 0.0
    for wait_ms, wanted in ticks:
        now += wait_ms * 1_000_000
        command = gate.check(None if wanted is None else [wanted], (), seen(last), now)
        moved = abs(float(command.action[0]) - last)
        assert moved <= velocity * max(0.001, min(PERIOD, wait_ms / 1000)) * 1.0001 + 1e-6
        last = float(command.action[0])


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-1, 1), st.sampled_from([0.05, 0.3, 1.0])), min_size=1, max_size=60), LIMIT, LIMIT)
def test_a_share_of_the_limits_breaks_none_of_them(
    targets: list[tuple[float, float]], velocity: float, acceleration: float
) -> None:
    dimension = joint(velocity, acceleration).action[0]
    limiter = MotionLimiter(dimension, PERIOD)
    limiter.start(0.2)
    sent = [0.2] + [limiter.towards(target, None, share) for target, share in targets]
    check_limits(np.array(sent + [limiter.stop() for _ in range(5)], np.float64), dimension, PERIOD)


def test_a_motion_within_the_limits_is_followed_without_lag() -> None:
    limiter = MotionLimiter(joint().action[0], PERIOD)
    limiter.start(0.0)
    wanted = 0.5 * np.sin(2 * np.pi * 0.2 * PERIOD * np.arange(300))
    errors = np.array([limiter.towards(float(x)) for x in wanted]) - wanted
    assert np.abs(errors[60:]).max() < 1e-6


def test_a_step_is_gone_to_as_fast_as_allowed_by_hand() -> None:
    # 0.5 rad at 10 rad/s^2 without a limit of jerk: half the way takes sqrt(0.5 / 10) = 0.2236 s, 6.7 periods.
    limiter = MotionLimiter(joint(jerk=math.inf).action[0], PERIOD)
    limiter.start(0.0)
    positions = [limiter.towards(0.5) for _ in range(16)]
    assert positions[0] == pytest.approx(0.5 * 10 * PERIOD**2)
    assert positions[6] < 0.25 + 0.02
    assert positions[13] == pytest.approx(0.5, abs=1e-3)
    assert positions[-1] == pytest.approx(0.5, abs=1e-9)


def test_what_has_no_motion_limits_passes_as_it_is() -> None:
    gate = SafetyFilter(ROBOT)
    assert gate.check([0.5, 4.0, 1.0]).action.tolist() == [0.5, 4.0, 1.0]
    assert gate.check([-0.5, -2.0, 0.0]).action.tolist() == [-0.5, -2.0, 0.0]


def test_a_speed_goes_down_to_0_as_fast_as_it_may() -> None:
    up = replace(ROBOT.action[0], velocity=1.5)  # m/s in a second: 0.05 in a period
    gate = SafetyFilter(replace(ROBOT, rate_hz=30.0, action=(up, *ROBOT.action[1:])))
    for _ in range(4):
        command = gate.check([0.5, 0.0, 0.0])
    assert command.action[0] == pytest.approx(0.2)
    assert command.reasons == ("motion: up goes as fast as it may",)
    assert not gate.at_rest
    sent = [(round(float(gate.hold(("x",)).action[0]), 6), gate.at_rest) for _ in range(5)]
    assert sent == [(0.15, False), (0.1, False), (0.05, False), (0.0, True), (0.0, True)]


def test_it_begins_where_the_joint_is_and_sends_nothing_before() -> None:
    gate = SafetyFilter(joint())
    assert not gate.located
    command = gate.check(None, ("camera: late",), seen(0.4))
    assert gate.located
    assert command.action[0] == pytest.approx(0.4)
    assert command.held


def test_from_outside_its_limits_it_may_only_come_back() -> None:
    gate = SafetyFilter(joint())
    positions = [float(gate.check([1.0], (), seen(1.2)).action[0]) for _ in range(30)]
    assert positions[0] < 1.2
    assert positions == sorted(positions, reverse=True)
    assert positions[-1] == pytest.approx(1.0)


@settings(deadline=None)
@given(COMMANDS, st.floats(0.05, 0.5), MODES, SWITCHES)
def test_a_blocked_arm_is_led_on_by_no_more_than_its_lead_and_the_way_to_brake(
    commands: list[float | None], lead: float, mode: LimitMode, switches: Switches
) -> None:
    spec = replace(joint(lead=lead), limits=switches)
    gate = SafetyFilter(spec, mode)
    sent = [0.0]
    for wanted in commands:
        command = gate.check(None if wanted is None else [wanted], (), seen(0.0))
        sent.append(float(command.action[0]))
        beyond = wanted is not None and min(abs(wanted), 1.0) > lead
        assert command.held or not (beyond and switches.get("lead", mode) == "reject")
    check_limits(np.array(sent, np.float64), spec.action[0], PERIOD)
    # From 2 rad/s at 10 rad/s^2, with half of 0.02 s for its jerk: 0.22 rad.
    assert np.abs(sent).max() <= lead + 2**2 / (2 * 10) + 2 * 0.02 / 2


@pytest.mark.parametrize("mode", ["clamp", "reject"])
def test_a_blocked_arm_is_not_pushed(mode: LimitMode) -> None:
    gate = SafetyFilter(joint(lead=0.1), mode)
    commands = [gate.check([0.8], (), seen(0.0)) for _ in range(30)]
    furthest = max(float(command.action[0]) for command in commands)
    assert furthest == pytest.approx(0.1 if mode == "clamp" else 0.0, abs=1e-6)
    assert commands[0].held == (mode == "reject")
    assert commands[0].reasons[0] == "action: a 0.8 is more than 0.1 from elbow at 0"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"velocity": 0.0}, "velocity 0.0 is not positive"),
        ({"jerk": -1.0}, "jerk -1.0 is not positive"),
        ({"acceleration": math.nan}, "acceleration nan is not positive"),
        ({"velocity": 1.0, "jerk": 5.0}, "jerk 5.0 needs a limit of acceleration too"),
        ({"acceleration": 5.0}, "acceleration 5.0 needs a limit of velocity too"),
        ({"lead": 0.1}, "lead 0.1 needs the joint"),
        ({"joint": "elbow", "hold": "zero"}, "so hold must be 'last'"),
    ],
)
def test_a_wrong_limit_is_refused(changes: dict[str, object], why: str) -> None:
    with pytest.raises(SpecError, match=f"action 'up': .*{why}"):
        replace(ROBOT.action[0], **{"hold": "last", **changes})  # type: ignore[arg-type]


def test_a_joint_that_is_not_measured_is_refused() -> None:
    with pytest.raises(SpecError, match="action 'a': joint 'wrist' is not one of elbow, grip"):
        replace(joint(), action=(replace(joint().action[0], joint="wrist"),))


def test_motion_limits_do_not_make_another_robot() -> None:
    assert joint().digest == joint(velocity=1.0, jerk=math.inf, lead=0.2).digest

"""Emergency stop, dead-man's switch and standstill: what stops stays stopped until it is cleared."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_policy_node.exceptions import PolicyNodeError
from vla_policy_node.stopping import Standstill, StopConfig, StopLatch

MS = 1_000_000
BOTH = StopConfig(estop_within_ns=200 * MS, deadman=True, deadman_within_ns=500 * MS)


def test_an_emergency_stop_is_latched_until_it_is_released_and_cleared() -> None:
    latch = StopLatch(StopConfig())
    latch.drive(0)
    latch.estop(1 * MS, False)
    assert latch.reasons(2 * MS) == ()
    latch.estop(3 * MS, True)
    assert latch.reasons(4 * MS) == ("e-stop: pressed",)
    with pytest.raises(PolicyNodeError, match="not cleared: e-stop: pressed"):
        latch.clear(5 * MS)
    latch.estop(6 * MS, False)
    assert latch.reasons(7 * MS) == ("e-stop: pressed; cleared by ~/clear_stop",)
    with pytest.raises(PolicyNodeError, match="the robot is stopped: e-stop: pressed; cleared"):
        latch.drive(8 * MS)
    latch.clear(9 * MS)
    latch.drive(10 * MS)
    assert latch.reasons(11 * MS) == ()


def test_a_press_between_two_looks_is_not_missed() -> None:
    latch = StopLatch(StopConfig())
    latch.drive(0)
    latch.estop(1, True)
    latch.estop(2, False)
    assert latch.reasons(3) == ("e-stop: pressed; cleared by ~/clear_stop",)


def test_who_lets_go_stops_the_robot_and_who_does_not_hold_cannot_start_it() -> None:
    latch = StopLatch(StopConfig(deadman=True))
    with pytest.raises(PolicyNodeError, match="dead-man: never heard"):
        latch.drive(0)
    latch.deadman(0, False)
    with pytest.raises(PolicyNodeError, match="dead-man: released"):
        latch.drive(1)
    assert latch.reasons(1) == (), "while nobody drives it need not be held"
    latch.deadman(2, True)
    latch.drive(3)
    latch.deadman(400 * MS, True)
    assert latch.reasons(800 * MS) == ()
    assert latch.reasons(901 * MS) == ("dead-man: not heard for 501 ms",)
    latch.deadman(902 * MS, True)
    assert latch.reasons(903 * MS) == ("dead-man: not heard for 501 ms; cleared by ~/clear_stop",)
    latch.clear(904 * MS)
    latch.drive(905 * MS)
    latch.rest()
    assert latch.reasons(9000 * MS) == ()


def test_a_cut_cable_counts_as_pressed() -> None:
    latch = StopLatch(StopConfig(estop_within_ns=200 * MS))
    assert latch.reasons(0) == ("e-stop: never heard",)
    latch.estop(0, False)
    latch.clear(0)
    assert latch.reasons(200 * MS) == ()
    assert latch.reasons(201 * MS) == ("e-stop: not heard for 201 ms",)


INPUTS = st.lists(
    st.tuples(st.integers(0, 300), st.sampled_from(["estop", "deadman", "look"]), st.booleans()), max_size=30
)


@given(INPUTS)
def test_once_stopped_nothing_but_clearing_sets_it_free(inputs: list[tuple[int, str, bool]]) -> None:
    latch = StopLatch(BOTH)
    latch.estop(0, False)
    latch.deadman(0, True)
    latch.clear(0)
    latch.drive(0)
    now, stopped = 0, False
    for wait, what, value in inputs:
        now += wait * MS
        if what == "estop":
            latch.estop(now, value)
        elif what == "deadman":
            latch.deadman(now, value)
        reasons = latch.reasons(now)
        assert reasons or not stopped
        stopped = stopped or bool(reasons)
        if stopped:
            with pytest.raises(PolicyNodeError):
                latch.drive(now)


def test_an_arm_that_moves_is_not_taken_over() -> None:
    still = Standstill(0.05)
    with pytest.raises(PolicyNodeError, match="no joint states were heard lately"):
        still.check(0)
    still.see(0, {"a": 0.0, "b": 1.0}, {"a": 0.0, "b": -0.06})
    with pytest.raises(PolicyNodeError, match=r"joint 'b' moves at -0\.06 a second; enable from standstill \(0\.05\)"):
        still.check(1)
    still.see(10 * MS, {"a": 0.0, "b": 1.0}, {"a": 0.01, "b": 0.0})
    still.check(20 * MS)
    with pytest.raises(PolicyNodeError, match="no joint states"):
        still.check(511 * MS)
    Standstill(0.0).check(0)


def test_speed_is_found_from_positions_where_a_robot_does_not_tell_it() -> None:
    still = Standstill(0.05)
    still.see(0, {"a": 0.0}, {})
    still.see(100 * MS, {"a": 0.01}, {})
    with pytest.raises(PolicyNodeError, match=r"'a' moves at 0\.1 a second"):
        still.check(100 * MS)
    still.see(200 * MS, {"a": 0.01}, {})
    still.check(200 * MS)
    still.see(300 * MS, {"a": 0.01}, {"a": math.nan})
    with pytest.raises(PolicyNodeError, match="'a' moves at nan"):
        still.check(300 * MS)

"""When a process that was held up may still be waiting for messages that have come."""

from hypothesis import given
from hypothesis import strategies as st

from vla_policy_node.hold_ups import HoldUps


def test_a_process_that_looks_in_time_has_no_excuse() -> None:
    held = HoldUps(late_ns=30, grace_ns=10)
    assert [held.left_ns(now) for now in range(0, 300, 30)] == [0] * 10


def test_one_that_was_held_up_waits_for_what_is_on_its_way() -> None:
    held = HoldUps(late_ns=30, grace_ns=10)
    assert [held.left_ns(now) for now in (0, 31, 35, 41, 50)] == [0, 10, 6, 0, 0]
    assert held.left_ns(90) == 10, "another time, another excuse"


def test_one_that_is_held_up_at_every_look_is_excused_at_the_first() -> None:
    held = HoldUps(late_ns=30, grace_ns=10)
    assert [held.left_ns(now) for now in (0, 100, 200, 220, 300)] == [0, 10, 0, 0, 10]


@given(st.lists(st.integers(0, 200), min_size=2, max_size=50))
def test_of_two_looks_that_are_further_apart_than_the_grace_one_is_not_excused(steps: list[int]) -> None:
    held, now, excused = HoldUps(late_ns=30, grace_ns=10), 0, False
    for step in steps:
        now += step
        was, excused = excused, held.left_ns(now) > 0
        assert not (was and excused and step >= 10)

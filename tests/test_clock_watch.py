"""A clock that is set is noticed, one that is slewed is not."""

from hypothesis import given
from hypothesis import strategies as st

from vla_policy_node.clock_watch import LARGEST_STEP_NS, ClockWatch

MS = 1_000_000


def test_a_step_is_told_once_with_its_size() -> None:
    watch = ClockWatch()
    assert watch.look(5_000 * MS, 0) == ""
    assert watch.look(5_008 * MS, 8 * MS) == ""
    assert watch.look(1_816 * MS, 16 * MS) == "clock: set back by 3.200 s"
    assert watch.look(1_824 * MS, 24 * MS) == ""
    assert watch.look(3_632 * MS, 32 * MS) == "clock: set on by 1.800 s"


def test_a_long_pause_between_looks_is_no_step() -> None:
    watch = ClockWatch()
    watch.look(0, 0)
    assert watch.look(9_000 * MS, 9_000 * MS) == ""


def test_a_simulated_clock_may_run_as_it_likes_but_not_back() -> None:
    watch = ClockWatch(simulated=True)
    assert [watch.look(now * MS, k * MS) for k, now in enumerate((0, 500, 500, 90_000))] == [""] * 4
    assert watch.look(80_000 * MS, 4 * MS) == "clock: set back by 10.000 s"


@given(st.lists(st.tuples(st.integers(0, 10**10), st.integers(-LARGEST_STEP_NS, LARGEST_STEP_NS)), max_size=30))
def test_small_corrections_are_never_told(steps: list[tuple[int, int]]) -> None:
    watch, now, steady = ClockWatch(), 10**18, 0
    for passed, correction in steps:
        now, steady = now + passed + correction, steady + passed
        assert watch.look(now, steady) == ""

"""A clock that is set is noticed; one that is slewed is not, nor one that was read late."""

from hypothesis import given
from hypothesis import strategies as st

from vla_policy_node.clock_watch import LARGEST_STEP_NS, ClockWatch

MS = 1_000_000


def look(watch: ClockWatch, now: int, steady: int) -> str:
    """Both clocks read at once."""
    return watch.look(now, steady, steady)


def test_a_step_is_told_once_with_its_size() -> None:
    watch = ClockWatch()
    assert look(watch, 5_000 * MS, 0) == ""
    assert look(watch, 5_008 * MS, 8 * MS) == ""
    assert look(watch, 1_816 * MS, 16 * MS) == "clock: set back by 3.200 s"
    assert look(watch, 1_824 * MS, 24 * MS) == ""
    assert look(watch, 3_632 * MS, 32 * MS) == "clock: set on by 1.800 s"


def test_a_long_pause_between_looks_is_no_step() -> None:
    watch = ClockWatch()
    look(watch, 0, 0)
    assert look(watch, 9_000 * MS, 9_000 * MS) == ""


def test_losing_the_processor_between_two_readings_is_no_step() -> None:
    """As on a machine whose processor was taken away for 67 ms, after and before the clock was read."""
    watch = ClockWatch()
    assert watch.look(1_000 * MS, 0, 0) == ""
    assert watch.look(1_008 * MS, 8 * MS, 75 * MS) == ""
    assert watch.look(1_150 * MS, 83 * MS, 150 * MS) == ""
    assert look(watch, 1_158 * MS, 158 * MS) == ""


def test_a_slow_reading_hides_no_step_that_comes_after_it() -> None:
    watch = ClockWatch()
    assert look(watch, 1_000 * MS, 0) == ""
    assert watch.look(1_008 * MS, 8 * MS, 508 * MS) == ""
    assert look(watch, 1_316 * MS, 516 * MS) == "clock: set back by 0.200 s"
    assert watch.look(1_324 * MS, 524 * MS, 624 * MS) == ""
    assert look(watch, 1_832 * MS, 632 * MS) == "clock: set on by 0.400 s"


def test_a_step_larger_than_the_reading_is_slow_is_told() -> None:
    """At least so much of it as the reading cannot explain."""
    watch = ClockWatch()
    look(watch, 1_000 * MS, 0)
    assert watch.look(508 * MS, 8 * MS, 75 * MS) == "clock: set back by 0.500 s"


def test_a_simulated_clock_may_run_as_it_likes_but_not_back() -> None:
    watch = ClockWatch(simulated=True)
    assert [look(watch, now * MS, k * MS) for k, now in enumerate((0, 500, 500, 90_000))] == [""] * 4
    assert look(watch, 80_000 * MS, 4 * MS) == "clock: set back by 10.000 s"


@given(st.lists(st.tuples(st.integers(0, 10**10), st.integers(-LARGEST_STEP_NS, LARGEST_STEP_NS)), max_size=30))
def test_small_corrections_are_never_told(steps: list[tuple[int, int]]) -> None:
    watch, now, steady = ClockWatch(), 10**18, 0
    for passed, correction in steps:
        now, steady = now + passed + correction, steady + passed
        assert look(watch, now, steady) == ""


DELAYS = st.integers(0, 10**9)


@given(st.lists(st.tuples(st.integers(0, 10**10), st.integers(0, LARGEST_STEP_NS), DELAYS, DELAYS), max_size=30))
def test_a_clock_that_stays_near_is_never_told_however_slowly_it_is_read(
    steps: list[tuple[int, int, int, int]],
) -> None:
    """Not one that is corrected little by little while it is read slowly: to who reads it, that is one step."""
    watch, steady = ClockWatch(), 0
    for passed, ahead, early, late in steps:
        steady += passed
        assert watch.look(steady + ahead, steady - early, steady + late) == ""

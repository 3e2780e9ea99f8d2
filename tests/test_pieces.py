"""Pieces of long work: the time ends it, nothing is left ticking, and no time means no end."""

import signal
import time

import pytest

from trainer.exceptions import ConfigError
from trainer.pieces import TimeIsUp, piece_of


def test_it_ends_when_the_time_is_over_and_not_before() -> None:
    begun = time.monotonic()
    with pytest.raises(TimeIsUp, match=r"^0.005 minutes are over$"), piece_of(0.005):
        time.sleep(20)
    assert 0.3 <= time.monotonic() - begun < 10


def test_work_that_is_done_earlier_is_left_alone() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with piece_of(0.01):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is before


def test_no_time_is_no_end() -> None:
    with piece_of(0):
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_cleans_up_after_ctrl_c_does_so_here() -> None:
    tidied = []

    def work() -> None:
        try:
            time.sleep(20)
        except KeyboardInterrupt:
            tidied.append("yes")
            raise

    with pytest.raises(KeyboardInterrupt), piece_of(0.002):
        work()
    assert tidied == ["yes"]


def test_a_time_below_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"minutes -1 is negative"), piece_of(-1):
        pass

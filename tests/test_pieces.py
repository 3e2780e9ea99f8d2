"""Pieces of long work: the time ends it, nothing is left ticking, and no time means no end."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from trainer.exceptions import ConfigError
from trainer.pieces import Terminated, TimeIsUp, piece_of, terminable, uninterrupted


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


def test_what_must_be_whole_is_and_the_end_comes_after_it() -> None:
    done = []

    def work() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            done.append("whole")
        done.append("never")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["whole"]
    assert signal.getsignal(signal.SIGINT) is before


def test_sigterm_ends_it_as_ctrl_c_does_and_what_must_be_whole_is() -> None:
    done = []

    def work() -> None:
        with terminable(), uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            done.append("whole")

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated, match="told to stop"):
        work()
    assert done == ["whole"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_nobody_handles_ends_the_process_after_what_must_be_whole() -> None:
    code = "import signal; from trainer.pieces import uninterrupted\nwith uninterrupted():\n"
    code += "    signal.raise_signal(signal.SIGTERM); print('whole', flush=True)\nprint('never')"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, "whole\n")


def test_in_another_thread_it_does_nothing() -> None:
    done = []

    def work() -> None:
        with uninterrupted():
            done.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [signal.getsignal(signal.SIGINT)]


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)

"""The witness of the machine's pauses, which decides whether a test of real time may be made again."""

import os
import signal
import time
from pathlib import Path

import pytest
from pauses import PAUSE_S, PauseWitness


@pytest.mark.timeout(30)
def test_a_pause_is_told_with_its_length_to_tests_that_were_running(tmp_path: Path) -> None:
    witness = PauseWitness(tmp_path / "pauses")
    try:
        while not (tmp_path / "pauses").read_text():
            time.sleep(0.01)
        began = time.monotonic()
        os.kill(witness.pid, signal.SIGSTOP)
        time.sleep(2 * PAUSE_S)
        os.kill(witness.pid, signal.SIGCONT)
        while not witness.longest_since(began):
            time.sleep(0.01)
        assert witness.longest_since(began) >= 1.5 * PAUSE_S
        assert witness.longest_since(time.monotonic()) == 0.0, "a test that begins after it has no excuse"
    finally:
        witness.close()

"""When the machine stood still: a small process that only looks at the clock, and says where it could not.

A test of real time that fails while nothing on the machine ran says nothing of Encore. A process of its own does not
mistake a long call of the test's, which holds Python's lock, for such a pause.
"""

import subprocess
import sys
from pathlib import Path

LOOK_S = 0.01
PAUSE_S = 0.4
"""A process that asked to sleep for `LOOK_S` and was given the CPU again so much later met a pause."""

WITNESS = f"""
import select, time
before = time.monotonic()
print(before, 0.0, flush=True)
while not select.select([0], [], [], {LOOK_S})[0]:
    now = time.monotonic()
    if now - before > {PAUSE_S}:
        print(now, now - before, flush=True)
    before = now
"""


class PauseWitness:
    """Writes down the machine's pauses from now on."""

    def __init__(self, file: Path) -> None:
        self._file = file
        with file.open("w") as out:
            # It ends when its stdin does, which is when this process ends, however that ends.
            self._process = subprocess.Popen([sys.executable, "-S", "-c", WITNESS], stdin=subprocess.PIPE, stdout=out)
        self.pid = self._process.pid

    def longest_since(self, began: float) -> float:
        """The longest pause that ended after `began` (of time.monotonic), in seconds; 0.0 where there was none."""
        pauses = [tuple(map(float, line.split())) for line in self._file.read_text().splitlines()]
        return max((length for ended, length in pauses if ended >= began), default=0.0)

    def close(self) -> None:
        """Watch no more."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

"""Long work in pieces: ended from within after some minutes, as Ctrl-C would end it, and gone on with later."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from trainer.exceptions import ConfigError


class TimeIsUp(KeyboardInterrupt):
    """The piece is over. What waits for Ctrl-C to put its things in order does so for this as well."""


@contextmanager
def piece_of(minutes: float) -> Iterator[None]:
    """Within this, `TimeIsUp` is raised after so many minutes of wall time; 0: never. In the main thread only.

    Raises:
        ConfigError: minutes below 0.
        TimeIsUp: the time is over.
    """
    if minutes < 0:
        raise ConfigError(f"minutes {minutes} is negative; 0 ends when everything is done")

    def end(number: int, frame: FrameType | None) -> None:
        raise TimeIsUp(f"{minutes:g} minutes are over")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

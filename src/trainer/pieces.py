"""Long work in pieces: ended after some minutes, or by a signal, as Ctrl-C would end it, and gone on with later."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from trainer.exceptions import ConfigError

DEFERRED = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)


class TimeIsUp(KeyboardInterrupt):
    """The piece is over. What waits for Ctrl-C to put its things in order does so for this as well."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came: a machine that shuts down, or a scheduler whose time is over, says so by it."""


@contextmanager
def terminable() -> Iterator[None]:
    """Within this, SIGTERM raises `Terminated` instead of ending the process as it stands. In the main thread only."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated("told to stop")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Within this, Ctrl-C, SIGTERM and the end of a piece wait; they come when it is over. For what must be done whole.

    Blocking the signals would not do: another thread of the process takes them, and Python's handler runs all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Handlers run in the main thread only; nothing can come here.
        return
    caught: list[tuple[int, FrameType | None]] = []
    before = {number: signal.signal(number, lambda *what: caught.append(what)) for number in DEFERRED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for first, frame in caught[:1]:
            handler = before[signal.Signals(first)]
            if callable(handler):
                handler(first, frame)
            elif handler is signal.SIG_DFL:
                os.kill(os.getpid(), first)


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

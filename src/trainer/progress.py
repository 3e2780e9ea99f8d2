"""Progress that is always visible: a bar on a terminal, a line every few seconds in a log."""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


class ProgressBar(AbstractContextManager["ProgressBar"]):
    """How far a long piece of work has come. On a terminal a bar, else a line from time to time."""

    def __init__(
        self, name: str, total: int, start: int = 0, visible: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Args: name: of the work; total: of its units; start: units already done; visible: False prints nothing."""
        self._name, self._total, self._done = name, total, start
        self._visible, self._clock = visible, clock
        self._last_line = clock()
        self._bar: Progress | None = None
        if visible and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[note]}"), transient=True)
            self._task = self._bar.add_task(name, total=total, completed=start, note="")

    def __enter__(self) -> "ProgressBar":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        elif self._visible and kind is None:
            self._print("")

    def advance(self, note: str = "") -> None:
        """One unit more is done; `note` says something of it, such as a loss."""
        self._done += 1
        if self._bar:
            self._bar.update(self._task, completed=self._done, note=note)
        elif self._visible and self._clock() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._print(note)

    def _print(self, note: str) -> None:
        self._last_line = self._clock()
        print(f"{self._name}: {self._done}/{self._total} {note}".rstrip(), file=sys.stderr, flush=True)

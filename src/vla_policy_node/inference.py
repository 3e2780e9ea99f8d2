"""The thread that a policy runs on, so that what receives messages never waits for a network."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class InferenceThread:
    """Runs jobs one after the other on one thread of its own.

    A network, its caches and its random state are touched by this thread only.
    """

    def __init__(self, name: str = "inference") -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._pending = 0
        self._lock = threading.Lock()
        # A daemon: a network that never returns must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a job is running or waiting."""
        with self._lock:
            return self._pending > 0

    def submit(self, job: Callable[[], T]) -> "Future[T]":
        """Run `job` after those submitted before; its result or its error is in the future."""
        future: Future[T] = Future()
        with self._lock:
            self._pending += 1
        self._jobs.put(lambda: self._settle(future, job))
        return future

    def close(self, timeout_s: float = 2.0) -> bool:
        """End the thread after the jobs submitted so far; False where that takes longer than the time given."""
        self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _settle(self, future: "Future[T]", job: Callable[[], T]) -> None:
        try:
            result = job()
        except BaseException as error:  # noqa: BLE001 - a thread boundary: whoever waits for the future gets it
            self._done()
            future.set_exception(error)
        else:
            self._done()
            future.set_result(result)

    def _done(self) -> None:
        # Before the future is settled: its callbacks may ask whether the thread is free for the next job.
        with self._lock:
            self._pending -= 1

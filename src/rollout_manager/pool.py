"""Many episodes at once: worker processes, each with its own simulator and policy.

Requests and results are lines of JSON on the workers' pipes. A worker that dies costs the one episode it had, which
is reported as aborted.
"""

import selectors
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import cast

from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.exceptions import RolloutError, ScheduleError
from rollout_manager.pool_request import EpisodeRequest
from rollout_manager.rollout import EpisodeResult
from rollout_manager.worker_process import WorkerProcess

LOOK_AHEAD = 5
"""How many waiting tries, a worker, are looked through for one of the task that it has set up, and so made out of turn:
to set another task up takes LIBERO half a second, a third of what a try takes."""


class WorkerPool:
    """Worker processes that stay between calls of `run`, with their simulators and the policy loaded."""

    def __init__(self, workers: int, timeout_s: float = 600.0) -> None:
        """Args: workers: how many processes; timeout_s: wall time after which an episode's worker is ended."""
        if workers < 1:
            raise ScheduleError(f"pool: {workers} workers; at least 1 is needed")
        self._size = workers
        self._timeout_s = timeout_s
        self._workers: list[WorkerProcess] = []
        self._selector = selectors.DefaultSelector()

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that run."""
        return tuple(worker.process.pid for worker in self._workers)

    def run(self, requests: Sequence[EpisodeRequest]) -> Iterator[EpisodeResult]:
        """Make all tries; results come as they are ready, in any order.

        Where the caller stops early, or Ctrl-C stops it, the workers that are busy are ended.

        Raises:
            RolloutError: a worker cannot even start.
        """
        waiting = deque(requests)
        try:
            while waiting or any(worker.request for worker in self._workers):
                self._assign(waiting)
                yield from self._collect()
        finally:
            for worker in [w for w in self._workers if w.request is not None]:
                self._retire(worker)

    def close(self) -> None:
        """End all workers."""
        for worker in list(self._workers):
            self._retire(worker)
        self._selector.close()

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _assign(self, waiting: deque[EpisodeRequest]) -> None:
        # One that died while it had nothing to do costs no episode.
        for worker in [w for w in self._workers if w.request is None and w.process.poll() is not None]:
            self._retire(worker)
        for worker in self._workers:
            if waiting and worker.request is None:
                worker.send(self._next_for(worker, waiting), self._timeout_s)
        while waiting and len(self._workers) < self._size:
            worker = WorkerProcess()
            self._workers.append(worker)
            self._selector.register(worker.results, selectors.EVENT_READ, worker)
            worker.send(self._next_for(worker, waiting), self._timeout_s)

    def _next_for(self, worker: WorkerProcess, waiting: deque[EpisodeRequest]) -> EpisodeRequest:
        """Of the next few tries one of the task that the worker has set up, else one of a task that no other has."""
        ahead = list(islice(waiting, LOOK_AHEAD * self._size))
        taken = {other.set_up for other in self._workers if other is not worker}
        own = [request for request in ahead if request.place == worker.set_up]
        free = [request for request in ahead if request.place not in taken]
        chosen = (own or free or ahead)[0]
        waiting.remove(chosen)
        return chosen

    def _collect(self) -> list[EpisodeResult]:
        """Waits until something has come, or an episode takes too long."""
        deadline = min(worker.deadline for worker in self._workers)
        events = self._selector.select(max(0.0, deadline - time.monotonic()))
        found = [self._take(cast(WorkerProcess, key.data)) for key, _ in events]
        late = [w for w in self._workers if w.request is not None and w.deadline <= time.monotonic()]
        return [result for result in found if result is not None] + [self._give_up(worker) for worker in late]

    def _take(self, worker: WorkerProcess) -> EpisodeResult | None:
        message = worker.receive()
        if message is None:
            return self._bury(worker)
        if "ready" in message:
            worker.ready = True
            return None
        worker.request, worker.deadline = None, float("inf")
        return EpisodeResult(EpisodeHeader.from_dict(message["header"]), Outcome.from_dict(message["outcome"]))

    def _bury(self, worker: WorkerProcess) -> EpisodeResult | None:
        reason, request, ready = worker.obituary(), worker.request, worker.ready
        self._retire(worker)
        if not ready:
            raise RolloutError(f"pool: a {reason}, before its first episode")
        return _lost(request, reason) if request is not None else None

    def _give_up(self, worker: WorkerProcess) -> EpisodeResult:
        request = worker.request
        assert request is not None
        worker.process.kill()
        self._retire(worker)
        return _lost(request, f"no result within {self._timeout_s:g} s; the worker process was ended")

    def _retire(self, worker: WorkerProcess) -> None:
        self._selector.unregister(worker.results)
        self._workers.remove(worker)
        worker.stop()


def run_pool(requests: Sequence[EpisodeRequest], workers: int, timeout_s: float = 600.0) -> Iterator[EpisodeResult]:
    """Make all tries in `workers` processes that live for this call. See `WorkerPool.run`."""
    with WorkerPool(workers, timeout_s) as pool:
        yield from pool.run(requests)


def recover_partial(request: EpisodeRequest) -> None:
    """Make a bag labelled aborted of what a dead process left of this try, so that it can be made again."""
    from rollout_manager.bag import recover
    from rollout_manager.bag_format import PARTIAL

    if request.bag_root is None or request.record == "none":
        return
    partial = Path(request.bag_root) / (request.episode_id + PARTIAL)
    if partial.exists():
        recover(partial)


def _lost(request: EpisodeRequest, reason: str) -> EpisodeResult:
    try:
        recover_partial(request)
    except RolloutError as error:
        reason += f"; its recording could not be recovered: {error}"
    return request.aborted(reason)

"""Many episodes at once: worker processes, each with its own simulator and policy.

Requests and results are lines of JSON on the workers' pipes. A worker that dies costs the one episode it had, which
is reported as aborted.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, cast, get_args

from rollout_manager.episode import Driver, EpisodeHeader, Outcome, episode_id
from rollout_manager.exceptions import RolloutError, ScheduleError
from rollout_manager.rollout import EpisodeResult

Record = Literal["all", "successes", "none"]
"""Which tries become bags. `successes` runs without rendering first and renders again only what succeeded."""

STOP_WITHIN_S = 5.0


@dataclass(frozen=True)
class EpisodeRequest:
    """One try to make."""

    environment: str
    task: str
    seed: int
    attempt: int = 0
    driver: Driver = "policy"
    checkpoint: str | None = None
    """Folder of the checkpoint that drives (driver `policy`), or that an expert takes over from."""
    exploration: float = 0.0
    """Noise as a share of half the action range: of the policy's exploration, or on the expert's actions."""
    noise_correlation: float = 0.0
    """From step to step, of the noise on the expert's actions; in [0, 1)."""
    slips: float = 0.0
    """Share of an expert's episodes in which a grasp is made to miss, in [0, 1]."""
    pushes: float = 0.0
    """Chance at each of an expert's steps that its hand is pushed aside, in [0, 1]."""
    takeover: tuple[int, int] = (0, 0)
    """Fewest and most steps that `checkpoint` drives before an expert takes over; no more than 0: none."""
    time_limit: int | None = None
    """Steps; None for the task's own."""
    bag_root: str | None = None
    record: Record = "none"
    execute: str = "replan"
    execute_every: int = 8
    """Actions executed of a chunk before the next is asked for."""
    robot: str | None = None
    """Name or YAML file of the robot's spec; None for the environment's own."""
    rules: str = ""
    """YAML file of success rules; empty: the simulator's own."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, value, kind in (("driver", self.driver, Driver), ("record", self.record, Record)):
            if value not in get_args(kind):
                raise ScheduleError(f"request of {self.task}: {name} '{value}' is not one of {get_args(kind)}")
        if self.driver == "human":
            raise ScheduleError(f"request of {self.task}: driver 'human' cannot drive in a pool")
        if self.driver == "policy" and not self.checkpoint:
            raise ScheduleError(f"request of {self.task}: driver 'policy' needs a checkpoint")
        if self.record != "none" and not self.bag_root:
            raise ScheduleError(f"request of {self.task}: to record '{self.record}' a bag_root is needed")

    @property
    def episode_id(self) -> str:
        return episode_id(self.environment, self.task, self.seed, self.attempt)

    def aborted(self, reason: str) -> EpisodeResult:
        """The result of a try that did not come to its end."""
        header = EpisodeHeader(
            episode_id=self.episode_id,
            environment=self.environment,
            task=self.task,
            instruction="",
            seed=self.seed,
            robot=self.robot or self.environment,
            spec_digest="",
            driver=self.driver,
            control_mode="in_process",
            attempt=self.attempt,
            exploration=self.exploration,
            time_limit_steps=self.time_limit or 0,
        )
        return EpisodeResult(header, Outcome("aborted", 0, reason=reason))


class _Worker:
    """One process, and the request it has."""

    def __init__(self) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        # A session of its own: Ctrl-C in the terminal reaches only us, and we stop the workers in order.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rollout_manager.pool_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=_environment(),
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.requests, self.results = self.process.stdin, self.process.stdout
        self.request: EpisodeRequest | None = None
        self.ready = False
        self.deadline = float("inf")

    def send(self, request: EpisodeRequest, timeout_s: float) -> None:
        self.request = request
        self.deadline = time.monotonic() + timeout_s
        with contextlib.suppress(BrokenPipeError):  # Where it is dead, the end of its results says so.
            self.requests.write(json.dumps(asdict(request)).encode() + b"\n")
            self.requests.flush()

    def receive(self) -> dict[str, Any] | None:
        """The line that has come; None where the process has died."""
        line = self.results.readline()
        return cast(dict[str, Any], json.loads(line)) if line.endswith(b"\n") else None

    def obituary(self) -> str:
        """Why the process died, in one line."""
        code = self.process.wait()
        cause = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - 4096))
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"worker process died ({cause})" + (f": {said[-1]}" if said and code > 0 else "")

    def stop(self) -> None:
        """End the process: an idle one sees that no more requests come, a busy one is told to."""
        if self.request is not None:
            self.process.terminate()
        with contextlib.suppress(BrokenPipeError):
            self.requests.close()
        try:
            self.process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.results.close()
        self._errors.close()


class WorkerPool:
    """Worker processes that stay between calls of `run`, with their simulators and the policy loaded."""

    def __init__(self, workers: int, timeout_s: float = 600.0) -> None:
        """Args: workers: how many processes; timeout_s: wall time after which an episode's worker is ended."""
        if workers < 1:
            raise ScheduleError(f"pool: {workers} workers; at least 1 is needed")
        self._size = workers
        self._timeout_s = timeout_s
        self._workers: list[_Worker] = []
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
                worker.send(waiting.popleft(), self._timeout_s)
        while waiting and len(self._workers) < self._size:
            worker = _Worker()
            self._workers.append(worker)
            self._selector.register(worker.results, selectors.EVENT_READ, worker)
            worker.send(waiting.popleft(), self._timeout_s)

    def _collect(self) -> list[EpisodeResult]:
        """Waits until something has come, or an episode takes too long."""
        deadline = min(worker.deadline for worker in self._workers)
        events = self._selector.select(max(0.0, deadline - time.monotonic()))
        found = [self._take(cast(_Worker, key.data)) for key, _ in events]
        late = [w for w in self._workers if w.request is not None and w.deadline <= time.monotonic()]
        return [result for result in found if result is not None] + [self._give_up(worker) for worker in late]

    def _take(self, worker: _Worker) -> EpisodeResult | None:
        message = worker.receive()
        if message is None:
            return self._bury(worker)
        if "ready" in message:
            worker.ready = True
            return None
        worker.request, worker.deadline = None, float("inf")
        return EpisodeResult(EpisodeHeader.from_dict(message["header"]), Outcome.from_dict(message["outcome"]))

    def _bury(self, worker: _Worker) -> EpisodeResult | None:
        reason, request, ready = worker.obituary(), worker.request, worker.ready
        self._retire(worker)
        if not ready:
            raise RolloutError(f"pool: a {reason}, before its first episode")
        return _lost(request, reason) if request is not None else None

    def _give_up(self, worker: _Worker) -> EpisodeResult:
        request = worker.request
        assert request is not None
        worker.process.kill()
        self._retire(worker)
        return _lost(request, f"no result within {self._timeout_s:g} s; the worker process was ended")

    def _retire(self, worker: _Worker) -> None:
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


def _environment() -> dict[str, str]:
    """For a worker: it finds our packages wherever we found them, and keeps to one core."""
    source = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

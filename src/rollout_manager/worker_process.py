"""A worker of the pool as the pool sees it: a process, its pipes, and the try that it makes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, cast

from rollout_manager.pool_request import EpisodeRequest

STOP_WITHIN_S = 5.0


class WorkerProcess:
    """One process, and the request it has."""

    def __init__(self) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        # A session of its own: Ctrl-C in the terminal reaches only us, and we stop the workers in order.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rollout_manager.pool_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=worker_environment(),
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.requests, self.results = self.process.stdin, self.process.stdout
        self.request: EpisodeRequest | None = None
        self.set_up: tuple[str, str] | None = None
        """Environment and task of the last try."""
        self.ready = False
        self.deadline = float("inf")

    def send(self, request: EpisodeRequest, timeout_s: float) -> None:
        self.request, self.set_up = request, request.place
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


def worker_environment() -> dict[str, str]:
    """For a process of ours beside others: it finds our packages wherever we found them, and keeps to one core."""
    source = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

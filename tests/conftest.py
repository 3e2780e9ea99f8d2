"""What every test stands on: rendering without a display, a ROS domain of its own, no process left behind."""

import contextlib
import fcntl
import os
import signal
import tempfile
import time
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import IO

import pytest
from pauses import PauseWitness

from rollout_manager.graph import is_quiet

# Before anything imports mujoco, torch or rclpy.
os.environ.setdefault("MUJOCO_GL", "osmesa")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("ROS_LOG_DIR", str(Path(tempfile.gettempdir()) / f"encore-test-log-{os.getuid()}"))

# Started in the background, or by xdist, this process ignores Ctrl-C, and so would every child that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

DOMAINS = range(1, 100)
"""Above 101 the ports of a domain reach into those that Linux gives to anyone."""
GRACE_S = 3.0
"""A child that was told to stop gets this long to do so."""

BEGAN = pytest.StashKey[float]()
WITNESS = pytest.StashKey[PauseWitness]()

HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
"""multiprocessing's own processes, which live as long as this one and belong to no test."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: a mistake shows within seconds. Tests of real time are made again where the machine paused."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
    for item in items:
        if item.get_closest_marker("ros"):
            item.add_marker(pytest.mark.flaky(reruns=2, condition=partial(_machine_paused, item)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test begins, or begins again."""
    item.stash[BEGAN] = time.monotonic()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure says when the machine stood still meanwhile."""
    report = yield
    if report.failed and (pause_s := item.config.stash[WITNESS].longest_since(item.stash[BEGAN])):
        report.sections.append(("pauses", f"the machine stood still for {pause_s:.2f} s during this test"))
    return report


def pytest_configure(config: pytest.Config) -> None:
    """Watch the machine."""
    file, name = tempfile.mkstemp(prefix="encore-test-pauses-")
    os.close(file)
    config.stash[WITNESS] = PauseWitness(Path(name))
    config.add_cleanup(Path(name).unlink)
    config.add_cleanup(config.stash[WITNESS].close)


def _machine_paused(item: pytest.Item) -> bool:
    return item.config.stash[WITNESS].longest_since(item.stash[BEGAN]) > 0


@pytest.fixture
def ros_domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A ROS domain that nobody else on this machine uses; set for this process and its children."""
    lock, domain = _claim_domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    with lock:
        yield domain


@pytest.fixture(autouse=True)
def no_process_left_behind() -> Iterator[None]:
    """Fail a test that leaves a child running, and end that child so that it spoils no other test."""
    before = set(_children())
    yield
    deadline = time.monotonic() + GRACE_S
    while (left := _left_behind(before)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if left:
        pytest.fail(f"left running: {'; '.join(left.values())}")


def _claim_domain() -> tuple[IO[str], int]:
    """A locked file that stands for a domain, and the domain; other test processes see the lock."""
    folder = Path(tempfile.gettempdir()) / f"encore-test-domains-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    # Each process starts elsewhere, so that a domain is not handed on the moment its last nodes vanish from it.
    start = os.getpid() % len(DOMAINS)
    for domain in [*DOMAINS[start:], *DOMAINS[:start]]:
        lock = (folder / str(domain)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        if is_quiet(domain):
            return lock, domain
        lock.close()
    raise RuntimeError(f"every ROS domain of {DOMAINS} is in use on this machine")


def _left_behind(before: set[int]) -> dict[int, str]:
    """Children that were not there before and still run: their command lines."""
    return {
        pid: line
        for pid, line in _children().items()
        if pid not in before and not any(helper in line for helper in HELPERS)
    }


def _children() -> dict[int, str]:
    """Direct children that are not zombies: process id and command line."""
    found: dict[int, str] = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended
            for pid in map(int, (task / "children").read_text().split()):
                with contextlib.suppress(OSError):  # the child has ended
                    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                    if state != "Z":
                        found[pid] = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
    return found

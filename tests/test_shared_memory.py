"""What killed nodes leave in shared memory is taken away; what living ones use is not."""

import fcntl
import os
import signal
from pathlib import Path

import pytest
from graph_helpers import make_graph

from rollout_manager.graph import Graph
from rollout_manager.shared_memory import Stale, stale, sweep
from vla_policy_node.dds_ports import SHARED_MEMORY


def segment(folder: Path, name: str, size: int = 4096) -> Path:
    (folder / f"fastrtps_{name}").write_bytes(b"x" * size)
    lock = folder / f"fastrtps_{name}_el"
    lock.touch()
    return lock


def test_only_segments_without_an_owner_go(tmp_path: Path) -> None:
    held = segment(tmp_path, "aa")
    segment(tmp_path, "bb")
    segment(tmp_path, "port7400")
    (tmp_path / "sem.something").touch()
    with held.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert stale(tmp_path, settle_s=0) == Stale(1, 4096)
        assert sweep(tmp_path, settle_s=0) == 4096
        left = sorted(path.name for path in tmp_path.iterdir())
    assert stale(tmp_path) == Stale(0, 0)
    assert left == ["fastrtps_aa", "fastrtps_aa_el", "fastrtps_port7400", "fastrtps_port7400_el", "sem.something"]


def test_a_segment_just_made_is_left_alone(tmp_path: Path) -> None:
    segment(tmp_path, "aa")
    assert sweep(tmp_path) == 0
    assert sweep(tmp_path, settle_s=0) == 4096


def test_a_lock_without_its_segment_goes_too(tmp_path: Path) -> None:
    segment(tmp_path, "aa").with_name("fastrtps_aa").unlink()
    assert sweep(tmp_path, settle_s=0) == 0
    assert list(tmp_path.iterdir()) == []


def segments_of(pid: int) -> set[str]:
    """Names of the DDS segments that a process has mapped, its own and those it reads."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    names = {line.split()[-1].rsplit("/", 1)[-1] for line in lines if f"{SHARED_MEMORY}/fastrtps_" in line}
    return {name for name in names if "port" not in name}


def started(graph: Graph) -> set[str]:
    """Wait until the simulator has its shared memory, and name it."""
    while not (found := segments_of(graph.pid("sim"))):
        assert graph.alive(), graph.tail("sim")
    return found


@pytest.mark.ros
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_node_leaves_nothing_behind_however_it_ends(tmp_path: Path, ros_domain: int, number: signal.Signals) -> None:
    graph = make_graph(tmp_path, ros_domain, {"sim": {}})
    with graph:
        names = started(graph)
        os.kill(graph.pid("sim"), number)
        graph.wait("sim", 20)
        # What the killed one leaves may be gone already: every graph on this machine sweeps.
        assert number == signal.SIGKILL or not any((SHARED_MEMORY / name).exists() for name in names)
    assert sweep(settle_s=0) >= 0
    assert not any((SHARED_MEMORY / name).exists() for name in names)


@pytest.mark.ros
def test_a_node_started_again_takes_away_what_dead_ones_left(tmp_path: Path, ros_domain: int) -> None:
    """One that dies again and again would fill the machine's memory before its graph is stopped."""
    with make_graph(tmp_path, ros_domain, {"expert": {}}) as graph:
        lock = segment(SHARED_MEMORY, f"test{os.getpid()}")
        os.utime(lock, (0, 0))
        os.kill(graph.pid("expert"), signal.SIGKILL)
        graph.wait("expert", 20)
        assert graph.supervise() == ["expert"]
        assert not lock.exists()
        assert not (SHARED_MEMORY / f"fastrtps_test{os.getpid()}").exists()

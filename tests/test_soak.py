"""The soak test itself: its arithmetic, that it sees a leak, and that it runs."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from _processes import Holding, holding, segments
from _soak_report import Finding, Trend, Window, judge, picture, stood_still, trend
from hypothesis import given
from hypothesis import strategies as st

from vla_policy_node.dds_ports import SHARED_MEMORY

ROOT = Path(__file__).resolve().parents[1]
HELD = Holding(rss=200.0, private=100.0, threads=5, files=20, segments=2)
TIMED = ("rate: drift, Hz", "rate", "missed ticks", "commands that held")
"""Bounds that a busy machine breaks."""


def windows(held: list[Holding], rate_hz: float = 30.0, missed: int = 0) -> list[Window]:
    """A window every ten seconds."""
    return [Window(10.0 * (k + 1), {"policy": h}, (33.3, 35.0, 40.0), rate_hz, missed) for k, h in enumerate(held)]


def broken(findings: list[Finding]) -> list[str]:
    return [finding.what for finding in findings if not finding.kept]


@given(st.floats(-100, 100), st.floats(-1, 1), st.integers(3, 50))
def test_of_a_straight_line_the_growth_is_exact(start: float, slope: float, count: int) -> None:
    times = [10.0 * k for k in range(count)]
    found = trend(times, [start + slope * t for t in times])
    assert found.growth == pytest.approx(slope * times[-1], abs=1e-6)
    assert found.low <= found.growth <= found.high


def test_four_samples_by_hand() -> None:
    """0, 1, 1, 2 at 0, 1, 2, 3: slope 0.6, residuals -0.1, 0.3, -0.3, 0.1, which do not resemble their neighbours.

    Power 0.2 over 2 degrees and 5 of the times' squares: standard error sqrt(0.02), times t(0.975, 2) = 4.3027.
    """
    found = trend([0, 1, 2, 3], [0, 1, 1, 2])
    assert found.growth == pytest.approx(1.8)
    half = 3 * 4.302653 * 0.02**0.5
    assert found.low == pytest.approx(1.8 - half, abs=1e-4)
    assert found.high == pytest.approx(1.8 + half, abs=1e-4)


def test_the_interval_covers_what_is_there_also_where_samples_resemble_their_neighbours() -> None:
    """Noise that remembers (0.7 from sample to sample) around no growth: 0 is within in at least 88 of 100 runs."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(100):
        noise = [0.0]
        for shock in rng.normal(size=199):
            noise.append(0.7 * noise[-1] + shock)
        found = trend(list(range(200)), noise)
        covered += found.low <= 0 <= found.high
    assert covered >= 88


def test_too_few_samples_say_nothing() -> None:
    assert trend([0, 10], [1.0, 3.0]) == Trend(2.0, -np.inf, np.inf)


def test_what_stays_as_it_was_breaks_nothing() -> None:
    assert broken(judge(windows([HELD] * 30), 30.0)) == []


@pytest.mark.parametrize(
    ("name", "step"), [("private", 0.2), ("threads", 0.1), ("files", 0.05), ("segments", 0.04)], ids=lambda v: str(v)
)
def test_a_leak_is_seen(name: str, step: float) -> None:
    """30 samples: 5.8 MiB of memory, two threads, a file, a segment more than at the beginning."""
    grown = [replace(HELD, **{name: type(getattr(HELD, name))(getattr(HELD, name) + step * k)}) for k in range(30)]
    what = "private memory" if name == "private" else name
    assert broken(judge(windows(grown), 30.0)) == [f"policy: {what}"]


def test_a_rate_that_is_off_or_drifts_and_missed_ticks_are_seen() -> None:
    assert broken(judge(windows([HELD] * 30, rate_hz=29.5), 30.0)) == ["rate"]
    assert broken(judge(windows([HELD] * 30, missed=1), 30.0)) == ["missed ticks"]  # one of 300
    drifting = [replace(w, rate_hz=30.1 - 0.01 * k) for k, w in enumerate(windows([HELD] * 30))]
    assert broken(judge(drifting, 30.0)) == ["rate: drift, Hz"]


def test_where_all_ended_before_there_is_a_verdict_and_a_picture() -> None:
    assert broken(judge(windows([HELD] * 2), 30.0)) == ["samples that a judgement lacks"]
    assert broken(judge([], 30.0)) == ["samples that a judgement lacks"]
    assert ElementTree.fromstring(picture([], 30.0)).tag.endswith("svg")


def test_a_policy_that_was_stopped_for_most_of_the_time_is_seen() -> None:
    assert broken([stood_still(158_829, 161_580)]) == ["commands that held"]
    assert broken([stood_still(148, 107_845), stood_still(0, 0)]) == []


OPENS = """
import mmap, sys
print("begun", flush=True)
sys.stdin.readline()
kept = mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
kept.write(b"1" * len(kept))
files = [open(name, "w") for name in sys.argv[1:]]
print("holds", flush=True)
sys.stdin.readline()
"""
"""Not an array: the memory of one that was freed before might be used again."""


def test_what_a_process_holds_is_what_it_opened(tmp_path: Path) -> None:
    """A process of its own: in this one other tests' threads may take memory meanwhile."""
    command = [sys.executable, "-c", OPENS, str(tmp_path / "one"), str(tmp_path / "two")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        before = holding(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "holds\n"
        after = holding(process.pid)
        process.stdin.write("\n")
    assert after.files == before.files + 2
    # The 32 MiB, and what Python makes for two files.
    assert after.private - before.private == pytest.approx(32, abs=2)
    assert before.private < before.rss
    with pytest.raises(OSError, match="No such"):
        holding(2**22 + 1)


def test_a_segment_belongs_to_who_holds_its_lock() -> None:
    lock = SHARED_MEMORY / f"fastrtps_soak{os.getpid()}_el"
    try:
        with lock.open("w") as file:
            assert lock.name.removesuffix("_el") not in segments(os.getpid())
            fcntl.flock(file, fcntl.LOCK_EX)
            assert lock.name.removesuffix("_el") in segments(os.getpid())
            assert segments(os.getppid()) & segments(os.getpid()) == set()
    finally:
        lock.unlink()


def test_the_picture_is_an_svg_that_names_its_processes() -> None:
    svg = picture(windows([HELD] * 5), 30.0)
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "policy (100 MiB)" in svg


def environment() -> dict[str, str]:
    """This test's own, with the source."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def soak_command(output: Path, domain: int, *options: str) -> list[str]:
    """The soak test, with a sample a second."""
    script = str(ROOT / "benchmarks" / "soak_node.py")
    return [sys.executable, script, "--every", "1", "--domain", str(domain), "--output", str(output), *options]


@pytest.mark.ros
@pytest.mark.slow
def test_it_runs_and_nothing_leaks_or_is_lost(tmp_path: Path, ros_domain: int) -> None:
    command = soak_command(tmp_path, ros_domain, "--minutes", "0.25", "--piece", "4")
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment())
    assert done.returncode in (0, 1), done.stderr
    content = json.loads((tmp_path / "soak.json").read_text())
    assert len(content["windows"]) == 15
    assert set(content["windows"][0]["holdings"]) == {"arm", "policy", "recorder"}
    assert content["windows"][-1]["rate_hz"] > 10
    findings = [Finding(**finding) for finding in content["findings"]]
    assert set(broken(findings)) <= set(TIMED), done.stdout
    assert done.returncode == int(bool(broken(findings)))
    assert ElementTree.parse(tmp_path / "soak.svg").getroot().tag.endswith("svg")


@pytest.mark.ros
@pytest.mark.slow
def test_a_process_that_ends_during_the_warm_up_ends_it_with_a_verdict(tmp_path: Path, ros_domain: int) -> None:
    command = soak_command(tmp_path, ros_domain, "--minutes", "10")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as soak:
        assert soak.stdout is not None
        try:
            assert "Hz" in soak.stdout.readline()
            children = Path(f"/proc/{soak.pid}/task/{soak.pid}/children").read_text().split()
            policy = [pid for pid in children if "policy_node" in Path(f"/proc/{pid}/cmdline").read_text()]
            os.kill(int(policy[0]), signal.SIGKILL)
            said = soak.stdout.read()
        finally:
            soak.terminate()
    assert soak.returncode == 1, said
    assert "policy ended with status -9" in said
    findings = [Finding(**finding) for finding in json.loads((tmp_path / "soak.json").read_text())["findings"]]
    assert {"samples that a judgement lacks", "processes that ended"} <= set(broken(findings))

"""`encore up`: the nodes as processes of one command, until the tries are made or somebody stops it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rollout_manager.bag import EpisodeReader, verify
from rollout_manager.graph import is_quiet
from rollout_manager.results import read_results

pytestmark = [pytest.mark.ros, pytest.mark.slow]

TASK = "drawer-close-v3"


def encore_up(folder: Path, domain: int, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "trainer.cli", "up", "--output", str(folder), "--domain", str(domain), *options]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def test_up_with_a_task_makes_the_tries_and_ends(tmp_path: Path, ros_domain: int) -> None:
    said, _ = encore_up(tmp_path, ros_domain, "--task", TASK, "--episodes", "2").communicate(timeout=120)
    rows = read_results(tmp_path / "results.csv")
    assert [(row.task, row.seed, row.driver, row.success) for row in rows] == [
        (TASK, 0, "expert", True),
        (TASK, 1, "expert", True),
    ], said
    assert "done: 2 of 2 initial states solved" in said
    bags = sorted(path for path in (tmp_path / "bags").iterdir() if path.is_dir())
    assert [EpisodeReader(bag).header.control_mode for bag in bags] == ["lockstep", "lockstep"]
    assert [verify(bag) for bag in bags] == [[], []]


def test_up_in_real_time_keeps_the_robots_rate(tmp_path: Path, ros_domain: int) -> None:
    options = ("--task", TASK, "--episodes", "1", "--mode", "real_time")
    said, _ = encore_up(tmp_path, ros_domain, *options).communicate(timeout=120)
    [row] = read_results(tmp_path / "results.csv")
    assert (row.control_mode, row.ending) == ("real_time", "success"), said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_up_without_a_task_runs_until_it_is_stopped(
    number: signal.Signals, code: int, tmp_path: Path, ros_domain: int
) -> None:
    process = encore_up(tmp_path, ros_domain)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    assert "Ctrl-C stops all of them" in lines[-1], lines
    process.send_signal(number)
    assert process.wait(30) == code
    assert is_quiet(ros_domain), "no node goes on without it"

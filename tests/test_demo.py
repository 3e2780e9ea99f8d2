"""A whole run over ROS with real processes: interrupted, gone on with, and its report held to what it recorded."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rollout_manager.bag import EpisodeReader
from rollout_manager.catalog import Catalog
from rollout_manager.results import read_results
from trainer import cli
from trainer.films import choose
from trainer.report import gather, summary
from trainer.report_data import Arm
from trainer.training_log import read_history
from vla_policy_node.checkpoint import load_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.ros, pytest.mark.timeout(900)]

SOURCE = str(Path(cli.__file__).parents[1])
TASKS = ("reach-v3", "drawer-close-v3")
CONFIG = """
tasks: [reach-v3, drawer-close-v3]
iterations: 2
time_limit: 120
demonstrations: {per_task: 2}
collection: {via: ros, seeds_per_task: 2, attempts: [0.0, 0.2], mastered: 1.1}
evaluation: {validation_seeds: 1, evaluation_seeds: 3}
partial_credit: {sparse_below: 0.5, start: 0.05}
base: {steps: 60, batch_size: 16, threads: 1, validate_every: 30, save_every: 10, log_every: 5}
retrain: {steps: 10, batch_size: 16, threads: 1, validate_every: 10, log_every: 5}
"""


def command(folder: Path, *options: str) -> list[str]:
    config = str(folder.with_name("config.yaml"))
    return [sys.executable, "-m", "trainer.cli", "demo", "--config", config, "--output", str(folder), *options]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": SOURCE, "MUJOCO_GL": os.environ.get("MUJOCO_GL", "osmesa")}


def finished(folder: Path) -> list[str]:
    path = folder / "journal.json"
    return [stage["name"] for stage in json.loads(path.read_text())["stages"]] if path.exists() else []


def children_of(pid: int) -> set[int]:
    """Ids of the processes that were started by `pid`, or by its children."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in (line.split() for line in listing.splitlines())}
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def interrupt_in_training(folder: Path) -> tuple[int, str, set[int]]:
    """Start the run, press Ctrl-C in the middle of its first training; exit code, errors, processes left."""
    process = subprocess.Popen(command(folder), stderr=subprocess.PIPE, text=True, env=environment())
    deadline = time.monotonic() + 400
    while not read_history(folder / "training" / "bc"):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    children = children_of(process.pid)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    left = {pid for pid in children if Path(f"/proc/{pid}").exists()}
    return process.returncode, errors, left


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, tuple[int, str, set[int]], list[float]]:
    """The finished run's folder, what its second part said, how its first part ended, and its bags' times then."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    folder.with_name("config.yaml").write_text(CONFIG)
    interrupted = interrupt_in_training(folder)
    times = [path.stat().st_mtime for path in sorted((folder / "bags").rglob("*.mcap"))]
    done = subprocess.run(command(folder), capture_output=True, text=True, check=False, env=environment(), timeout=600)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout + done.stderr, interrupted, times


Run = tuple[Path, str, tuple[int, str, set[int]], list[float]]


def test_ctrl_c_stops_everything_and_says_how_to_go_on(run: Run) -> None:
    code, errors, left = run[2]
    assert code == 130
    assert "the same command goes on where it was" in errors
    assert left == set()


def test_the_second_part_goes_on_where_the_first_stopped(run: Run) -> None:
    folder, said, _, times = run
    assert "1 stages are done, the last was 'demonstrations'" in said
    bags = sorted((folder / "bags" / "demonstrations").rglob("*.mcap"))
    assert [path.stat().st_mtime for path in bags] == times, "no demonstration was made again"
    steps = [line["step"] for line in read_history(folder / "training" / "bc") if "loss" in line]
    assert steps == sorted(set(steps)), "the log goes on, too"


def test_every_stage_is_done_once_in_its_order(run: Run) -> None:
    assert finished(run[0]) == [
        "demonstrations",
        "train bc",
        *("collect 1", "keep 1", "train fbc_1"),
        *("collect 2", "keep 2", "train fbc_2"),
        *("train control_1", "train control_2"),
        *(f"evaluate {arm}" for arm in ("bc", "fbc_1", "fbc_2", "control", "best_bc")),
    ]


def test_one_policy_node_was_given_both_checkpoints(run: Run) -> None:
    folder, said, _, _ = run
    assert len(re.findall(r"policy node (\d+)", said)) == 2
    assert len(set(re.findall(r"policy node (\d+)", said))) == 1
    parents = []
    for iteration, policy in ((1, "bc"), (2, "fbc_1")):
        rows = read_results(folder / "tries" / f"iteration_{iteration}.csv")
        digest = next(a.digest for a in gather(folder).lineage if a.name == policy)
        assert {row.checkpoint_digest for row in rows} == {digest}
        assert {row.control_mode for row in rows} == {"lockstep"}
        parents.append(digest)
    assert len(set(parents)) == 2


def test_a_state_that_was_solved_was_not_tried_again(run: Run) -> None:
    for iteration in (1, 2):
        rows = read_results(run[0] / "tries" / f"iteration_{iteration}.csv")
        states = {(row.task, row.seed) for row in rows}
        assert states == {(task, 10_000 + 2 * (iteration - 1) + k) for task in TASKS for k in range(2)}
        for state in states:
            tries = sorted((row.attempt, row.success) for row in rows if (row.task, row.seed) == state)
            assert [attempt for attempt, _ in tries] == list(range(len(tries)))
            assert not any(success for _, success in tries[:-1])
            assert len(tries) == 2 or tries[-1][1]


def test_what_was_kept_is_what_was_trained_on(run: Run) -> None:
    folder = run[0]
    outputs = {s["name"]: s["output"] for s in json.loads((folder / "journal.json").read_text())["stages"]}
    kept = [path for i in (1, 2) for path in outputs[f"keep {i}"]["episodes"]]
    lineage = load_checkpoint(folder / outputs["train fbc_2"]["checkpoint"]).lineage
    with Catalog.rebuild([folder / "bags" / "demonstrations"], ":memory:") as catalog:
        demonstrations = {row.header.episode_id: row.digest for row in catalog.rows() if row.success}
    own = {EpisodeReader(folder / p).header.episode_id: EpisodeReader(folder / p).digest for p in kept}
    assert dict(lineage.episodes) == demonstrations | own
    assert lineage.parent == outputs["train fbc_1"]["digest"]
    assert lineage.gradient_steps == outputs["train fbc_2"]["steps"]
    control = load_checkpoint(folder / outputs["train control_2"]["checkpoint"]).lineage
    assert dict(control.episodes) == demonstrations
    assert control.gradient_steps <= outputs["train bc"]["steps"] + 20


def test_all_arms_were_measured_on_the_same_initial_states(run: Run) -> None:
    folder = run[0]
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    states = {arm: {(r["task"], r["seed"]) for r in rows if r["arm"] == arm} for arm in {r["arm"] for r in rows}}
    assert set(states) == {"bc", "fbc_1", "fbc_2", "control", "best_bc"}
    assert all(s == {(task, str(30_000 + k)) for task in TASKS for k in range(3)} for s in states.values())


def test_the_report_is_there_and_says_what_the_table_says(run: Run) -> None:
    folder, said, _, _ = run
    page = (folder / "report" / "index.html").read_text()
    report = gather(folder)
    assert summary(report.arms) in said
    assert [arm.name for arm in report.arms] == ["bc", "best_bc", "control", "fbc_1", "fbc_2"]
    for arm in report.arms:
        rate = arm.summary.rate
        assert f"{rate.successes}/{rate.trials}" in page
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page), "nothing is fetched from anywhere"
    assert [curve.name for curve in report.losses] == ["bc", "fbc_1", "fbc_2", "control_1", "control_2"]
    assert sum(c.chosen for c in report.candidates) == 5
    if choose(report.arm("bc"), report.arm("fbc_2")):
        assert "data:image/webp" in page


def test_another_configuration_is_refused_and_nothing_is_touched(run: Run) -> None:
    folder = run[0]
    before = (folder / "journal.json").read_bytes()
    changed = command(folder, "--retrain.steps", "20")
    done = subprocess.run(changed, capture_output=True, text=True, check=False, env=environment(), timeout=120)
    assert done.returncode == 2
    assert "retrain.steps: 10 there, 20 now" in done.stderr
    assert (folder / "journal.json").read_bytes() == before


def test_the_films_show_what_changed(run: Run) -> None:
    report = gather(run[0])
    everything = [row for arm in report.arms for row in arm.rows]
    solved = tuple(row for row in everything if row.success)
    for choice in choose(Arm("a", "A", tuple(everything)), Arm("b", "B", solved)):
        assert choice.after.success
        assert (choice.before.task, choice.before.seed) == (choice.task, choice.seed)

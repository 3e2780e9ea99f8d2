"""The page of the expert's success says what the tries say, and keeps what people wrote on it."""

import subprocess
import sys
from pathlib import Path

import pytest

from rollout_manager.envs.libero.suites import suite_names
from rollout_manager.results import EpisodeResultRow, append_results

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "libero_expert.py"
GOAL = suite_names()["libero_goal"]
BEGIN, END = "<!-- written by benchmarks/libero_expert.py -->", "<!-- end of what it writes -->"


def row(task: str, seed: int, steps: int = 100, reason: str = "", success: bool = True) -> EpisodeResultRow:
    return EpisodeResultRow(
        environment="libero",
        task=task,
        seed=seed,
        attempt=0,
        driver="expert",
        success=success,
        steps=steps,
        ending="success" if success else "truncated",
        reason=reason,
        exploration=0.0,
        control_mode="in_process",
        checkpoint_digest="",
        spec_digest="",
        versions={"mujoco": "3.3.0"},
        episode_id=f"libero-{task}-{seed}-0",
    )


def failed(task: str, seed: int, reason: str) -> EpisodeResultRow:
    return row(task, seed, 600, reason, success=False)


def write(csv: Path, page: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--page-only", "--csv", str(csv), "--page", str(page), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """Two tasks of libero_goal: one always solved, the other in one of three tries and in time never."""
    path = tmp_path / "tries.csv"
    rows = [row(GOAL[0], seed, steps) for seed, steps in ((30, 90), (31, 110), (32, 100))]
    rows += [row(GOAL[1], 30, 400), failed(GOAL[1], 31, "no free place for bowl_1"), failed(GOAL[1], 32, "")]
    rows += [
        failed(GOAL[1], 33, "none of 7 grasps of bowl_1 can"),
        failed(GOAL[1], 34, "none of 12 grasps of bowl_2 can"),
    ]
    append_results(path, [*rows, row(GOAL[0], 2000, 80)])
    return path


def test_counts_intervals_and_reasons_are_those_of_the_tries(csv: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    done = write(csv, page)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "## Initial states 30 to 34" in text
    assert "## Fresh placements, seeds 2000 to 2000" in text
    # 4 of 8, of which one took more than the 300 steps that are usual; mean steps (90 + 110 + 100 + 400) / 4.
    assert "| libero_goal | 8 | 50.0 % (4/8) [21.5, 78.5] | 37.5 % of 300 steps | 175 | 2 of 2 | 1 |" in text
    assert f"| libero_goal/0 | {GOAL[0]} | 3 of 3 | 1 of 1 | 95 |" in text
    assert f"| libero_goal/1 | {GOAL[1]} | 1 of 5 | - | 400 |" in text
    assert "| 2 | no grasp of bowl can | libero_goal/1 (2) |" in text
    assert "| 1 | no free place for bowl | libero_goal/1 (1) |" in text
    assert "| 1 | no trouble noticed until the time was up | libero_goal/1 (1) |" in text
    assert "mujoco 3.3.0" in text


def test_what_people_wrote_stays(csv: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\nBefore.\n\n{BEGIN}\nold figures\n{END}\n\nAfter.\n")
    assert write(csv, page).returncode == 0
    first = page.read_text()
    assert first.startswith("# Title\n\nBefore.\n\n")
    assert first.endswith("\n\nAfter.\n")
    assert "old figures" not in first
    assert write(csv, page).returncode == 0
    assert page.read_text() == first


def test_a_try_that_was_repeated_counts_once_wherever_it_stands(csv: Path, tmp_path: Path) -> None:
    other, page = tmp_path / "other.csv", tmp_path / "page.md"
    append_results(other, [row(GOAL[1], 31, 200)])
    assert write(csv, page, "--also", str(other)).returncode == 0
    assert f"| libero_goal/1 | {GOAL[1]} | 2 of 5 |" in page.read_text()


def test_without_tries_or_marks_nothing_is_written(csv: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    done = write(tmp_path / "nowhere.csv", page)
    assert done.returncode == 1
    assert "nowhere.csv" in done.stderr
    assert not page.exists()
    page.write_text("# No marks\n")
    done = write(csv, page)
    assert done.returncode == 1
    assert BEGIN in done.stderr
    assert page.read_text() == "# No marks\n"


@pytest.mark.parametrize("states", ["30-50", "5-3", "-1", "all"])
def test_states_that_are_none_are_refused(states: str, csv: Path, tmp_path: Path) -> None:
    done = write(csv, tmp_path / "page.md", f"--states={states}")
    assert done.returncode == 2
    assert "--states" in done.stderr

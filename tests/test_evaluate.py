"""Evaluation: real episodes in a pool, rows on disk, what is done again and what is not, comparison."""

from dataclasses import replace
from pathlib import Path

import pytest

from rollout_manager.results import EpisodeResultRow, append_results, read_results
from trainer.evaluate import EvaluationPlan, compare, evaluate, mean_success, table
from trainer.exceptions import ConfigError, TrainingError

PLAN = EvaluationPlan(tasks=("reach-v3", "drawer-close-v3"), seeds=(5, 6), driver="expert", time_limit=150, workers=1)
ROW = EpisodeResultRow(
    "metaworld", "reach-v3", 5, 0, "expert", True, 40, "success", "", 0.0, "in_process", "", "s", {}, "id", 1.0
)


def test_the_expert_solves_what_nothing_does_not(tmp_path: Path) -> None:
    results = tmp_path / "results.csv"
    solved = evaluate(PLAN, results, visible=False)
    assert [(row.task, row.seed) for row in solved] == [
        ("reach-v3", 5),
        ("reach-v3", 6),
        ("drawer-close-v3", 5),
        ("drawer-close-v3", 6),
    ]
    assert all(row.success and row.driver == "expert" and row.versions for row in solved)
    nothing = evaluate(replace(PLAN, driver="none", time_limit=20), results, visible=False)
    assert not any(row.success for row in nothing)
    assert {row.ending for row in nothing} == {"truncated"}
    assert {row.steps for row in nothing} == {20}
    assert read_results(results) == [*solved, *nothing]
    assert compare(nothing, solved).comparison.only_new == 4


def test_tries_that_were_made_are_not_made_again_but_aborted_ones_are(tmp_path: Path) -> None:
    results = tmp_path / "results.csv"
    plan = replace(PLAN, tasks=("reach-v3",), time_limit=10)
    names = [request.episode_id for request in plan.requests()]
    done = replace(ROW, seed=5, steps=7, episode_id=names[0])
    aborted = replace(ROW, seed=6, success=False, ending="aborted", episode_id=names[1])
    others = replace(ROW, seed=6, checkpoint_digest="another", driver="policy", episode_id=names[1])
    append_results(results, [done, aborted, others])
    rows = evaluate(plan, results, visible=False)
    assert rows[0] == done
    assert (rows[1].seed, rows[1].ending) == (6, "truncated")
    assert len(read_results(results)) == 4


def test_every_try_aborted_is_an_error_that_says_why(tmp_path: Path) -> None:
    plan = replace(PLAN, tasks=("no-such-task",), seeds=(1,))
    with pytest.raises(TrainingError, match="no-such-task"):
        evaluate(plan, tmp_path / "results.csv", visible=False)
    assert read_results(tmp_path / "results.csv")[0].ending == "aborted"


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    plan = replace(PLAN, driver="policy", checkpoint=str(tmp_path / "none"), seeds=(1,), tasks=("reach-v3",))
    with pytest.raises(TrainingError, match="none' does not exist"):
        evaluate(plan, tmp_path / "results.csv", visible=False)


def test_plans_are_checked() -> None:
    with pytest.raises(ConfigError, match="needs a checkpoint"):
        replace(PLAN, driver="policy")
    with pytest.raises(ConfigError, match="no tasks or no seeds"):
        replace(PLAN, tasks=())
    with pytest.raises(ConfigError, match="workers 0"):
        replace(PLAN, workers=0)
    with pytest.raises(ConfigError, match="execute_every 0"):
        replace(PLAN, execute_every=0)


def test_the_table_shows_trials_interval_and_steps() -> None:
    failed = replace(ROW, task="push-v3", success=False, ending="truncated")
    aborted = replace(failed, ending="aborted")
    lines = table([ROW, replace(ROW, steps=60), failed, aborted]).splitlines()
    assert [line.split()[0] for line in lines] == ["task", "push-v3", "reach-v3", "all"]
    assert "0.0 % (0/1) [0.0, 79.3]" in lines[1]
    assert "(1 aborted)" in lines[1]
    assert "100.0 % (2/2)" in lines[2]
    assert lines[2].endswith("50.0")
    assert "66.7 % (2/3)" in lines[3]
    assert "human" not in "".join(lines)
    helped = table([ROW, replace(ROW, human_steps=3), replace(failed, human_steps=9)]).splitlines()
    assert helped[2].startswith("reach-v3  50.0 % (1/2) [9.5, 90.5], 1 more with a human's help")
    assert "help" not in helped[1], "it did not succeed"
    assert "33.3 % (1/3)" in helped[3]
    assert "1 more with a human's help" in helped[3]


def test_the_mean_over_tasks_by_hand() -> None:
    failed = replace(ROW, task="push-v3", success=False, ending="truncated")
    rows = [ROW, ROW, replace(ROW, task="push-v3"), failed, failed, failed]
    # 2 of 2 on one task, 1 of 4 on the other: (1 + 0.25) / 2, not 3 / 6.
    assert mean_success(rows) == 0.625
    assert mean_success([*rows, replace(failed, task="open-v3", ending="aborted")]) == 0.625
    assert mean_success([]) == 0.0

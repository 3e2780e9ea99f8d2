"""The filter: what is kept, why the rest is not, and the caps of tasks."""

from dataclasses import replace
from pathlib import Path

import pytest
from episodes import SPEC, make_header, write_bag

from rollout_manager.catalog import Catalog, EpisodeRow
from rollout_manager.episode import Driver, Outcome
from rollout_manager.labels import LabelOutcome, append_label, make_label
from trainer.config import FilterConfig
from trainer.filter import Dropped, Kept, keep, select

SUCCESS, TIME_UP = Outcome("success", 20, 1.0), Outcome("truncated", 50, 0.6)


def _row(
    name: str = "a",
    task: str = "push",
    driver: Driver = "policy",
    outcome: Outcome = SUCCESS,
    effective: LabelOutcome = "success",
    attempt: int = 0,
) -> EpisodeRow:
    header = make_header(name, task, driver, attempt=attempt)
    return EpisodeRow(Path(name), header, outcome, None, effective, "digest", 1)


FAILED = _row("failed", outcome=TIME_UP, effective="failure")


@pytest.mark.parametrize(
    ("row", "config", "reason"),
    [
        (FAILED, FilterConfig(), "no success"),
        (_row(effective="aborted"), FilterConfig(), "aborted"),
        (_row(effective="discard"), FilterConfig(min_progress=0.0), "discarded by its label"),
        (_row(effective="failure"), FilterConfig(min_progress=1.0), ""),
        (FAILED, FilterConfig(min_progress=0.7), "no success"),
        (FAILED, FilterConfig(min_progress=0.6), ""),
        (_row(), FilterConfig(tasks=("open",)), "task not asked for"),
        (_row(), FilterConfig(tasks=("open", "push")), ""),
        (_row(), FilterConfig(drivers=("expert",)), "driven by policy"),
        (_row(), FilterConfig(min_steps=21), "too short"),
        (_row(), FilterConfig(min_steps=20, max_steps=20), ""),
        (_row(), FilterConfig(max_steps=19), "too long"),
    ],
)
def test_one_episode_is_judged_on_its_own(row: EpisodeRow, config: FilterConfig, reason: str) -> None:
    judged = keep(row, config)
    assert judged == (Dropped(row, reason) if reason else Kept(row))


def test_of_a_try_that_came_a_part_of_the_way_only_that_part_is_learned() -> None:
    half = Outcome("truncated", 50, 0.6, progress_steps=20)
    rows = [
        _row("solved", outcome=replace(SUCCESS, progress_steps=20)),
        _row("half", outcome=half, effective="failure"),
        _row("solved-as-a-person-says", outcome=half),
        _row("half-who-knows-when", outcome=TIME_UP, effective="failure"),
    ]
    assert list(select(rows, FilterConfig(min_progress=0.5)).steps.values()) == [0, 20, 0, 0]


def test_episodes_of_another_robot_are_dropped() -> None:
    assert keep(_row(), FilterConfig(), "other") == Dropped(_row(), "another robot")
    assert keep(_row(), FilterConfig(), SPEC.digest) == Kept(_row())


def test_caps_prefer_what_was_hard_and_then_what_was_short() -> None:
    long, short = replace(SUCCESS, steps=40), replace(SUCCESS, steps=10)
    rows = [
        _row("long", outcome=long),
        _row("short", outcome=short),
        _row("retried", outcome=long, attempt=2),
        _row("other", task="open", outcome=long),
        _row("expert", driver="expert", outcome=long),
        FAILED,
    ]
    chosen = select(rows, FilterConfig(rollouts_per_task=2))
    assert [k.row.header.episode_id for k in chosen.kept] == ["short", "retried", "other", "expert"]
    assert chosen.reasons() == {"over the task's cap": 1, "no success": 1}
    assert [d.row.header.episode_id for d in chosen.dropped] == ["long", "failed"]
    assert chosen.rows[0].header.episode_id == "short"


def test_demonstrations_have_a_cap_of_their_own() -> None:
    rows = [_row(f"e{k}", driver="expert") for k in range(4)] + [_row(f"p{k}") for k in range(4)]
    chosen = select(rows, FilterConfig(demonstrations_per_task=3, rollouts_per_task=1))
    assert [k.row.header.episode_id for k in chosen.kept] == ["e0", "e1", "e2", "p0"]


def test_a_persons_label_overrules_the_recorded_outcome(tmp_path: Path) -> None:
    failed = write_bag(tmp_path, make_header("failed"), 3, outcome=Outcome("truncated", 3, 0.2))
    solved = write_bag(tmp_path, make_header("solved"), 3)
    write_bag(tmp_path, make_header("plain"), 3)
    append_label(failed, make_label("failed", "success", "Ada"))
    append_label(solved, make_label("solved", "discard", "Ada"))
    with Catalog.rebuild([tmp_path], ":memory:") as catalog:
        chosen = select(catalog.rows(), FilterConfig())
    assert [row.header.episode_id for row in chosen.rows] == ["failed", "plain"]
    assert chosen.reasons() == {"discarded by its label": 1}

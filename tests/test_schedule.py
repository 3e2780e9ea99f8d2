"""Schedules: what is tried next, what is done, and every malformed file refused by name."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_manager.exceptions import ScheduleError
from rollout_manager.schedule import (
    Schedule,
    ScheduleEntry,
    load_schedule,
    next_try,
    remaining,
    save_schedule,
)

ENTRY = ScheduleEntry("reach-v3", 7, (0.0, 0.15, 0.3), 120)
SCHEDULE = Schedule("metaworld", "policy", (ENTRY, ScheduleEntry("push-v3", 7)), "runs/best", (4,))


def test_the_next_attempt_is_made_only_after_a_failure() -> None:
    [(_, tries), _] = list(SCHEDULE.tries())
    first, second, third = tries
    assert [t.exploration for t in tries] == [0.0, 0.15, 0.3]
    assert [t.episode_id for t in tries] == [f"metaworld_reach-v3_s7_a{k}" for k in range(3)]
    assert next_try(tries, {}) == first
    assert next_try(tries, {first.episode_id: True}) is None
    assert next_try(tries, {first.episode_id: False}) == second
    assert next_try(tries, {first.episode_id: False, second.episode_id: False}) == third
    assert next_try(tries, {t.episode_id: False for t in tries}) is None


@given(st.lists(st.booleans(), min_size=3, max_size=3))
def test_making_what_is_next_until_nothing_is_left_ends_at_the_first_success(successes: list[bool]) -> None:
    [(_, tries), _] = list(SCHEDULE.tries())
    made: dict[str, bool] = {}
    while (attempt := next_try(tries, made)) is not None:
        made[attempt.episode_id] = successes[attempt.attempt]
    expected = successes.index(True) + 1 if True in successes else 3
    assert len(made) == expected


def test_remaining_counts_unsettled_entries() -> None:
    assert remaining(SCHEDULE, {}) == 2
    assert remaining(SCHEDULE, {"metaworld_push-v3_s7_a0": False}) == 1
    assert remaining(SCHEDULE, {"metaworld_push-v3_s7_a0": False, "metaworld_reach-v3_s7_a0": True}) == 0


def test_attempts_carry_out_as_much_of_a_chunk_as_is_their_turn() -> None:
    every = [t.execute_every for _, tries in replace(SCHEDULE, execute_every=(8, 12)).tries() for t in tries]
    assert every == [8, 12, 8, 8]


def test_one_number_of_actions_may_be_written_without_a_list(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    for text, every in (("3", (3,)), ("[3, 5]", (3, 5))):
        path.write_text(f"{{environment: m, driver: policy, execute_every: {text}, entries: [{{task: a, seed: 0}}]}}")
        assert load_schedule(path).execute_every == every


def test_a_saved_schedule_is_the_same_one(tmp_path: Path) -> None:
    save_schedule(tmp_path / "deep" / "s.yaml", SCHEDULE)
    assert load_schedule(tmp_path / "deep" / "s.yaml") == SCHEDULE


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("entries: [", "not readable as YAML"),
        ("[1, 2]", "expected keys with values"),
        ("environment: metaworld", "list 'entries'"),
        ("{environment: m, driver: policy, entries: []}", "no entries"),
        ("{environment: m, driver: robot, entries: [{task: a, seed: 0}]}", "'robot' is not one of policy, expert"),
        (
            "{environment: m, driver: policy, entries: [{task: a, sed: 0}]}",
            r"entries\[0\]: unknown sed; valid are task",
        ),
        ("{environment: m, driver: policy, entries: [{task: a}]}", "seed"),
        ("{environment: m, driver: policy, entries: [{task: a, seed: -1}]}", "seed -1"),
        ("{environment: m, driver: policy, entries: [{task: a, seed: 0, attempts: 3}]}", "attempts must be a list"),
        ("{environment: m, driver: policy, entries: [{task: a, seed: 0, attempts: []}]}", "one or more"),
        (
            "{environment: m, driver: policy, entries: [{task: a, seed: 0}, {task: a, seed: 0}]}",
            "listed twice: a seed 0",
        ),
        ("{environment: m, driver: policy, speed: 3, entries: [{task: a, seed: 0}]}", "unknown speed; valid are"),
        ("{driver: policy, entries: [{task: a, seed: 0}]}", "environment"),
        ("{environment: m, driver: policy, execute_every: -1, entries: [{task: a, seed: 0}]}", r"execute_every \[-1\]"),
    ],
)
def test_malformed_schedules_are_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(ScheduleError, match=says):
        load_schedule(path)


def test_a_missing_schedule_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScheduleError, match=r"none\.yaml' does not exist"):
        load_schedule(tmp_path / "none.yaml")


def test_a_state_tried_before_goes_on_counting_its_attempts() -> None:
    entry = ScheduleEntry("reach-v3", 7, (0.0, 0.2), first_attempt=4)
    ((_, tries),) = Schedule("metaworld", "expert", (entry,)).tries()
    assert [(t.attempt, t.exploration, t.episode_id) for t in tries] == [
        (4, 0.0, "metaworld_reach-v3_s7_a4"),
        (5, 0.2, "metaworld_reach-v3_s7_a5"),
    ]
    with pytest.raises(ScheduleError, match="first_attempt -1 is not 0, 1, 2"):
        ScheduleEntry("reach-v3", 7, first_attempt=-1)

"""Filtered behaviour cloning: its seeds, its curriculum, its configuration."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_manager.results import EpisodeResultRow
from trainer.collection import CollectionPlan, unsolved
from trainer.config import from_mapping, to_plain
from trainer.curriculum import PartialCreditConfig, check_attempts, not_mastered, progress_needed, states_by_uncertainty
from trainer.exceptions import ConfigError
from trainer.fbc import Episodes, Trained, Tries, filtered_behaviour_cloning
from trainer.fbc_config import CollectionConfig, FBCConfig
from trainer.seeds import ROUND, SeedStarts, check_disjoint, in_rounds, plan_seeds


def test_each_iteration_collects_from_seeds_of_its_own() -> None:
    plan = plan_seeds(SeedStarts(0, 100, 200, 300), 10, 8, 2, 5, 20)
    assert plan.demonstrations == range(0, 10)
    assert plan.collection == (range(100, 108), range(108, 116))
    assert plan.validation == range(200, 205)
    assert plan.evaluation == range(300, 320)


def test_iterations_may_collect_from_the_same_seeds() -> None:
    plan = plan_seeds(SeedStarts(0, 10, 25, 30), 10, 15, 1, 5, 20)
    assert [plan.collection_of(i) for i in (1, 2, 5)] == [range(10, 25)] * 3
    same = FBCConfig(tasks=("reach-v3",), iterations=9, collection=CollectionConfig(fresh=False))
    assert len({same.seed_plan.collection_of(i) for i in range(1, 10)}) == 1


def test_tasks_take_turns_in_rounds() -> None:
    order = in_rounds(("a", "b"), range(10, 10 + ROUND + 2))
    first = range(10, 10 + ROUND)
    assert order[: 2 * ROUND] == [*(("a", seed) for seed in first), *(("b", seed) for seed in first)]
    assert order[2 * ROUND :] == [("a", 15), ("a", 16), ("b", 15), ("b", 16)]


def test_purposes_that_share_a_seed_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"seeds 200 to 203 are in collection of iteration 2 .* and in validation"):
        plan_seeds(SeedStarts(0, 188, 200, 300), 10, 8, 2, 5, 20)


@pytest.mark.parametrize("seeds", [range(5, 5), range(-3, 2)])
def test_a_purpose_needs_seeds_from_0_on(seeds: range) -> None:
    with pytest.raises(ConfigError, match="seeds of validation: from"):
        check_disjoint({"validation": seeds})


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 15)), min_size=2, max_size=4))
def test_ranges_pass_exactly_when_no_seed_is_used_twice(pairs: list[tuple[int, int]]) -> None:
    ranges = {str(i): range(start, start + n) for i, (start, n) in enumerate(pairs)}
    used = [seed for seeds in ranges.values() for seed in seeds]
    if len(used) == len(set(used)):
        check_disjoint(ranges)
    else:
        with pytest.raises(ConfigError):
            check_disjoint(ranges)


def test_partial_credit_by_hand() -> None:
    config = PartialCreditConfig(sparse_below=0.1, start=0.4, full_at=4)
    assert [progress_needed(config, i, 0, 10) for i in (1, 2, 3, 4, 5)] == pytest.approx([0.4, 0.6, 0.8, 1.0, 1.0])
    assert progress_needed(config, 1, 1, 10) == 1.0, "one in ten is not below a tenth"
    assert progress_needed(config, 1, 0, 0) == 1.0, "a task that was not tried is not sparse"
    assert progress_needed(PartialCreditConfig(sparse_below=0.0), 1, 0, 10) == 1.0
    assert progress_needed(PartialCreditConfig(full_at=1), 1, 0, 10) == 1.0


@given(st.floats(0, 1), st.integers(1, 6), st.integers(0, 10), st.integers(1, 10))
def test_the_progress_needed_only_rises(start: float, full_at: int, successes: int, tries: int) -> None:
    config = PartialCreditConfig(0.5, start, full_at)
    needed = [progress_needed(config, i, min(successes, tries), tries) for i in range(1, 8)]
    assert needed == sorted(needed)
    assert needed[-1] == 1.0
    assert all(start <= x <= 1.0 for x in needed)


def test_mastered_tasks_are_skipped() -> None:
    successes = {"push-v3": (4, 5), "reach-v3": (5, 5), "door": (0, 5), "new": (0, 0)}
    assert not_mastered(successes, 1.0) == ("push-v3", "door", "new")
    assert not_mastered(successes, 0.8) == ("door", "new")
    assert not_mastered(successes, 1.1) == ("push-v3", "reach-v3", "door", "new")


def test_states_go_where_success_is_uncertain_by_hand() -> None:
    # p = 6/7, 1/2, 1/12: standard deviations .350, .5, .276. Of 15 states each has one; the next go, by weight/(n + 1),
    # to b .25, a .175, b .167, c .138, b .125, a .117, b .1, c .092, a .087, b .083, b .071, a .07.
    successes = {"a": (5, 5), "b": (2, 4), "c": (0, 10)}
    assert states_by_uncertainty(successes, 10, 0.5) == {"a": 5, "b": 7, "c": 3}
    assert states_by_uncertainty(successes, 10, 1.0) == {"a": 10, "b": 10, "c": 10}
    assert states_by_uncertainty(successes, 10, 0.01) == {"a": 1, "b": 1, "c": 1}


@given(
    st.lists(st.integers(1, 20).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=1, max_size=8),
    st.integers(1, 30),
    st.floats(0.01, 1),
)
def test_as_many_states_as_asked_for_are_tried_and_even_chances_get_no_fewer(
    successes: list[tuple[int, int]], states: int, share: float
) -> None:
    given_states = states_by_uncertainty({str(i): s for i, s in enumerate(successes)}, states, share)
    assert sum(given_states.values()) == max(len(successes), round(share * states * len(successes)))
    assert all(1 <= n <= states for n in given_states.values())
    doubt = [abs((k + 1) / (n + 2) - 0.5) for k, n in successes]
    for i, a in enumerate(doubt):
        for j, b in enumerate(doubt):
            assert a >= b - 1e-9 or given_states[str(i)] >= given_states[str(j)] - 1


def test_a_plan_may_give_tasks_different_numbers_of_states() -> None:
    plan = CollectionPlan("p", "policy", ("a", "b"), range(5, 8), Path(), Path(), states_of={"b": 1})
    assert plan.states == [("a", 5), ("a", 6), ("a", 7), ("b", 5)]


def test_of_each_chunk_at_least_one_action_is_carried_out() -> None:
    assert CollectionConfig(execute_every=(8, 12)).execute_every == (8, 12)
    with pytest.raises(ConfigError, match=r"execute_every \[8, 0\]"):
        CollectionConfig(execute_every=(8, 0))


@pytest.mark.parametrize("attempts", [(), (-0.1,), (0.0, 3.0), (float("nan"),)])
def test_attempts_need_scales_in_range(attempts: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="attempts"):
        check_attempts(attempts)


def test_a_configuration_survives_its_file() -> None:
    config = from_mapping(
        FBCConfig,
        {"tasks": ["push-v3"], "collection": {"attempts": [0, 0.2], "via": "ros"}, "base": {"steps": 5}},
        "test",
    )
    assert config.collection.attempts == (0.0, 0.2)
    assert from_mapping(FBCConfig, to_plain(config), "saved") == config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "tasks: no task: name tasks of metaworld"),
        ({"tasks": ["push-v3", "push-v3"]}, "named twice"),
        ({"tasks": ["push-v3"], "iterations": 0}, "iterations 0"),
        ({"tasks": ["push-v3"], "seeds": {"validation": 30_005}}, "are in validation .* and in evaluation"),
        ({"tasks": ["push-v3"], "collection": {"via": "carrier pigeon"}}, "is not one of ros, pool"),
        ({"tasks": ["push-v3"], "collection": {"active": 0}}, "active 0.0 is not in"),
        ({"tasks": ["push-v3"], "zero_shot": {"tasks": ["push-v3"]}}, "push-v3 is among the tasks that are trained on"),
        ({"tasks": ["push-v3"], "zero_shot": {"tasks": ["pish-v3"]}}, "zero_shot: .*pish-v3"),
        ({"tasks": ["push-v3"], "zero_shot": {"suite": "mt99"}}, "zero_shot: .*mt99"),
        ({"tasks": ["push-v3"], "demonstrations": {"per_tusk": 1}}, "unknown key per_tusk; valid are bags, per_task"),
        ({"tasks": ["push-v3"], "demonstrations": {"per_task": 10_001}}, "seeds 10000 to 10000 are in demonstrations"),
    ],
)
def test_a_wrong_configuration_says_what_is_wrong(content: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_mapping(FBCConfig, content, "test")


class Simulated:
    """Stages of arithmetic alone: every train raises each task's validation success by what it was given."""

    def __init__(self, start: int = 1, gain: int = 1) -> None:
        self.start, self.gain = start, gain
        self.calls: list[str] = []
        self.given: dict[str, tuple[str | None, tuple[str, ...]]] = {}

    def demonstrate(self) -> str:
        self.calls.append("demonstrate")
        return "bags/demonstrations"

    def train(self, arm: str, iteration: int, start: Trained | None, episodes: Episodes) -> Trained:
        name = f"{arm}_{iteration}" if iteration else arm
        self.calls.append(f"train {name}")
        self.given[name] = (start.name if start else None, tuple(episodes))
        successes = self.start if start is None else min(4, start.validation["push-v3"][0] + self.gain * bool(episodes))
        steps = 100 + (start.steps if start else 0)
        return Trained(name, f"training/{name}", name, steps, {"push-v3": (successes, 4), "reach-v3": (4, 4)})

    def collect(self, iteration: int, policy: Trained, tasks: Sequence[str]) -> Tries:
        self.calls.append(f"collect {iteration} {','.join(tasks)} with {policy.name}")
        return Tries(iteration, (f"bags/{iteration}",))

    def keep(self, tries: Tries, filtered: bool = True) -> Episodes:
        good = {f"good {tries.iteration}": 0}
        return good if filtered else {**good, f"bad {tries.iteration}": 0}

    def evaluate(self, arm: str, policy: Trained) -> None:
        self.calls.append(f"evaluate {arm}: {policy.name}")

    def zero_shot(self, arm: str, policy: Trained) -> None:
        self.calls.append(f"zero-shot {arm}: {policy.name}")


def fbc_config(**changes: Any) -> FBCConfig:
    return from_mapping(FBCConfig, {"tasks": ["push-v3", "reach-v3"], **changes}, "test")


def test_the_order_of_a_run() -> None:
    stages = Simulated()
    filtered_behaviour_cloning(fbc_config(), stages)
    assert stages.calls == [
        "demonstrate",
        "train bc",
        "collect 1 push-v3 with bc",
        "train fbc_1",
        "collect 2 push-v3 with fbc_1",
        "train fbc_2",
        "train control_1",
        "train control_2",
        "evaluate bc: bc",
        "evaluate fbc_1: fbc_1",
        "evaluate fbc_2: fbc_2",
        "evaluate control: control_2",
        "evaluate best_bc: bc",
    ]


def test_tasks_of_no_training_are_tried_last_by_every_arm() -> None:
    stages = Simulated()
    config = fbc_config(iterations=1, zero_shot={"tasks": ["drawer-close"]})
    assert config.zero_shot.tasks == ("drawer-close-v3",)
    filtered_behaviour_cloning(config, stages)
    assert stages.calls[-4:] == [
        f"zero-shot {arm}" for arm in ("bc: bc", "fbc_1: fbc_1", "control: control_1", "best_bc: bc")
    ]


def test_what_each_training_is_given() -> None:
    stages = Simulated()
    arms = filtered_behaviour_cloning(fbc_config(references={"unfiltered": True}), stages)
    assert stages.given == {
        "bc": (None, ()),
        "fbc_1": ("bc", ("good 1",)),
        "fbc_2": ("fbc_1", ("good 1", "good 2")),
        "control_1": ("bc", ()),
        "control_2": ("control_1", ()),
        "unfiltered_1": ("bc", ("good 1", "bad 1")),
        "unfiltered_2": ("unfiltered_1", ("good 1", "bad 1", "good 2", "bad 2")),
    }
    assert arms["fbc_2"].steps == arms["control"].steps == arms["unfiltered"].steps == 300


def test_from_scratch_every_iteration_starts_anew() -> None:
    stages = Simulated()
    filtered_behaviour_cloning(fbc_config(start="scratch"), stages)
    assert {start for start, _ in stages.given.values()} == {None}


def test_a_run_ends_when_every_task_is_mastered_and_so_does_its_control() -> None:
    stages = Simulated(start=3)
    arms = filtered_behaviour_cloning(fbc_config(iterations=5), stages)
    assert list(arms) == ["bc", "fbc_1", "control", "best_bc"]
    assert [call for call in stages.calls if call.startswith("collect")] == ["collect 1 push-v3 with bc"]
    assert "train control_2" not in stages.calls


def test_a_base_that_masters_everything_is_left_alone() -> None:
    arms = filtered_behaviour_cloning(fbc_config(), Simulated(start=4))
    assert arms["control"] is arms["best_bc"] is arms["bc"]


ROW = EpisodeResultRow(
    "metaworld", "push-v3", 7, 0, "policy", False, 200, "truncated", "", 0.0, "in_process", "c0ffee", "beef"
)
SOLVED = replace(ROW, success=True, ending="success", steps=50)


def test_only_failed_states_are_tried_again() -> None:
    states = [("push-v3", 7), ("push-v3", 8), ("push-v3", 9), ("reach-v3", 7)]
    rows = [
        ROW,
        replace(SOLVED, seed=8),
        replace(ROW, seed=9),
        replace(SOLVED, seed=9, attempt=1),
    ]
    assert unsolved(states, rows, (0.0, 0.2, 0.4)) == [("push-v3", 7, 1), ("reach-v3", 7, 0)]
    assert unsolved(states, [], (0.0,)) == [(task, seed, 0) for task, seed in states]


def test_a_state_tried_before_gets_new_attempts() -> None:
    assert unsolved([("push-v3", 7)], [], (0.0, 0.2), first=4) == [("push-v3", 7, 4)]
    assert unsolved([("push-v3", 7)], [replace(ROW, attempt=4)], (0.0, 0.2), first=4) == [("push-v3", 7, 5)]
    assert unsolved([("push-v3", 7)], [replace(ROW, attempt=k) for k in (4, 5)], (0.0, 0.2), first=4) == []


def test_a_state_is_given_up_after_its_last_attempt_and_an_aborted_try_is_made_again() -> None:
    assert unsolved([("push-v3", 7)], [ROW, replace(ROW, attempt=1)], (0.0, 0.2)) == []
    aborted = replace(ROW, ending="aborted", reason="died")
    assert unsolved([("push-v3", 7)], [aborted], (0.0, 0.2)) == [("push-v3", 7, 0)]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(1, 4))
def test_trying_until_nothing_is_left_makes_every_try_once(solved_at: list[int], attempts: int) -> None:
    """State i is solved by attempt `solved_at[i]`."""
    states = [("push-v3", i) for i in range(len(solved_at))]
    rows: list[EpisodeResultRow] = []
    while tries := unsolved(states, rows, (0.0,) * attempts):
        rows += [
            replace(SOLVED if solved_at[seed] == attempt else ROW, seed=seed, attempt=attempt)
            for _, seed, attempt in tries
        ]
    assert len(rows) == sum(min(k + 1, attempts) for k in solved_at)


def test_a_plan_has_every_state_of_every_task() -> None:
    plan = CollectionPlan("x", "policy", ("a", "b"), range(5, 7), Path("bags"), Path("rows.csv"))
    assert plan.states == [("a", 5), ("a", 6), ("b", 5), ("b", 6)]

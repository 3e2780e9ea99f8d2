"""Intervals, paired tests and the gate: hand arithmetic, known values, and scipy where it is there."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout_manager.results import EpisodeResultRow
from trainer.exceptions import ConfigError
from trainer.statistics import (
    GateConfig,
    Key,
    StepsToSuccess,
    Summary,
    by_task,
    compare_paired,
    gate,
    mcnemar_exact,
    success_by_state,
    wilson,
)

ROW = EpisodeResultRow("metaworld", "push-v3", 0, 0, "policy", True, 40, "success", "", 0.0, "lockstep", "c", "s")
FAILED = replace(ROW, success=False, ending="truncated", steps=200)


def _outcomes(both: int, only_old: int, only_new: int, neither: int) -> tuple[dict[Key, bool], dict[Key, bool]]:
    pairs = [(True, True)] * both + [(True, False)] * only_old + [(False, True)] * only_new + [(False, False)] * neither
    keys = [("metaworld", "push-v3", seed) for seed in range(len(pairs))]
    return dict(zip(keys, [a for a, _ in pairs], strict=True)), dict(zip(keys, [b for _, b in pairs], strict=True))


def test_wilson_by_hand() -> None:
    # With z = 1.959964: n = 10, p = 0.5. z^2 = 3.841459; centre = (0.5 + 0.192073) / 1.384146 = 0.5;
    # half = 1.959964 * sqrt(0.025 + 0.00960365) / 1.384146 = 0.263407.
    rate = wilson(5, 10)
    assert rate.low == pytest.approx(0.5 - 0.263407, abs=1e-6)
    assert rate.high == pytest.approx(0.5 + 0.263407, abs=1e-6)
    assert str(rate) == "50.0 % (5/10) [23.7, 76.3]"


def test_wilson_at_the_ends() -> None:
    # p = 0: the upper end is z^2 / (n + z^2) = 3.841459 / 13.841459.
    none = wilson(0, 10)
    assert none.low == 0.0
    assert none.high == pytest.approx(0.277533, abs=1e-6)
    every = wilson(10, 10)
    assert every.low == pytest.approx(1 - 0.277533, abs=1e-6)
    assert every.high == 1.0
    empty = wilson(0, 0)
    assert (empty.low, empty.high, str(empty)) == (0.0, 1.0, "no trials")
    assert math.isnan(empty.value)
    with pytest.raises(ConfigError, match="3 successes of 2 trials"):
        wilson(3, 2)


@given(trials=st.integers(1, 500), share=st.floats(0, 1))
def test_wilson_is_symmetric_and_holds_the_share(trials: int, share: float) -> None:
    successes = round(share * trials)
    rate, mirrored = wilson(successes, trials), wilson(trials - successes, trials)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1
    assert rate.low == pytest.approx(1 - mirrored.high, abs=1e-12)
    assert wilson(successes, trials, 0.99).high >= rate.high


@settings(deadline=None)  # the first call imports scipy
@given(trials=st.integers(1, 300), share=st.floats(0, 1))
def test_wilson_agrees_with_scipy(trials: int, share: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    successes = round(share * trials)
    interval = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    rate = wilson(successes, trials)
    assert (rate.low, rate.high) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_mcnemar_by_hand() -> None:
    # 1 against 5: 2 * (C(6,0) + C(6,1)) / 2^6 = 14 / 64.
    assert mcnemar_exact(1, 5) == 14 / 64 == mcnemar_exact(5, 1)
    assert mcnemar_exact(0, 6) == 2 / 64
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(3, 3) == 1.0


@settings(deadline=None)  # the first call imports scipy
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_agrees_with_scipys_binomial_test(lost: int, gained: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    wanted = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar_exact(lost, gained) == pytest.approx(wanted, abs=1e-9)


def test_paired_difference_by_hand() -> None:
    old, new = _outcomes(both=4, only_old=1, only_new=3, neither=2)
    pair = compare_paired(old, new)
    assert (pair.pairs, pair.both, pair.only_old, pair.only_new) == (10, 4, 1, 3)
    assert pair.difference == pytest.approx(0.2)
    # 12 pairs after the adjustment, 1.5 lost, 3.5 gained: centre 2/12; variance (5/12 - (2/12)^2) / 12 = 7/216.
    half = 1.959964 * math.sqrt(7 / 216)
    assert pair.low == pytest.approx(1 / 6 - half, abs=1e-6)
    assert pair.high == pytest.approx(1 / 6 + half, abs=1e-6)
    assert pair.p_value == 10 / 16
    assert str(pair).startswith("+20.0 points [")


def test_only_shared_states_are_compared() -> None:
    old = {("metaworld", "push-v3", seed): True for seed in range(5)}
    new = {("metaworld", "push-v3", seed): False for seed in range(4, 9)}
    pair = compare_paired(old, new)
    assert (pair.pairs, pair.only_old) == (1, 1)
    nothing = compare_paired(old, {})
    assert (nothing.pairs, nothing.low, nothing.high, nothing.p_value) == (0, -1.0, 1.0, 1.0)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_swapping_the_policies_mirrors_the_comparison(both: int, lost: int, gained: int, neither: int) -> None:
    old, new = _outcomes(both, lost, gained, neither)
    there, back = compare_paired(old, new), compare_paired(new, old)
    assert there.difference == pytest.approx(-back.difference)
    assert there.p_value == back.p_value
    if there.pairs:
        assert there.low == pytest.approx(-back.high)
        assert -1 <= there.low <= there.high <= 1


def test_gate_decides_by_evidence() -> None:
    assert gate(*_outcomes(10, 0, 12, 2)).decision == "replace"
    assert gate(*_outcomes(10, 12, 0, 2)).decision == "keep"
    few = gate(*_outcomes(3, 0, 3, 0))
    assert (few.decision, few.reason) == ("undecided", "only 6 pairs, 20 are needed")
    chance = gate(*_outcomes(10, 3, 4, 10))
    assert chance.decision == "undecided"
    assert "chance" in chance.reason
    # 200 pairs alike: certainly not worse by 5 points.
    assert gate(*_outcomes(150, 0, 0, 50)).decision == "replace"


def test_gate_refuses_a_policy_that_forgot_a_task() -> None:
    old, new = _outcomes(20, 0, 40, 0)
    lost_old = {("metaworld", "reach-v3", seed): True for seed in range(12)}
    lost_new = dict.fromkeys(lost_old, False)
    verdict = gate({**old, **lost_old}, {**new, **lost_new})
    assert verdict.comparison.difference > 0
    assert verdict.decision == "keep"
    assert "reach-v3" in verdict.reason


def test_gate_config_is_checked() -> None:
    with pytest.raises(ConfigError, match="confidence"):
        GateConfig(confidence=0.3)
    with pytest.raises(ConfigError, match="margin"):
        GateConfig(margin=1.0)
    with pytest.raises(ConfigError, match="min_pairs"):
        GateConfig(min_pairs=0)


def test_steps_to_success_count_successes_only() -> None:
    rows = [ROW, replace(ROW, steps=60), replace(ROW, steps=110), FAILED]
    assert StepsToSuccess.of(rows) == StepsToSuccess(3, 70.0, 60.0)
    assert math.isnan(StepsToSuccess.of([FAILED]).mean)


def test_aborted_episodes_say_nothing_of_the_policy() -> None:
    aborted = replace(ROW, success=False, ending="aborted", seed=9)
    summary = Summary.of([ROW, FAILED, aborted])
    assert (summary.rate.successes, summary.rate.trials, summary.aborted) == (1, 2, 1)
    retried = replace(ROW, seed=5, attempt=1)
    assert success_by_state([ROW, aborted, retried]) == {("metaworld", "push-v3", 0): True}


def test_what_a_human_helped_with_is_no_success_of_the_policy() -> None:
    helped = replace(ROW, seed=1, human_steps=3, steps=90)
    own = replace(ROW, seed=2, driver="human", human_steps=40)
    in_vain = replace(FAILED, seed=3, human_steps=50)
    summary = Summary.of([ROW, helped, in_vain])
    assert (summary.rate.successes, summary.rate.trials, summary.helped, summary.steps.mean) == (1, 3, 1, 40.0)
    assert str(summary).endswith(", 1 more with a human's help")
    by_state = {seed: solved for (_, _, seed), solved in success_by_state([ROW, helped, own, in_vain]).items()}
    assert by_state == {0: True, 1: False, 2: True, 3: False}
    assert Summary.of([own]).rate.successes == 1, "what a human demonstrates is the human's"


def test_a_policy_that_was_helped_does_not_replace_one_that_needed_none() -> None:
    alone = [replace(ROW, seed=seed) for seed in range(20)]
    helped = [replace(row, human_steps=5) for row in alone]
    assert gate(success_by_state(alone), success_by_state(helped)).decision == "keep"


def test_rows_by_task() -> None:
    other = replace(ROW, task="door-open-v3")
    assert by_task([ROW, other, FAILED]) == {"door-open-v3": [other], "push-v3": [ROW, FAILED]}

"""What success counts allow to say: intervals, paired comparisons, whether a new policy may replace an old one."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist, mean, median
from typing import Literal

from rollout_manager.results import EpisodeResultRow
from trainer.config import require

Key = tuple[str, str, int]
"""An initial state: environment, task, seed."""


@dataclass(frozen=True)
class Rate:
    """A success rate with its trials and its confidence interval, all shares in [0, 1]."""

    successes: int
    trials: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """Share of successes; not a number without trials."""
        return self.successes / self.trials if self.trials else float("nan")

    def __str__(self) -> str:
        if not self.trials:
            return "no trials"
        share = f"{100 * self.value:.1f} % ({self.successes}/{self.trials})"
        return f"{share} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def wilson(successes: int, trials: int, confidence: float = 0.95) -> Rate:
    """The Wilson score interval of a share (Wilson, 1927). Without trials it is [0, 1].

    Raises:
        ConfigError: more successes than trials, or a negative count.
    """
    require(0 <= successes <= trials, f"{successes} successes of {trials} trials cannot be")
    if trials == 0:
        return Rate(0, 0, 0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * sqrt(share * (1 - share) / trials + z * z / (4 * trials**2)) / (1 + z * z / trials)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return Rate(successes, trials, low, high)


def mcnemar_exact(only_old: int, only_new: int) -> float:
    """Two-sided exact p-value that both succeed alike, from the pairs where only one of them did (McNemar, 1947)."""
    discordant = only_old + only_new
    if discordant == 0:
        return 1.0
    tail = sum(comb(discordant, k) for k in range(min(only_old, only_new) + 1))
    return float(min(1.0, 2 * tail / 2**discordant))


@dataclass(frozen=True)
class PairedComparison:
    """Two policies on the same initial states."""

    pairs: int
    both: int
    only_old: int
    only_new: int
    difference: float
    """New success rate less the old one."""
    low: float
    """Lower end of the difference's confidence interval."""
    high: float
    p_value: float
    """Exact McNemar test, two-sided."""

    def __str__(self) -> str:
        span = f"[{100 * self.low:+.1f}, {100 * self.high:+.1f}]"
        return (
            f"{100 * self.difference:+.1f} points {span} on {self.pairs} pairs "
            f"({self.only_new} gained, {self.only_old} lost, p = {self.p_value:.3f})"
        )


def compare_paired(old: Mapping[Key, bool], new: Mapping[Key, bool], confidence: float = 0.95) -> PairedComparison:
    """Compare on the initial states that both were tried on.

    The interval of the difference adds half a pair to each of the four cells (Agresti & Min, 2005), which keeps
    its coverage with few pairs.
    """
    pairs = [(old[key], new[key]) for key in sorted(set(old) & set(new))]
    only_old = sum(a and not b for a, b in pairs)
    only_new = sum(b and not a for a, b in pairs)
    both = sum(a and b for a, b in pairs)
    difference = (only_new - only_old) / len(pairs) if pairs else 0.0
    lost, gained, total = only_old + 0.5, only_new + 0.5, len(pairs) + 2
    centre = (gained - lost) / total
    spread = sqrt(max(0.0, (gained + lost) / total - centre**2) / total)
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * spread
    low, high = (max(-1.0, centre - half), min(1.0, centre + half)) if pairs else (-1.0, 1.0)
    p_value = mcnemar_exact(only_old, only_new)
    return PairedComparison(len(pairs), both, only_old, only_new, difference, low, high, p_value)


@dataclass(frozen=True)
class StepsToSuccess:
    """Steps that unaided successes took. `mean` and `median` are not numbers where none succeeded."""

    successes: int
    mean: float
    median: float

    @staticmethod
    def of(rows: Sequence[EpisodeResultRow]) -> "StepsToSuccess":
        steps = [row.steps for row in rows if row.unaided]
        if not steps:
            return StepsToSuccess(0, float("nan"), float("nan"))
        return StepsToSuccess(len(steps), mean(steps), float(median(steps)))


@dataclass(frozen=True)
class Summary:
    """Unaided success and steps to it of some episodes. Aborted ones say nothing of the policy and are only counted."""

    rate: Rate
    steps: StepsToSuccess
    aborted: int
    helped: int = 0
    """Tries of the rate that do not count as its successes, but succeeded after a human had driven a step or more."""

    def __str__(self) -> str:
        return f"{self.rate}" + (f", {self.helped} more with a human's help" if self.helped else "")

    @staticmethod
    def of(rows: Sequence[EpisodeResultRow], confidence: float = 0.95) -> "Summary":
        counted = [row for row in rows if row.ending != "aborted"]
        rate = wilson(sum(row.unaided for row in counted), len(counted), confidence)
        helped = sum(row.success and not row.unaided for row in counted)
        return Summary(rate, StepsToSuccess.of(counted), len(rows) - len(counted), helped)


def by_task(rows: Sequence[EpisodeResultRow]) -> dict[str, list[EpisodeResultRow]]:
    """The rows of each task, tasks in alphabetical order."""
    groups: dict[str, list[EpisodeResultRow]] = defaultdict(list)
    for row in rows:
        groups[row.task].append(row)
    return dict(sorted(groups.items()))


def success_by_state(rows: Sequence[EpisodeResultRow]) -> dict[Key, bool]:
    """Whether each initial state was solved at the first attempt, unaided; aborted episodes are left out."""
    counted = [row for row in rows if row.attempt == 0 and row.ending != "aborted"]
    return {(row.environment, row.task, row.seed): row.unaided for row in counted}


@dataclass(frozen=True)
class GateConfig:
    """When a new policy may replace the old one."""

    confidence: float = 0.95
    """Of the interval and of the tests."""
    margin: float = 0.05
    """A policy that is certainly not worse by more than this, and no worse in the sample, may replace too."""
    min_pairs: int = 20
    """Fewer pairs decide nothing."""

    def __post_init__(self) -> None:
        require(0.5 <= self.confidence < 1, f"gate: confidence {self.confidence} is not in [0.5, 1)")
        require(0 <= self.margin < 1, f"gate: margin {self.margin} is not in [0, 1)")
        require(self.min_pairs >= 1, f"gate: min_pairs {self.min_pairs} is not at least 1")


@dataclass(frozen=True)
class Verdict:
    """What the gate says, why, and on what numbers."""

    decision: Literal["replace", "keep", "undecided"]
    reason: str
    comparison: PairedComparison


DEFAULT_GATE = GateConfig()


def gate(old: Mapping[Key, bool], new: Mapping[Key, bool], config: GateConfig = DEFAULT_GATE) -> Verdict:
    """May the new policy replace the old one? Both are judged on the initial states they share.

    A task that got worse beyond chance keeps the old policy, however the others went: forgetting one task for
    another is what filtered imitation is prone to. The bound is divided by the number of tasks (Bonferroni).
    """
    overall = compare_paired(old, new, config.confidence)
    if overall.pairs < config.min_pairs:
        return Verdict("undecided", f"only {overall.pairs} pairs, {config.min_pairs} are needed", overall)
    alpha = 1 - config.confidence
    if overall.p_value <= alpha and overall.difference < 0:
        return Verdict("keep", f"the new policy is worse: {overall}", overall)
    if forgotten := _forgotten(old, new, config):
        return Verdict("keep", f"the new policy is worse on {', '.join(forgotten)}", overall)
    if overall.p_value <= alpha:
        return Verdict("replace", f"the new policy is better: {overall}", overall)
    if overall.difference >= 0 and overall.low >= -config.margin:
        bound = f"{100 * config.margin:.0f} points"
        return Verdict("replace", f"the new policy is not worse by more than {bound}: {overall}", overall)
    return Verdict("undecided", f"chance may explain the difference: {overall}", overall)


def _forgotten(old: Mapping[Key, bool], new: Mapping[Key, bool], config: GateConfig) -> list[str]:
    """The tasks that the new policy solves less often than chance explains."""
    tasks = sorted({key[1] for key in set(old) & set(new)})
    found = []
    for task in tasks:
        pair = compare_paired({k: v for k, v in old.items() if k[1] == task}, new, config.confidence)
        if pair.difference < 0 and pair.p_value <= (1 - config.confidence) / len(tasks):
            found.append(f"{task} ({pair})")
    return found

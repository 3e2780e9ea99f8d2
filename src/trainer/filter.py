"""Which recorded episodes are trained on, and why the others are not."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from rollout_manager.catalog import EpisodeRow
from trainer.config import FilterConfig


@dataclass(frozen=True)
class Kept:
    """An episode to be trained on."""

    row: EpisodeRow

    @property
    def steps(self) -> int:
        """How many of its first steps are learned from; 0: all, as of every success.

        A try that came a part of the way mostly goes on with an empty hand until time is up: nothing is learned from
        what it did after its best partial credit. All of one that does not say when that was (recorded by a ROS graph
        of an earlier version, or on a real robot).
        """
        return 0 if self.row.success else self.row.outcome.progress_steps


@dataclass(frozen=True)
class Dropped:
    """An episode not to be trained on."""

    row: EpisodeRow
    reason: str
    """In a few words, the same for all episodes that are dropped for it."""


Judged: TypeAlias = Kept | Dropped


@dataclass(frozen=True)
class Selection:
    """What was chosen, in the order of the rows given."""

    kept: tuple[Kept, ...]
    dropped: tuple[Dropped, ...]

    @property
    def rows(self) -> list[EpisodeRow]:
        """The episodes to be trained on."""
        return [kept.row for kept in self.kept]

    @property
    def steps(self) -> dict[Path, int]:
        """By the path of each bag, how many of its first steps are learned from; 0: all."""
        return {kept.row.path: kept.steps for kept in self.kept}

    def reasons(self) -> dict[str, int]:
        """How many episodes were dropped for each reason."""
        reasons = [dropped.reason for dropped in self.dropped]
        return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}


def keep(row: EpisodeRow, config: FilterConfig, spec_digest: str = "") -> Judged:
    """Judge one episode on its own. What counts is its label; a person's overrules the simulator's.

    Args:
        spec_digest: of the robot to be trained for; empty: not looked at.
    """
    problem = _problem(row, config, spec_digest)
    return Dropped(row, problem) if problem else Kept(row)


def select(rows: Sequence[EpisodeRow], config: FilterConfig, spec_digest: str = "") -> Selection:
    """Judge each episode, then hold every task to its caps.

    Over a cap, tries that needed exploration come first, since success where the policy already succeeds teaches
    little; then short ones.
    """
    judged = [keep(row, config, spec_digest) for row in rows]
    surplus = _surplus([j.row for j in judged if isinstance(j, Kept)], config)
    final: list[Judged] = [
        Dropped(j.row, "over the task's cap") if isinstance(j, Kept) and id(j.row) in surplus else j for j in judged
    ]
    return Selection(tuple(j for j in final if isinstance(j, Kept)), tuple(j for j in final if isinstance(j, Dropped)))


def is_demonstration(row: EpisodeRow) -> bool:
    """Whether an expert or a human drove, rather than a policy."""
    return row.header.driver in ("expert", "human")


def _problem(row: EpisodeRow, config: FilterConfig, spec_digest: str) -> str:
    header, outcome = row.header, row.outcome
    partial = row.effective == "failure" and outcome.progress >= config.min_progress
    checks = (
        (bool(config.tasks) and header.task not in config.tasks, "task not asked for"),
        (header.driver not in config.drivers, f"driven by {header.driver}"),
        (bool(spec_digest) and header.spec_digest != spec_digest, "another robot"),
        (row.effective == "aborted", "aborted"),
        (row.effective == "discard", "discarded by its label"),
        (not row.success and not partial, "no success"),
        (outcome.steps < config.min_steps, "too short"),
        (0 < config.max_steps < outcome.steps, "too long"),
    )
    return next((reason for applies, reason in checks if applies), "")


def _surplus(rows: Sequence[EpisodeRow], config: FilterConfig) -> set[int]:
    """Identities of the rows beyond their task's cap."""
    found: set[int] = set()
    for demonstrations, cap in ((True, config.demonstrations_per_task), (False, config.rollouts_per_task)):
        for task in {row.header.task for row in rows}:
            same = [row for row in rows if row.header.task == task and is_demonstration(row) == demonstrations]
            same.sort(key=lambda row: (-row.header.attempt, row.outcome.steps, row.header.episode_id))
            found |= {id(row) for row in same[cap:]} if cap else set()
    return found

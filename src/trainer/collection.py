"""Tries of tasks, recorded as bags: what is to be tried, and who carries it out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from rollout_manager.bag import EpisodeReader
from rollout_manager.bag_format import METADATA_FILE, PARTIAL
from rollout_manager.catalog import find_bags
from rollout_manager.results import EpisodeResultRow, append_results, read_results
from trainer.seeds import in_rounds


@dataclass(frozen=True)
class CollectionPlan:
    """Initial states to try, and by whom. Every try becomes a bag in `bags`, and a row in `results`."""

    name: str
    """What the tries are for, in words that progress shows."""
    driver: Literal["expert", "policy"]
    tasks: tuple[str, ...]
    seeds: range
    bags: Path
    results: Path
    checkpoint: Path | None = None
    """What drives, where a policy does; for an expert, what it takes over from."""
    attempts: tuple[float, ...] = (0.0,)
    """Exploration of each try of an initial state; the next is made only where the one before failed. For an
    expert: the noise in what it sends."""
    noise_correlation: float = 0.0
    """Of an expert's noise, from one step to the next, in [0, 1)."""
    slips: float = 0.0
    """Share of an expert's episodes in which a grasp is made to miss, in [0, 1]."""
    pushes: float = 0.0
    """Chance at each of an expert's steps that its hand is pushed aside, in [0, 1]."""
    takeover: tuple[int, int] = (0, 0)
    """Fewest and most steps that `checkpoint` drives before an expert takes over. In a pool only."""
    states_of: Mapping[str, int] = field(default_factory=dict)
    """How many of the seeds, from the first on, a task tries; all of them where it is not named."""
    first_attempt: int = 0
    """Number of the first of the attempts. Where states were tried before, a number not yet given makes the tries
    new ones: their names differ, and what is random in them."""
    time_limit: int = 0
    """Steps; 0: the environment's own limit."""
    execute_every: tuple[int, ...] = (8,)
    """Actions of a chunk carried out before the next is asked for, of each attempt in turn."""

    @property
    def states(self) -> list[tuple[str, int]]:
        """Every (task, seed) to be tried, in rounds."""
        first = self.seeds.start
        return [
            (task, seed)
            for task, seed in in_rounds(self.tasks, self.seeds)
            if seed - first < self.states_of.get(task, len(self.seeds))
        ]

    def unsolved(self, rows: Iterable[EpisodeResultRow]) -> list[tuple[str, int, int]]:
        """The tries to make next, given the rows of those that were made. See the function `unsolved`."""
        return unsolved(self.states, rows, self.attempts, self.first_attempt)


class Collector(Protocol):
    """Carries plans out. A plan interrupted half-way is finished by carrying it out again."""

    def collect(self, plan: CollectionPlan) -> None:
        """Try everything that the plan lists and that is not done yet."""
        ...

    def close(self) -> None:
        """Stop whatever was started for collecting."""
        ...


def unsolved(
    states: Iterable[tuple[str, int]], rows: Iterable[EpisodeResultRow], attempts: Sequence[float], first: int = 0
) -> list[tuple[str, int, int]]:
    """The next try of every state that is neither solved nor out of tries: task, seed, attempt (`first`, ...).

    A try that was aborted says nothing, and is made again.
    """
    done: dict[tuple[str, int], dict[int, bool]] = {}
    for row in rows:
        if row.ending != "aborted":
            done.setdefault((row.task, row.seed), {})[row.attempt] = row.success
    open_tries = []
    for task, seed in states:
        tries = done.get((task, seed), {})
        attempt = next((k for k in range(first, first + len(attempts)) if k not in tries), None)
        if attempt is not None and not any(tries.values()):
            open_tries.append((task, seed, attempt))
    return open_tries


def rows_so_far(plan: CollectionPlan) -> list[EpisodeResultRow]:
    """The rows of a plan's tries so far; for looking on while somebody else writes them."""
    return read_results(plan.results) if plan.results.exists() else []


def done_tries(plan: CollectionPlan) -> list[EpisodeResultRow]:
    """The rows of a plan's tries, when nobody makes any more.

    A bag whose writer was killed just before it wrote its row gets it now; a living writer's would come twice.
    """
    rows = rows_so_far(plan)
    known = {row.episode_id for row in rows}
    wanted = set(plan.states)
    found = []
    for path in find_bags(plan.bags) if plan.bags.is_dir() else ():
        if path.name not in known and (path / METADATA_FILE).is_file() and not path.name.endswith(PARTIAL):
            reader = EpisodeReader(path)
            if (reader.header.task, reader.header.seed) in wanted and reader.header.episode_id not in known:
                found.append(EpisodeResultRow.of(reader.header, reader.outcome))
    if found:
        append_results(plan.results, found)
    return rows + found

"""Which initial states a run may use for what. What a policy was chosen or trained with never measures it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from trainer.exceptions import ConfigError

ROUND = 5
"""Initial states of a task that are tried one after the other."""


@dataclass(frozen=True)
class SeedStarts:
    """First seed of each purpose; how many follow is said where the purpose is configured."""

    demonstrations: int = 0
    collection: int = 10_000
    validation: int = 20_000
    evaluation: int = 30_000


@dataclass(frozen=True)
class SeedPlan:
    """The seeds of every purpose; the same ones for every task.

    Raises:
        ConfigError: two purposes share a seed, or a purpose has none.
    """

    demonstrations: range
    collection: tuple[range, ...]
    """One range an iteration; the last one serves all that follow."""
    validation: range
    evaluation: range

    def __post_init__(self) -> None:
        check_disjoint(self.ranges())

    def collection_of(self, iteration: int) -> range:
        """The seeds that iteration 1, 2, ... tries."""
        return self.collection[min(iteration, len(self.collection)) - 1]

    def ranges(self) -> dict[str, range]:
        """Every range by what it is for."""
        collection = {f"collection of iteration {i}": seeds for i, seeds in enumerate(self.collection, start=1)}
        return {
            "demonstrations": self.demonstrations,
            **collection,
            "validation": self.validation,
            "evaluation": self.evaluation,
        }


def plan_seeds(
    starts: SeedStarts, demonstrations: int, collection: int, iterations: int, validation: int, evaluation: int
) -> SeedPlan:
    """The plan for so many seeds a task and purpose; those of collection are counted per iteration."""
    return SeedPlan(
        demonstrations=range(starts.demonstrations, starts.demonstrations + demonstrations),
        collection=tuple(
            range(starts.collection + i * collection, starts.collection + (i + 1) * collection)
            for i in range(iterations)
        ),
        validation=range(starts.validation, starts.validation + validation),
        evaluation=range(starts.evaluation, starts.evaluation + evaluation),
    )


def in_rounds(tasks: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
    """Every (task, seed), tasks taking turns with `ROUND` seeds each.

    What is interrupted has tried all tasks about alike, and a simulator builds a task's scene once for all of them: of
    the 2 s that a try of LIBERO's expert takes, scenes were 0.4 s where ninety tasks took turns try by try.
    """
    rounds = [seeds[i : i + ROUND] for i in range(0, len(seeds), ROUND)]
    return [(task, seed) for of_round in rounds for task in tasks for seed in of_round]


def check_disjoint(ranges: Mapping[str, range]) -> None:
    """Raises: ConfigError: a range is empty or below 0, or two of them share a seed; the message names both."""
    for name, seeds in ranges.items():
        if len(seeds) == 0 or seeds.start < 0:
            raise ConfigError(f"seeds of {name}: from {seeds.start}, {len(seeds)} of them; at least one from 0 on")
    for (one, a), (other, b) in combinations(ranges.items(), 2):
        if shared := range(max(a.start, b.start), min(a.stop, b.stop)):
            raise ConfigError(
                f"seeds {shared.start} to {shared.stop - 1} are in {one} ({a.start} to {a.stop - 1}) and in "
                f"{other} ({b.start} to {b.stop - 1}): move one of them in 'seeds'"
            )

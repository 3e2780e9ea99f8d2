"""What a report shows, as plain values: made from a run's folder, turned into a page elsewhere."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rollout_manager.results import EpisodeResultRow
from trainer.statistics import Summary


@dataclass(frozen=True)
class Arm:
    """One thing that was evaluated: a checkpoint, the expert, or nothing."""

    name: str
    title: str
    rows: tuple[EpisodeResultRow, ...]
    note: str = ""
    checkpoint: str = ""
    """Path of the checkpoint folder, relative to the run's."""

    @property
    def summary(self) -> Summary:
        return Summary.of(self.rows)

    def of_task(self, task: str) -> Summary:
        return Summary.of([row for row in self.rows if row.task == task])


@dataclass(frozen=True)
class Curve:
    """A figure that training logged, over gradient steps."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that was tried on the validation seeds."""

    run: str
    step: int
    """Gradient steps of its whole lineage."""
    successes: int
    tries: int
    chosen: bool = False


@dataclass(frozen=True)
class Collection:
    """What one iteration collected and what of it was kept."""

    name: str
    tries: int
    successes: int
    attempts: tuple[tuple[float, int, int], ...]
    """Per attempt: exploration scale, successes, tries."""
    execute_every: tuple[int, ...]
    """Actions of a chunk carried out, of each attempt in turn."""
    kept: Mapping[str, int]
    """Episodes kept per task."""
    dropped: Mapping[str, int]
    """Episodes dropped per reason."""
    skipped: tuple[str, ...] = ()
    """Tasks not tried because they were mastered."""
    bags: str = ""


@dataclass(frozen=True)
class Ancestor:
    """A checkpoint and what it came from."""

    name: str
    digest: str
    parent: str
    steps: int
    demonstrations: int
    """Expert episodes it was trained on."""
    own: int
    """Episodes of its own line it was trained on."""
    path: str


@dataclass(frozen=True)
class Video:
    """The same initial state under two policies, side by side."""

    task: str
    seed: int
    caption: str
    frames: Sequence[npt.NDArray[np.uint8]]
    """RGB images, each of shape (height, width, 3)."""
    frames_per_second: float = 20.0


@dataclass(frozen=True)
class Report:
    """Everything on the page."""

    title: str
    summary: str
    arms: tuple[Arm, ...]
    zero_shot: tuple[Arm, ...] = ()
    """The same on tasks that nothing was trained on, where such were tried."""
    pairs: tuple[tuple[str, str], ...] = ()
    """Names of the arms to compare: the reference, then the one that should be better."""
    losses: tuple[Curve, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    collections: tuple[Collection, ...] = ()
    lineage: tuple[Ancestor, ...] = ()
    videos: tuple[Video, ...] = ()
    stages: tuple[tuple[str, float], ...] = ()
    """Name and seconds of every finished stage."""
    paths: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    """Versions, seeds and settings worth knowing."""

    @property
    def tasks(self) -> tuple[str, ...]:
        return tasks_of(self.arms)

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)


def tasks_of(arms: Iterable[Arm]) -> tuple[str, ...]:
    """The tasks that were tried, in the order in which they were."""
    return tuple(dict.fromkeys(row.task for arm in arms for row in arm.rows))


def attempts_of(rows: Iterable[EpisodeResultRow]) -> tuple[tuple[float, int, int], ...]:
    """Per attempt, first to last: its exploration scale, successes, tries."""
    tries: dict[int, list[EpisodeResultRow]] = {}
    for row in rows:
        tries.setdefault(row.attempt, []).append(row)
    return tuple((r[0].exploration, sum(x.success for x in r), len(r)) for _, r in sorted(tries.items()))


def count(names: Sequence[str]) -> dict[str, int]:
    """How often each name occurs, most frequent first, then by name."""
    return dict(sorted({n: names.count(n) for n in names}.items(), key=lambda item: (-item[1], item[0])))

"""What a rollout manager is to try, in which order, and what of it is left to do."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from rollout_manager.episode import episode_id
from rollout_manager.exceptions import ScheduleError
from vla_policy_node.locations import read_yaml

ScheduleDriver = Literal["policy", "expert", "human"]

ROBOT = "robot"
"""The environment of a physical arm: an operator's station stands where a simulator does."""


@dataclass(frozen=True)
class ScheduleEntry:
    """One initial state, tried until it succeeds or the attempts are used up."""

    task: str
    seed: int
    attempts: tuple[float, ...] = (0.0,)
    """Exploration (for an expert: noise) of each try, as a share of half the action range; the next try is made
    only where the one before failed."""
    time_limit: int = 0
    """Steps; 0: the environment's own limit."""
    first_attempt: int = 0
    """Number of the first of the attempts; where the state was tried before, one that is not given yet."""
    instruction: str = ""
    """What a physical arm is told; empty: the task's name. Simulators have instructions of their own."""

    def __post_init__(self) -> None:
        where = f"schedule: task '{self.task}' seed {self.seed}"
        if not self.task or not isinstance(self.task, str):
            raise ScheduleError(f"schedule: task {self.task!r} is not a name")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ScheduleError(f"schedule: task '{self.task}': seed {self.seed!r} is not 0, 1, 2, ...")
        if not self.attempts or not all(isinstance(a, (int, float)) and 0 <= a <= 2 for a in self.attempts):
            raise ScheduleError(f"{where}: attempts {list(self.attempts)} must be one or more numbers in [0, 2]")
        if not isinstance(self.time_limit, int) or self.time_limit < 0:
            raise ScheduleError(f"{where}: time_limit {self.time_limit!r} is not 0 or more steps")
        if not isinstance(self.first_attempt, int) or self.first_attempt < 0:
            raise ScheduleError(f"{where}: first_attempt {self.first_attempt!r} is not 0, 1, 2, ...")
        if not isinstance(self.instruction, str):
            raise ScheduleError(f"{where}: instruction {self.instruction!r} is not a text")


@dataclass(frozen=True)
class Try:
    """One try that is to be made next."""

    episode_id: str
    task: str
    seed: int
    attempt: int
    exploration: float
    time_limit: int
    execute_every: int
    """Actions of a chunk that are executed before the next is asked for; 0: all of them."""
    instruction: str = ""
    """What a physical arm is told; empty: the task's name."""


@dataclass(frozen=True)
class Schedule:
    """Tries of one environment by one kind of driver."""

    environment: str
    driver: ScheduleDriver
    entries: tuple[ScheduleEntry, ...]
    checkpoint: str = ""
    """Folder of the checkpoint that drives; empty: whatever the policy node has loaded."""
    execute_every: tuple[int, ...] = (0,)
    """Actions of a chunk that are executed before the next is asked for, for each of the attempts in turn; 0: all of
    them."""
    noise_correlation: float = 0.0
    """Of an expert's noise, from one step to the next, in [0, 1)."""
    slips: float = 0.0
    """Share of an expert's episodes in which a grasp is made to miss, in [0, 1]."""
    pushes: float = 0.0
    """Chance at each of an expert's steps that its hand is pushed aside, in [0, 1]."""

    def __post_init__(self) -> None:
        if self.driver not in get_args(ScheduleDriver):
            raise ScheduleError(f"schedule: driver '{self.driver}' is not one of {', '.join(get_args(ScheduleDriver))}")
        if self.environment == ROBOT and self.driver == "expert":
            raise ScheduleError("schedule: no scripted expert drives environment 'robot'; valid are policy, human")
        if told := [e.instruction for e in self.entries if e.instruction and self.environment != ROBOT]:
            raise ScheduleError(
                f"schedule: instruction '{told[0]}': '{self.environment}' has its own; for 'robot' only"
            )
        if not self.entries:
            raise ScheduleError("schedule: no entries; give at least one task and seed")
        if not self.execute_every or not all(isinstance(n, int) and n >= 0 for n in self.execute_every):
            raise ScheduleError(f"schedule: execute_every {list(self.execute_every)} must be numbers of 0 or more")
        if not 0 <= self.noise_correlation < 1:
            raise ScheduleError(f"schedule: noise_correlation {self.noise_correlation} is not in [0, 1)")
        for name, share in (("slips", self.slips), ("pushes", self.pushes)):
            if not 0 <= share <= 1:
                raise ScheduleError(f"schedule: {name} {share} is not a share in [0, 1]")
        states = [(e.task, e.seed) for e in self.entries]
        if repeated := sorted({f"{task} seed {seed}" for task, seed in states if states.count((task, seed)) > 1}):
            raise ScheduleError(f"schedule: listed twice: {', '.join(repeated)}")

    def tries(self) -> Iterator[tuple[ScheduleEntry, tuple[Try, ...]]]:
        """Every entry with all the tries that it may take."""
        for entry in self.entries:
            yield entry, tuple(self._try(entry, k) for k in range(len(entry.attempts)))

    def _try(self, entry: ScheduleEntry, k: int) -> Try:
        attempt = entry.first_attempt + k
        return Try(
            episode_id(self.environment, entry.task, entry.seed, attempt),
            entry.task,
            entry.seed,
            attempt,
            float(entry.attempts[k]),
            entry.time_limit,
            in_turn(self.execute_every, k),
            entry.instruction,
        )


def in_turn(values: Sequence[int], k: int) -> int:
    """The `k`-th value, from 0 on; after the last comes the first again."""
    return values[k % len(values)]


def next_try(tries: Sequence[Try], succeeded: Mapping[str, bool]) -> Try | None:
    """The first try not yet made, None where one succeeded or all failed.

    Args:
        succeeded: episode id -> whether it succeeded, of the tries that were made to their end. Aborted ones are
            not among them: they say nothing about the task, and are made again.
    """
    for attempt in tries:
        if attempt.episode_id not in succeeded:
            return attempt
        if succeeded[attempt.episode_id]:
            return None
    return None


def remaining(schedule: Schedule, succeeded: Mapping[str, bool]) -> int:
    """How many entries are not settled yet."""
    return sum(next_try(tries, succeeded) is not None for _, tries in schedule.tries())


def save_schedule(path: Path, schedule: Schedule) -> None:
    """Write a schedule as YAML."""
    content = asdict(schedule)
    content["execute_every"] = list(content["execute_every"])
    content["entries"] = [{**entry, "attempts": list(entry["attempts"])} for entry in content["entries"]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def load_schedule(path: Path) -> Schedule:
    """Read a schedule.

    Raises:
        ScheduleError: no such file, not YAML, a key is unknown or missing, or a value is out of range.
    """
    if not path.is_file():
        raise ScheduleError(f"schedule '{path}' does not exist")
    content = read_yaml(path, ScheduleError)
    if not isinstance(content, Mapping) or not isinstance(content.get("entries"), list):
        raise ScheduleError(f"{path}: expected keys with values, among them the list 'entries'")
    entries = tuple(_entry(item, f"{path}: entries[{i}]") for i, item in enumerate(content["entries"]))
    every = content.get("execute_every", 0)
    lists = {"entries": entries, "execute_every": tuple(every) if isinstance(every, list) else (every,)}
    checked: Schedule = _build(Schedule, {**content, **lists}, str(path))
    return checked


def _entry(content: Any, origin: str) -> ScheduleEntry:
    if not isinstance(content, Mapping):
        raise ScheduleError(f"{origin}: expected keys with values, not {content!r}")
    attempts = content.get("attempts", [0.0])
    if not isinstance(attempts, list):
        raise ScheduleError(f"{origin}: attempts must be a list, not {attempts!r}")
    entry: ScheduleEntry = _build(ScheduleEntry, {**content, "attempts": tuple(attempts)}, origin)
    return entry


def _build(kind: Any, content: Mapping[str, Any], origin: str) -> Any:
    known = [f.name for f in fields(kind)]
    if unknown := [str(key) for key in content if key not in known]:
        raise ScheduleError(f"{origin}: unknown {', '.join(unknown)}; valid are {', '.join(known)}")
    try:
        return kind(**content)
    except TypeError as error:
        raise ScheduleError(f"{origin}: {error}") from error

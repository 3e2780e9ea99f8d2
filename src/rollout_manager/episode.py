"""One try of a task: what it was, how it ended."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args

from rollout_manager.exceptions import RolloutError
from vla_policy_node.topics import ACTION, HUMAN_ACTION

SCHEMA_VERSION = 1

Ending = Literal["success", "failure", "truncated", "aborted"]
"""`success` and `failure`: the task itself ended (terminated). `truncated`: time was up. `aborted`: the try was
cut short by something that says nothing about the task (a process died, a recording was torn)."""

ControlMode = Literal["lockstep", "real_time", "in_process"]
Driver = Literal["policy", "expert", "human", "none"]
LabelSource = Literal["proposed", "sent"]
"""Which actions are to be imitated: those proposed (the sent ones carry injected noise) or those sent."""


@dataclass(frozen=True)
class EpisodeHeader:
    """What is known of an episode before its first step."""

    episode_id: str
    """Unique within a run; also the bag's name. Letters, digits, dot, dash and underscore."""
    environment: str
    task: str
    instruction: str
    seed: int
    """Seed or index of the initial state."""
    robot: str
    spec_digest: str
    driver: Driver
    control_mode: ControlMode
    checkpoint_digest: str = ""
    label_source: LabelSource = "sent"
    attempt: int = 0
    """0 for the first try from an initial state, then 1, 2, ... for retries from the same one."""
    exploration: float = 0.0
    """Standard deviation of the exploration noise, as a share of half the action range."""
    time_limit_steps: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", self.episode_id):
            raise RolloutError(f"episode id '{self.episode_id}': only letters, digits, '.', '_' and '-' are allowed")
        for name, value, kind in (
            ("driver", self.driver, Driver),
            ("control_mode", self.control_mode, ControlMode),
            ("label_source", self.label_source, LabelSource),
        ):
            if value not in get_args(kind):
                raise RolloutError(f"{name} '{value}' is not one of {', '.join(get_args(kind))}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> "EpisodeHeader":
        """Raises: RolloutError: a key is unknown or missing."""
        return _from_dict(EpisodeHeader, content)


def was_helped(driver: str, human_steps: int) -> bool:
    """Whether a human drove `human_steps` of what was to be `driver`'s own try; who demonstrates helps nobody."""
    return driver != "human" and human_steps > 0


@dataclass(frozen=True)
class Outcome:
    """How an episode ended."""

    ending: Ending
    steps: int
    """Actions that were applied."""
    progress: float = 0.0
    """Best partial credit reached, in [0, 1]; 1 on success."""
    reason: str = ""
    """In words, where the ending alone does not say it (always for `aborted`)."""
    human_steps: int = 0
    """How many of the steps a human drove."""
    progress_steps: int = 0
    """After how many of the steps `progress` was first reached; 0: not known, or there was none."""

    def __post_init__(self) -> None:
        if self.ending not in get_args(Ending):
            raise RolloutError(f"ending '{self.ending}' is not one of {', '.join(get_args(Ending))}")
        if self.steps < 0 or not 0.0 <= self.progress <= 1.0:
            raise RolloutError(f"outcome with {self.steps} steps and progress {self.progress} is out of range")
        for count, what in ((self.human_steps, "human steps"), (self.progress_steps, "progress steps")):
            if not 0 <= count <= self.steps:
                raise RolloutError(f"outcome with {count} {what} of {self.steps} is out of range")

    @property
    def success(self) -> bool:
        return self.ending == "success"

    @property
    def terminated(self) -> bool:
        return self.ending in ("success", "failure")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> "Outcome":
        """Raises: RolloutError: a key is unknown or missing."""
        return _from_dict(Outcome, content)


@dataclass
class BestProgress:
    """The best partial credit of a try so far."""

    value: float = 0.0
    steps: int = 0
    """After how many steps it was first reached."""

    def see(self, progress: float, steps: int) -> None:
        """Take in the partial credit, in [0, 1], after so many steps."""
        if progress > self.value:
            self.value, self.steps = progress, steps


def aborted(counts: Mapping[str, int], reason: str) -> Outcome:
    """The outcome of a recording that was cut short, for a reason in words. Args: counts: messages by topic."""
    steps = counts.get(ACTION, 0)
    return Outcome("aborted", steps, reason=reason, human_steps=min(steps, counts.get(HUMAN_ACTION, 0)))


def episode_id(environment: str, task: str, seed: int, attempt: int = 0) -> str:
    """The name of a try: the same try of the same run has the same name, so a rerun finds it done."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{environment}_{task}_s{seed}_a{attempt}")


T = TypeVar("T")


def _from_dict(kind: type[T], content: Mapping[str, Any]) -> T:
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(content) - known):
        raise RolloutError(f"{kind.__name__}: unknown {', '.join(unknown)}; valid are {', '.join(sorted(known))}")
    try:
        return kind(**content)
    except TypeError as error:
        raise RolloutError(f"{kind.__name__}: {error}") from error

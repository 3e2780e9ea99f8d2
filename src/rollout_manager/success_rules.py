"""Success rules for one's own tasks, from YAML: where objects are, how far joints are, several at once, or in order.

put_the_cup_away:
  in_order:
    - joint: {name: drawer, below: -0.14}
    - near: {object: cup, goal: tray, distance: 0.05}
    - joint: {name: drawer, above: -0.01}
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rollout_manager.env import Landmarks
from rollout_manager.exceptions import SimulatorError
from vla_policy_node.locations import read_yaml


class Judge(Protocol):
    """Follows one rule through an episode."""

    def update(self, world: Landmarks) -> float:
        """Partial credit in [0, 1] after one more step; 1 where the rule is satisfied."""
        ...


class Rule(Protocol):
    """What must be so for a task to have succeeded."""

    def judge(self) -> Judge:
        """A judge for a new episode."""
        ...


@dataclass(frozen=True)
class Near:
    """An object is within a distance of its goal."""

    object: str
    goal: str | tuple[float, float, float]
    """Something of the scene, or a place (m, world frame)."""
    distance: float
    """Metres."""
    horizontal: bool = False
    """Whether heights do not count."""

    def __post_init__(self) -> None:
        if not self.distance > 0:
            raise SimulatorError(f"success rule near: distance {self.distance} is not positive")

    def judge(self) -> Judge:
        return self

    def update(self, world: Landmarks) -> float:
        """Raises: SimulatorError: the scene has no such thing."""
        goal = np.array(_look_up(world.positions, self.goal) if isinstance(self.goal, str) else self.goal)
        apart = _look_up(world.positions, self.object) - goal
        return float(np.linalg.norm(apart[: 2 if self.horizontal else 3]) <= self.distance)


@dataclass(frozen=True)
class Beyond:
    """A joint is above or below a position (rad or m)."""

    name: str
    above: float = -np.inf
    below: float = np.inf

    def __post_init__(self) -> None:
        if not np.isfinite([self.above, self.below]).any() or self.above >= self.below:
            raise SimulatorError(
                f"success rule joint '{self.name}': give above, or below, or both with above < below, "
                f"not above {self.above} and below {self.below}"
            )

    def judge(self) -> Judge:
        return self

    def update(self, world: Landmarks) -> float:
        """Raises: SimulatorError: the scene has no such joint."""
        return float(self.above < _look_up(world.joints, self.name) < self.below)


@dataclass(frozen=True)
class All:
    """All rules hold at once; partial credit is the mean of theirs."""

    rules: tuple[Rule, ...]

    def judge(self) -> Judge:
        return _AllJudge([rule.judge() for rule in self.rules])


@dataclass(frozen=True)
class InOrder:
    """Subtasks, each of which counts once those before it were done; partial credit is the share done."""

    rules: tuple[Rule, ...]

    def judge(self) -> Judge:
        return _InOrderJudge([rule.judge() for rule in self.rules])


class _AllJudge:
    def __init__(self, parts: Sequence[Judge]) -> None:
        self._parts = parts

    def update(self, world: Landmarks) -> float:
        return sum(part.update(world) for part in self._parts) / len(self._parts)


class _InOrderJudge:
    def __init__(self, parts: Sequence[Judge]) -> None:
        self._parts = parts
        self._done = 0

    def update(self, world: Landmarks) -> float:
        while self._done < len(self._parts) and self._parts[self._done].update(world) == 1.0:
            self._done += 1
        return self._done / len(self._parts)


@dataclass(frozen=True)
class SuccessRules:
    """The rules of some tasks, from one file."""

    rules: Mapping[str, Rule]
    """By the task's full name."""
    digest: str
    """Of what the rules say, not of how the file is written."""


def load_rules(path: Path) -> SuccessRules:
    """Read a file of rules.

    Raises:
        SimulatorError: no such file, not YAML, or not rules; the message names task and key.
    """
    if not path.is_file():
        raise SimulatorError(f"success rules '{path}' do not exist")
    content = read_yaml(path, SimulatorError)
    if not isinstance(content, Mapping) or not content:
        raise SimulatorError(f"{path}: expected tasks with their rules, not {content!r}")
    rules = {str(task): parse_rule(rule, f"{path}: {task}") for task, rule in content.items()}
    written = json.dumps({task: [type(rule).__name__, asdict(rule)] for task, rule in rules.items()}, sort_keys=True)  # type: ignore[call-overload]
    return SuccessRules(rules, hashlib.sha256(written.encode()).hexdigest()[:16])


def parse_rule(content: Any, origin: str) -> Rule:
    """One rule of parsed YAML. Raises: SimulatorError: it is none; `origin` says where."""
    if not isinstance(content, Mapping) or len(content) != 1 or (kind := next(iter(content))) not in KINDS:
        raise SimulatorError(f"{origin}: expected one of {', '.join(KINDS)}, not {content!r}")
    inner = content[kind]
    if kind in ("all", "in_order"):
        if not isinstance(inner, list) or not inner:
            raise SimulatorError(f"{origin}: {kind} needs a list of rules, not {inner!r}")
        parts = tuple(parse_rule(part, f"{origin}: {kind}[{i}]") for i, part in enumerate(inner))
        return KINDS[kind](parts)  # type: ignore[no-any-return]
    if not isinstance(inner, Mapping):
        raise SimulatorError(f"{origin}: {kind} needs keys with values, not {inner!r}")
    given = {str(key): tuple(value) if isinstance(value, list) else value for key, value in inner.items()}
    try:
        return KINDS[kind](**given)  # type: ignore[no-any-return]
    except TypeError as error:
        raise SimulatorError(f"{origin}: {kind}: {error}") from error


KINDS: dict[str, Any] = {"near": Near, "joint": Beyond, "all": All, "in_order": InOrder}
"""The rules by the names that files use."""


def _look_up(things: Mapping[str, Any], name: str) -> Any:
    if name not in things:
        near = get_close_matches(name, things, n=8, cutoff=0.3)
        raise SimulatorError(f"success rule: the scene has no '{name}'; near names: {', '.join(near) or 'none'}")
    return things[name]

"""Labels: what became of an episode, who says so, by which rule. Appended beside the bag, never inside it."""

import fcntl
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from rollout_manager.episode import Ending
from rollout_manager.exceptions import LabelError

LabelOutcome = Literal["success", "failure", "aborted", "discard"]
"""`discard`: whatever came of it, nothing is to be learnt from it."""

HUMAN_RULE = "human"
"""The rule of labels that a person gave."""


@dataclass(frozen=True)
class Label:
    """One judgement of one episode."""

    episode_id: str
    outcome: LabelOutcome
    author: str
    """Who or what says so: a person's name, or the program's."""
    rule: str
    """By which rule: `human`, `simulator`, `recovery`, ..."""
    time_ns: int
    """When, in nanoseconds since 1970."""
    note: str = ""

    def __post_init__(self) -> None:
        if self.outcome not in get_args(LabelOutcome):
            raise LabelError(f"label '{self.outcome}' is not one of {', '.join(get_args(LabelOutcome))}")
        for name in ("episode_id", "author", "rule"):
            if not getattr(self, name):
                raise LabelError(f"label of episode '{self.episode_id}': {name} is empty")

    @property
    def human(self) -> bool:
        return self.rule == HUMAN_RULE

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(content: object) -> "Label":
        """Raises: LabelError: a key is unknown or missing, or a value is of the wrong type."""
        known = {f.name: f.type for f in fields(Label)}
        if not isinstance(content, Mapping) or set(content) - set(known):
            raise LabelError(f"label {content!r}: expected the keys {', '.join(known)}")
        if wrong := [k for k, v in content.items() if not isinstance(v, int if k == "time_ns" else str)]:
            raise LabelError(f"label {content!r}: {', '.join(wrong)} of the wrong type")
        try:
            return Label(**content)
        except TypeError as error:
            raise LabelError(f"label: {error}") from error


def make_label(episode_id: str, outcome: LabelOutcome, author: str, rule: str = HUMAN_RULE, note: str = "") -> Label:
    """A label given now. Raises: LabelError: unknown outcome, or something is empty."""
    return Label(episode_id, outcome, author, rule, time.time_ns(), note)


def labels_path(bag_path: Path) -> Path:
    """Where the labels of the bag in folder `bag_path` are."""
    return bag_path.with_name(bag_path.name + ".labels.jsonl")


def append_label(bag_path: Path, label: Label) -> None:
    """Add a label to the bag's history, durably; several processes may do so at once.

    Raises:
        LabelError: there is no such bag, or the file cannot be written.
    """
    if not bag_path.is_dir():
        raise LabelError(f"{bag_path}: no such bag to label")
    line = (json.dumps(label.to_dict(), sort_keys=True) + "\n").encode()
    path = labels_path(bag_path)
    try:
        with path.open("ab+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.write(_line_break(stream) + line)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise LabelError(f"{path}: cannot be written: {error.strerror or error}") from error


def _line_break(stream: Any) -> bytes:
    """Ends a line that a killed process left torn, so that it does not swallow the next one."""
    if stream.seek(0, os.SEEK_END) == 0:
        return b""
    stream.seek(-1, os.SEEK_END)
    return b"" if stream.read(1) == b"\n" else b"\n"


def read_labels(bag_path: Path) -> tuple[Label, ...]:
    """The bag's labels, oldest first. A torn line is one that was never finished and is passed over.

    Raises:
        LabelError: a line is whole but no label, or the file cannot be read.
    """
    path = labels_path(bag_path)
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        raise LabelError(f"{path}: cannot be read: {error.strerror or error}") from error
    labels = []
    for number, line in enumerate(lines, 1):
        try:
            content = json.loads(line)
        except ValueError:  # empty or torn
            continue
        try:
            labels.append(Label.from_dict(content))
        except LabelError as error:
            raise LabelError(f"{path}, line {number}: {error}") from error
    return tuple(labels)


def current(labels: Sequence[Label]) -> Label | None:
    """The label that counts: the last one a person gave, else the last one."""
    by_hand = [label for label in labels if label.human]
    chosen = by_hand or labels
    return chosen[-1] if chosen else None


def effective_outcome(ending: Ending, labels: Sequence[Label]) -> LabelOutcome:
    """What the episode counts as: its current label, else what its own ending says; time up is a failure."""
    label = current(labels)
    if label is not None:
        return label.outcome
    return "failure" if ending == "truncated" else ending

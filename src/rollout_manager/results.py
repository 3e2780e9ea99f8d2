"""One CSV row an episode, whatever drove it: what every measured success rate is counted from.

A row is one line, written with one append under a lock, so several processes may write the same file and a killed
one leaves at most a torn last line. The reader passes over such a line and the next writer cuts it off.
"""

import csv
import fcntl
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from rollout_manager.episode import Ending, EpisodeHeader, Outcome, was_helped
from rollout_manager.exceptions import ResultsError


@dataclass(frozen=True)
class EpisodeResultRow:
    """An episode and how it ended."""

    environment: str
    task: str
    seed: int
    """Seed or index of the initial state."""
    attempt: int
    driver: str
    """`policy`, `expert`, `human` or `none`."""
    success: bool
    steps: int
    """Actions that were applied."""
    ending: str
    """`success`, `failure`, `truncated` or `aborted`."""
    reason: str
    exploration: float
    control_mode: str
    checkpoint_digest: str
    spec_digest: str
    versions: Mapping[str, str] = field(default_factory=dict)
    """Written as one JSON object."""
    episode_id: str = ""
    progress: float = 0.0
    """Best partial credit reached, in [0, 1]."""
    human_steps: int = 0
    """How many of the steps a human drove."""

    def __post_init__(self) -> None:
        if self.ending not in get_args(Ending):
            raise ResultsError(f"ending '{self.ending}' is not one of {', '.join(get_args(Ending))}")
        if self.success != (self.ending == "success"):
            raise ResultsError(f"episode '{self.episode_id}': success {self.success} contradicts '{self.ending}'")

    @property
    def unaided(self) -> bool:
        """Whether the driver succeeded by itself: what success rates and comparisons count.

        A human takes over where a policy goes wrong, so a success after that says nothing for the policy.
        """
        return self.success and not was_helped(self.driver, self.human_steps)

    @staticmethod
    def of(header: EpisodeHeader, outcome: Outcome) -> "EpisodeResultRow":
        """The row of an episode; its label plays no part."""
        return EpisodeResultRow(
            environment=header.environment,
            task=header.task,
            seed=header.seed,
            attempt=header.attempt,
            driver=header.driver,
            success=outcome.success,
            steps=outcome.steps,
            ending=outcome.ending,
            reason=" ".join(outcome.reason.split()),
            exploration=header.exploration,
            control_mode=header.control_mode,
            checkpoint_digest=header.checkpoint_digest,
            spec_digest=header.spec_digest,
            versions=dict(header.versions),
            episode_id=header.episode_id,
            progress=outcome.progress,
            human_steps=outcome.human_steps,
        )


COLUMNS: tuple[str, ...] = tuple(f.name for f in fields(EpisodeResultRow))
LATER: Mapping[str, str] = {"human_steps": "0"}
"""Columns that older files lack, and what counts for each of their rows."""


def append_result(path: Path, row: EpisodeResultRow) -> None:
    """Add one row, durably; the file and its folder are made where they are missing.

    Raises:
        ResultsError: the file has other columns.
    """
    append_results(path, (row,))


def append_results(path: Path, rows: Iterable[EpisodeResultRow]) -> None:
    """Add rows as `append_result` does, with one write for all of them."""
    text = "".join(_line(_cells(row)) for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _open_locked(path) as file:
        _cut_torn_line(file)
        file.seek(0)
        first = file.readline()
        if not first:
            text = _line(COLUMNS) + text
        elif _columns(path, first.decode()) != COLUMNS:
            _renew(path, "".join(_line(_cells(row)) for row in read_results(path)) + text)
            return
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def read_results(path: Path) -> list[EpisodeResultRow]:
    """All rows in the order written; a torn last line is passed over.

    Raises:
        ResultsError: no such file, other columns, or a value that cannot be what its column says.
    """
    if not path.is_file():
        raise ResultsError(f"results file '{path}' does not exist")
    content = path.read_bytes()
    lines = content[: content.rfind(b"\n") + 1].decode().splitlines()
    if not lines:
        return []
    columns = _columns(path, lines[0])
    return [_row(path, number, columns, cells) for number, cells in enumerate(csv.reader(lines[1:]), start=2)]


def latest_by_episode(rows: Iterable[EpisodeResultRow]) -> dict[str, EpisodeResultRow]:
    """The last row of every episode id: a try that was repeated counts once."""
    return {row.episode_id: row for row in rows}


def _cells(row: EpisodeResultRow) -> list[str]:
    cells = {name: getattr(row, name) for name in COLUMNS}
    cells["success"] = int(row.success)
    cells["versions"] = json.dumps(dict(row.versions), sort_keys=True)
    # One line a row is what makes an append atomic and a torn line recognisable.
    return [" ".join(str(cells[name]).split()) if name == "reason" else str(cells[name]) for name in COLUMNS]


def _line(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    line = text.getvalue()
    if line.count("\n") != 1 or line.splitlines() != [line[:-1]]:
        raise ResultsError(f"a result has a line break in it: {line!r}")
    return line


def _row(path: Path, number: int, columns: tuple[str, ...], cells: list[str]) -> EpisodeResultRow:
    if len(cells) != len(columns):
        raise ResultsError(f"{path}:{number}: {len(cells)} values for {len(columns)} columns")
    values: dict[str, Any] = {**LATER, **dict(zip(columns, cells, strict=True))}
    try:
        values.update({name: int(values[name]) for name in ("seed", "attempt", "steps", "human_steps")})
        values.update({name: float(values[name]) for name in ("exploration", "progress")})
        values["success"] = {"0": False, "1": True}[values["success"]]
        values["versions"] = json.loads(values["versions"])
    except (ValueError, KeyError) as error:
        raise ResultsError(f"{path}:{number}: not a result: {error}") from error
    return EpisodeResultRow(**values)


def _columns(path: Path, line: str) -> tuple[str, ...]:
    found = tuple(next(csv.reader([line])))
    if found not in (COLUMNS, tuple(name for name in COLUMNS if name not in LATER)):
        raise ResultsError(f"{path}: columns {', '.join(found)}; a results file has {', '.join(COLUMNS)}")
    return found


def _open_locked(path: Path) -> io.BufferedRandom:
    """The file, for nobody else to write; not the one that was there before another process renewed it."""
    while True:
        file = path.open("a+b")
        fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            return file
        file.close()


def _renew(path: Path, rows: str) -> None:
    """Put a file with today's columns in the place of one that lacks some; its lock is held."""
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write((_line(COLUMNS) + rows).encode())
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _cut_torn_line(file: io.BufferedRandom) -> None:
    if file.seek(0, os.SEEK_END) == 0:
        return
    file.seek(-1, os.SEEK_END)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)

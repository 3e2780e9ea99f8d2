"""Every episode found, as one queryable table. SQLite; can be deleted and rebuilt from the bags at any time."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rollout_manager.bag_format import METADATA_FILE, PARTIAL
from rollout_manager.bag_reader import EpisodeReader
from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.exceptions import BagError, LabelError
from rollout_manager.labels import Label, LabelOutcome, current, effective_outcome, labels_path, read_labels

CATALOG_VERSION = 2

SCHEMA = """
CREATE TABLE episodes (
    path TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, problem TEXT NOT NULL,
    episode_id TEXT, environment TEXT, task TEXT, seed INTEGER, attempt INTEGER, driver TEXT, ending TEXT,
    steps INTEGER, human_steps INTEGER, outcome TEXT, digest TEXT, size_bytes INTEGER NOT NULL,
    header TEXT, ending_detail TEXT, label TEXT
)
"""


@dataclass(frozen=True)
class EpisodeRow:
    """One whole episode."""

    path: Path
    """Of the bag's folder."""
    header: EpisodeHeader
    outcome: Outcome
    """As recorded."""
    label: Label | None
    """The label that counts, if there is any."""
    effective: LabelOutcome
    """What the episode counts as, its label considered."""
    digest: str
    size_bytes: int

    @property
    def success(self) -> bool:
        return self.effective == "success"


@dataclass(frozen=True)
class DamagedRow:
    """A bag that cannot be used, and why."""

    path: Path
    problem: str


class Catalog:
    """The table of episodes below some folders. Use as a context manager, or `close` it."""

    def __init__(self, db_path: Path | str) -> None:
        """Open, or make, the catalogue at `db_path` (`:memory:` keeps it off the disk).

        Raises:
            BagError: the file is something else, or cannot be written.
        """
        self.db_path = Path(db_path)
        try:
            self._db = sqlite3.connect(str(db_path), timeout=30.0)
            self._prepare()
        except sqlite3.Error as error:
            raise BagError(f"{db_path}: no catalogue, or not to be written: {error}") from error

    @staticmethod
    def rebuild(roots: Sequence[Path | str], db_path: Path | str) -> "Catalog":
        """The catalogue of all bags below `roots`; only what changed since the last time is read again.

        Raises:
            BagError: a root is no folder, or the catalogue cannot be written. Damaged bags are listed, not raised.
        """
        catalog = Catalog(db_path)
        catalog.update(roots)
        return catalog

    def update(self, roots: Sequence[Path | str]) -> int:
        """Bring the table up to date with the bags below `roots`; returns how many had to be read.

        Raises:
            BagError: as `rebuild`.
        """
        found = _fingerprints(roots)
        try:
            with self._db:
                known = dict(self._db.execute("SELECT path, fingerprint FROM episodes"))
                gone = [(path,) for path in known if path not in found]
                self._db.executemany("DELETE FROM episodes WHERE path = ?", gone)
                changed = [path for path, print_ in found.items() if known.get(path) != print_]
                for path in changed:
                    values = _values(path, found[path])
                    marks = ", ".join("?" * len(values))
                    self._db.execute(f"INSERT OR REPLACE INTO episodes VALUES ({marks})", values)
        except sqlite3.Error as error:
            raise BagError(f"{self.db_path}: catalogue cannot be written: {error}") from error
        return len(changed)

    def rows(self) -> list[EpisodeRow]:
        """All whole episodes, by path."""
        query = """SELECT path, header, ending_detail, label, outcome, digest, size_bytes
                   FROM episodes WHERE problem = '' ORDER BY path"""
        return [_row(values) for values in self._db.execute(query)]

    def damaged(self) -> list[DamagedRow]:
        """All bags that cannot be used, by path."""
        query = "SELECT path, problem FROM episodes WHERE problem != '' ORDER BY path"
        return [DamagedRow(Path(path), problem) for path, problem in self._db.execute(query)]

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> "Catalog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self) -> None:
        if self._version() == CATALOG_VERSION:
            return
        with self._db:
            # Of several processes that open a new catalogue one makes the table, the others wait and find it.
            self._db.execute("BEGIN IMMEDIATE")
            if self._version() != CATALOG_VERSION:
                self._db.execute("DROP TABLE IF EXISTS episodes")  # all of it is in the bags
                self._db.execute(SCHEMA)
                self._db.execute(f"PRAGMA user_version = {CATALOG_VERSION}")

    def _version(self) -> int:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        return int(version)


def find_bags(root: Path) -> Iterator[Path]:
    """The folders below `root` that are bags or interrupted recordings, `root` itself included, in order.

    Raises:
        BagError: there is no such folder.
    """
    if not root.is_dir():
        raise BagError(f"{root}: no such folder of bags")
    root = root.resolve()
    if _is_bag(root):
        yield root
        return
    for path in sorted(p for p in root.iterdir() if p.is_dir()):
        yield from find_bags(path)


def _is_bag(folder: Path) -> bool:
    return folder.name.endswith(PARTIAL) or (folder / METADATA_FILE).exists() or any(folder.glob("*.mcap"))


def fingerprint(path: Path) -> str:
    """Names, sizes and times of a bag's files and of its labels: what changes when any of them is written."""
    files = sorted([*path.iterdir(), *([labels_path(path)] if labels_path(path).exists() else [])])
    stats = [(file.name, file.stat()) for file in files]
    return json.dumps([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


def _fingerprints(roots: Sequence[Path | str]) -> dict[str, str]:
    found = {}
    for root in roots:
        for path in find_bags(Path(root)):
            with contextlib.suppress(FileNotFoundError):  # a recording got its final name in this moment
                found[str(path)] = fingerprint(path)
    return found


def _values(path: str, print_: str) -> tuple[object, ...]:
    size = sum(size for _, size, _ in json.loads(print_))
    try:
        reader = EpisodeReader(path)
        labels = read_labels(reader.path)
    except (BagError, LabelError) as error:
        nothing = (None,) * 11
        return (path, print_, str(error), *nothing, size, None, None, None)
    header, outcome, label = reader.header, reader.outcome, current(labels)
    return (
        *(path, print_, ""),
        *(header.episode_id, header.environment, header.task, header.seed, header.attempt, header.driver),
        *(
            outcome.ending,
            outcome.steps,
            outcome.human_steps,
            effective_outcome(outcome.ending, labels),
            reader.digest,
            size,
        ),
        json.dumps(header.to_dict()),
        json.dumps(outcome.to_dict()),
        json.dumps(label.to_dict()) if label is not None else None,
    )


def _row(values: tuple[str, str, str, str | None, LabelOutcome, str, int]) -> EpisodeRow:
    path, header, outcome, label, effective, digest, size = values
    return EpisodeRow(
        path=Path(path),
        header=EpisodeHeader.from_dict(json.loads(header)),
        outcome=Outcome.from_dict(json.loads(outcome)),
        label=Label.from_dict(json.loads(label)) if label else None,
        effective=effective,
        digest=digest,
        size_bytes=size,
    )

"""Recording of one try at a time from a live graph; which messages belong to it, and with which time. No ROS."""

from pathlib import Path
from typing import Literal

from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.exceptions import BagError
from rollout_manager.labels import append_label
from rollout_manager.recorder import EpisodeRecorder
from rollout_manager.simulation import TaskInfo
from rollout_manager.success import label_of

Record = Literal["all", "none"]


class LiveRecording:
    """Takes serialised messages all the time and keeps those of the try that is being recorded."""

    def __init__(self, root: Path, record: Record) -> None:
        """Args: root: folder of bags; record: whether tries become bags."""
        self._root = root
        self._record = record
        self._recorder: EpisodeRecorder | None = None
        self._header: EpisodeHeader | None = None
        self._preface: tuple[str, str, bytes] | None = None
        self._first_ns = self._last_ns = 0
        self._author = ""

    @property
    def episode_id(self) -> str:
        """Of the try that is being recorded, else empty."""
        return self._header.episode_id if self._header is not None else ""

    def judged_by(self, author: str) -> None:
        """Who says how tries end: an operator, or, where it is empty, a simulator."""
        self._author = author

    def preface(self, topic: str, kind: str, cdr: bytes) -> None:
        """A message without a stamp that the next try begins with."""
        self._preface = (topic, kind, cdr)

    def record_now(self, topic: str, kind: str, cdr: bytes) -> None:
        """A message without a stamp that counts: it is recorded at the newest stamp so far."""
        if self._recorder is not None:
            self._recorder.record(topic, kind, self._last_ns, cdr)

    def begin(self, header: EpisodeHeader, info: TaskInfo) -> None:
        """Record from now on. Raises: BagError: it cannot be recorded."""
        self._first_ns = self._last_ns = info.first_stamp_ns
        if self._record == "all":
            self._recorder = EpisodeRecorder(self._root, header)
            if self._preface is not None:
                topic, kind, cdr = self._preface
                self._recorder.record(topic, kind, self._first_ns, cdr)
        self._header = header

    def record(self, topic: str, kind: str, stamp_ns: int, cdr: bytes) -> None:
        """Take a message; one that is stamped before the try began belongs to an earlier one."""
        if self._header is None or stamp_ns < self._first_ns:
            return
        self._last_ns = max(self._last_ns, stamp_ns)
        if self._recorder is not None:
            self._recorder.record(topic, kind, stamp_ns, cdr)

    def check(self) -> None:
        """Raises: BagError: the disk refuses what is recorded; the try is better ended than lost."""
        if self._recorder is not None and self._recorder.failure:
            raise BagError(self._recorder.failure)

    def finish(self, outcome: Outcome) -> Path | None:
        """Close the bag and label it; its path, None where none is kept. Raises: BagError: the disk refused."""
        header, self._header = self._header, None
        recorder, self._recorder = self._recorder, None
        if recorder is None or header is None:
            return None
        path = recorder.abort(outcome.reason) if outcome.ending == "aborted" else recorder.finish(outcome)
        append_label(path, label_of(header, outcome, self._author))
        return path

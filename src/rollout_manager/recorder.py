"""Records episodes as bags: `EpisodeRecorder` from a live graph, `BagObserver` from a rollout in process."""

import json
import threading
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rollout_manager.bag_format import PARTIAL
from rollout_manager.bag_recovery import is_interrupted, recover
from rollout_manager.bag_writer import EpisodeWriter
from rollout_manager.episode import EpisodeHeader, Outcome, aborted
from rollout_manager.exceptions import BagError
from rollout_manager.rollout import StepRecord
from vla_policy_node.commands import action_to_message, chunk_to_message
from vla_policy_node.events import event_message
from vla_policy_node.messages import readings_to_messages, rosbags_maker, text_to_message, typestore
from vla_policy_node.observation import Readings
from vla_policy_node.spec import RobotSpec
from vla_policy_node.topics import ACTION, ACTION_CHUNK, EVENTS, INSTRUCTION, MESSAGE_TYPES, OUTCOME

MAX_QUEUED_BYTES = 256 << 20
"""Two seconds of four raw 640x480 cameras at 30 Hz: a disk that stalls for longer than that loses messages."""
IDLE_S = 0.05


def start_writer(root: Path | str, header: EpisodeHeader) -> EpisodeWriter:
    """A writer for an episode, after recovering an interrupted recording of the same one.

    Raises:
        BagError: the episode exists already, is being recorded by another process, or the disk refuses.
    """
    left_over = Path(root) / (header.episode_id + PARTIAL)
    if is_interrupted(left_over):
        recover(left_over)
    return EpisodeWriter(root, header)


def outcome_text(header: EpisodeHeader, outcome: Outcome) -> str:
    """What /episode/outcome says: the outcome and the episode it is of, as JSON."""
    about = {"episode_id": header.episode_id, "task": header.task, "seed": header.seed, "attempt": header.attempt}
    return json.dumps(about | outcome.to_dict(), sort_keys=True)


class _Queued(NamedTuple):
    topic: str
    type_name: str
    log_time_ns: int
    cdr: bytes


class EpisodeRecorder:
    """Records what the callbacks of a node hand it, on a thread of its own. Never makes a callback wait.

    What the disk is too slow for is dropped and counted. Where the disk refuses altogether, `failure` says so at
    once and `finish` raises it; what was written before can be recovered.
    """

    def __init__(self, root: Path | str, header: EpisodeHeader, max_queued_bytes: int = MAX_QUEUED_BYTES) -> None:
        """Raises: BagError: as `start_writer`."""
        self.header = header
        self.failure = ""
        self._writer = start_writer(root, header)
        self._max_queued_bytes = max_queued_bytes
        self._queue: deque[_Queued] = deque()
        self._queued_bytes = 0
        self._dropped: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def record(self, topic: str, type_name: str, log_time_ns: int, cdr: bytes) -> bool:
        """Take a serialised message; False where it had to be dropped. Callable from any thread."""
        with self._changed:
            full = self._queued_bytes + len(cdr) > self._max_queued_bytes
            if self._stopping or self.failure or full:
                self._dropped[topic] += 1
                return False
            self._queue.append(_Queued(topic, type_name, log_time_ns, cdr))
            self._queued_bytes += len(cdr)
            # The writer wakes up by itself; waking it for every message would double what recording costs.
        return True

    def add_dropped(self, topic: str, count: int) -> None:
        """Count messages that were lost before they reached the recorder."""
        with self._changed:
            self._dropped[topic] += count

    @property
    def dropped(self) -> Mapping[str, int]:
        """Topic -> messages that are not in the bag though they should be."""
        with self._changed:
            return dict(self._dropped)

    @property
    def counts(self) -> Mapping[str, int]:
        """Topic -> messages written so far."""
        return self._writer.counts

    @property
    def path(self) -> Path:
        return self._writer.path

    def finish(self, outcome: Outcome) -> Path:
        """Write what is queued and close the bag; returns its path.

        Raises:
            BagError: the disk refused, now or earlier; what was written can be recovered.
        """
        self._stop()
        return self._writer.close(outcome, self.dropped)

    def abort(self, reason: str) -> Path:
        """Close the bag as aborted, for a reason in words; returns its path. Raises as `finish`."""
        self._stop()
        return self.finish(aborted(self.counts, reason))

    def _stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()
        if self.failure:
            self._writer.leave()
            raise BagError(self.failure)

    def _run(self) -> None:
        try:
            while self._write_batch():
                pass
        except Exception as error:  # noqa: BLE001 - a thread's boundary: whoever records asks for `failure`
            with self._changed:
                self.failure = str(error) if isinstance(error, BagError) else f"{self.path}: {error!r}"
                self._dropped.update(item.topic for item in self._queue)
                self._queue.clear()

    def _write_batch(self) -> bool:
        """Write what is queued; False when all is written and the recorder is stopping."""
        with self._changed:
            if not self._queue and not self._stopping:
                self._changed.wait(IDLE_S)
            batch, self._queue = self._queue, deque()
            last = self._stopping
        while batch:
            item = batch.popleft()
            self._writer.write(*item)
            with self._changed:
                self._queued_bytes -= len(item.cdr)
        self._writer.flush_if_due()
        return not last


class BagObserver:
    """Records a rollout in process as the bag that the live graph would give: same topics, types and stamps."""

    needs_images = True

    def __init__(self, root: Path | str, spec: RobotSpec) -> None:
        """Args: root: folder of bags; spec: the robot that is recorded."""
        self.path: Path | None = None
        """The last finished bag."""
        self._root = root
        self._spec = spec
        self._make = rosbags_maker()
        self._writer: EpisodeWriter | None = None

    def start(self, header: EpisodeHeader) -> None:
        """Begin a bag. Raises: BagError: as `start_writer`."""
        self.path = None
        self._header = header
        self._instructed = False
        self._writer = start_writer(self._root, header)

    def step(self, record: StepRecord) -> None:
        """Write one tick. Raises: BagError: the disk refuses."""
        self._observe(record.stamp_ns, record.readings)
        if record.chunk is not None:
            self._write(ACTION_CHUNK, record.stamp_ns, chunk_to_message(self._make, self._spec, record.chunk))
        command = action_to_message(self._make, self._spec, record.stamp_ns, record.action)
        self._write(ACTION, record.stamp_ns, command)
        if record.event is not None:
            self._write(EVENTS, record.stamp_ns, event_message(self._make, record.event))

    def finish(self, outcome: Outcome, stamp_ns: int, readings: Readings | None) -> None:
        """Write the last readings and the outcome, and close the bag. Raises: BagError: the disk refuses."""
        writer = self._open_writer()
        if writer.closed:  # the disk refused before, which is what aborts the episode: nothing to add
            return
        self._observe(stamp_ns, readings)
        self._write(OUTCOME, stamp_ns, text_to_message(self._make, outcome_text(self._header, outcome)))
        self.path = writer.close(outcome)

    def _observe(self, stamp_ns: int, readings: Readings | None) -> None:
        if not self._instructed:
            self._write(INSTRUCTION, stamp_ns, text_to_message(self._make, self._header.instruction))
            self._instructed = True
        if readings is not None:
            for topic, type_name, message in readings_to_messages(self._make, self._spec, readings, stamp_ns):
                self._open_writer().write(topic, type_name, stamp_ns, typestore().serialize_cdr(message, type_name))

    def _write(self, topic: str, stamp_ns: int, message: object) -> None:
        type_name = MESSAGE_TYPES[topic]
        self._open_writer().write(topic, type_name, stamp_ns, typestore().serialize_cdr(message, type_name))

    def _open_writer(self) -> EpisodeWriter:
        if self._writer is None:
            raise BagError(f"{self._root}: the observer was told of a step before an episode began")
        return self._writer

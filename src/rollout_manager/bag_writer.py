"""Writes one episode as a bag that survives the death of its writer."""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

from mcap.writer import CompressionType, Writer

from rollout_manager.bag_format import (
    ABORTED,
    HEADER_RECORD,
    OUTCOME_RECORD,
    PARTIAL,
    BagContent,
    header_record,
    lock_folder,
    mcap_name,
    message_definition,
    outcome_record,
    publish,
    write_metadata,
)
from rollout_manager.episode import EpisodeHeader, Outcome, aborted
from rollout_manager.exceptions import BagError
from vla_policy_node.messages import typestore

CHUNK_BYTES = 1 << 20
FLUSH_EVERY_S = 0.4
"""Well under the promised second: what was not flushed is lost on a kill, and so is what a process that is kept from
running has not even taken yet. In `make kills` on a machine with six times its load at most 0.5 s went."""


class McapStream:
    """An MCAP file with ROS 2 channels, chunked, zstd-compressed, and every byte covered by a CRC."""

    def __init__(self, stream: IO[bytes], header: EpisodeHeader) -> None:
        self._writer = Writer(stream, CHUNK_BYTES, CompressionType.ZSTD, enable_data_crcs=True)
        self._writer.start(profile="ros2", library="encore")
        self._writer.add_metadata(HEADER_RECORD, header_record(header))
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}
        self.content = BagContent(header)

    def write(self, topic: str, type_name: str, log_time_ns: int, cdr: bytes | memoryview) -> None:
        """Add one serialised message. Raises: BagError: unknown type, or a second type on the topic."""
        channel = self._channels.get(topic)
        if channel is None:
            channel = self._add_channel(topic, type_name)
        elif self.content.types[topic] != type_name:
            raise BagError(f"topic '{topic}' carries {self.content.types[topic]}, not '{type_name}'")
        self.content.count(topic, log_time_ns)
        self._writer.add_message(channel, log_time_ns, cdr, log_time_ns, self.content.counts[topic])

    def flush(self) -> None:
        """End the chunk in progress and hand it to the operating system."""
        self._writer.flush()

    def finish(self, outcome: Outcome, dropped: Mapping[str, int]) -> None:
        """Add the outcome, indexes and footer."""
        self.content.outcome, self.content.dropped = outcome, dict(dropped)
        # The library puts a metadata record before the chunk in progress unless that is ended first.
        self._writer.flush()
        self._writer.add_metadata(OUTCOME_RECORD, outcome_record(outcome, dropped))
        self._writer.finish()

    def _add_channel(self, topic: str, type_name: str) -> int:
        definition, digest = message_definition(type_name)
        if type_name not in self._schemas:
            self._schemas[type_name] = self._writer.register_schema(type_name, "ros2msg", definition.encode())
        about = {"offered_qos_profiles": "", "topic_type_hash": digest}
        channel = self._writer.register_channel(topic, "cdr", self._schemas[type_name], about)
        self._channels[topic], self.content.types[topic], self.content.counts[topic] = channel, type_name, 0
        return int(channel)


class EpisodeWriter:
    """Records one episode under `<root>/<episode id>.partial/` and gives it its name when it is whole.

    Whenever the process dies, what was flushed (at the latest a second after it was written, as long as messages
    or calls of `flush_if_due` come in) can be recovered. One thread at a time.
    """

    def __init__(self, root: Path | str, header: EpisodeHeader, flush_every_s: float = FLUSH_EVERY_S) -> None:
        """Raises: BagError: the episode exists already, an interrupted one is in the way, or the disk refuses."""
        # ROS's definitions, which the first message needs, are read here: on a busy machine that takes more than a
        # second, in which a recording under way would reach no disk.
        typestore()
        self.header = header
        self.path = _make_folder(Path(root), header)
        self._flush_every_s = flush_every_s
        self._lock = lock_folder(self.path)
        self._failure = ""
        self._closed = False
        self._stream: IO[bytes] | None = None
        with self._reporting():
            self._stream = (self.path / mcap_name(header)).open("wb")
            self._mcap = McapStream(self._stream, header)
            self.flush()

    def write(self, topic: str, type_name: str, log_time_ns: int, cdr: bytes | memoryview) -> None:
        """Add one serialised message.

        Args:
            topic: its name in the live graph.
            type_name: for instance `sensor_msgs/msg/Image`.
            log_time_ns: when it was received.
            cdr: the message as ROS sends it, encapsulation header included.

        Raises:
            BagError: closed already, unknown type, or the disk is full; what was written stays recoverable.
        """
        with self._reporting():
            self._mcap.write(topic, type_name, log_time_ns, cdr)
            self.flush_if_due()

    def flush_if_due(self) -> None:
        """Flush where the last flush is long enough ago; call it when nothing is written for a while."""
        if time.monotonic() - self._flushed_at >= self._flush_every_s:
            self.flush()

    def flush(self) -> None:
        """Hand everything to the operating system: it then survives the death of this process."""
        with self._reporting():
            self._mcap.flush()
            self._flushed_at = time.monotonic()

    @property
    def counts(self) -> dict[str, int]:
        """Topic -> messages written."""
        return dict(self._mcap.content.counts)

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self, outcome: Outcome, dropped: Mapping[str, int] | None = None) -> Path:
        """Finish the bag and give it its final name; returns its path.

        An aborted episode goes to `<episode id>.aborted`, so that the try can be made again.

        Raises:
            BagError: closed already, or the disk refuses; what was written stays recoverable.
        """
        with self._reporting():
            assert self._stream is not None
            self._mcap.finish(outcome, dropped or {})
            self._stream.flush()
            os.fsync(self._stream.fileno())
            write_metadata(self.path, self._mcap.content)
            self.path = publish(self.path, self.header, outcome)
            self._release()
        return self.path

    def abort(self, reason: str) -> Path:
        """Finish the bag as aborted, for a reason in words; returns its path. Raises as `close`."""
        return self.close(aborted(self._mcap.content.counts, reason))

    def leave(self) -> None:
        """Let go of the recording without an outcome; it stays as an interrupted one that can be recovered."""
        if self._closed:
            return
        with contextlib.suppress(OSError):
            self._mcap.flush()
        self._release()

    def __enter__(self) -> "EpisodeWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Abort what was not closed; an error that is under way stays the one that is seen."""
        if self._closed:
            return
        if error is None:
            self.abort("recording ended without an outcome")
            return
        with contextlib.suppress(BagError):
            self.abort(f"{type(error).__name__}: {error}")

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        if self._closed:
            raise BagError(f"{self.path}: closed already{self._failure}")
        try:
            yield
        except OSError as error:
            self._failure = f" after: {error.strerror or error}"
            self._release()
            raise BagError(f"{self.path}: cannot be written: {error.strerror or error}") from error
        except (KeyboardInterrupt, SystemExit):
            # Half a record may be in memory: what is on disk is whole, and stays as an interrupted recording.
            self._failure = " after: interrupted while writing"
            self._release()
            raise

    def _release(self) -> None:
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):  # closing flushes again, which a full disk refuses again
            if self._stream is not None:
                self._stream.close()
        os.close(self._lock)


def _make_folder(root: Path, header: EpisodeHeader) -> Path:
    name = header.episode_id
    if name.startswith(".") or PARTIAL in name or ABORTED in name:
        raise BagError(f"episode id '{name}': may not start with '.' nor contain '{PARTIAL}' or '{ABORTED}'")
    if (root / name).exists():
        raise BagError(f"{root / name}: a bag of this episode exists already")
    partial = root / (name + PARTIAL)
    try:
        root.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
    except FileExistsError as error:
        raise BagError(
            f"{partial}: an interrupted recording of this episode is in the way; recover it first"
        ) from error
    except OSError as error:
        raise BagError(f"{partial}: cannot be made: {error.strerror or error}") from error
    return partial

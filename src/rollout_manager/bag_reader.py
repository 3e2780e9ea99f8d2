"""Reads one episode's bag: what it was, how it ended, and its messages in the order they were recorded."""

import hashlib
import json
import struct
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mcap.opcode import Opcode
from rosbags.serde import SerdeError

from rollout_manager.bag_format import (
    HEADER_RECORD,
    METADATA_FILE,
    OUTCOME_RECORD,
    PARTIAL,
    BagContent,
    message_definition,
    parse_header,
    parse_outcome,
)
from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.exceptions import BagError
from rollout_manager.mcap_records import (
    MESSAGE,
    DamageError,
    chunk_checksum,
    chunk_records,
    parse_channel,
    parse_metadata,
    parse_schema,
    records,
    unpack_chunk,
)
from vla_policy_node.messages import typestore


class RawMessage(NamedTuple):
    """A recorded message, still serialised; `cdr` shares the memory of its chunk."""

    topic: str
    type_name: str
    log_time_ns: int
    cdr: memoryview


class Message(NamedTuple):
    """A recorded message."""

    topic: str
    log_time_ns: int
    message: Any


class Channels:
    """Which topic and type a channel number stands for; filled from the chunks as they are read."""

    def __init__(self) -> None:
        self._types: dict[int, str] = {}
        self.topics: dict[int, tuple[str, str]] = {}

    def add(self, opcode: int, content: memoryview) -> None:
        """Take in a schema or channel record.

        Raises:
            BagError: it is malformed, or the message's definition is not ROS 2 Jazzy's.
        """
        if opcode == Opcode.SCHEMA:
            schema = parse_schema(content)
            if (
                schema.encoding != "ros2msg"
                or schema.data.decode(errors="replace") != message_definition(schema.name)[0]
            ):
                raise BagError(f"message type '{schema.name}' is defined otherwise than in ROS 2 Jazzy")
            self._types[schema.id] = schema.name
        elif opcode == Opcode.CHANNEL:
            channel = parse_channel(content)
            if channel.schema_id not in self._types or channel.message_encoding != "cdr":
                raise BagError(f"topic '{channel.topic}': no message definition, or not serialised as cdr")
            self.topics[channel.id] = (channel.topic, self._types[channel.schema_id])


class EpisodeReader:
    """A finished bag. Opening it reads the header, the outcome and the chunks' checksums, not the messages."""

    def __init__(self, path: Path | str) -> None:
        """Args: path: the bag's folder.

        Raises:
            BagError: no bag, not an Encore bag, interrupted, truncated, or of another schema version.
        """
        self.path = Path(path)
        self.file = find_mcap(self.path)
        with _naming(self.path), self.file.open("rb") as stream:
            content, self._checksums = read_frame(stream)
        if content.outcome is None:
            raise BagError(f"{self.path}: holds no outcome; its recording was interrupted: recover it first")
        self.header: EpisodeHeader = content.header
        self.outcome: Outcome = content.outcome
        self.dropped = dict(content.dropped)
        """Topic -> messages that arrived and could not be recorded."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 (first 16 hex digits) of header, outcome and every chunk's CRC; needs no decoding.

        It names this very recording. Two recordings of the same messages differ in it: CDR leaves padding bytes
        undefined, and chunks end where time was up.
        """
        content = [self.header.to_dict(), self.outcome.to_dict(), self._checksums]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def size_bytes(self) -> int:
        return self.file.stat().st_size

    def raw_messages(self, topics: Collection[str] | None = None) -> Iterator[RawMessage]:
        """The messages of `topics` (all without it) in the order recorded, not decoded.

        Raises:
            BagError: a chunk differs from its CRC or cannot be unpacked.
        """
        with _naming(self.path), self.file.open("rb") as stream:
            yield from scan_messages(stream, topics)

    def messages(self, topics: Collection[str] | None = None) -> Iterator[Message]:
        """The messages of `topics` (all without it) in the order recorded; arrays may share the chunk's memory.

        Raises:
            BagError: as `raw_messages`, or a message is not what its type says.
        """
        for topic, type_name, log_time_ns, cdr in self.raw_messages(topics):
            with _naming(self.path):
                yield Message(topic, log_time_ns, decode(topic, type_name, cdr))


def decode(topic: str, type_name: str, cdr: bytes | memoryview) -> Any:
    """A message of its CDR bytes. Raises: BagError: they are not such a message."""
    try:
        return typestore().deserialize_cdr(cdr, type_name)
    except (SerdeError, struct.error, ValueError, AssertionError, IndexError, TypeError) as error:
        raise BagError(f"topic '{topic}': a message is no {type_name}: {error!r}") from error


def find_mcap(path: Path) -> Path:
    """The MCAP file of a finished bag's folder. Raises: BagError: there is none, or the bag is not finished."""
    if not path.is_dir():
        raise BagError(f"{path}: no such bag folder")
    if path.name.endswith(PARTIAL):
        raise BagError(f"{path}: interrupted or still being recorded; recover it first")
    if not (path / METADATA_FILE).is_file():
        raise BagError(f"{path}: no {METADATA_FILE}; not a finished bag")
    return single_mcap(path)


def single_mcap(path: Path) -> Path:
    """The one MCAP file in a folder. Raises: BagError: there is none, or more than one."""
    files = sorted(path.glob("*.mcap"))
    if len(files) != 1:
        found = ", ".join(f.name for f in files) or "none"
        raise BagError(f"{path}: an episode's bag holds exactly one .mcap file; found: {found}")
    return files[0]


def read_frame(stream: BinaryIO) -> tuple[BagContent, list[tuple[int, int]]]:
    """Header, outcome if there is one, and CRC and size of every chunk, without unpacking any.

    Raises:
        BagError: torn, or without an episode header.
    """
    content: BagContent | None = None
    checksums: list[tuple[int, int]] = []
    for record in records(stream):
        if record.opcode == Opcode.METADATA:
            content = take_metadata(content, record.content(stream))
        elif record.opcode == Opcode.CHUNK:
            checksums.append(chunk_checksum(stream, record))
    if content is None:
        raise BagError("no episode header in it: not an Encore bag")
    return content, checksums


def take_metadata(content: BagContent | None, record: bytes) -> BagContent | None:
    """Take header or outcome from a metadata record; others are passed over. Raises: BagError: malformed."""
    metadata = parse_metadata(record)
    if metadata.name == HEADER_RECORD:
        return BagContent(parse_header(metadata.metadata))
    if metadata.name == OUTCOME_RECORD and content is not None:
        content.outcome, content.dropped = parse_outcome(metadata.metadata)
    return content


def scan_messages(stream: BinaryIO, topics: Collection[str] | None = None) -> Iterator[RawMessage]:
    """The messages of an MCAP file, chunk after chunk. Raises: BagError: torn or damaged."""
    channels = Channels()
    for record in records(stream):
        if record.opcode == Opcode.CHUNK:
            yield from chunk_messages(unpack_chunk(stream, record), channels, topics)


def chunk_messages(data: memoryview, channels: Channels, topics: Collection[str] | None) -> Iterator[RawMessage]:
    """The messages of one unpacked chunk. Raises: BagError: its records are malformed."""
    for opcode, content in chunk_records(data):
        if opcode != Opcode.MESSAGE:
            channels.add(opcode, content)
            continue
        if len(content) < MESSAGE.size:
            raise DamageError(0, "message record cut short")
        channel, _, log_time_ns, _ = MESSAGE.unpack_from(content)
        if channel not in channels.topics:
            raise BagError(f"a message's channel {channel} was never declared")
        topic, type_name = channels.topics[channel]
        if topics is None or topic in topics:
            yield RawMessage(topic, type_name, log_time_ns, content[MESSAGE.size :])


class _naming:  # noqa: N801 - reads as a statement
    """Puts the bag's path before whatever went wrong with it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError):
            raise BagError(f"{self._path}: cannot be read: {error.strerror or error}") from error
        if isinstance(error, BagError) and not str(error).startswith(str(self._path)):
            raise BagError(f"{self._path}: {error}") from error

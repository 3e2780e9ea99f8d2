"""Makes a whole bag of an interrupted recording.

Every step is one rename, and each leaves a state from which recovery can start again: the torn MCAP file is
replaced by a rebuilt one, then metadata.yaml is written, then the folder gets its final name.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from mcap.opcode import Opcode

from rollout_manager.bag_format import PARTIAL, BagContent, lock_folder, mcap_name, publish, write_metadata
from rollout_manager.bag_reader import Channels, RawMessage, chunk_messages, single_mcap, take_metadata
from rollout_manager.bag_writer import McapStream
from rollout_manager.episode import EpisodeHeader, Outcome, aborted
from rollout_manager.exceptions import BagError
from rollout_manager.labels import append_label, make_label
from rollout_manager.mcap_records import MAGIC, DamageError, Record, records, unpack_chunk

REBUILT = ".rebuilt"


@dataclass
class Salvage:
    """What can be read of a torn MCAP file."""

    content: BagContent | None = None
    records: int = 0
    """Beyond the file's own header; 0 means that the recorder died before it had written anything of the episode."""
    damaged: list[str] = field(default_factory=list)
    """Chunks that were lost."""
    tear: str = ""
    """Where and how the file ends too early; empty where only closing the bag was interrupted."""

    @property
    def outcome(self) -> Outcome | None:
        """The outcome as written; it comes after all messages, so with it none is lost but in damaged chunks."""
        return self.content.outcome if self.content is not None and not self.damaged else None


def is_interrupted(path: Path) -> bool:
    """Whether a folder holds a recording that was not finished (or is under way)."""
    return path.is_dir() and path.name.endswith(PARTIAL)


def recover(path: Path | str) -> Path | None:
    """Make a whole bag of an interrupted recording, labelled aborted.

    What was flushed is kept: at most the last second is lost. A recording whose outcome was written already keeps
    it. May itself be interrupted and run again.

    Args:
        path: the `.partial` folder.

    Returns:
        The bag's path; None where the recording held nothing yet and was removed.

    Raises:
        BagError: not an interrupted recording, still being recorded, not an Encore bag, or the disk refuses;
            the recording is then as it was.
    """
    folder = Path(path)
    if not is_interrupted(folder):
        raise BagError(f"{folder}: not an interrupted recording; those are folders named <episode>{PARTIAL}")
    lock = lock_folder(folder)
    try:
        return _recover(folder)
    except OSError as error:
        raise BagError(f"{folder}: cannot be recovered: {error.strerror or error}") from error
    finally:
        os.close(lock)


def recover_all(root: Path | str) -> tuple[list[Path], list[str]]:
    """Recover every interrupted recording in a folder of bags; the bags made, and why others could not be."""
    recovered: list[Path] = []
    problems: list[str] = []
    for path in sorted(Path(root).glob(f"*{PARTIAL}")):
        try:
            bag = recover(path)
        except BagError as error:
            problems.append(str(error))
        else:
            recovered += [bag] if bag is not None else []
    return recovered, problems


def _recover(folder: Path) -> Path | None:
    if not any(folder.iterdir()):
        folder.rmdir()
        return None
    source = single_mcap(folder)
    salvage = Salvage()
    for _ in _salvage(source, salvage):
        pass
    if salvage.content is None:
        _give_up(source, salvage)
        return None
    interrupted = salvage.outcome is None
    content = _rebuild(source, salvage.content.header) if interrupted or salvage.tear else salvage.content
    assert content.outcome is not None
    write_metadata(folder, content)
    bag = publish(folder, content.header, content.outcome)
    if interrupted:
        append_label(
            bag, make_label(content.header.episode_id, "aborted", "encore", "recovery", content.outcome.reason)
        )
    return bag


def _give_up(source: Path, salvage: Salvage) -> None:
    """Remove a recording in which nothing is; BagError where something is that is not ours."""
    with source.open("rb") as stream:
        start = stream.read(len(MAGIC))
    if salvage.records or not MAGIC.startswith(start):
        raise BagError(f"{source}: not an Encore bag: no episode header ({salvage.tear or 'whole MCAP file'})")
    for file in source.parent.iterdir():
        file.unlink()
    source.parent.rmdir()


def _rebuild(source: Path, header: EpisodeHeader) -> BagContent:
    """Replace a torn MCAP file by a whole one with the same messages and an outcome."""
    if source.name != mcap_name(header):
        raise BagError(f"{source}: holds episode '{header.episode_id}'")
    target = source.with_name(source.name + REBUILT)
    salvage = Salvage()
    with target.open("wb") as stream:
        mcap = McapStream(stream, header)
        for topic, type_name, log_time_ns, cdr in _salvage(source, salvage):
            mcap.write(topic, type_name, log_time_ns, cdr)
        reason = "; ".join(["recording interrupted", salvage.tear, *salvage.damaged])
        dropped = salvage.content.dropped if salvage.content is not None else {}
        mcap.finish(salvage.outcome or aborted(mcap.content.counts, reason), dropped)
        stream.flush()
        os.fsync(stream.fileno())
    target.replace(source)
    return mcap.content


def _salvage(source: Path, salvage: Salvage) -> Iterator[RawMessage]:
    """All messages that are whole. A damaged chunk is passed over; a tear ends the file."""
    channels = Channels()
    with source.open("rb") as stream:
        try:
            for record in records(stream):
                salvage.records += record.opcode != Opcode.HEADER
                if record.opcode == Opcode.METADATA:
                    salvage.content = take_metadata(salvage.content, record.content(stream))
                elif record.opcode == Opcode.CHUNK:
                    yield from _chunk(stream, record, channels, salvage)
        except DamageError as error:
            salvage.tear = str(error)


def _chunk(stream: BinaryIO, record: Record, channels: Channels, salvage: Salvage) -> Iterator[RawMessage]:
    try:
        messages = list(chunk_messages(unpack_chunk(stream, record), channels, None))
    except BagError as error:
        salvage.damaged.append(str(error))
        return
    for message in messages:
        _count(salvage.content, message)
        yield message


def _count(content: BagContent | None, message: RawMessage) -> None:
    if content is not None:
        content.types.setdefault(message.topic, message.type_name)
        content.counts.setdefault(message.topic, 0)
        content.count(message.topic, message.log_time_ns)

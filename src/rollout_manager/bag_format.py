"""What an episode's bag looks like on disk, in one place for those who write, read, check and recover it.

    <root>/<episode id>.partial/<episode id>.mcap     while it is recorded
    <root>/<episode id>/                              a whole try, with metadata.yaml
    <root>/<episode id>.aborted/, .aborted-2/, ...    tries that say nothing about the task
    <root>/<folder's name>.labels.jsonl               labels, beside the bag

Header and outcome are metadata records in the MCAP file; metadata.yaml repeats them for `ros2 bag` and people.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from rollout_manager.episode import SCHEMA_VERSION, EpisodeHeader, Outcome
from rollout_manager.exceptions import BagError, RolloutError
from vla_policy_node.messages import typestore

PARTIAL = ".partial"
ABORTED = ".aborted"
METADATA_FILE = "metadata.yaml"
HEADER_RECORD = "encore_episode"
OUTCOME_RECORD = "encore_outcome"
ROSBAG2_VERSION = 9


@dataclass
class BagContent:
    """What metadata.yaml tells of a bag."""

    header: EpisodeHeader
    outcome: Outcome | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Topic -> messages that arrived and could not be recorded."""
    types: dict[str, str] = field(default_factory=dict)
    """Topic -> message type, in the order of first appearance."""
    counts: dict[str, int] = field(default_factory=dict)
    first_ns: int = 0
    last_ns: int = 0

    def count(self, topic: str, log_time_ns: int) -> None:
        """Take one more message into account."""
        empty = not any(self.counts.values())
        self.counts[topic] += 1
        self.first_ns = log_time_ns if empty else min(self.first_ns, log_time_ns)
        self.last_ns = max(self.last_ns, log_time_ns)

    @property
    def messages(self) -> int:
        return sum(self.counts.values())


@lru_cache(maxsize=256)
def message_definition(type_name: str) -> tuple[str, str]:
    """The ros2msg definition of a type, its dependencies included, and its hash (RIHS01).

    Raises:
        BagError: ROS 2 Jazzy's definitions have no such type.
    """
    store = typestore()
    if type_name not in store.types:
        raise BagError(f"message type '{type_name}' is unknown to ROS 2 Jazzy's definitions and cannot be recorded")
    return store.generate_msgdef(type_name, ros_version=2)[0], store.hash_rihs01(type_name)


def header_record(header: EpisodeHeader) -> dict[str, str]:
    """The metadata record that an episode's recording begins with; `parse_header` reads it."""
    return {"header": json.dumps(header.to_dict(), sort_keys=True)}


def parse_header(content: Mapping[str, str]) -> EpisodeHeader:
    """Raises: BagError: malformed, or of a schema version that this program does not read."""
    fields = _json(content, "header")
    if fields.get("schema_version") != SCHEMA_VERSION:
        raise BagError(f"schema version {fields.get('schema_version')!r}; this program reads version {SCHEMA_VERSION}")
    try:
        return EpisodeHeader.from_dict(fields)
    except RolloutError as error:
        raise BagError(f"episode header: {error}") from error


def outcome_record(outcome: Outcome, dropped: Mapping[str, int]) -> dict[str, str]:
    """The metadata record that an episode's recording ends with; `parse_outcome` reads it."""
    return {
        "outcome": json.dumps(outcome.to_dict(), sort_keys=True),
        "dropped": json.dumps(dict(sorted(dropped.items()))),
    }


def parse_outcome(content: Mapping[str, str]) -> tuple[Outcome, dict[str, int]]:
    """Raises: BagError: malformed."""
    try:
        return Outcome.from_dict(_json(content, "outcome")), _json(content, "dropped")
    except (RolloutError, TypeError) as error:
        raise BagError(f"episode outcome: {error}") from error


def _json(content: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        value = json.loads(content[key])
    except (KeyError, json.JSONDecodeError) as error:
        raise BagError(f"metadata record: no readable '{key}': {error!r}") from error
    if not isinstance(value, dict):
        raise BagError(f"metadata record: '{key}' is {value!r}, not keys with values")
    return value


def custom_data(content: BagContent) -> dict[str, str]:
    """What metadata.yaml says of the episode; rosbag2 takes strings only."""
    fields = {
        k: v if isinstance(v, str) else json.dumps(v, sort_keys=True) for k, v in content.header.to_dict().items()
    }
    assert content.outcome is not None
    return fields | outcome_record(content.outcome, content.dropped)


def bag_metadata(content: BagContent, file_name: str) -> dict[str, Any]:
    """The content of metadata.yaml, version 9 as ROS 2 Jazzy writes it."""
    times: dict[str, Any] = {
        "starting_time": {"nanoseconds_since_epoch": content.first_ns},
        "duration": {"nanoseconds": content.last_ns - content.first_ns},
        "message_count": content.messages,
    }
    information = {
        "version": ROSBAG2_VERSION,
        "storage_identifier": "mcap",
        **times,
        "topics_with_message_count": [_topic(content, topic) for topic in content.types],
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": [file_name],
        "files": [{"path": file_name, **times}],
        "custom_data": custom_data(content),
        "ros_distro": "jazzy",
    }
    return {"rosbag2_bagfile_information": information}


def _topic(content: BagContent, topic: str) -> dict[str, Any]:
    type_name = content.types[topic]
    about = {
        "name": topic,
        "type": type_name,
        "serialization_format": "cdr",
        "offered_qos_profiles": [],
        "type_description_hash": message_definition(type_name)[1],
    }
    return {"topic_metadata": about, "message_count": content.counts[topic]}


class _PlainDumper(yaml.SafeDumper):
    """Writes values that occur twice twice: not every reader of bags knows YAML's references."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_metadata(folder: Path, content: BagContent) -> None:
    """Write metadata.yaml, whole or not at all. Raises: OSError."""
    text = yaml.dump(bag_metadata(content, mcap_name(content.header)), Dumper=_PlainDumper, sort_keys=False)
    temporary = folder / (METADATA_FILE + ".tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(folder / METADATA_FILE)


def mcap_name(header: EpisodeHeader) -> str:
    """Name of the MCAP file in a bag's folder."""
    return f"{header.episode_id}.mcap"


def publish(partial: Path, header: EpisodeHeader, outcome: Outcome) -> Path:
    """Give a finished recording its final name, at once and durably; the path it then has.

    Raises:
        OSError: among others where a bag of that name exists already.
    """
    destination = partial.with_name(header.episode_id)
    if outcome.ending == "aborted":
        destination = _free(partial.with_name(header.episode_id + ABORTED))
    sync_folder(partial)
    partial.rename(destination)
    sync_folder(destination.parent)
    return destination


def sync_folder(folder: Path) -> None:
    """Make renames within a folder survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock_folder(folder: Path) -> int:
    """Lock a recording for its writer or for its recovery; the lock falls when the returned handle is closed.

    Raises:
        BagError: another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise BagError(f"{folder}: another process is recording or recovering it") from error
    return handle


def _free(path: Path) -> Path:
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate

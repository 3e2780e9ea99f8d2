"""Decoded episodes on disk, as memory-mapped arrays keyed by what they were made from.

The key is a digest of the bag's content, the robot's spec and this module's version, so nothing is ever stale. An
entry is a folder that appears whole, by renaming; one that does not match its checksums is made anew.
"""

import hashlib
import io
import json
import os
import shutil
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rollout_manager.episode import EpisodeHeader
from rollout_manager.exceptions import RolloutError
from trainer.episode_arrays import EpisodeArrays
from trainer.exceptions import DatasetError
from vla_policy_node.spec import RobotSpec

CACHE_VERSION = 1
"""To be raised whenever decoding changes what comes out."""

ARRAYS = ("images", "proprioception", "actions", "stamps", "instruction_index")
ENTRY = "entry.json"


@dataclass(frozen=True)
class EpisodeCache:
    """A folder of decoded episodes; several processes may share it."""

    root: Path

    def get(self, key: str, decode: Callable[[], EpisodeArrays]) -> EpisodeArrays:
        """The episode of a `cache_key`, decoded first where it is not there or damaged.

        Raises:
            DatasetError: the cache cannot be written.
            Whatever `decode` raises.
        """
        folder = self.root / key
        if (found := read_entry(folder)) is not None:
            return found
        write_entry(folder, decode())
        # What was written a moment ago is mapped without reading it back for its checksums.
        return _map(folder, json.loads((folder / ENTRY).read_text()))


def cache_key(bag_digest: str, spec: RobotSpec, image_size: tuple[int, int]) -> str:
    """Name of the entry: 32 hex digits over everything that decides its content."""
    content = [CACHE_VERSION, bag_digest, spec.to_dict(), list(image_size)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def write_entry(folder: Path, episode: EpisodeArrays) -> None:
    """Write an entry under a temporary name and rename it; a damaged one at its place is removed.

    Raises:
        DatasetError: the disk is full or not writable; nothing is left behind.
    """
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        temporary.mkdir(parents=True)
        files = {f"{name}.npy": _write_array(temporary / f"{name}.npy", getattr(episode, name)) for name in ARRAYS}
        entry = {
            "header": episode.header.to_dict(),
            "bag_digest": episode.bag_digest,
            "instructions": list(episode.instructions),
            "files": files,
        }
        (temporary / ENTRY).write_text(json.dumps(entry))
        if folder.exists():
            damaged = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
            folder.rename(damaged)
            shutil.rmtree(damaged)
        os.rename(temporary, folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        # Another process may have put the same entry there first; it is as good as ours.
        if read_entry(folder) is None:
            raise DatasetError(f"cache entry '{folder}' cannot be written: {error}") from error


def read_entry(folder: Path) -> EpisodeArrays | None:
    """The entry in a folder, arrays mapped from disk; None where there is none or it is damaged."""
    try:
        entry: dict[str, Any] = json.loads((folder / ENTRY).read_text())
        for name, checksum in entry["files"].items():
            if _checksum(folder / name) != checksum:
                return None
        return _map(folder, entry)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RolloutError):
        return None


def _map(folder: Path, entry: dict[str, Any]) -> EpisodeArrays:
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS}
    header = EpisodeHeader.from_dict(entry["header"])
    return EpisodeArrays(header, entry["bag_digest"], instructions=tuple(entry["instructions"]), **arrays)


def _write_array(path: Path, array: npt.NDArray[Any]) -> str:
    """Write an array as `np.save` does; gives the file's checksum without reading it back."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    with path.open("wb") as file:
        file.write(header.getvalue())
        file.write(data)
    return f"{len(header.getvalue()) + len(data)}:{zlib.crc32(data, zlib.crc32(header.getvalue())):08x}"


def _checksum(path: Path) -> str:
    """Size and CRC-32 of a file."""
    crc, size = 0, 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc, size = zlib.crc32(block, crc), size + len(block)
    return f"{size}:{crc:08x}"

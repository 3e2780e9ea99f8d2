"""Decoded episodes on disk, as memory-mapped arrays keyed by what they were made from.

The key is a digest of the bag's content, the robot's spec and this module's version, so nothing is ever stale. What
is damaged is made anew.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rollout_manager.episode import EpisodeHeader
from rollout_manager.exceptions import RolloutError
from trainer.cache_entry import CacheEntry, map_arrays, read_arrays, write_arrays
from trainer.episode_arrays import EpisodeArrays
from vla_policy_node.spec import RobotSpec

CACHE_VERSION = 1
"""To be raised whenever decoding changes what comes out."""

OPTIONAL = ("human",)
"""Not there where an episode has none; so what was decoded before there were any is still valid."""
ARRAYS = ("images", "proprioception", "actions", "stamps", "instruction_index")


@dataclass(frozen=True)
class EpisodeCache:
    """A folder of decoded episodes; several processes may share it."""

    root: Path

    def has(self, key: str) -> bool:
        """Whether there is an entry, damaged or not."""
        return bool(key) and (self.root / key).is_dir()

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
        return _episode(map_arrays(folder))


def cache_key(bag_digest: str, spec: RobotSpec, image_size: tuple[int, int]) -> str:
    """Name of the entry: 32 hex digits over everything that decides its content."""
    content = [CACHE_VERSION, bag_digest, spec.to_dict(), list(image_size)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def write_entry(folder: Path, episode: EpisodeArrays) -> None:
    """Write an episode whole or not at all. Raises: DatasetError: the disk is full or not writable."""
    about = {
        "header": episode.header.to_dict(),
        "bag_digest": episode.bag_digest,
        "instructions": list(episode.instructions),
    }
    arrays = {name: getattr(episode, name) for name in (*ARRAYS, *OPTIONAL)}
    write_arrays(folder, {name: array for name, array in arrays.items() if array is not None}, about)


def read_entry(folder: Path) -> EpisodeArrays | None:
    """The episode in a folder, arrays mapped from disk; None where there is none or it is damaged."""
    if (entry := read_arrays(folder)) is None:
        return None
    try:
        return _episode(entry)
    except (KeyError, TypeError, ValueError, AttributeError, RolloutError):
        return None


def _episode(entry: CacheEntry) -> EpisodeArrays:
    header = EpisodeHeader.from_dict(entry.about["header"])
    arrays = {name: entry.arrays[name] for name in ARRAYS}
    arrays |= {name: entry.arrays[name] for name in OPTIONAL if name in entry.arrays}
    texts = tuple(entry.about["instructions"])
    return EpisodeArrays(header, entry.about["bag_digest"], instructions=texts, whole=True, **arrays)

"""Shared memory that killed ROS processes leave behind. A node's is 64 MB; a few hundred fill a machine's memory."""

import contextlib
import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

from vla_policy_node.dds_ports import LOCK_SUFFIX, SHARED_MEMORY

SETTLE_S = 10.0
"""A segment younger than this may have been made just now and not be locked yet."""


@dataclass(frozen=True)
class Stale:
    """Segments whose owner is dead."""

    segments: int
    size: int
    """Bytes."""


def stale(folder: Path = SHARED_MEMORY, settle_s: float = SETTLE_S) -> Stale:
    """What `sweep` would remove. A node that starts later does not: Fast DDS leaves dead nodes' segments alone."""
    return _dead(folder, settle_s, remove=False)


def sweep(folder: Path = SHARED_MEMORY, settle_s: float = SETTLE_S) -> int:
    """Remove the segments whose owner is dead, as Fast DDS's own `fastdds shm clean` does; the bytes set free.

    What somebody still uses, or belongs to another user, stays.
    """
    return _dead(folder, settle_s, remove=True).size


def _dead(folder: Path, settle_s: float, remove: bool) -> Stale:
    sizes = []
    for lock in folder.glob(f"fastrtps_*{LOCK_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            # A port is shared by all readers of a process group and has another kind of lock.
            if "_port" not in lock.name and time.time() - lock.stat().st_mtime >= settle_s:
                sizes += _size_if_dead(lock, remove)
    return Stale(len(sizes), sum(sizes))


def _size_if_dead(lock: Path, remove: bool) -> list[int]:
    """The segment's bytes; nothing where its owner lives."""
    handle = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return []
    else:
        segment = lock.with_name(lock.name.removesuffix(LOCK_SUFFIX))
        size = segment.stat().st_blocks * 512 if segment.exists() else 0
        if remove:
            segment.unlink(missing_ok=True)
            lock.unlink()
        return [size]
    finally:
        os.close(handle)

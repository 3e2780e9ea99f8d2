"""Shared memory that killed ROS processes leave behind. A node's is 64 MB; a few hundred fill a machine's memory."""

import contextlib
import fcntl
import os
import time
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
LOCK_SUFFIX = "_el"
"""Fast DDS holds a lock on the file `<segment>_el` for as long as the segment's owner lives."""
SETTLE_S = 10.0
"""A segment younger than this may have been made just now and not be locked yet."""


def sweep(folder: Path = SHARED_MEMORY, settle_s: float = SETTLE_S) -> int:
    """Remove the segments whose owner is dead, as Fast DDS's own `fastdds shm clean` does; the bytes set free.

    What somebody still uses, or belongs to another user, stays.
    """
    freed = 0
    for lock in folder.glob(f"fastrtps_*{LOCK_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            # A port is shared by all readers of a process group and has another kind of lock.
            if "_port" not in lock.name and time.time() - lock.stat().st_mtime >= settle_s:
                freed += _remove_if_dead(lock)
    return freed


def _remove_if_dead(lock: Path) -> int:
    handle = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    else:
        segment = lock.with_name(lock.name.removesuffix(LOCK_SUFFIX))
        size = segment.stat().st_blocks * 512 if segment.exists() else 0
        segment.unlink(missing_ok=True)
        lock.unlink()
        return size
    finally:
        os.close(handle)

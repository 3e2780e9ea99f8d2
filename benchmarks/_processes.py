"""What processes hold: memory, threads, open files, DDS's shared memory. Reads /proc; Linux only."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from vla_policy_node.dds_ports import LOCK_SUFFIX, SHARED_MEMORY

MIB = 2**20


@dataclass(frozen=True)
class Holding:
    """What one process holds at one moment."""

    rss: float
    """Resident memory, MiB."""
    private: float
    """Of it that which is backed by no file and shared with nobody, MiB: where a program's own leaks are."""
    threads: int
    files: int
    """Open file descriptors."""
    segments: int
    """Segments of DDS's shared memory that it owns."""


def holding(pid: int) -> Holding:
    """Raises: FileNotFoundError: there is no such process. ProcessLookupError: it has ended, nobody has asked how."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())

    def mebibytes(name: str) -> float:
        return int(fields[name].split()[0]) / 1024

    if "VmRSS" not in fields:
        raise ProcessLookupError(f"process {pid} has ended")
    files = len(os.listdir(f"/proc/{pid}/fd"))
    return Holding(mebibytes("VmRSS"), mebibytes("RssAnon"), int(fields["Threads"]), files, len(segments(pid)))


def segments(pid: int) -> set[str]:
    """Names of the DDS segments that a process owns: it holds the lock on a file beside each. Others it reads."""
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" not in line]
    held = {int(fields[5].rpartition(":")[2]) for fields in locks if int(fields[4]) == pid}
    found = set()
    for lock in SHARED_MEMORY.glob(f"fastrtps_*{LOCK_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):  # its owner has just ended
            if "_port" not in lock.name and lock.stat().st_ino in held:
                found.add(lock.name.removesuffix(LOCK_SUFFIX))
    return found

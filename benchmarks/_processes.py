"""What processes hold: memory, threads, open files, DDS's shared memory. Reads /proc; Linux only."""

import os
from dataclasses import dataclass
from pathlib import Path

from rollout_manager.shared_memory import SHARED_MEMORY

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
    """Segments of DDS's shared memory that are mapped, its own and those that it reads."""


def holding(pid: int) -> Holding:
    """Raises: OSError: there is no such process."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())

    def mebibytes(name: str) -> float:
        return int(fields[name].split()[0]) / 1024

    files = len(os.listdir(f"/proc/{pid}/fd"))
    return Holding(mebibytes("VmRSS"), mebibytes("RssAnon"), int(fields["Threads"]), files, len(segments(pid)))


def segments(pid: int) -> set[str]:
    """Names of the DDS segments that a process has mapped. Raises: OSError: there is no such process."""
    mapped = {line.split()[-1] for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "fastrtps_" in line}
    names = {Path(path).name for path in mapped if path.startswith(f"{SHARED_MEMORY}/")}
    return {name for name in names if "_port" not in name}

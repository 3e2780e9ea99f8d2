"""Shared-memory ports of Fast DDS that lead to a dead process: they are marked, so that whoever sends there lets go.

A process receives at a port, a file in /dev/shm that all who send to it have mapped. After its end the next process is
given the same number: Fast DDS unlinks the old file and makes a new one, but tells nobody. The others go on to fill the
old one. A watchdog of theirs finds it within a second or two where the dead receiver was waiting for a message or busy
with one. Where it was killed between the two, it never does: all that they send to that number is lost for ever, and
every process that is given it, one after the other, gets no answer (so read in Fast DDS 2.14.5, 3.2.2 and 3.6.2; its
pull requests 4728 and 4737 propose what is done here).
"""

import contextlib
import os
import re
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
PORT = re.compile(r"fastrtps_port(\d+)")
LOCK_SUFFIX = "_el"
"""Fast DDS keeps the file `<name>_el` while a port has a receiver, dead or alive, and of a segment as long as its owner
lives; it holds a lock on it."""
ABI = b"port_node_abi5"
"""Fast DDS's name in the file for what `NODE` describes (PortNode in SharedMemGlobal.hpp). Others are left alone."""
NODE = struct.Struct("<q10I")
"""When it was last checked [ms since 1970], references, two offsets, number, receivers, two time limits [ms], capacity,
who waits, flags."""
WELL = 1
"""The flag that says whether a port may be used. Senders that find it cleared open the port anew, by its name."""
NUMBER_AT, FLAGS_AT = 20, 44
"""Where number and flags are in it, in bytes."""
MOST_RECEIVERS = 1024
HEADER_BYTES = 4096
"""Far more than lies before a port's node."""
QUIET_S = 10.0
"""Whoever has mapped a port checks it every second; nobody uses one that was not checked for so long."""


@dataclass(frozen=True)
class Port:
    """An open file of a port."""

    handle: int
    number: int
    node_at: int
    """Where its node begins, in bytes."""

    def in_use(self) -> bool:
        """Whether somebody checked it lately."""
        checked_ms = NODE.unpack(os.pread(self.handle, NODE.size, self.node_at))[0]
        return bool(time.time() - checked_ms / 1e3 < QUIET_S)

    def well(self) -> bool:
        """Whether senders use it."""
        return bool(self._flags() & WELL)

    def give_up(self) -> None:
        """Make all senders open the port of this number anew."""
        os.pwrite(self.handle, struct.pack("<I", self._flags() & ~WELL), self.node_at + FLAGS_AT)

    def unlinked(self) -> bool:
        """Whether no process can find it any more, though those that found it before still use it."""
        return os.fstat(self.handle).st_nlink == 0

    def _flags(self) -> int:
        return int.from_bytes(os.pread(self.handle, 4, self.node_at + FLAGS_AT), "little")


class PortWatch:
    """Looks again and again at the ports in use on this machine; what it gives up, it does for all their senders."""

    def __init__(self, folder: Path = SHARED_MEMORY) -> None:
        self._folder = folder
        self._ports: dict[int, Port] = {}

    def look(self) -> list[int]:
        """Give up the ports that were unlinked since the last look though they were well; their numbers.

        Fast DDS itself unlinks a port that is well only when its receiver is dead. To look takes 0.3 ms.
        """
        for inode, path, number in self._new():
            with contextlib.suppress(OSError):  # it is gone, or another user's
                self._keep(inode, os.open(path, os.O_RDWR | os.O_CLOEXEC), number)
        return [port.number for inode, port in list(self._ports.items()) if self._given_up(inode, port)]

    def close(self) -> None:
        """Let go of all ports."""
        while self._ports:
            os.close(self._ports.popitem()[1].handle)

    def _given_up(self, inode: int, port: Port) -> bool:
        """Whether a port had to be given up; it is held on only where somebody uses it."""
        lost = False
        try:
            if port.unlinked():
                lost = port.well()
                if lost:
                    port.give_up()
            elif port.in_use():
                return False
        except (OSError, struct.error):
            lost = False  # The file is no port any more; a robot is not to stop for it.
        del self._ports[inode]
        with contextlib.suppress(OSError):
            os.close(port.handle)
        return lost

    def _new(self) -> Iterator[tuple[int, str, int]]:
        """Inode, path and number of ports that have a receiver and are not held yet."""
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            found = {entry.name: entry for entry in entries if entry.name.startswith("fastrtps_port")}
            for name, entry in found.items():
                if name + LOCK_SUFFIX in found and (match := PORT.fullmatch(name)) and entry.inode() not in self._ports:
                    yield entry.inode(), entry.path, int(match[1])

    def _keep(self, inode: int, handle: int, number: int) -> None:
        node_at = _find_node(os.pread(handle, HEADER_BYTES, 0), number)
        port = None if node_at is None else Port(handle, number, node_at)
        if port and port.in_use() and ABI in os.pread(handle, os.fstat(handle).st_size, 0):
            self._ports[inode] = port
        else:
            os.close(handle)


def _find_node(head: bytes, number: int) -> int | None:
    """Where the node of a port begins in the first bytes of its file; None where there is none."""
    found = number.to_bytes(4, "little")
    at = head.find(found, NUMBER_AT)
    while 0 <= at <= len(head) - NODE.size:
        *_, receivers, healthy_ms, wait_ms, capacity, _, _ = NODE.unpack_from(head, at - NUMBER_AT)
        if receivers <= MOST_RECEIVERS and capacity and healthy_ms and wait_ms == healthy_ms // 3:
            return at - NUMBER_AT
        at = head.find(found, at + 1)
    return None

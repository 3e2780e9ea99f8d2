"""How late chunks come: from the stamp of an observation to the arrival of the chunk that answers it. Pure."""

from collections import deque

from vla_policy_node.chunking import action_index
from vla_policy_node.diagnostics import DurationMonitor
from vla_policy_node.spec import NANOSECONDS

MEMORY = 10
"""Delays that the next one is expected from. As in real-time chunking (arXiv 2506.07339) it is the longest of the last
few: to expect too long a delay binds a chunk for longer than it must, to expect too short a one makes the arm jump."""


class ChunkDelays:
    """Keeps an episode's delays, in ticks: how many of a chunk's actions are over when it is there."""

    def __init__(self, period_ns: int) -> None:
        """Args: period_ns: from tick to tick."""
        self._period_ns = period_ns
        self._last: deque[int] = deque(maxlen=MEMORY)
        self._durations = DurationMonitor()

    @property
    def expected(self) -> int:
        """The next chunk's delay in ticks; 0 before the first."""
        return max(self._last, default=0)

    def add(self, stamp_ns: int, arrived_ns: int, tick_ns: int) -> None:
        """Args: stamp_ns: of the observation; arrived_ns: of its chunk; tick_ns: the first that may use it."""
        self._durations.add((arrived_ns - stamp_ns) / NANOSECONDS)
        self._last.append(max(0, action_index(tick_ns, stamp_ns, self._period_ns)))

    def values(self) -> dict[str, str]:
        """Diagnostic values: ticks that are expected next, and count, median and maximum of the delays in ms."""
        return {"chunk_delay_ticks": str(self.expected), **self._durations.values("chunk_delay")}

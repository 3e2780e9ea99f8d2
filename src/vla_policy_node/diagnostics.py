"""What a node tells of its streams: rates, latencies, drops and what was refused. Pure; times are integer ns."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from vla_policy_node.messages import MessageMaker, make_header
from vla_policy_node.spec import NANOSECONDS

OK, WARN, ERROR, STALE = 0, 1, 2, 3
"""Levels of diagnostic_msgs/DiagnosticStatus."""

WINDOW = 200


@dataclass(frozen=True)
class Status:
    """One line of diagnostics, as diagnostic_msgs/DiagnosticStatus has it."""

    name: str
    level: int
    message: str
    values: Mapping[str, str] = field(default_factory=dict)


class StreamMonitor:
    """Counts one stream's messages and what went wrong with them."""

    def __init__(self, name: str, stale_after_ns: int | None) -> None:
        """Args: name: its topic; stale_after_ns: silence after which it counts as stale; None: what was said holds."""
        self._name = name
        self._stale_after_ns = stale_after_ns
        self._received = self._refused = self._dropped = 0
        self._refusal = ""
        self._last_ns: int | None = None
        self._arrivals: deque[int] = deque(maxlen=WINDOW)
        self._intervals: deque[int] = deque(maxlen=WINDOW)
        self._latencies: deque[int] = deque(maxlen=WINDOW)
        self._stamp: int | None = None

    def received(self, now_ns: int, stamp_ns: int | None) -> None:
        """A message came in; `stamp_ns` is its header's, None where its type has none."""
        self._received += 1
        self._last_ns = now_ns
        self._arrivals.append(now_ns)
        if stamp_ns is None:
            return
        self._latencies.append(now_ns - stamp_ns)
        if self._stamp is not None and stamp_ns > self._stamp:
            self._count_gap(stamp_ns - self._stamp)
        self._stamp = stamp_ns

    def refused(self, reason: str) -> None:
        """A message could not be used."""
        self._refused += 1
        self._refusal = reason

    def restart(self) -> None:
        """A new episode: the gap since the last one is not a drop, what was refused before is not news."""
        self._stamp = None
        self._refusal = ""
        self._arrivals.clear()

    def clock_set(self) -> None:
        """The clock was set: times that were noted by it mean nothing any more."""
        self.restart()
        self._latencies.clear()
        if self._stale_after_ns is not None:
            self._last_ns = None

    def silent_ns(self, now_ns: int) -> int:
        """How long nothing has come; 0 before the first message."""
        return 0 if self._last_ns is None else now_ns - self._last_ns

    @property
    def refusal(self) -> str:
        """Why the last message that could not be used was refused, in this episode."""
        return self._refusal

    def status(self, now_ns: int, publishers: int) -> Status:
        """How the stream is doing; `publishers` is how many publish it."""
        level, message = self._judge(now_ns, publishers)
        values = {
            "received": str(self._received),
            "refused": str(self._refused),
            "dropped": str(self._dropped),
            "publishers": str(publishers),
            "rate_hz": f"{self._rate_hz():.1f}",
        }
        if self._latencies:
            ordered = sorted(self._latencies)
            values["latency_ms_median"] = f"{median(ordered) / 1e6:.2f}"
            values["latency_ms_max"] = f"{ordered[-1] / 1e6:.2f}"
        return Status(self._name, level, message, values)

    def _judge(self, now_ns: int, publishers: int) -> tuple[int, str]:
        if self._refusal:
            return ERROR, self._refusal
        if publishers == 0:
            return ERROR, f"no publisher on {self._name}"
        if self._last_ns is None:
            return STALE, f"nothing received on {self._name}"
        age = now_ns - self._last_ns
        if self._stale_after_ns is not None and age > self._stale_after_ns:
            return STALE, f"last message {age / NANOSECONDS:.1f} s ago"
        return OK, "receiving"

    def _rate_hz(self) -> float:
        if len(self._arrivals) < 2:
            return 0.0
        span = self._arrivals[-1] - self._arrivals[0]
        return (len(self._arrivals) - 1) * NANOSECONDS / span if span > 0 else 0.0

    def _count_gap(self, interval_ns: int) -> None:
        # Without a promised rate, a drop is a gap of at least one and a half of the stream's usual intervals.
        if len(self._intervals) >= 5:
            usual = median(self._intervals)
            self._dropped += max(0, round(interval_ns / usual) - 1) if interval_ns > 1.5 * usual else 0
        self._intervals.append(interval_ns)


def diagnostics_message(make: MessageMaker, node: str, stamp_ns: int, statuses: Sequence[Status]) -> Any:
    """Statuses of a node as one diagnostic_msgs/DiagnosticArray."""
    array_of = [
        make(
            "diagnostic_msgs/msg/DiagnosticStatus",
            level=np.uint8(status.level),
            name=f"{node}: {status.name}",
            message=status.message,
            hardware_id=node,
            values=[make("diagnostic_msgs/msg/KeyValue", key=k, value=v) for k, v in status.values.items()],
        )
        for status in statuses
    ]
    return make("diagnostic_msgs/msg/DiagnosticArray", header=make_header(make, stamp_ns, ""), status=array_of)


class DurationMonitor:
    """Keeps the last durations of one kind, in seconds."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=WINDOW)
        self.count = 0

    def add(self, seconds: float) -> None:
        self.count += 1
        self._seconds.append(seconds)

    def values(self, name: str) -> dict[str, str]:
        """Count, median and maximum in ms as diagnostic values whose keys start with `name`."""
        if not self._seconds:
            return {f"{name}_count": "0"}
        return {
            f"{name}_count": str(self.count),
            f"{name}_ms_median": f"{median(self._seconds) * 1e3:.2f}",
            f"{name}_ms_max": f"{max(self._seconds) * 1e3:.2f}",
        }


def worst(statuses: Sequence[Status]) -> tuple[int, str]:
    """The highest level among statuses and what those of that level say; STALE counts below ERROR."""
    rank = {OK: 0, WARN: 1, STALE: 2, ERROR: 3}
    level = max((s.level for s in statuses), key=rank.__getitem__, default=OK)
    return level, "; ".join(s.message for s in statuses if s.level == level and level != OK)

"""Safety events: when a robot begins to be held or limited, why, and when it is free again. Pure; times are in ns."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vla_policy_node.diagnostics import ERROR, OK, WARN, Status, diagnostics_message
from vla_policy_node.messages import MessageMaker
from vla_policy_node.safety import SafeCommand
from vla_policy_node.spec import NANOSECONDS

NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d.]*(e[-+]?\d+)?(?!\w)")
MOST_KINDS = 50
"""Kinds that are counted one by one; a policy's own errors may be of any number."""
OTHERS = "others"


@dataclass(frozen=True)
class SafetyEvent:
    """A change in what stands between what was asked for and what is sent."""

    stamp_ns: int
    """Of the command that is the first to be treated so."""
    held: bool
    reasons: tuple[str, ...]
    """Why it is held or limited; empty: from here on what is asked for is sent."""

    def status(self) -> Status:
        """As a line of diagnostics."""
        level = ERROR if self.held else WARN if self.reasons else OK
        return Status("safety", level, "; ".join(self.reasons) or "free", {"held": str(self.held).lower()})


def event_message(make: MessageMaker, event: SafetyEvent, node: str = "policy_node") -> Any:
    """What is told on /policy/events: a diagnostic_msgs/DiagnosticArray of one line, with the command's stamp."""
    return diagnostics_message(make, node, event.stamp_ns, [event.status()])


def kind_of(reason: str) -> str:
    """A reason without its numbers, which change from tick to tick: `front: last sample # ms old`."""
    return NUMBER.sub("#", reason)


class SafetyEvents:
    """Sees every command, tells of changes, and counts how often each kind of reason has begun."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.restart()

    def restart(self) -> None:
        """An episode begins: however its first command is treated is told, so that its recording says it."""
        self._now: tuple[frozenset[str], bool] | None = None

    def see(self, stamp_ns: int, command: SafeCommand) -> SafetyEvent | None:
        """What has changed with a command that is sent; None where nothing has."""
        kinds = frozenset(map(kind_of, command.reasons))
        before, self._now = self._now, (kinds, command.held)
        if before == self._now:
            return None
        for kind in sorted(kinds - (before[0] if before else frozenset())):
            self.counts[kind if kind in self.counts or len(self.counts) < MOST_KINDS else OTHERS] += 1
        return SafetyEvent(stamp_ns, command.held, command.reasons)


class EventLog:
    """Chooses which events go into a log: a command that is limited in every other tick would fill it.

    Of holds, limits and being free each is told at most once a second. What was passed over and goes on is told later,
    so that no arm is held for long without a line that says why.
    """

    def __init__(self, say: Callable[[SafetyEvent], None]) -> None:
        self._say = say
        self._told_ns: dict[int, int] = {}
        self._untold: SafetyEvent | None = None

    def see(self, event: SafetyEvent, now_ns: int) -> None:
        """An event, and when it is seen on a clock that only goes forward."""
        self._untold = event
        self.remind(now_ns)

    def remind(self, now_ns: int) -> None:
        """To be called now and then: tell the last event, if it has not been told and its time has come."""
        if self._untold is None:
            return
        level = self._untold.status().level
        if now_ns - self._told_ns.get(level, now_ns - NANOSECONDS) >= NANOSECONDS:
            self._told_ns[level], event, self._untold = now_ns, self._untold, None
            self._say(event)

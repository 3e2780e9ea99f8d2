"""The commands of a bag of other origin, put together of whatever topics they were sent on.

A command is made for every period of the robot: of each of its dimensions the first value that was sent within the
period, else the newest one before it.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np

from rollout_manager.exceptions import BagError
from rollout_manager.import_mapping import ActionSource, Span, read_value
from rollout_manager.import_source import ImportSource
from vla_policy_node.observation import Float32Array
from vla_policy_node.topics import INSTRUCTION


def actions_of(source: ImportSource, span: Span) -> dict[int, Float32Array]:
    """The command of every period that has one, by its stamp in ns. Raises: BagError: there is none."""
    first, last = _observed(source, span)
    commands = _commands(source, span)
    order = [source.spec.action_names.index(entry.name) for entry in source.mapping.action]
    found: dict[int, Float32Array] = {}
    for tick in range(first, last + 1, source.spec.period_ns):
        action = np.empty(len(order), np.float32)
        for place, stream in zip(order, commands, strict=True):
            action[place] = stream.at(tick, source.spec.period_ns, source.spec.action[place].hold == "last")
        if np.isfinite(action).all():
            found[tick] = action
    if not found:
        names = ", ".join(dict.fromkeys(entry.topic for entry in source.mapping.action))
        raise BagError(f"{source.path}: from {span.start_s} s on there is no time with all of {names} and observations")
    return found


def _observed(source: ImportSource, span: Span) -> tuple[int, int]:
    """The first and last instant that all streams have reached. Raises: BagError: one of them is silent."""
    start, end = source.window(span)
    reached: dict[str, tuple[int, int]] = {}
    streams = [c for c in source.observed if source.ours[c.topic] != INSTRUCTION]
    for connection, received_ns, cdr in source.reader.messages(streams, start=start, stop=end + 1):
        at, topic = source.time(connection, received_ns, cdr), source.ours[connection.topic]
        first, last = reached.get(topic, (at, at))
        reached[topic] = (min(first, at), max(last, at))
    if silent := sorted({source.ours[c.topic] for c in streams} - set(reached)):
        raise BagError(f"{source.path}: nothing on {', '.join(silent)} from {span.start_s} s on")
    return max(first for first, _ in reached.values()), min(last for _, last in reached.values())


@dataclass(frozen=True)
class _Commands:
    """What was sent of one dimension: times in ns, ascending, and values."""

    times: list[int]
    values: list[float]

    def at(self, tick_ns: int, period_ns: int, holds: bool) -> float:
        """The value for a period: the first sent in it, else the one in force; a velocity is in force for a period."""
        after = bisect_left(self.times, tick_ns)
        if after < len(self.times) and self.times[after] < tick_ns + period_ns:
            return self.values[after]
        if after == 0:
            return float("nan")
        return self.values[after - 1] if holds or self.times[after - 1] >= tick_ns - period_ns else 0.0


def _commands(source: ImportSource, span: Span) -> list[_Commands]:
    """What was sent of each of the mapping's dimensions, each topic read once. Raises: BagError: a key is missing."""
    _, end = source.window(span)
    entries = source.mapping.action
    pairs: list[list[tuple[int, float]]] = [[] for _ in entries]
    for topic in dict.fromkeys(entry.topic for entry in entries):
        # Reception before the try counts too: what was commanded then may still hold.
        for connection, received_ns, cdr in source.reader.messages(source.connections(topic), stop=end + 1):
            message, at = source.reader.deserialize(cdr, connection.msgtype), source.time(connection, received_ns, cdr)
            for entry, sent in zip(entries, pairs, strict=True):
                if entry.topic == topic:
                    sent.append((at, _value(source, entry, message, connection.msgtype)))
    return [_Commands([at for at, _ in sorted(sent)], [value for _, value in sorted(sent)]) for sent in pairs]


def _value(source: ImportSource, entry: ActionSource, message: Any, type_name: str) -> float:
    try:
        return entry.scale * read_value(message, type_name, entry.key) + entry.offset
    except BagError as error:
        raise BagError(f"{source.path}: topic '{entry.topic}', for action '{entry.name}': {error}") from error

"""Bags of other origin (`ros2 bag record`; sqlite3 or MCAP, compressed or not) as episodes of Encore.

Observations are copied as they are, under Encore's topics. A command is made for every period of the robot: of each of
its dimensions the first value that was sent within the period, else the newest one before it.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection
from rosbags.rosbag2 import ReaderError

from rollout_manager.bag_writer import EpisodeWriter
from rollout_manager.cdr import stamp_of_cdr, with_stamp
from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.exceptions import BagError
from rollout_manager.import_mapping import ActionSource, ImportMapping, Span, read_value
from rollout_manager.labels import append_label, make_label
from rollout_manager.recorder import start_writer
from vla_policy_node.action_spec import ActionDimension
from vla_policy_node.commands import action_to_message
from vla_policy_node.messages import rosbags_maker, text_from_message, text_to_message, typestore
from vla_policy_node.observation import Float32Array
from vla_policy_node.spec import NANOSECONDS, RobotSpec
from vla_policy_node.topics import ACTION, INSTRUCTION, MESSAGE_TYPES

STAMPED = tuple(
    f"{package}/msg/{name}"
    for package, names in (
        ("sensor_msgs", ("Image", "CompressedImage", "JointState")),
        ("geometry_msgs", ("PoseStamped", "TwistStamped")),
        ("trajectory_msgs", ("JointTrajectory",)),
    )
    for name in names
)
"""Types that begin with a header."""
OFTEN = 0.02
"""Share of values beyond a limit that is worth a word."""
IMPORT_RULE = "import"
"""The rule of labels that a mapping gave."""


@dataclass(frozen=True)
class Imported:
    """One try that is an episode now."""

    bag: Path
    actions: int
    problems: tuple[str, ...]
    """What looks wrong with it, in words."""


@dataclass(frozen=True)
class _Source:
    """An open bag of other origin, and how it is read."""

    path: Path
    reader: AnyReader
    mapping: ImportMapping
    spec: RobotSpec

    def connections(self, topic: str, type_name: str = "") -> list[Connection]:
        """Raises: BagError: the bag has no such topic, or of another type."""
        found = [c for c in self.reader.connections if c.topic == topic]
        if not found:
            known = ", ".join(sorted(f"{c.topic} ({c.msgtype})" for c in self.reader.connections)) or "none"
            raise BagError(f"{self.path}: no topic '{topic}'; it has {known}")
        if wrong := [c.msgtype for c in found if type_name and c.msgtype != type_name]:
            raise BagError(f"{self.path}: topic '{topic}' is a {wrong[0]}; robot '{self.spec.name}' needs {type_name}")
        return found

    @cached_property
    def ours(self) -> dict[str, str]:
        """Of the streams that observations are made of: the bag's topic -> Encore's."""
        return {theirs: ours for ours, (theirs, _) in self.mapping.sources(self.spec).items()}

    @cached_property
    def observed(self) -> list[Connection]:
        """The streams that observations are made of. Raises: BagError: as `connections`."""
        sources = self.mapping.sources(self.spec).values()
        return [c for theirs, kind in sources for c in self.connections(theirs, kind)]

    def time(self, connection: Connection, received_ns: int, cdr: bytes) -> int:
        """The time that a message counts for, in ns; a stamp of 0 says now."""
        if self.mapping.stamps == "received" or connection.msgtype not in STAMPED:
            return received_ns
        return stamp_of_cdr(cdr) or received_ns

    def window(self, span: Span) -> tuple[int, int]:
        """Reception times of a try, in ns: from, and up to."""
        first = self.reader.start_time
        end = first + round(span.end_s * NANOSECONDS) if span.end_s else self.reader.end_time
        return first + round(span.start_s * NANOSECONDS), end


def import_bag(path: Path, mapping: ImportMapping, spec: RobotSpec, root: Path) -> Iterator[Imported]:
    """Make an episode of each try in a bag.

    Args:
        root: folder of bags that the episodes are added to.

    Raises:
        BagError: no such bag, it cannot be read, a topic or key is missing or of another type, or an episode is there
            already; nothing half-written is left.
    """
    mapping.check(spec)
    try:
        with AnyReader([path], default_typestore=typestore()) as reader:
            source = _Source(path, reader, mapping, spec)
            for number, span in enumerate(mapping.episodes):
                yield _import_span(source, span, number, root)
    except (AnyReaderError, ReaderError, OSError) as error:
        raise BagError(f"{path}: cannot be read as a bag: {error}") from error


def _import_span(source: _Source, span: Span, number: int, root: Path) -> Imported:
    actions = _actions(source, span)
    header = _header(source, span, number)
    outcome = _outcome(span, len(actions), header)
    writer = start_writer(root, header)
    try:
        with writer:
            backward = _copy(source, span, actions, writer)
            bag = writer.close(outcome)
    except (AnyReaderError, ReaderError) as error:
        raise BagError(f"{source.path}: damaged: {error}") from error
    if span.outcome != "unlabelled":
        append_label(bag, make_label(header.episode_id, span.outcome, "import", IMPORT_RULE))
    return Imported(bag, len(actions), (*_backward(backward), *_beyond(actions, source.spec)))


def _backward(left_out: int) -> tuple[str, ...]:
    return (f"{left_out} messages left out: stamped no later than the one before them",) if left_out else ()


def _beyond(actions: Mapping[int, Float32Array], spec: RobotSpec) -> tuple[str, ...]:
    """Dimensions that are often beyond the robot's limits: mostly another unit."""
    values = np.stack(list(actions.values()))
    often = ((values < spec.action_low) | (values > spec.action_high)).mean(axis=0)
    return tuple(
        f"action '{d.name}': {share:.0%} of its values are beyond {d.low:g} to {d.high:g} {d.unit}, the largest "
        f"{np.abs(values[:, i]).max():.4g}: is it another unit ({_unit_hint(values[:, i], d)})?"
        for i, (d, share) in enumerate(zip(spec.action, often, strict=True))
        if share > OFTEN
    )


def _unit_hint(values: Float32Array, dimension: ActionDimension) -> str:
    factor = float(np.abs(values).max()) / max(abs(dimension.low), abs(dimension.high))
    hints = {"degrees for radians: scale 0.01745": 180 / np.pi, "millimetres for metres: scale 0.001": 1000.0}
    return min(hints, key=lambda hint: abs(np.log(factor / hints[hint])))


def _header(source: _Source, span: Span, number: int) -> EpisodeHeader:
    mapping, spec = source.mapping, source.spec
    several = f"_{number}" if len(mapping.episodes) > 1 else ""
    instruction = mapping.instruction_of(span) or _said(source, span)
    return EpisodeHeader(
        episode_id=re.sub(r"[^A-Za-z0-9._-]+", "-", source.path.stem) + several,
        environment=mapping.environment,
        task=mapping.task,
        instruction=instruction,
        seed=number,
        robot=spec.name,
        spec_digest=spec.digest,
        driver=mapping.driver,
        control_mode="real_time",
        versions={"imported_from": source.path.name},
    )


def _said(source: _Source, span: Span) -> str:
    """The instruction that held when a try began, or the first one in it. Raises: BagError: there is none."""
    theirs, kind = source.mapping.sources(source.spec)[INSTRUCTION]
    start, end = source.window(span)
    found = ""
    for connection, received_ns, cdr in source.reader.messages(source.connections(theirs, kind), stop=end + 1):
        if found and received_ns > start:
            break
        found = text_from_message(source.reader.deserialize(cdr, connection.msgtype)).strip() or found
    if not found:
        raise BagError(f"{source.path}: '{theirs}' says no instruction; give one in the mapping")
    return found


def _outcome(span: Span, steps: int, header: EpisodeHeader) -> Outcome:
    human = steps if header.driver == "human" else 0
    if span.outcome == "success":
        return Outcome("success", steps, 1.0, human_steps=human)
    return Outcome("failure" if span.outcome == "failure" else "truncated", steps, human_steps=human)


def _copy(source: _Source, span: Span, actions: Mapping[int, Float32Array], writer: EpisodeWriter) -> int:
    """Write observations and, among them, commands; gives how many messages were left out as going backward."""
    start, end = source.window(span)
    make, waiting = rosbags_maker(), sorted(actions)
    last: dict[str, int] = {}
    backward = 0

    def command_up_to(stamp_ns: int | None) -> None:
        while waiting and (stamp_ns is None or waiting[0] <= stamp_ns):
            at = waiting.pop(0)
            message = action_to_message(make, source.spec, at, actions[at])
            _write(writer, ACTION, at, message)

    if INSTRUCTION not in source.ours.values():
        _write(writer, INSTRUCTION, min(actions), text_to_message(make, writer.header.instruction))
    for connection, received_ns, cdr in source.reader.messages(source.observed, start=start, stop=end + 1):
        topic = source.ours[connection.topic]
        at = source.time(connection, received_ns, cdr)
        if at <= last.get(topic, -1):
            backward += 1
            continue
        last[topic] = at
        command_up_to(at)
        # An observation is assembled by headers' stamps, so they must say the time that the message counts for.
        stamped = with_stamp(cdr, at) if connection.msgtype in STAMPED else cdr
        writer.write(topic, connection.msgtype, at, stamped)
    command_up_to(None)
    return backward


def _write(writer: EpisodeWriter, topic: str, at_ns: int, message: Any) -> None:
    kind = MESSAGE_TYPES[topic]
    writer.write(topic, kind, at_ns, typestore().serialize_cdr(message, kind))


def _actions(source: _Source, span: Span) -> dict[int, Float32Array]:
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


def _observed(source: _Source, span: Span) -> tuple[int, int]:
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


def _commands(source: _Source, span: Span) -> list[_Commands]:
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


def _value(source: _Source, entry: ActionSource, message: Any, type_name: str) -> float:
    try:
        return entry.scale * read_value(message, type_name, entry.key) + entry.offset
    except BagError as error:
        raise BagError(f"{source.path}: topic '{entry.topic}', for action '{entry.name}': {error}") from error

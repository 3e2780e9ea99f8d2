"""Bags of other origin (`ros2 bag record`; sqlite3 or MCAP, compressed or not) as episodes of Encore.

Observations are copied as they are, under Encore's topics, with commands among them (`import_actions.py`).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.rosbag2 import ReaderError

from rollout_manager.bag_writer import EpisodeWriter
from rollout_manager.cdr import with_stamp
from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.exceptions import BagError
from rollout_manager.import_actions import actions_of
from rollout_manager.import_mapping import ImportMapping, Span
from rollout_manager.import_source import STAMPED, ImportSource
from rollout_manager.labels import append_label, make_label
from rollout_manager.recorder import start_writer
from vla_policy_node.action_spec import ActionDimension
from vla_policy_node.commands import action_to_message
from vla_policy_node.messages import rosbags_maker, text_from_message, text_to_message, typestore
from vla_policy_node.observation import Float32Array
from vla_policy_node.spec import RobotSpec
from vla_policy_node.topics import ACTION, INSTRUCTION, MESSAGE_TYPES

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
            source = ImportSource(path, reader, mapping, spec)
            for number, span in enumerate(mapping.episodes):
                yield _import_span(source, span, number, root)
    except (AnyReaderError, ReaderError, OSError) as error:
        raise BagError(f"{path}: cannot be read as a bag: {error}") from error


def _import_span(source: ImportSource, span: Span, number: int, root: Path) -> Imported:
    actions = actions_of(source, span)
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


def _header(source: ImportSource, span: Span, number: int) -> EpisodeHeader:
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


def _said(source: ImportSource, span: Span) -> str:
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


def _copy(source: ImportSource, span: Span, actions: Mapping[int, Float32Array], writer: EpisodeWriter) -> int:
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

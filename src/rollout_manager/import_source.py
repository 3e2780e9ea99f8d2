"""A bag of other origin, open, and how a mapping reads it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection

from rollout_manager.cdr import stamp_of_cdr
from rollout_manager.exceptions import BagError
from rollout_manager.import_mapping import ImportMapping, Span
from vla_policy_node.spec import NANOSECONDS, RobotSpec

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


@dataclass(frozen=True)
class ImportSource:
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

"""How a bag that Encore did not record is to be read: which of its topics is what, and what came of the tries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rollout_manager.episode import Driver
from rollout_manager.exceptions import BagError
from vla_policy_node.messages import observation_topics
from vla_policy_node.spec import RobotSpec
from vla_policy_node.topics import INSTRUCTION

AXES = ("linear.x", "linear.y", "linear.z", "angular.x", "angular.y", "angular.z")
"""Keys of a geometry_msgs/Twist or TwistStamped."""


@dataclass(frozen=True)
class ActionSource:
    """Where one dimension of the action is read from: value = `scale` x what the message says + `offset`."""

    name: str
    """The dimension, as the robot's file names it."""
    topic: str
    key: str
    """Of a JointTrajectory (its first point) or JointState: the joint; of a Float64MultiArray: the number's place, from
    0; of a Twist or TwistStamped: linear.x to angular.z; of a Float32 or Float64: data."""
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class Span:
    """One try within a bag."""

    start_s: float = 0.0
    """When it begins, in seconds from the bag's first message."""
    end_s: float = 0.0
    """When it ends; 0: with the bag."""
    outcome: Literal["success", "failure", "unlabelled"] = "unlabelled"
    instruction: str = ""
    """Empty: the mapping's."""


@dataclass(frozen=True)
class ImportMapping:
    """A YAML file that `encore bags import` is given."""

    robot: str
    """A robot of config/robots/, or the path of such a file."""
    task: str
    """A name for what is tried; tries of one task share it."""
    action: tuple[ActionSource, ...]
    """One entry a dimension of the robot's action."""
    instruction: str = ""
    """What was asked, in words; empty: the bag has a topic of it."""
    topics: Mapping[str, str] | None = None
    """Encore's topic -> the bag's, where they differ."""
    environment: str = "arm"
    """Where it was recorded."""
    driver: Driver = "human"
    """Who drove."""
    stamps: Literal["header", "received"] = "header"
    """What time a message counts for: its header's, or when the bag's recorder got it, where clocks disagree."""
    episodes: tuple[Span, ...] = (Span(),)
    """The tries in the bag, in order."""

    def check(self, spec: RobotSpec) -> None:
        """Raises: BagError: a topic or dimension is not the robot's, one lacks, or the tries overlap."""
        named = [source.name for source in self.action]
        lacking = [name for name in spec.action_names if name not in named]
        wrong = [name for name in named if name not in spec.action_names or named.count(name) > 1]
        if lacking or wrong:
            said = [f"{name} lacks" for name in lacking]
            said += [f"{name} is unknown or named twice" for name in dict.fromkeys(wrong)]
            raise BagError(
                f"mapping: action: {', '.join(said)}; robot '{spec.name}' has {', '.join(spec.action_names)}"
            )
        valid = observation_topics(spec)
        if unknown := [topic for topic in self.topics or {} if topic not in valid]:
            raise BagError(f"mapping: topics: {', '.join(unknown)} is none of robot '{spec.name}': {', '.join(valid)}")
        _check_spans(self.episodes)

    def sources(self, spec: RobotSpec) -> dict[str, tuple[str, str]]:
        """Of every topic that observations are made of: the bag's topic, and the type it must have.

        The instruction's is left out where the mapping gives one.
        """
        said = {topic for topic in observation_topics(spec) if topic == INSTRUCTION and self._says_it}
        renamed = self.topics or {}
        return {t: (renamed.get(t, t), kind) for t, kind in observation_topics(spec).items() if t not in said}

    def instruction_of(self, span: Span) -> str:
        """What was asked in a try; empty where the bag has to say it."""
        return span.instruction or self.instruction

    @property
    def _says_it(self) -> bool:
        return all(self.instruction_of(span) for span in self.episodes)


def _check_spans(spans: Sequence[Span]) -> None:
    if not spans:
        raise BagError("mapping: episodes: none given; leave it out for the whole bag as one try")
    end = 0.0
    for i, span in enumerate(spans):
        open_end = span.end_s == 0
        if span.start_s < end or (not open_end and span.end_s <= span.start_s) or (open_end and i + 1 < len(spans)):
            until = span.end_s or "the end"
            raise BagError(f"mapping: episodes[{i}]: from {span.start_s} to {until} s; tries must follow one another")
        end = span.end_s


def read_value(message: Any, type_name: str, key: str) -> float:
    """One number of a command message.

    Raises:
        BagError: no such key in it, or a type that no action is read from.
    """
    kind = type_name.rpartition("/")[2]
    if kind == "JointTrajectory":
        return float(_by_name(message.joint_names, message.points[0].positions if len(message.points) else (), key))
    if kind == "JointState":
        return float(_by_name(message.name, message.position, key))
    if kind == "Float64MultiArray":
        return float(_by_name([str(i) for i in range(len(message.data))], message.data, key))
    if kind in ("Float32", "Float64"):
        return float(_by_name(["data"], [message.data], key))
    if kind in ("Twist", "TwistStamped"):
        twist = message.twist if kind == "TwistStamped" else message
        values = [getattr(part, axis) for part in (twist.linear, twist.angular) for axis in "xyz"]
        return float(_by_name(AXES, values, key))
    raise BagError(
        f"an action cannot be read from a {type_name}; from JointTrajectory, JointState, Float64MultiArray, Float32, "
        "Float64, Twist or TwistStamped it can"
    )


def _by_name(names: Sequence[str], values: Sequence[float], key: str) -> float:
    if key not in names or names.index(key) >= len(values):
        raise BagError(f"key '{key}' is none of {', '.join(names) or 'nothing'}, or has no value")
    return values[names.index(key)]

"""The robot as the policy knows it: cameras, proprioception, action and rate, with names and units."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from vla_policy_node.action_spec import NO_PART_OF_THE_DIGEST, ActionDimension, home_places, one_of
from vla_policy_node.command_spec import CommandSpec
from vla_policy_node.exceptions import SpecError
from vla_policy_node.locations import find_preset, read_yaml
from vla_policy_node.topics import camera_topic

Transport = Literal["raw", "compressed"]
ProprioceptionSource = Literal["ee_pose", "joint_position", "joint_velocity"]
Exploration = Literal["action", "aim"]

ROTATION_KEYS = ("r00", "r10", "r20", "r01", "r11", "r21")
"""The first two columns of a rotation matrix. They are continuous in the orientation, as no three or four numbers are
(Zhou et al. 2019, On the Continuity of Rotation Representations in Neural Networks)."""
POSE_KEYS = ("x", "y", "z", "qx", "qy", "qz", "qw", *ROTATION_KEYS)
"""Keys of an `ee_pose` field: position in metres, orientation as a unit quaternion or as columns of its matrix."""

NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class CameraSpec:
    """One camera: RGB images of `height` x `width` pixels on `topic`."""

    name: str
    height: int
    width: int
    transport: Transport = "raw"
    topic: str = ""
    """Empty: `/camera/<name>/image_raw` or `/camera/<name>/compressed`."""

    def __post_init__(self) -> None:
        one_of(f"camera '{self.name}': transport", self.transport, get_args(Transport))
        if self.height < 1 or self.width < 1:
            raise SpecError(f"camera '{self.name}': size {self.height}x{self.width} is not positive")
        if not self.topic:
            object.__setattr__(self, "topic", camera_topic(self.name, self.transport))


@dataclass(frozen=True)
class ProprioceptionField:
    """One scalar of the proprioception vector and where it is read from."""

    name: str
    source: ProprioceptionSource
    key: str
    """A joint's name, or one of `POSE_KEYS` for source `ee_pose`."""
    unit: str

    def __post_init__(self) -> None:
        one_of(f"proprioception '{self.name}': source", self.source, get_args(ProprioceptionSource))
        if self.source == "ee_pose":
            one_of(f"proprioception '{self.name}': key", self.key, POSE_KEYS)


@dataclass(frozen=True)
class RobotSpec:
    """Everything a policy and a robot must agree on. Two specs are the same if their digests are."""

    name: str
    rate_hz: float
    cameras: tuple[CameraSpec, ...]
    proprioception: tuple[ProprioceptionField, ...]
    action: tuple[ActionDimension, ...]
    frame: str = "world"
    """Frame that poses and end-effector actions are expressed in."""
    max_skew_s: float = 0.1
    """How far the streams of one observation may lie apart, and how old it may be, in seconds."""
    max_silence_s: float = math.inf
    """In real time, how long nothing may arrive of a camera, the joints or the pose before the robot holds, in seconds:
    sooner than its last sample is too old. No part of the digest."""
    explore: Exploration = "action"
    """What a policy varies when it tries anew: its actions, or where it aims. No part of the digest."""
    commands: tuple[CommandSpec, ...] = ()
    """Its own controllers, which are sent what `/action` says as well. No part of the digest."""
    home: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Where it begins every try, in the unit of each: by joint, or by the action's dimension; what is not named stays
    where it is. No part of the digest."""

    def __post_init__(self) -> None:
        one_of(f"robot '{self.name}': explore", self.explore, get_args(Exploration))
        if not self.max_silence_s > 0:
            raise SpecError(f"robot '{self.name}': max_silence_s {self.max_silence_s} is not positive")
        if not self.rate_hz > 0:
            raise SpecError(f"robot '{self.name}': rate_hz {self.rate_hz} is not positive")
        if not self.action:
            raise SpecError(f"robot '{self.name}': an action needs at least one dimension")
        for what, names in (
            ("camera", self.camera_names),
            ("proprioception field", tuple(f.name for f in self.proprioception)),
            ("action dimension", self.action_names),
        ):
            if repeated := sorted({n for n in names if names.count(n) > 1}):
                raise SpecError(f"robot '{self.name}': {what} named twice: {', '.join(repeated)}")
        measured = [f.key for f in self.proprioception if f.source == "joint_position"]
        for dimension in (d for d in self.action if d.joint):
            one_of(f"robot '{self.name}': action '{dimension.name}': joint", dimension.joint, measured)
        home_places(f"robot '{self.name}'", self.home, self.action)
        for command in self.commands:
            for name in command.dimensions:
                one_of(f"robot '{self.name}': command on '{command.topic}': dimension", name, self.action_names)
            if (
                command.kind == "joint_trajectory"
                and not command.joints
                and not all(self.joints_of(command.dimensions))
            ):
                raise SpecError(f"robot '{self.name}': command on '{command.topic}' names no joints")

    @property
    def camera_names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.cameras)

    @property
    def action_names(self) -> tuple[str, ...]:
        return tuple(d.name for d in self.action)

    def joints_of(self, dimensions: Sequence[str]) -> tuple[str, ...]:
        """The joints that dimensions of the action command; empty for one that commands none."""
        return tuple(self.action[self.action_names.index(name)].joint for name in dimensions)

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The joints that proprioception reads, each once, in the spec's order."""
        joints = [f.key for f in self.proprioception if f.source != "ee_pose"]
        return tuple(dict.fromkeys(joints))

    @cached_property
    def measured_at(self) -> tuple[int | None, ...]:
        """For each dimension of the action, where proprioception has the position of the joint that it commands."""
        places = {f.key: i for i, f in enumerate(self.proprioception) if f.source == "joint_position"}
        return tuple(places.get(dimension.joint) for dimension in self.action)

    @property
    def uses_pose(self) -> bool:
        return any(f.source == "ee_pose" for f in self.proprioception)

    @property
    def uses_rotation(self) -> bool:
        """Whether proprioception reads columns of the pose's rotation matrix."""
        return any(f.source == "ee_pose" and f.key in ROTATION_KEYS for f in self.proprioception)

    @property
    def period_ns(self) -> int:
        """Nanoseconds between two ticks."""
        return round(NANOSECONDS / self.rate_hz)

    @property
    def max_skew_ns(self) -> int:
        return round(self.max_skew_s * NANOSECONDS)

    @cached_property
    def action_low(self) -> npt.NDArray[np.float32]:
        """Lower limits, shape (A,), in the action's units."""
        return np.array([d.low for d in self.action], np.float32)

    @cached_property
    def action_high(self) -> npt.NDArray[np.float32]:
        """Upper limits, shape (A,), in the action's units."""
        return np.array([d.high for d in self.action], np.float32)

    @cached_property
    def noise_range(self) -> npt.NDArray[np.float32]:
        """What noise of scale 1 has as standard deviation, shape (A,): half a dimension's range x its `noise`; 0 for
        targets that are held, such as a gripper's."""
        shares = [0.0 if d.hold == "last" else d.noise for d in self.action]
        half = (self.action_high - self.action_low) / 2
        return np.array([h * n if n else 0.0 for h, n in zip(half, shares, strict=True)], np.float32)

    def on_levels(self, actions: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Actions (..., A) with every dimension that has levels on the nearest of them; of two the lower."""
        found = np.array(actions, np.float32)
        for i, dimension in enumerate(self.action):
            if dimension.levels:
                levels = np.array(dimension.levels, np.float32)
                found[..., i] = levels[np.abs(found[..., i, None] - levels).argmin(-1)]
        return found

    def camera(self, name: str) -> CameraSpec:
        """The camera called `name`; SpecError if there is none."""
        one_of(f"robot '{self.name}': camera", name, self.camera_names)
        return self.cameras[self.camera_names.index(name)]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (first 16 hex digits) of what a policy depends on: not topics, `explore`, `NO_PART_OF_THE_DIGEST`."""
        content = asdict(self)
        del content["explore"], content["commands"], content["max_silence_s"], content["home"]
        for camera in content["cameras"]:
            del camera["topic"], camera["transport"]
        for dimension in content["action"]:
            for what in NO_PART_OF_THE_DIGEST:
                del dimension[what]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, as `from_dict` takes them."""
        content: dict[str, Any] = _plain(asdict(self))
        return content

    @staticmethod
    def from_dict(content: object, origin: str = "spec") -> "RobotSpec":
        """The spec that a parsed YAML or JSON file holds.

        Raises:
            SpecError: a key is unknown, missing or of the wrong kind; `origin` says where.
        """
        top = _mapping(content, origin)
        parts: dict[str, Any] = dict(top)
        for key, part in (
            ("cameras", CameraSpec),
            ("proprioception", ProprioceptionField),
            ("action", ActionDimension),
            ("commands", CommandSpec),
        ):
            items = top.get(key, ())
            if not isinstance(items, Sequence) or isinstance(items, str):
                raise SpecError(f"{origin}: '{key}' must be a list, not {items!r}")
            parts[key] = tuple(_build(part, item, f"{origin}: {key}[{i}]") for i, item in enumerate(items))
        return _build(RobotSpec, parts, origin)


def load_spec(name_or_path: str | Path) -> RobotSpec:
    """The robot called so in `config/robots/`, or described by the YAML file at a path.

    Raises:
        SpecError: no such robot or file, or the file does not describe a robot.
    """
    path = find_preset("robot", name_or_path, "robots", SpecError)
    return RobotSpec.from_dict(read_yaml(path, SpecError), str(path))


T = TypeVar("T")


def _build(kind: type[T], content: object, origin: str) -> T:
    mapping = _mapping(content, origin)
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key in mapping:
        one_of(f"{origin}: key", key, known)
    try:
        return kind(**mapping)
    except TypeError as error:
        raise SpecError(f"{origin}: {error}") from error


def _mapping(content: object, origin: str) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise SpecError(f"{origin}: expected keys with values, not {content!r}")
    return content


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value

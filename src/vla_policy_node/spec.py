"""The robot as the policy knows it: cameras, proprioception, action and rate, with names and units."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from vla_policy_node.action_spec import NO_PART_OF_THE_DIGEST, ActionDimension, home_places, one_of
from vla_policy_node.command_spec import CommandSpec
from vla_policy_node.exceptions import SpecError
from vla_policy_node.kinematics_spec import KinematicsSpec, WorkspaceSpec
from vla_policy_node.limit_switches import LimitMode, check_switches
from vla_policy_node.locations import find_preset, read_yaml
from vla_policy_node.spec_reading import build, mapping, plain
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


NO_PART = (
    "explore",
    "commands",
    "max_silence_s",
    "max_proprioception_silence_s",
    "max_frozen_s",
    "limits",
    "kinematics",
    "workspace",
    "home",
)
"""Of a robot: what is no part of the digest."""
NO_PART_OF_EACH = {
    "cameras": ("topic", "transport", "max_silence_s", "aim"),
    "proprioception": ("aim",),
    "action": NO_PART_OF_THE_DIGEST,
}
"""Of what a robot has several of: what of each is no part of the digest either."""


@dataclass(frozen=True)
class CameraSpec:
    """One camera: RGB images of `height` x `width` pixels on `topic`."""

    name: str
    height: int
    width: int
    transport: Transport = "raw"
    topic: str = ""
    """Empty: `/camera/<name>/image_raw` or `/camera/<name>/compressed`."""
    max_silence_s: float | None = None
    """As `RobotSpec.max_silence_s`, of this camera; None: the robot's."""
    aim: float = 0.1
    """With `explore: aim`, standard deviation of its picture's shift at scale 1, as a share of its sides. No part of
    the digest."""

    def __post_init__(self) -> None:
        _check_aim(f"camera '{self.name}'", self.aim)
        one_of(f"camera '{self.name}': transport", self.transport, get_args(Transport))
        if self.max_silence_s is not None and not self.max_silence_s > 0:
            raise SpecError(f"camera '{self.name}': max_silence_s {self.max_silence_s} is not positive")
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
    aim: float = 0.0
    """With `explore: aim`, standard deviation at scale 1 of what is added to it for the policy to see, in the unit. No
    part of the digest."""

    def __post_init__(self) -> None:
        _check_aim(f"proprioception '{self.name}'", self.aim)
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
    sooner than its last sample is too old. A stream's own limit goes before it. No part of the digest."""
    max_proprioception_silence_s: float | None = None
    """As `max_silence_s`, of the joints and the pose, which mostly come faster than pictures; None: as that."""
    max_frozen_s: float = math.inf
    """In real time, how long a camera may show the very same picture while the robot moves before it holds, in seconds.
    No part of the digest."""
    limits: Mapping[str, LimitMode] = field(default_factory=dict, hash=False)
    """By limit, whether what is beyond it is clamped or rejected (`limit_switches.py`). No part of the digest."""
    explore: Exploration = "action"
    """What a policy varies when it tries anew: its actions, or where it aims. No part of the digest."""
    commands: tuple[CommandSpec, ...] = ()
    """Its own controllers, which are sent what `/action` says as well. No part of the digest."""
    kinematics: KinematicsSpec | None = None
    """Its arm's model, for a hand that is displaced or a workspace. No part of the digest."""
    workspace: WorkspaceSpec | None = None
    """The box that its hand stays in. No part of the digest."""
    home: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Where it begins every try, in the unit of each: by joint, or by the action's dimension; what is not named stays
    where it is. No part of the digest."""

    def __post_init__(self) -> None:
        one_of(f"robot '{self.name}': explore", self.explore, get_args(Exploration))
        check_switches(f"robot '{self.name}'", self.limits)
        for what in ("rate_hz", "max_silence_s", "max_proprioception_silence_s", "max_frozen_s"):
            if getattr(self, what) is not None and not getattr(self, what) > 0:
                raise SpecError(f"robot '{self.name}': {what} {getattr(self, what)} is not positive")
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
        self._check_arm(measured)
        home_places(f"robot '{self.name}'", self.home, self.action)
        for command in self.commands:
            for name in command.dimensions:
                one_of(f"robot '{self.name}': command on '{command.topic}': dimension", name, self.commanded_names)
            if (
                command.kind == "joint_trajectory"
                and not command.joints
                and not all(self.joints_of(command.dimensions))
            ):
                raise SpecError(f"robot '{self.name}': command on '{command.topic}' names no joints")

    def _check_arm(self, measured: Sequence[str]) -> None:
        if self.workspace is not None and self.kinematics is None:
            raise SpecError(
                f"robot '{self.name}': workspace: it is not known where the hand would be; give the robot kinematics, "
                "with the model of its arm"
            )
        if self.kinematics is not None:
            try:
                self.kinematics.check_action(self.action, measured)
            except SpecError as error:
                raise SpecError(f"robot '{self.name}': {error}") from error

    @property
    def camera_names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.cameras)

    @property
    def action_names(self) -> tuple[str, ...]:
        return tuple(d.name for d in self.action)

    @property
    def commanded(self) -> tuple[ActionDimension, ...]:
        """What the controllers can be sent: the action, and behind it what inverse kinematics makes of it."""
        return self.action + (self.kinematics.joints if self.kinematics is not None else ())

    @property
    def commanded_names(self) -> tuple[str, ...]:
        return tuple(d.name for d in self.commanded)

    def joints_of(self, dimensions: Sequence[str]) -> tuple[str, ...]:
        """The joints that dimensions of what is commanded move; empty for one that moves none."""
        return tuple(self.commanded[self.commanded_names.index(name)].joint for name in dimensions)

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

    def measured(self, proprioception: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Of proprioception (P,), where the joint is that each dimension of the action commands, (A,); not a number
        where it commands none."""
        return np.array([np.nan if i is None else proprioception[i] for i in self.measured_at], np.float32)

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

    def silence_limit_s(self, topic: str) -> float:
        """How long nothing may come on a topic of its observation before it holds, in seconds; infinite: for ever."""
        cameras = {camera.topic: camera.max_silence_s for camera in self.cameras}
        own = cameras.get(topic, self.max_proprioception_silence_s)
        return self.max_silence_s if own is None else own

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
        """SHA-256 (first 16 hex digits) of what a policy depends on: not `NO_PART` and `NO_PART_OF_EACH`."""
        content = asdict(self)
        for what in NO_PART:
            del content[what]
        for several, parts in NO_PART_OF_EACH.items():
            for one in content[several]:
                for what in parts:
                    del one[what]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, as `from_dict` takes them."""
        content: dict[str, Any] = plain(asdict(self))
        return content

    @staticmethod
    def from_dict(content: object, origin: str = "spec") -> "RobotSpec":
        """The spec that a parsed YAML or JSON file holds.

        Raises:
            SpecError: a key is unknown, missing or of the wrong kind; `origin` says where.
        """
        parts: dict[str, Any] = dict(mapping(content, origin))
        if parts.get("kinematics") is not None:
            where = f"{origin}: kinematics"
            parts["kinematics"] = build(KinematicsSpec, parts["kinematics"], where, {"joints": ActionDimension})
        if parts.get("workspace") is not None:
            parts["workspace"] = build(WorkspaceSpec, parts["workspace"], f"{origin}: workspace")
        return build(RobotSpec, parts, origin, PARTS)


def _check_aim(what: str, aim: float) -> None:
    if not 0 <= aim < math.inf:
        raise SpecError(f"{what}: aim {aim} is not a number from 0 on")


PARTS = {
    "cameras": CameraSpec,
    "proprioception": ProprioceptionField,
    "action": ActionDimension,
    "commands": CommandSpec,
}
"""Keys of a robot's file that hold a list, and what each of its items is."""


def load_spec(name_or_path: str | Path) -> RobotSpec:
    """The robot called so in `config/robots/`, or described by the YAML file at a path.

    Raises:
        SpecError: no such robot or file, or the file does not describe a robot.
    """
    path = find_preset("robot", name_or_path, "robots", SpecError)
    return RobotSpec.from_dict(read_yaml(path, SpecError), str(path))

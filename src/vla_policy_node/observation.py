"""What the robot senses, and the observation a policy gets made from it, live or from a bag.

Every stream (a camera, the joints, the pose) arrives on its own. An observation is taken at the newest instant
that all of the spec's streams have reached, and holds of each stream the newest sample up to that instant. The
instant and the samples alone decide what is in it, so a bag gives back the observation that the robot acted on.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import numpy.typing as npt

from vla_policy_node.exceptions import MessageError
from vla_policy_node.spec import POSE_KEYS, RobotSpec

ImageArray = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

JOINTS = "joint_states"
POSE = "ee_pose"


@dataclass(frozen=True)
class Joints:
    """Joint positions (rad or m) and velocities (rad/s or m/s), shape (J,); velocity may be empty."""

    names: tuple[str, ...]
    position: Float64Array
    velocity: Float64Array = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class Pose:
    """End-effector pose in the spec's frame: position (3,) in m, orientation (4,) as x, y, z, w."""

    position: Float64Array
    orientation: Float64Array


@dataclass(frozen=True)
class Readings:
    """All that a robot's sensors say at one instant. `images` may lack cameras that were not asked for."""

    images: Mapping[str, ImageArray]
    joints: Joints
    ee_pose: Pose


@dataclass(frozen=True)
class Observation:
    """What a policy acts on."""

    stamp_ns: int
    images: Mapping[str, ImageArray]
    """Per camera of the spec: RGB, shape (height, width, 3)."""
    proprioception: Float32Array
    """Shape (P,), in the spec's order and units."""
    instruction: str


@dataclass(frozen=True)
class Missing:
    """Why there is no observation: one sentence a stream that is at fault."""

    reasons: tuple[str, ...]


Sample = ImageArray | Joints | Pose


@dataclass
class _Stream:
    """The last samples of one stream, oldest first, with their stamps in ns."""

    stamps: deque[int]
    samples: deque[Sample]

    def add(self, stamp_ns: int, sample: Sample) -> bool:
        """False, and nothing kept, where the sample is not newer than the last one."""
        if self.stamps and stamp_ns <= self.stamps[-1]:
            return False
        self.stamps.append(stamp_ns)
        self.samples.append(sample)
        return True

    def at(self, tick_ns: int) -> tuple[int, Sample] | None:
        """The newest sample up to `tick_ns`."""
        index = bisect_right(self.stamps, tick_ns) - 1
        return (self.stamps[index], self.samples[index]) if index >= 0 else None


class ObservationBuffer:
    """Collects stamped samples and makes observations of them. Pure: knows no clock and no ROS."""

    def __init__(self, spec: RobotSpec, depth: int = 64) -> None:
        """Args: spec: what an observation is made of; depth: samples kept a stream."""
        self.spec = spec
        self.instruction = ""
        self._depth = depth
        names = list(spec.camera_names)
        names += [JOINTS] if spec.joint_names else []
        names += [POSE] if spec.uses_pose else []
        self._names = tuple(names)
        self.clear()

    def clear(self) -> None:
        """Forget every sample; the instruction stays."""
        self._streams = {n: _Stream(deque(maxlen=self._depth), deque(maxlen=self._depth)) for n in self._names}

    def add_image(self, camera: str, stamp_ns: int, image: ImageArray) -> bool:
        """Add an RGB image (H, W, 3); False where it is not newer than the last.

        Raises:
            MessageError: its size is not the spec's.
            SpecError: the spec has no such camera.
        """
        wanted = self.spec.camera(camera)
        if image.shape != (wanted.height, wanted.width, 3):
            raise MessageError(
                f"camera '{camera}': image of shape {image.shape}, "
                f"but robot '{self.spec.name}' has {(wanted.height, wanted.width, 3)}"
            )
        return self._streams[camera].add(stamp_ns, image)

    def add_joints(self, stamp_ns: int, joints: Joints) -> bool:
        """Add joint values, in whatever order they come; False where they are not newer than the last.

        Raises:
            MessageError: a joint that the spec reads is missing or named twice, a value is missing or not finite.
        """
        if JOINTS not in self._streams:
            return False
        _check_joints(self.spec, joints)
        return self._streams[JOINTS].add(stamp_ns, joints)

    def add_pose(self, stamp_ns: int, pose: Pose) -> bool:
        """Add an end-effector pose; False where it is not newer than the last.

        Raises:
            MessageError: a value is not finite, or the spec reads the rotation and the quaternion is zero.
        """
        if POSE not in self._streams:
            return False
        if not (np.isfinite(pose.position).all() and np.isfinite(pose.orientation).all()):
            raise MessageError("ee_pose: a value is not finite")
        if self.spec.uses_rotation and not pose.orientation.any():
            raise MessageError("ee_pose: the orientation is the zero quaternion, which is no rotation")
        return self._streams[POSE].add(stamp_ns, pose)

    def add_readings(self, stamp_ns: int, readings: Readings) -> None:
        """Add one instant of a robot's sensors; streams that the spec does not use are passed over."""
        for camera in self.spec.camera_names:
            if camera in readings.images:
                self.add_image(camera, stamp_ns, readings.images[camera])
        self.add_joints(stamp_ns, readings.joints)
        self.add_pose(stamp_ns, readings.ee_pose)

    def latest_tick(self) -> int | Missing:
        """The newest instant in ns that every stream has reached."""
        silent = tuple(f"{name}: nothing received" for name in self._names if not self._streams[name].stamps)
        if silent:
            return Missing(silent)
        return min(stream.stamps[-1] for stream in self._streams.values())

    def assemble(self, now_ns: int | None = None) -> Observation | Missing:
        """The newest observation.

        Args:
            now_ns: with it, an observation older than the spec's `max_skew_s` counts as missing, and so does one from
                as far in the future, of which it is not known how old it is.
        """
        tick = self.latest_tick()
        if isinstance(tick, Missing):
            return tick
        if now_ns is not None and abs(now_ns - tick) > self.spec.max_skew_ns:
            return Missing(self._late(now_ns))
        return self.assemble_at(tick)

    def assemble_at(self, tick_ns: int) -> Observation | Missing:
        """The observation at an instant: of each stream the newest sample up to it, within the skew tolerance."""
        reasons: list[str] = []
        chosen: dict[str, Sample] = {}
        for name in self._names:
            found = self._streams[name].at(tick_ns)
            if found is None:
                reasons.append(f"{name}: nothing up to the tick")
            elif tick_ns - found[0] > self.spec.max_skew_ns:
                reasons.append(f"{name}: {(tick_ns - found[0]) / 1e6:.0f} ms behind the others")
            else:
                chosen[name] = found[1]
        if not self.instruction:
            reasons.append("instruction: none given")
        if reasons:
            return Missing(tuple(reasons))
        images = {name: chosen[name] for name in self.spec.camera_names}
        joints, pose = cast(Joints | None, chosen.get(JOINTS)), cast(Pose | None, chosen.get(POSE))
        proprioception = proprioception_of(self.spec, joints, pose)
        return Observation(tick_ns, images, proprioception, self.instruction)  # type: ignore[arg-type]

    def _late(self, now_ns: int) -> tuple[str, ...]:
        ages = {name: now_ns - stream.stamps[-1] for name, stream in self._streams.items()}
        limit = self.spec.max_skew_ns
        late = (f"{n}: last sample {age / 1e6:.0f} ms old" for n, age in ages.items() if age > limit)
        early = (f"{n}: stamped {-age / 1e6:.0f} ms in the future" for n, age in ages.items() if age < -limit)
        return (*late, *early)


def proprioception_of(spec: RobotSpec, joints: Joints | None, pose: Pose | None) -> Float32Array:
    """What a robot senses of itself, shape (P,), in the spec's order and units; what the spec names must be there."""
    hand = _pose_values(spec, pose) if pose is not None else {}
    values = np.empty(len(spec.proprioception), np.float32)
    for i, item in enumerate(spec.proprioception):
        if item.source == "ee_pose":
            values[i] = hand[item.key]
        else:
            assert joints is not None
            source = joints.position if item.source == "joint_position" else joints.velocity
            values[i] = source[joints.names.index(item.key)]
    return values


def rotation_columns(orientation: Float64Array) -> Float64Array:
    """The first two columns, one after the other, shape (6,), of the rotation matrix of a quaternion x, y, z, w.

    The quaternion need not be of unit length, and its sign does not matter; it must not be zero.
    """
    x, y, z, w = orientation / np.linalg.norm(orientation)
    return np.array(
        [
            1 - 2 * (y * y + z * z),
            2 * (x * y + z * w),
            2 * (x * z - y * w),
            2 * (x * y - z * w),
            1 - 2 * (x * x + z * z),
            2 * (y * z + x * w),
        ]
    )


def _pose_values(spec: RobotSpec, pose: Pose) -> dict[str, float]:
    """What a pose says under each of `POSE_KEYS`, or but the rotation's where the spec does not read it."""
    values = [pose.position, pose.orientation]
    if spec.uses_rotation:
        values.append(rotation_columns(pose.orientation))
    return dict(zip(POSE_KEYS, np.concatenate(values).tolist(), strict=False))


def _check_joints(spec: RobotSpec, joints: Joints) -> None:
    for name in spec.joint_names:
        if joints.names.count(name) != 1:
            raise MessageError(
                f"joint_states: joint '{name}' appears {joints.names.count(name)} times among "
                f"{', '.join(joints.names) or 'no joints'}; robot '{spec.name}' needs it once"
            )
    needed = {f.source for f in spec.proprioception}
    for source, what, values in (
        ("joint_position", "positions", joints.position),
        ("joint_velocity", "velocities", joints.velocity),
    ):
        if source in needed and len(values) != len(joints.names):
            raise MessageError(f"joint_states: {len(joints.names)} names but {len(values)} {what}")
        if not np.isfinite(values).all():
            raise MessageError(f"joint_states: one of the {what} is not finite")

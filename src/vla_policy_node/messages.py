"""ROS messages to numpy and back, for rclpy's messages and for those that rosbags reads from a bag alike.

Messages are touched by their field names only, so that one function serves both; to make one, the caller gives
a `MessageMaker`. Live nodes and bag readers feed an `ObservationBuffer` through the same `add_to_buffer`.
"""

from functools import lru_cache
from typing import Any, Protocol

import cv2
import numpy as np
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from vla_policy_node.exceptions import MessageError
from vla_policy_node.observation import Float64Array, ImageArray, Joints, ObservationBuffer, Pose, Readings
from vla_policy_node.spec import NANOSECONDS, CameraSpec, RobotSpec
from vla_policy_node.topics import CAMERA_TYPES, EE_POSE, INSTRUCTION, JOINT_STATES, MESSAGE_TYPES

CHANNELS: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
}
"""Encodings of sensor_msgs/Image that are understood: channels, and OpenCV's conversion to RGB."""

JPEG_QUALITY = 90
MAX_STAMP_NS = 2**31 * NANOSECONDS
"""builtin_interfaces/Time counts seconds in 32 bits with a sign."""


class MessageMaker(Protocol):
    """Makes a message of a type such as `sensor_msgs/msg/Image`; all of its fields are given, arrays as ndarrays."""

    def __call__(self, type_name: str, **fields: Any) -> Any: ...


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """The message definitions that bags are written and read with: those of ROS 2 Jazzy."""
    return get_typestore(Stores.ROS2_JAZZY)


def rosbags_maker() -> MessageMaker:
    """A maker of messages that rosbags can serialise; needs no ROS."""
    types = typestore().types

    def make(type_name: str, **fields: Any) -> Any:
        if type_name not in types:
            raise MessageError(f"message type '{type_name}' is unknown to ROS 2 Jazzy's definitions")
        return types[type_name](**fields)

    return make


def stamp_of(msg: Any) -> int:
    """The header's stamp in ns."""
    stamp = msg.header.stamp
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def duration_ns(duration: Any) -> int:
    """A builtin_interfaces/Duration in ns."""
    return int(duration.sec) * NANOSECONDS + int(duration.nanosec)


def make_header(make: MessageMaker, stamp_ns: int, frame_id: str) -> Any:
    """A std_msgs/Header. Raises: MessageError: the stamp does not fit."""
    if not 0 <= stamp_ns < MAX_STAMP_NS:
        raise MessageError(f"stamp {stamp_ns} ns is not in [0, {MAX_STAMP_NS})")
    seconds, rest = divmod(int(stamp_ns), NANOSECONDS)
    stamp = make("builtin_interfaces/msg/Time", sec=seconds, nanosec=rest)
    return make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def image_to_message(make: MessageMaker, image: ImageArray, stamp_ns: int, frame_id: str) -> Any:
    """RGB (H, W, 3) as a sensor_msgs/Image with encoding rgb8. Raises: MessageError: not such an array."""
    _check_rgb(image)
    height, width, channels = image.shape
    return make(
        "sensor_msgs/msg/Image",
        header=make_header(make, stamp_ns, frame_id),
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=width * channels,
        data=np.ascontiguousarray(image).reshape(-1),
    )


def image_from_message(msg: Any) -> ImageArray:
    """RGB (H, W, 3) of a sensor_msgs/Image; may share the message's memory.

    Raises:
        MessageError: unknown encoding, or the data is shorter than height, width and step promise.
    """
    if msg.encoding not in CHANNELS:
        raise MessageError(f"image encoding '{msg.encoding}' is not one of {', '.join(CHANNELS)}")
    channels, conversion = CHANNELS[msg.encoding]
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    data = np.frombuffer(msg.data, np.uint8)
    if height < 1 or width < 1 or step < width * channels or data.size < height * step:
        raise MessageError(
            f"image of {height}x{width} {msg.encoding} with a row step of {step} bytes cannot have {data.size} bytes"
        )
    rows = data[: height * step].reshape(height, step)[:, : width * channels]
    pixels = rows.reshape(height, width, channels)
    if conversion is None:
        return pixels
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), conversion), np.uint8)


def compressed_to_message(
    make: MessageMaker, image: ImageArray, stamp_ns: int, frame_id: str, quality: int = JPEG_QUALITY
) -> Any:
    """RGB (H, W, 3) as a sensor_msgs/CompressedImage holding a JPEG of `quality` 1..100."""
    _check_rgb(image)
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not done:
        raise MessageError(f"image of shape {image.shape} cannot be encoded as JPEG")
    return make(
        "sensor_msgs/msg/CompressedImage",
        header=make_header(make, stamp_ns, frame_id),
        format="rgb8; jpeg compressed bgr8",
        data=np.asarray(data, np.uint8).reshape(-1),
    )


def compressed_from_message(msg: Any) -> ImageArray:
    """RGB (H, W, 3) of a sensor_msgs/CompressedImage. Raises: MessageError: its data is not a whole JPEG or PNG."""
    data = np.frombuffer(msg.data, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise MessageError(f"compressed image with format '{msg.format}': its {data.size} bytes are no JPEG or PNG")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def joints_to_message(make: MessageMaker, joints: Joints, stamp_ns: int, frame_id: str = "") -> Any:
    """A sensor_msgs/JointState. Raises: MessageError: as many names as positions are needed."""
    _check_joints(joints)
    return make(
        "sensor_msgs/msg/JointState",
        header=make_header(make, stamp_ns, frame_id),
        name=list(joints.names),
        position=np.asarray(joints.position, np.float64),
        velocity=np.asarray(joints.velocity, np.float64),
        effort=np.empty(0),
    )


def joints_from_message(msg: Any) -> Joints:
    """Raises: MessageError: names, positions and velocities are not equally many."""
    joints = Joints(tuple(msg.name), np.array(msg.position, np.float64), np.array(msg.velocity, np.float64))
    _check_joints(joints)
    return joints


def pose_to_message(make: MessageMaker, pose: Pose, stamp_ns: int, frame_id: str) -> Any:
    """A geometry_msgs/PoseStamped of position (3,) in m and orientation (4,) as x, y, z, w."""
    if pose.position.shape != (3,) or pose.orientation.shape != (4,):
        raise MessageError(f"pose of shapes {pose.position.shape} and {pose.orientation.shape}, not (3,) and (4,)")
    position = dict(zip("xyz", map(float, pose.position), strict=True))
    orientation = dict(zip("xyzw", map(float, pose.orientation), strict=True))
    inner = make(
        "geometry_msgs/msg/Pose",
        position=make("geometry_msgs/msg/Point", **position),
        orientation=make("geometry_msgs/msg/Quaternion", **orientation),
    )
    return make("geometry_msgs/msg/PoseStamped", header=make_header(make, stamp_ns, frame_id), pose=inner)


def pose_from_message(msg: Any) -> Pose:
    """The pose of a geometry_msgs/PoseStamped, in the frame its header names."""
    p, q = msg.pose.position, msg.pose.orientation
    return Pose(np.array([p.x, p.y, p.z], np.float64), np.array([q.x, q.y, q.z, q.w], np.float64))


def text_to_message(make: MessageMaker, text: str) -> Any:
    """A std_msgs/String."""
    return make("std_msgs/msg/String", data=text)


def text_from_message(msg: Any) -> str:
    """The text of a std_msgs/String."""
    return str(msg.data)


def vector_to_message(make: MessageMaker, vector: Float64Array) -> Any:
    """A std_msgs/Float64MultiArray of one dimension."""
    layout = make("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
    return make("std_msgs/msg/Float64MultiArray", layout=layout, data=np.asarray(vector, np.float64).reshape(-1))


def vector_from_message(msg: Any) -> Float64Array:
    """The numbers of a std_msgs/Float64MultiArray, shape (N,)."""
    return np.array(msg.data, np.float64)


def add_to_buffer(buffer: ObservationBuffer, spec: RobotSpec, topic: str, msg: Any) -> bool:
    """Decode a message and add it to the buffer, by the spec's topics. Live nodes and bag readers both use this.

    Returns:
        False where the spec does not use the topic, or the sample is not newer than the last one.

    Raises:
        MessageError: the message cannot be what the spec promises; it names topic, value and what is valid.
    """
    try:
        for camera in spec.cameras:
            if camera.topic == topic:
                return buffer.add_image(camera.name, stamp_of(msg), camera_image(camera, msg))
        if topic == JOINT_STATES:
            return buffer.add_joints(stamp_of(msg), joints_from_message(msg))
        if topic == EE_POSE:
            return _add_pose(buffer, spec, msg)
        if topic == INSTRUCTION:
            return _add_instruction(buffer, msg)
    except MessageError as error:
        raise MessageError(f"{topic}: {error}") from error
    return False


def observation_topics(spec: RobotSpec) -> dict[str, str]:
    """Topic -> message type of all that the spec's observations are made of."""
    topics = {camera.topic: CAMERA_TYPES[camera.transport] for camera in spec.cameras}
    used = [JOINT_STATES] * bool(spec.joint_names) + [EE_POSE] * spec.uses_pose + [INSTRUCTION]
    return topics | {topic: MESSAGE_TYPES[topic] for topic in used}


def readings_to_messages(
    make: MessageMaker, spec: RobotSpec, readings: Readings, stamp_ns: int
) -> list[tuple[str, str, Any]]:
    """One instant of a robot's sensors as (topic, type, message): its cameras, joints and pose, all of one stamp."""
    messages: list[tuple[str, str, Any]] = []
    for camera in spec.cameras:
        if camera.name in readings.images:
            message = camera_message(make, camera, readings.images[camera.name], stamp_ns)
            messages.append((camera.topic, CAMERA_TYPES[camera.transport], message))
    joints = joints_to_message(make, readings.joints, stamp_ns)
    pose = pose_to_message(make, readings.ee_pose, stamp_ns, spec.frame)
    messages.append((JOINT_STATES, MESSAGE_TYPES[JOINT_STATES], joints))
    messages.append((EE_POSE, MESSAGE_TYPES[EE_POSE], pose))
    return messages


def camera_message(make: MessageMaker, camera: CameraSpec, image: ImageArray, stamp_ns: int) -> Any:
    """The image as the camera publishes it, raw or compressed; the frame is the camera's name."""
    convert = image_to_message if camera.transport == "raw" else compressed_to_message
    return convert(make, image, stamp_ns, camera.name)


def camera_image(camera: CameraSpec, msg: Any) -> ImageArray:
    """RGB (H, W, 3) of a message of the camera's transport; the mirror of `camera_message`."""
    return image_from_message(msg) if camera.transport == "raw" else compressed_from_message(msg)


def _add_pose(buffer: ObservationBuffer, spec: RobotSpec, msg: Any) -> bool:
    frame = msg.header.frame_id
    if frame and frame != spec.frame:
        raise MessageError(f"pose in frame '{frame}', but robot '{spec.name}' has frame '{spec.frame}'")
    return buffer.add_pose(stamp_of(msg), pose_from_message(msg))


def _add_instruction(buffer: ObservationBuffer, msg: Any) -> bool:
    text = text_from_message(msg).strip()
    if not text:
        raise MessageError("the instruction is empty")
    buffer.instruction = text
    return True


def _check_rgb(image: ImageArray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise MessageError(f"image of shape {image.shape} and type {image.dtype} is not (H, W, 3) of uint8")


def _check_joints(joints: Joints) -> None:
    names, positions, velocities = len(joints.names), joints.position.size, joints.velocity.size
    if positions != names or velocities not in (0, names):
        raise MessageError(f"joint state with {names} names, {positions} positions and {velocities} velocities")

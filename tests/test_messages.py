"""Messages: round trips through CDR, every encoding by hand, and what is refused."""

import array
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vla_policy_node.exceptions import MessageError
from vla_policy_node.messages import (
    add_to_buffer,
    camera_image,
    camera_message,
    compressed_from_message,
    compressed_to_message,
    image_from_message,
    image_to_message,
    joints_from_message,
    joints_to_message,
    observation_topics,
    pose_from_message,
    pose_to_message,
    readings_to_messages,
    rosbags_maker,
    stamp_of,
    text_from_message,
    text_to_message,
    typestore,
    vector_from_message,
    vector_to_message,
)
from vla_policy_node.observation import Joints, Observation, ObservationBuffer, Pose, Readings
from vla_policy_node.spec import CameraSpec, load_spec
from vla_policy_node.topics import ACTION, EE_POSE, INSTRUCTION, JOINT_STATES

MAKE = rosbags_maker()
SPEC = load_spec("metaworld")
STAMP = 1_700_000_000_123_456_789
IMAGE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
JOINTS = Joints(("left", "gripper"), np.array([0.25, 0.75]), np.array([1.0, -2.0]))
POSE = Pose(np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.6, 0.0, 0.8]))

finite = st.floats(allow_nan=False, allow_infinity=False, width=64)


def over_the_wire(type_name: str, message: Any) -> Any:
    """What a subscriber, or a bag's reader, gets of a message."""
    return typestore().deserialize_cdr(bytes(typestore().serialize_cdr(message, type_name)), type_name)


@settings(deadline=None)
@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))), st.integers(0, 2**31 * 10**9 - 1)
)
def test_raw_images_come_back_exactly(image: np.ndarray[Any, Any], stamp: int) -> None:
    message = over_the_wire("sensor_msgs/msg/Image", image_to_message(MAKE, image, stamp, "front"))
    np.testing.assert_array_equal(image_from_message(message), image)
    assert stamp_of(message) == stamp
    assert (message.header.frame_id, message.encoding, message.step) == ("front", "rgb8", 3 * image.shape[1])


@pytest.mark.parametrize(
    ("encoding", "pixel", "rgb"),
    [
        ("rgb8", [10, 20, 30], [10, 20, 30]),
        ("bgr8", [10, 20, 30], [30, 20, 10]),
        ("rgba8", [10, 20, 30, 99], [10, 20, 30]),
        ("bgra8", [10, 20, 30, 99], [30, 20, 10]),
        ("mono8", [10], [10, 10, 10]),
    ],
)
@pytest.mark.parametrize("padding", [0, 3])
def test_every_encoding_gives_rgb(encoding: str, pixel: list[int], rgb: list[int], padding: int) -> None:
    """Two rows of two pixels, each row followed by bytes that are no pixels."""
    row = bytes(pixel * 2) + b"\xee" * padding
    message = image_to_message(MAKE, np.zeros((2, 2, 3), np.uint8), 0, "")
    message = replace(message, encoding=encoding, step=len(row), data=np.frombuffer(row * 2, np.uint8))
    np.testing.assert_array_equal(image_from_message(message), np.full((2, 2, 3), rgb, np.uint8))


def test_bytes_as_rclpy_gives_them_are_read_like_arrays() -> None:
    message = replace(image_to_message(MAKE, IMAGE, 0, ""), data=array.array("B", IMAGE.tobytes()))
    np.testing.assert_array_equal(image_from_message(message), IMAGE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"encoding": "16UC1"}, "encoding '16UC1' is not one of rgb8, bgr8, rgba8, bgra8, mono8"),
        ({"height": 5}, "image of 5x5 rgb8 with a row step of 15 bytes cannot have 60 bytes"),
        ({"step": 14}, "row step of 14 bytes"),
        ({"width": 0}, "image of 4x0"),
        ({"data": np.empty(0, np.uint8)}, "cannot have 0 bytes"),
    ],
)
def test_images_that_cannot_be_are_refused(change: dict[str, Any], said: str) -> None:
    message = replace(image_to_message(MAKE, IMAGE, 0, ""), **change)
    with pytest.raises(MessageError, match=said):
        image_from_message(message)


@pytest.mark.parametrize("image", [IMAGE[..., 0], IMAGE.astype(np.float32), IMAGE[..., :2], IMAGE[:0]])
def test_only_rgb_images_are_sent(image: Any) -> None:
    for convert in (image_to_message, compressed_to_message):
        with pytest.raises(MessageError, match="is not"):
            convert(MAKE, image, 0, "front")


def test_jpeg_keeps_colours_in_their_place() -> None:
    """A smooth picture survives JPEG within a few grey levels; exchanged channels would be 100 off."""
    ramp = np.linspace(0, 100, 48 * 64).reshape(48, 64)
    image = np.stack([ramp + 150, ramp + 50, ramp], axis=-1).astype(np.uint8)
    message = over_the_wire("sensor_msgs/msg/CompressedImage", compressed_to_message(MAKE, image, STAMP, "front"))
    back = compressed_from_message(message)
    assert np.abs(back.astype(int) - image.astype(int)).max() <= 6
    assert stamp_of(message) == STAMP


def test_png_is_understood_and_rubbish_is_refused() -> None:
    message = compressed_to_message(MAKE, IMAGE, 0, "front")
    png = cv2.imencode(".png", IMAGE[..., ::-1])[1]
    np.testing.assert_array_equal(compressed_from_message(replace(message, data=png, format="png")), IMAGE)
    for rubbish in (b"", b"no picture at all"):
        with pytest.raises(MessageError, match=f"its {len(rubbish)} bytes are no JPEG or PNG"):
            compressed_from_message(replace(message, data=np.frombuffer(rubbish, np.uint8)))


@given(st.lists(st.tuples(st.text("abcdef_", min_size=1, max_size=6), finite), max_size=8), st.booleans())
def test_joints_come_back_exactly(values: list[tuple[str, float]], moving: bool) -> None:
    position = np.array([v for _, v in values])
    joints = Joints(tuple(n for n, _ in values), position, -position if moving else np.empty(0))
    back = joints_from_message(over_the_wire("sensor_msgs/msg/JointState", joints_to_message(MAKE, joints, STAMP)))
    assert back.names == joints.names
    np.testing.assert_array_equal(back.position, joints.position)
    np.testing.assert_array_equal(back.velocity, joints.velocity)


def test_joints_of_unequal_length_are_refused() -> None:
    message = joints_to_message(MAKE, JOINTS, STAMP)
    with pytest.raises(MessageError, match="2 names, 1 positions and 2 velocities"):
        joints_from_message(replace(message, position=np.zeros(1)))
    with pytest.raises(MessageError, match="2 names, 2 positions and 3 velocities"):
        joints_to_message(MAKE, replace(JOINTS, velocity=np.zeros(3)), STAMP)


@given(hnp.arrays(np.float64, 3, elements=finite), hnp.arrays(np.float64, 4, elements=finite))
def test_poses_come_back_exactly(position: np.ndarray[Any, Any], orientation: np.ndarray[Any, Any]) -> None:
    message = pose_to_message(MAKE, Pose(position, orientation), STAMP, "world")
    back = pose_from_message(over_the_wire("geometry_msgs/msg/PoseStamped", message))
    np.testing.assert_array_equal(back.position, position)
    np.testing.assert_array_equal(back.orientation, orientation)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30))
def test_text_comes_back(words: str) -> None:
    assert text_from_message(over_the_wire("std_msgs/msg/String", text_to_message(MAKE, words))) == words


@given(hnp.arrays(np.float64, st.integers(0, 40), elements=finite))
def test_vectors_come_back(vector: np.ndarray[Any, Any]) -> None:
    message = over_the_wire("std_msgs/msg/Float64MultiArray", vector_to_message(MAKE, vector))
    np.testing.assert_array_equal(vector_from_message(message), vector)


@pytest.mark.parametrize("stamp", [-1, 2**31 * 10**9])
def test_stamps_that_ros_cannot_carry_are_refused(stamp: int) -> None:
    with pytest.raises(MessageError, match=f"stamp {stamp} ns is not in"):
        image_to_message(MAKE, IMAGE, stamp, "front")


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(MessageError, match="'my_msgs/msg/Thing' is unknown"):
        MAKE("my_msgs/msg/Thing", value=1)


def readings(size: int = 64) -> Readings:
    return Readings({"front": np.full((size, size, 3), 7, np.uint8)}, JOINTS, POSE)


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_readings_sent_and_received_make_the_observation(transport: str) -> None:
    """Hand: proprioception of the metaworld robot is x, y, z of the pose and the position of joint `gripper`."""
    camera = CameraSpec("front", 64, 64, transport)  # type: ignore[arg-type]
    spec = replace(SPEC, cameras=(camera,))
    buffer = ObservationBuffer(spec)
    messages = readings_to_messages(MAKE, spec, readings(), STAMP)
    assert {topic: kind for topic, kind, _ in messages} | {INSTRUCTION: "std_msgs/msg/String"} == observation_topics(
        spec
    )
    for topic, kind, message in messages:
        assert add_to_buffer(buffer, spec, topic, over_the_wire(kind, message))
        assert not add_to_buffer(buffer, spec, topic, message), "the same stamp twice"
    assert add_to_buffer(buffer, spec, INSTRUCTION, text_to_message(MAKE, " open the drawer \n"))
    observation = buffer.assemble()
    assert isinstance(observation, Observation)
    assert (observation.stamp_ns, observation.instruction) == (STAMP, "open the drawer")
    np.testing.assert_array_equal(observation.proprioception, np.array([1, 2, 3, 0.75], np.float32))
    assert np.abs(observation.images["front"].astype(int) - 7).max() <= 1


def test_both_transports_mirror_each_other() -> None:
    for transport in ("raw", "compressed"):
        camera = CameraSpec("front", 64, 64, transport)
        image = readings().images["front"]
        assert np.abs(camera_image(camera, camera_message(MAKE, camera, image, STAMP)).astype(int) - image).max() <= 1


def test_topics_that_the_robot_does_not_use_are_passed_over() -> None:
    assert add_to_buffer(ObservationBuffer(SPEC), SPEC, ACTION, object()) is False
    assert add_to_buffer(ObservationBuffer(SPEC), SPEC, "/camera/wrist/image_raw", object()) is False


@pytest.mark.parametrize(
    ("topic", "message", "said"),
    [
        ("/camera/front/image_raw", image_to_message(MAKE, IMAGE, 1, ""), r"/camera/front/image_raw: .*\(4, 5, 3\)"),
        (JOINT_STATES, joints_to_message(MAKE, Joints(("a",), np.zeros(1)), 1), "/joint_states: .*'gripper' appears 0"),
        (EE_POSE, pose_to_message(MAKE, POSE, 1, "tool"), "/ee_pose: pose in frame 'tool', .* has frame 'world'"),
        (EE_POSE, pose_to_message(MAKE, Pose(np.full(3, np.nan), np.ones(4)), 1, "world"), "not finite"),
        (INSTRUCTION, text_to_message(MAKE, "  "), "/task/instruction: the instruction is empty"),
    ],
)
def test_messages_that_do_not_fit_the_robot_name_topic_and_value(topic: str, message: Any, said: str) -> None:
    with pytest.raises(MessageError, match=said):
        add_to_buffer(ObservationBuffer(SPEC), SPEC, topic, message)

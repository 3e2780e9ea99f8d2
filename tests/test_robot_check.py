"""`encore robot check`: each thing that may be wrong with a robot is said in words, and the stand-in arm passes."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from client_node import Client
from graph_helpers import make_graph

from trainer.cli import main
from trainer.robot_check import Heard, Stream, check_robot
from vla_policy_node.familiarity import typical_views
from vla_policy_node.normalization import Statistics
from vla_policy_node.observation import Joints, Observation, Pose
from vla_policy_node.spec import load_spec
from vla_policy_node.topics import EE_POSE, JOINT_STATES

PANDA = replace(load_spec("panda"), rate_hz=30.0, max_skew_s=0.1)
FRONT, WRIST = "/camera/front/image_raw", "/camera/wrist/image_raw"
MS = 1_000_000
HOME = {**{d.joint: (d.low + d.high) / 2 for d in PANDA.action}}


def stream(kind: str, hz: float = 30.0, late_ms: float = 20.0, publishers: int = 1) -> Stream:
    """Three seconds of messages."""
    stamps = [round(1e9 * i / hz) for i in range(round(3 * hz))]
    return Stream((kind,) * publishers, stamps, [s + round(late_ms * MS) for s in stamps])


def healthy() -> Heard:
    names = tuple(HOME)
    return Heard(
        seconds=3.0,
        streams={
            FRONT: stream("sensor_msgs/msg/Image"),
            WRIST: stream("sensor_msgs/msg/Image"),
            JOINT_STATES: stream("sensor_msgs/msg/JointState", hz=100.0),
        },
        topics=(FRONT, WRIST, JOINT_STATES),
        listeners={
            PANDA.commands[0].topic: ("trajectory_msgs/msg/JointTrajectory",),
            PANDA.commands[1].topic: ("std_msgs/msg/Float64MultiArray",),
        },
        joints=Joints(names, np.array([HOME[n] for n in names]), np.zeros(len(names))),
    )


def said(heard: Heard) -> dict[str, str]:
    return {f.part: f.text for f in check_robot(PANDA, heard) if f.state == "missing"}


def test_a_policys_training_data_tells_a_camera_that_is_upside_down() -> None:
    images = {c.name: np.zeros((c.height, c.width, 3), np.uint8) for c in PANDA.cameras}
    for image in images.values():
        image[: image.shape[0] // 2] = (120, 160, 220)
    seen = Observation(0, images, np.zeros(len(PANDA.proprioception), np.float32), "go")
    scale, sent = (0.0,) * len(PANDA.proprioception), (0.0,) * len(PANDA.action)
    ones = (1.0,) * len(scale), (1.0,) * len(sent)
    trained = Statistics(scale, ones[0], sent, ones[1], tuple(typical_views([image]) for image in images.values()))
    heard = replace(healthy(), observation=seen)
    as_before = [f.text for f in check_robot(PANDA, heard, trained) if f.part == "training data"]
    assert as_before == ["cameras and proprioception are as in training"]
    turned = {**images, "front": np.ascontiguousarray(images["front"][::-1, ::-1])}
    heard.observation = replace(seen, images=turned)
    [text] = [f.text for f in check_robot(PANDA, heard, trained) if f.part == "training data"]
    assert "camera 'front' is like the training data only upside down" in text
    [text] = [f.text for f in check_robot(PANDA, heard, replace(trained, views=())) if f.part == "training data"]
    assert text == "what the cameras showed in training is not known of this checkpoint"
    [text] = [f.text for f in check_robot(PANDA, healthy(), trained) if f.part == "training data"]
    assert text == "not compared: no whole observation was heard"


def test_a_robot_that_is_as_its_file_says() -> None:
    findings = check_robot(PANDA, healthy())
    assert {f.state for f in findings} == {"ok"}
    assert [f.part for f in findings] == [
        FRONT,
        WRIST,
        JOINT_STATES,
        "joints",
        "together",
        *(command.topic for command in PANDA.commands),
    ]


def with_stream(topic: str, found: Stream) -> Callable[[Heard], Heard]:
    return lambda heard: replace(heard, streams={**heard.streams, topic: found})


def with_joint(name: str, value: float) -> Callable[[Heard], Heard]:
    def change(heard: Heard) -> Heard:
        assert heard.joints is not None
        position = heard.joints.position.copy()
        position[heard.joints.names.index(name)] = value
        return replace(heard, joints=replace(heard.joints, position=position))

    return change


@pytest.mark.parametrize(
    ("change", "part", "text"),
    [
        (with_stream(FRONT, Stream()), FRONT, "nobody publishes it"),
        (
            with_stream(FRONT, stream("sensor_msgs/msg/CompressedImage")),
            FRONT,
            "published as sensor_msgs/msg/Compressed",
        ),
        (with_stream(WRIST, stream("sensor_msgs/msg/Image", hz=12)), WRIST, "12.0 Hz, slower than the robot's 30 Hz"),
        (with_stream(WRIST, stream("sensor_msgs/msg/Image", late_ms=400)), WRIST, "stamped 400 ms before it arrives"),
        (with_stream(WRIST, stream("sensor_msgs/msg/Image", late_ms=-200)), WRIST, "in the future: clocks differ"),
        (with_stream(WRIST, Stream(("sensor_msgs/msg/Image",))), WRIST, "nothing came in 3 s"),
        (with_stream(FRONT, replace(stream("sensor_msgs/msg/Image"), problems=["too small"])), FRONT, "too small"),
        (with_joint("panda_joint4", -90.0), "joints", "panda_joint4 is at -90 rad: are these degrees"),
        (with_joint("panda_joint2", 1.9), "joints", "panda_joint2 is at 1.9 rad, outside [-1.7628, 1.7628]"),
        (with_joint("panda_finger_joint1", 30.0), "joints", "outside [0, 0.04]; are these millimetres?"),
        (lambda heard: replace(heard, pose=Pose(np.array([300.0, 0, 0]), np.array([0.0, 0, 0, 1]))), EE_POSE, "millim"),
        (lambda heard: replace(heard, pose=Pose(np.zeros(3), np.array([0.0, 0, 0, 2]))), EE_POSE, "length is 2, not 1"),
        (lambda heard: replace(heard, listeners={}), PANDA.commands[0].topic, "nobody listens to it"),
        (
            lambda heard: replace(heard, listeners={c.topic: ("std_msgs/msg/String",) for c in PANDA.commands}),
            PANDA.commands[1].topic,
            "listened to as std_msgs/msg/String; the robot's file sends std_msgs/msg/Float64MultiArray",
        ),
    ],
)
def test_what_is_wrong_is_said(change: Callable[[Heard], Heard], part: str, text: str) -> None:
    assert text in said(change(healthy()))[part]


def test_a_near_name_is_suggested_and_two_publishers_are_noticed() -> None:
    heard = with_stream(FRONT, Stream())(healthy())
    heard.topics = ("/camera/front/image", WRIST)
    assert "is it /camera/front/image? Then remap it" in said(heard)[FRONT]
    twice = with_stream(FRONT, stream("sensor_msgs/msg/Image", publishers=2))(healthy())
    assert "from 2 publishers at once" in next(f.text for f in check_robot(PANDA, twice) if f.part == FRONT)


def test_streams_that_lie_apart_are_noticed() -> None:
    late = stream("sensor_msgs/msg/Image")
    late.stamps_ns = [s - 300 * MS for s in late.stamps_ns]
    late.arrivals_ns = [s + 20 * MS for s in late.stamps_ns]
    assert f"{FRONT} is 3" in said(with_stream(FRONT, late)(healthy()))["together"]


def test_a_limit_of_silence_that_a_stream_does_not_keep_is_said() -> None:
    found = {f.part: f for f in check_robot(PANDA, healthy())}
    assert found[JOINT_STATES].text == "100.0 Hz, 20 ms old when it arrives; at most 10 ms apart, 30 ms may be"
    assert found[FRONT].text.endswith("at most 33 ms apart, 55 ms may be")
    hiccup = stream("sensor_msgs/msg/JointState", hz=100.0)
    hiccup.arrivals_ns = [a + (a > 10**9) * 35 * MS for a in hiccup.arrivals_ns]
    [note] = [f for f in check_robot(PANDA, with_stream(JOINT_STATES, hiccup)(healthy())) if f.part == JOINT_STATES]
    assert note.state == "note"
    assert "1 of 299 intervals are longer than its limit of silence, 30 ms (one 45 ms)" in note.text
    slow = with_stream(JOINT_STATES, stream("sensor_msgs/msg/JointState", hz=30.0))(healthy())
    assert said(slow)[JOINT_STATES] == ("a message every 33 ms, but its limit of silence is 30 ms: it would never move")


@pytest.mark.ros
@pytest.mark.slow
def test_the_stand_in_arm_is_checked_and_an_unplugged_camera_found(ros_domain: int, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "COLUMNS": "200",
        "ROS_DOMAIN_ID": str(ros_domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    source = str(Path(__file__).parents[1] / "src")
    command = [sys.executable, "-m", "trainer.cli", "robot", "check", "panda", "--seconds", "2"]

    def check() -> "subprocess.CompletedProcess[str]":
        env = {**environment, "PYTHONPATH": source}
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)

    with make_graph(tmp_path, ros_domain, {"arm": {"camera_rate_hz": 40.0}}), Client(ros_domain) as client:
        client.listen(JOINT_STATES, "sensor_msgs/msg/JointState")
        client.until(lambda: bool(client.received[JOINT_STATES]))
        found = check()
        assert "joints" in found.stdout, found.stderr
        assert "9 joints, all within the limits" in found.stdout
        assert client.set("arm_node", camera_unplugged=True) == []
        found = check()
        assert found.returncode == 1
        assert "nothing came in 2 s" in found.stdout


def test_wrong_words_are_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["robot", "look", "panda"]) == 2
    assert "robot: 'look' is not one of check, limits" in capsys.readouterr().err
    assert main(["robot", "check", "panda", "--seconds", "0"]) == 2
    assert "seconds 0.0 is not above 0" in capsys.readouterr().err
    assert main(["robot", "check", "nobody"]) == 2
    assert "robot 'nobody'" in capsys.readouterr().err

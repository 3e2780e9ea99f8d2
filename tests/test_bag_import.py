"""Bags of other origin, written by rosbags as `ros2 bag record` writes them, as episodes."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from episodes import MAKE, SPEC, START_NS, readings_at
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from rollout_manager.bag import EpisodeReader, verify
from rollout_manager.bag_import import Imported, import_bag
from rollout_manager.exceptions import BagError
from rollout_manager.import_mapping import ActionSource, ImportMapping, Span, read_value
from rollout_manager.labels import current, read_labels
from trainer.cli import main
from trainer.episode_arrays import EpisodeArrays, decode_episode, episode_topics
from vla_policy_node.messages import make_header, readings_to_messages, text_to_message, typestore, vector_to_message
from vla_policy_node.spec import NANOSECONDS

PERIOD = SPEC.period_ns
THEIRS = {
    "/camera/camera0/image_raw": "/left/image",
    "/camera/camera1/image_raw": "/right/image",
    "/joint_states": "/arm/joints",
    "/ee_pose": "/arm/tool",
}
MAPPING = ImportMapping(
    robot="testbot",
    task="push",
    instruction="push it",
    topics=THEIRS,
    action=(
        ActionSource("dx", "/arm/command", "x_axis"),
        ActionSource("grip", "/gripper/commands", "1", scale=-2.0, offset=1.0),
    ),
    episodes=(Span(outcome="success"),),
)
LATE_NS = 5_000_000
"""How long after its stamp a message is received."""


def command(stamp_ns: int, value: float) -> Any:
    """A trajectory of one joint, stamped 0 as most are."""
    duration = MAKE("builtin_interfaces/msg/Duration", sec=0, nanosec=100_000_000)
    empty = np.empty(0)
    point = MAKE(
        "trajectory_msgs/msg/JointTrajectoryPoint",
        positions=np.array([9.0, value]),
        velocities=empty,
        accelerations=empty,
        effort=empty,
        time_from_start=duration,
    )
    names = ["other", "x_axis"]
    return MAKE(
        "trajectory_msgs/msg/JointTrajectory", header=make_header(MAKE, 0, ""), joint_names=names, points=[point]
    )


def record(
    path: Path,
    steps: int = 6,
    plugin: StoragePlugin = StoragePlugin.MCAP,
    compressed: bool = False,
    change: Callable[[str, int, Any], Any] = lambda topic, step, message: message,
    said: str = "",
) -> Path:
    """A bag of other origin: commands twice a period, the gripper's once at step 0 and once at step 3."""
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        if compressed:
            writer.close()
        connections: dict[str, Any] = {}

        def write(topic: str, kind: str, at_ns: int, message: Any) -> None:
            if (message := change(topic, (at_ns - START_NS) // PERIOD, message)) is None:
                return
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=typestore())
            writer.write(connections[topic], at_ns, typestore().serialize_cdr(message, kind))

        if said:
            write("/prompt", "std_msgs/msg/String", START_NS, text_to_message(MAKE, said))
        for step in range(steps):
            stamp = START_NS + step * PERIOD
            for topic, kind, message in readings_to_messages(MAKE, SPEC, readings_at(step), stamp):
                write(THEIRS[topic], kind, stamp + LATE_NS, message)
            if step in (0, 3):
                grip = vector_to_message(MAKE, np.array([7.0, float(step == 3)]))
                write("/gripper/commands", "std_msgs/msg/Float64MultiArray", stamp + LATE_NS, grip)
            for half in (0, 1):
                at = stamp + LATE_NS + half * PERIOD // 2
                write("/arm/command", "trajectory_msgs/msg/JointTrajectory", at, command(at, 0.1 * step + 0.01 * half))
    return path


def only(imported: Any) -> Imported:
    (one,) = list(imported)
    assert isinstance(one, Imported)
    return one


def decoded(bag: Path) -> EpisodeArrays:
    reader = EpisodeReader(bag)
    return decode_episode(reader.header, reader.messages(episode_topics(reader.header, SPEC)), SPEC, (16, 20))


@pytest.mark.parametrize("plugin", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
def test_what_was_seen_and_done_is_what_is_learned(tmp_path: Path, plugin: StoragePlugin) -> None:
    imported = only(import_bag(record(tmp_path / "theirs", plugin=plugin), MAPPING, SPEC, tmp_path / "bags"))
    assert imported.bag == tmp_path / "bags" / "theirs"
    assert imported.problems == ()
    assert verify(imported.bag) == []
    header, outcome = EpisodeReader(imported.bag).header, EpisodeReader(imported.bag).outcome
    assert (header.task, header.instruction, header.driver) == ("push", "push it", "human")
    assert (header.control_mode, header.spec_digest) == ("real_time", SPEC.digest)
    assert (outcome.ending, outcome.steps) == ("success", 6)
    label = current(read_labels(imported.bag))
    assert label is not None
    assert (label.outcome, label.rule) == ("success", "import")
    episode = decoded(imported.bag)
    assert episode.stamps.tolist() == [START_NS + step * PERIOD for step in range(6)]
    # The first command within each period; the gripper's holds until the next: 1 - 2 * 0, then 1 - 2 * 1.
    np.testing.assert_allclose(episode.actions[:, 0], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5], atol=1e-6)
    assert episode.actions[:, 1].tolist() == [1, 1, 1, -1, -1, -1]
    for step in range(6):
        np.testing.assert_array_equal(episode.images[step, 1], readings_at(step).images["camera1"])
        assert episode.proprioception[step] == pytest.approx([0.1 * step, 0.01 * step])


@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_compressed_bags_are_read(tmp_path: Path, mode: CompressionMode) -> None:
    path = tmp_path / "zipped"
    plain = record(tmp_path / "plain", plugin=StoragePlugin.SQLITE3)
    from rosbags.rosbag2 import Reader

    writer = Writer(path, version=9)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer, Reader(plain) as reader:
        copies = {c.id: writer.add_connection(c.topic, c.msgtype, typestore=typestore()) for c in reader.connections}
        for connection, at_ns, cdr in reader.messages():
            writer.write(copies[connection.id], at_ns, cdr)
    assert only(import_bag(path, MAPPING, SPEC, tmp_path / "bags")).actions == 6


def test_tries_within_one_bag(tmp_path: Path) -> None:
    spans = (Span(0.0, 0.25, "failure"), Span(0.3, 0.0, "unlabelled", "push it again"))
    mapping = replace(MAPPING, episodes=spans)
    first, second = import_bag(record(tmp_path / "two"), mapping, SPEC, tmp_path / "bags")
    assert (first.bag.name, second.bag.name) == ("two_0", "two_1")
    assert (first.actions, second.actions) == (3, 3)
    assert EpisodeReader(first.bag).outcome.ending == "failure"
    assert current(read_labels(second.bag)) is None
    assert EpisodeReader(second.bag).header.instruction == "push it again"
    # The gripper was told to open before the second try began: it still holds until it is told otherwise.
    assert decoded(second.bag).actions[:, 1].tolist() == [-1, -1, -1]


def test_a_velocity_that_is_no_longer_sent_is_no_longer_meant(tmp_path: Path) -> None:
    def falls_silent(topic: str, step: int, message: Any) -> Any:
        return None if topic == "/arm/command" and step >= 2 else message

    path = record(tmp_path / "silent", change=falls_silent)
    imported = only(import_bag(path, MAPPING, SPEC, tmp_path / "bags"))
    np.testing.assert_allclose(decoded(imported.bag).actions[:, 0], [0.0, 0.1, 0.11, 0, 0, 0], atol=1e-6)


def test_the_bag_may_say_what_was_asked(tmp_path: Path) -> None:
    mapping = replace(MAPPING, instruction="", topics={**THEIRS, "/task/instruction": "/prompt"})
    bag = only(import_bag(record(tmp_path / "said", said="shove it"), mapping, SPEC, tmp_path / "bags")).bag
    assert EpisodeReader(bag).header.instruction == "shove it"
    assert decoded(bag).instructions == ("shove it",)


def test_time_that_goes_backward_and_another_unit_are_told(tmp_path: Path) -> None:
    def strange(topic: str, step: int, message: Any) -> Any:
        if topic == "/arm/command":
            return command(0, 40.0 + step)
        if topic == "/arm/joints" and step == 4:
            return replace(message, header=make_header(MAKE, START_NS + PERIOD, ""))
        return message

    imported = only(import_bag(record(tmp_path / "odd", change=strange), MAPPING, SPEC, tmp_path / "bags"))
    assert imported.problems[0] == "1 messages left out: stamped no later than the one before them"
    assert "action 'dx': 100% of its values are beyond -1 to 1 m, the largest 45" in imported.problems[1]
    assert "degrees for radians: scale 0.01745" in imported.problems[1]


def test_clocks_that_disagree(tmp_path: Path) -> None:
    def hours_off(topic: str, step: int, message: Any) -> Any:
        if topic != "/left/image":
            return message
        return replace(message, header=make_header(MAKE, START_NS + 3600 * NANOSECONDS + step * PERIOD, ""))

    path = record(tmp_path / "off", change=hours_off)
    with pytest.raises(BagError, match="there is no time with all of"):
        list(import_bag(path, MAPPING, SPEC, tmp_path / "bags"))
    assert not list((tmp_path / "bags").glob("*"))
    received = replace(MAPPING, stamps="received")
    episode = decoded(only(import_bag(path, received, SPEC, tmp_path / "bags")).bag)
    assert episode.stamps.tolist() == [START_NS + LATE_NS + step * PERIOD for step in range(6)]
    np.testing.assert_array_equal(episode.images[5, 0], readings_at(5).images["camera0"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"topics": {**THEIRS, "/ee_pose": "/tool"}}, "no topic '/tool'; it has /arm/command"),
        ({"topics": {**THEIRS, "/ee_pose": "/arm/joints"}}, "is a sensor_msgs/msg/JointState; robot 'testbot' needs"),
        ({"topics": {"/eye": "/left/image"}}, "topics: /eye is none of robot 'testbot'"),
        ({"action": MAPPING.action[:1]}, "action: grip lacks; robot 'testbot' has dx, grip"),
        ({"action": (*MAPPING.action, MAPPING.action[0])}, "dx is unknown or named twice"),
        ({"action": (replace(MAPPING.action[0], key="y_axis"), MAPPING.action[1])}, "key 'y_axis' is none of other, x"),
        (
            {"action": (replace(MAPPING.action[0], topic="/left/image"), MAPPING.action[1])},
            "cannot be read from",
        ),
        ({"episodes": ()}, "episodes: none given"),
        ({"episodes": (Span(0, 2), Span(1, 3))}, r"episodes\[1\]: from 1 to 3 s; tries must follow one another"),
        ({"episodes": (Span(60.0),)}, "nothing on .* from 60.0 s on"),
        ({"instruction": ""}, "no topic '/task/instruction'"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_left(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = record(tmp_path / "theirs", steps=3)
    with pytest.raises(BagError, match=said):
        list(import_bag(path, replace(MAPPING, **change), SPEC, tmp_path / "bags"))
    assert not list((tmp_path / "bags").glob("*"))


def test_what_is_no_bag_is_refused(tmp_path: Path) -> None:
    torn = record(tmp_path / "torn")
    (file,) = torn.glob("*.mcap")
    os.truncate(file, file.stat().st_size // 2)
    for path in (tmp_path / "nowhere", tmp_path, torn):
        with pytest.raises(BagError, match="cannot be read as a bag"):
            list(import_bag(path, MAPPING, SPEC, tmp_path / "bags"))


def test_numbers_of_every_kind_of_command() -> None:
    linear, angular = (MAKE("geometry_msgs/msg/Vector3", x=v, y=v + 1, z=v + 2) for v in (1.0, 4.0))
    twist = MAKE("geometry_msgs/msg/Twist", linear=linear, angular=angular)
    assert read_value(twist, "geometry_msgs/msg/Twist", "angular.y") == 5.0
    stamped = MAKE("geometry_msgs/msg/TwistStamped", header=make_header(MAKE, 0, ""), twist=twist)
    assert read_value(stamped, "geometry_msgs/msg/TwistStamped", "linear.z") == 3.0
    assert read_value(MAKE("std_msgs/msg/Float64", data=2.5), "std_msgs/msg/Float64", "data") == 2.5
    assert read_value(command(0, 0.5), "trajectory_msgs/msg/JointTrajectory", "x_axis") == 0.5


def test_the_command_from_a_yaml_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    robot, mapping = tmp_path / "robot.yaml", tmp_path / "mapping.yaml"
    robot.write_text(yaml.safe_dump(SPEC.to_dict()))
    content = {
        "robot": str(robot),
        "task": "push",
        "instruction": "push it",
        "topics": THEIRS,
        "action": [
            {"name": "dx", "topic": "/arm/command", "key": "x_axis"},
            {"name": "grip", "topic": "/gripper/commands", "key": "1"},
        ],
    }
    mapping.write_text(yaml.safe_dump(content))
    arguments = ["bags", "import", str(record(tmp_path / "theirs")), "--mapping", str(mapping)]
    assert main([*arguments, "--output", str(tmp_path / "bags")]) == 0
    assert "6 actions, 6 steps that can be learned from" in capsys.readouterr().out
    assert main([*arguments, "--output", str(tmp_path / "bags")]) == 2
    assert "a bag of this episode exists already" in capsys.readouterr().err
    assert main(["bags", "import", "--mapping", str(mapping), "--output", str(tmp_path / "bags")]) == 2
    assert "no bag is given" in capsys.readouterr().err
    mapping.write_text(yaml.safe_dump({**content, "robots": "x"}))
    assert main([*arguments, "--output", str(tmp_path / "bags")]) == 2
    assert "unknown key robots; valid are robot, task, action" in capsys.readouterr().err

"""What a test's robot does over DDS: publishes what its sensors say, keeps the commands that it gets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from client_node import Client
from graph_helpers import INSTRUCTION_TEXT, METAWORLD, make_graph

from vla_policy_node.commands import action_from_message
from vla_policy_node.messages import observation_topics, readings_to_messages
from vla_policy_node.observation import Joints, Pose, Readings
from vla_policy_node.ros_node import rclpy_maker
from vla_policy_node.spec import RobotSpec
from vla_policy_node.topics import ACTION, ACTION_CHUNK, DIAGNOSTICS, INSTRUCTION, MESSAGE_TYPES

GRIPPER = Joints(("gripper",), np.array([0.5]), np.array([0.0]))


class Robot:
    """Stands for a robot: publishes what its sensors say, and keeps the commands that it gets."""

    def __init__(self, client: Client, spec: RobotSpec, lockstep: bool = True) -> None:
        self.client, self.spec = client, spec
        self._make = rclpy_maker()
        self._publishers = {t: client.publisher(t, k) for t, k in observation_topics(spec).items()}
        for topic in (ACTION, ACTION_CHUNK, DIAGNOSTICS):
            client.listen(topic, MESSAGE_TYPES[topic])
        client.until(lambda: all(p.get_subscription_count() == 1 for p in self._publishers.values()))
        client.until(lambda: client.node.count_publishers(ACTION) == 1)
        self.say(INSTRUCTION_TEXT)

    def say(self, text: str) -> None:
        self._publishers[INSTRUCTION].publish(self._make("std_msgs/msg/String", data=text))

    def sense(self, stamp_ns: int, height: float = 0.2, skip: str = "", joints: Joints = GRIPPER) -> None:
        random = np.random.default_rng(0)
        images = {c.name: random.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in self.spec.cameras}
        pose = Pose(np.array([0.0, 0.6, height]), np.array([0.0, 0.0, 0.0, 1.0]))
        for topic, _, message in readings_to_messages(self._make, self.spec, Readings(images, joints, pose), stamp_ns):
            if topic != skip and topic in self._publishers:
                self._publishers[topic].publish(message)

    def enable(self) -> dict[str, Any]:
        """Enable the policy once it sees that this robot listens."""
        while True:
            answer = self.client.switch("policy_node/enable", True)
            assert answer.success, answer.message
            content: dict[str, Any] = json.loads(answer.message)
            if "test_client" in content["listeners"][ACTION]:
                return content

    def commands(self) -> list[tuple[int, Any]]:
        return [action_from_message(self.spec, m) for m in self.client.received[ACTION]]

    def diagnosis(self) -> Any:
        """The policy's own line of the next diagnostics."""
        self.client.received[DIAGNOSTICS].clear()
        self.client.until(lambda: bool(self.client.received[DIAGNOSTICS]))
        return self.client.received[DIAGNOSTICS][0].status[0]


def policy(folder: Path, domain: int, spec: RobotSpec = METAWORLD, **parameters: Any) -> Any:
    robot = folder / "robot.yaml"
    robot.write_text(yaml.safe_dump(spec.to_dict()))
    return make_graph(folder, domain, {"policy": {"robot": str(robot), **parameters}})

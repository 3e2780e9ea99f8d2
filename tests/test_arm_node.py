"""A policy node drives the stand-in arm through ros2_control's topics, in real time, as processes of their own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from client_node import Client
from graph_helpers import INSTRUCTION_TEXT, make_graph, save_random_policy

from vla_policy_node.commands import trajectory_point
from vla_policy_node.messages import text_to_message
from vla_policy_node.ros_node import rclpy_maker
from vla_policy_node.spec import RobotSpec, load_spec
from vla_policy_node.topics import DIAGNOSTICS, INSTRUCTION, JOINT_STATES, MESSAGE_TYPES

pytestmark = [pytest.mark.ros, pytest.mark.slow]

# Two other processes may have the cores.
PANDA = replace(load_spec("panda"), max_skew_s=0.25, max_silence_s=np.inf, max_proprioception_silence_s=None)
TRAJECTORY = PANDA.commands[0].topic


class Bench:
    """An arm, a policy that moves it at random, and somebody who looks on."""

    def __init__(self, client: Client) -> None:
        self.client = client
        client.listen(JOINT_STATES, MESSAGE_TYPES[JOINT_STATES])
        client.listen(DIAGNOSTICS, MESSAGE_TYPES[DIAGNOSTICS])
        self._make = rclpy_maker()
        instruction = client.publisher(INSTRUCTION, MESSAGE_TYPES[INSTRUCTION])
        client.until(lambda: client.node.count_subscribers(INSTRUCTION) > 0)
        client.until(lambda: bool(client.received[JOINT_STATES]))
        instruction.publish(text_to_message(self._make, INSTRUCTION_TEXT))
        self._instruction = instruction

    def enable(self) -> None:
        self.client.until(lambda: self.client.switch("policy_node/enable", True).success)

    def speeds(self, seconds: float) -> Any:
        """Highest speed of any arm joint in each joint state that comes, rad/s."""
        self.client.received[JOINT_STATES].clear()
        self.client.spin(seconds)
        return np.array([np.abs(m.velocity[:7]).max() for m in self.client.received[JOINT_STATES]])

    def told(self, name: str) -> tuple[str, dict[str, str]]:
        """Message and values of the newest diagnostics of this name."""
        self.client.received[DIAGNOSTICS].clear()
        found: list[Any] = []

        def look() -> bool:
            found[:] = [s for m in self.client.received[DIAGNOSTICS] for s in m.status if s.name == name]
            return bool(found)

        self.client.until(look)
        return found[-1].message, {v.key: v.value for v in found[-1].values}

    def reasons(self) -> str:
        return self.told("policy_node: policy")[1]["last_reasons"]


@contextmanager
def bench(folder: Path, domain: int, spec: RobotSpec = PANDA) -> Iterator[Bench]:
    save_random_policy(folder / "c", [INSTRUCTION_TEXT], spec=spec, horizon=30)
    robot = folder / "robot.yaml"
    robot.write_text(yaml.safe_dump(spec.to_dict()))
    policy = {"robot": str(robot), "mode": "real_time", "checkpoint": str(folder / "c"), "execute_every": 10}
    with (
        make_graph(folder, domain, {"arm": {"robot": str(robot)}, "policy": policy}),
        Client(domain) as client,
    ):
        yield Bench(client)


def test_a_policy_moves_the_arm_within_its_limits_and_every_fault_stops_it(ros_domain: int, tmp_path: Path) -> None:
    with bench(tmp_path, ros_domain) as arm:
        assert arm.speeds(0.3).max() < 0.01
        arm.client.listen(TRAJECTORY, "trajectory_msgs/msg/JointTrajectory")
        arm.client.until(lambda: arm.client.node.count_publishers(TRAJECTORY) == 1)
        arm.enable()
        moving = arm.speeds(4.0)
        assert moving.max() > 0.1
        sent = np.array([message.points[0].positions for message in arm.client.received[TRAJECTORY]])
        assert len(sent) > 20
        assert np.abs(np.diff(sent, axis=0)).max() <= 0.7 / PANDA.rate_hz + 1e-6
        # Where the arm's process got no processor for some periods it takes several commands at once, and makes up for
        # them within one: faster than 0.7 rad/s, not than the joints can go.
        assert moving.max() < 2.61
        assert arm.told("arm_node: hardware")[0] == "obeys"
        assert arm.told(f"arm_node: {TRAJECTORY}")[1]["refused"] == "0"
        for fault, why in (("camera_unplugged", "front: last sample"), ("joints_silent", "joint_states: last sample")):
            arm.client.set("arm_node", **{fault: True})
            arm.client.spin(1.2)
            assert why in arm.reasons()
            arm.client.set("arm_node", **{fault: False})
            if fault == "camera_unplugged":
                arm.client.spin(0.5)
        arm.client.switch("policy_node/enable", False)
        arm.client.spin(0.7)
        assert arm.speeds(0.5).max() < 0.05


def test_without_motion_limits_the_hardware_stops_the_arm(ros_domain: int, tmp_path: Path) -> None:
    wild = tuple(
        replace(d, velocity=np.inf, acceleration=np.inf, jerk=np.inf, lead=np.inf, low=d.low / 2, high=d.high / 2)
        if d.name != "finger" and d.low < 0 < d.high
        else replace(d, velocity=np.inf, acceleration=np.inf, jerk=np.inf, lead=np.inf)
        for d in PANDA.action
    )
    with bench(tmp_path, ros_domain, replace(PANDA, action=wild)) as arm:
        arm.enable()
        arm.client.until(lambda: "times as fast as it can go" in arm.told("arm_node: hardware")[0])
        arm.client.switch("policy_node/enable", False)
        arm.client.spin(0.5)
        assert arm.client.trigger("arm_node/clear_fault").success
        assert arm.told("arm_node: hardware")[0] == "obeys"


def test_a_bad_trajectory_is_refused_and_told(ros_domain: int, tmp_path: Path) -> None:
    with make_graph(tmp_path, ros_domain, {"arm": {}}), Client(ros_domain) as client:
        arm = Bench.__new__(Bench)
        arm.client = client
        client.listen(DIAGNOSTICS, MESSAGE_TYPES[DIAGNOSTICS])
        publisher = client.publisher(TRAJECTORY, "trajectory_msgs/msg/JointTrajectory")
        client.until(lambda: publisher.get_subscription_count() == 1)
        message = rclpy_maker()("trajectory_msgs/msg/JointTrajectory", joint_names=["elbow"])
        publisher.publish(message)
        client.until(lambda: arm.told(f"arm_node: {TRAJECTORY}")[1]["refused"] == "1")
        assert "don't match the controller joints: 1 instead of 7" in arm.told(f"arm_node: {TRAJECTORY}")[0]


def test_a_ur5e_stands_in_as_well(ros_domain: int, tmp_path: Path) -> None:
    spec = load_spec("ur5e")
    nodes = {"arm": {"robot": "ur5e", "model": "ur5e", "camera_rate_hz": 10.0}}
    with make_graph(tmp_path, ros_domain, nodes), Client(ros_domain) as client:
        for topic in (JOINT_STATES, spec.cameras[0].topic):
            client.listen(topic, MESSAGE_TYPES.get(topic, "sensor_msgs/msg/Image"))
        publisher = client.publisher(spec.commands[0].topic, "trajectory_msgs/msg/JointTrajectory")
        client.until(lambda: publisher.get_subscription_count() == 1 and bool(client.received[JOINT_STATES]))
        names, make = list(spec.joints_of(spec.commands[0].dimensions)), rclpy_maker()
        home = np.array([0.0, -1.5708, 1.5708, -1.5708, -1.5708, 0.0])
        wanted = home + np.array([0.2, 0.1, -0.1, 0.0, 0.1, 0.2])
        point = trajectory_point(make, wanted, 500_000_000)
        publisher.publish(make("trajectory_msgs/msg/JointTrajectory", joint_names=names, points=[point]))

        def off() -> float:
            state = client.received[JOINT_STATES][-1]
            at = dict(zip(state.name, state.position, strict=True))
            return float(np.abs(np.array([at[name] for name in names]) - wanted).max())

        client.until(lambda: off() < 0.01)
        client.until(lambda: bool(client.received[spec.cameras[0].topic]))

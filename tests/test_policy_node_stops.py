"""A policy node that commands joints over real DDS: where it begins, what stops it, and what it takes to go on."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client_node import Client
from graph_helpers import INSTRUCTION_TEXT, METAWORLD, save_random_policy
from robot_client import Robot, policy

from vla_policy_node.action_spec import ActionDimension
from vla_policy_node.observation import Joints
from vla_policy_node.ros_node import rclpy_maker
from vla_policy_node.spec import NANOSECONDS, ProprioceptionField, RobotSpec
from vla_policy_node.topics import ACTION, CLOCK, ESTOP, EVENTS, JOY, MESSAGE_TYPES

pytestmark = pytest.mark.ros

ARM = replace(
    METAWORLD,
    name="arm",
    rate_hz=30.0,
    proprioception=(ProprioceptionField("elbow", "joint_position", "elbow", "rad"),),
    action=(ActionDimension("elbow", "rad", -2, 2, "last", velocity=1.0, acceleration=5.0, jerk=100.0, joint="elbow"),),
)
PERIOD_S = ARM.period_ns / 1e9


class Arm(Robot):
    """One joint that goes where it is told; `speed` is what it says of its velocity."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, ARM)
        self.elbow, self.speed, self.silent = 0.7, 0.0, False
        self.clock = time.time_ns

    def live(self, periods: int) -> float:
        """Sense and obey at the robot's rate, or slower on a busy machine: the longest wait between two, in ms."""
        began, longest = time.monotonic(), 0.0
        for _ in range(periods):
            if commands := self.commands():
                self.elbow = float(commands[-1][1][0])
            if not self.silent:
                joints = Joints(("elbow",), np.array([self.elbow]), np.array([self.speed]))
                self.sense(self.clock(), joints=joints)
            self.client.spin(PERIOD_S)
            began, longest = time.monotonic(), max(longest, time.monotonic() - began)
        return longest * 1e3

    def positions(self) -> list[float]:
        return [float(action[0]) for _, action in self.commands()]

    def reasons(self) -> str:
        return str({v.key: v.value for v in self.diagnosis().values}["last_reasons"])


@contextmanager
def arm(folder: Path, domain: int, spec: RobotSpec = ARM, **parameters: Any) -> Iterator[tuple[Client, Arm]]:
    save_random_policy(folder / "c", [INSTRUCTION_TEXT], spec=ARM)
    options = {"mode": "real_time", "checkpoint": str(folder / "c"), **parameters}
    with policy(folder, domain, spec, **options), Client(domain) as client:
        yield client, Arm(client)


def is_at_rest(positions: list[float]) -> bool:
    return len(set(positions[-5:])) == 1


def test_it_begins_where_the_arm_is_and_an_emergency_stop_stays(ros_domain: int, tmp_path: Path) -> None:
    with arm(tmp_path, ros_domain) as (client, robot):
        estop = client.publisher(ESTOP, MESSAGE_TYPES[ESTOP])
        client.until(lambda: estop.get_subscription_count() == 1)
        make = rclpy_maker()
        robot.enable()
        client.spin(0.5)
        assert not client.received[ACTION], "it does not know where the arm is"
        robot.live(15)
        positions = robot.positions()
        assert abs(positions[0] - 0.7) <= 1.0 * PERIOD_S
        assert np.abs(np.diff(positions)).max() <= 1.0 * PERIOD_S + 1e-6
        assert not is_at_rest(positions)
        estop.publish(make(MESSAGE_TYPES[ESTOP], data=True))
        robot.live(25)  # from 1 rad/s at 5 rad/s^2 it takes 0.25 s
        assert is_at_rest(robot.positions())
        assert "e-stop: pressed" in robot.reasons()
        refused = client.trigger("policy_node/clear_stop")
        assert (refused.success, refused.message) == (False, "not cleared: e-stop: pressed")
        estop.publish(make(MESSAGE_TYPES[ESTOP], data=False))
        robot.live(10)
        assert is_at_rest(robot.positions()), "released is not cleared"
        refused = client.switch("policy_node/enable", True)
        assert not refused.success
        assert "e-stop: pressed; cleared by ~/clear_stop" in refused.message
        assert client.trigger("policy_node/clear_stop").success
        robot.live(5)
        assert is_at_rest(robot.positions()), "cleared is not enabled"
        robot.enable()
        robot.live(15)
        assert not is_at_rest(robot.positions())


def test_a_policy_that_is_disabled_brings_the_arm_to_rest_smoothly(ros_domain: int, tmp_path: Path) -> None:
    with arm(tmp_path, ros_domain) as (client, robot):
        robot.enable()
        robot.live(15)
        assert not is_at_rest(robot.positions())
        moving = len(robot.positions())
        client.switch("policy_node/enable", False)
        robot.live(20)
        positions = robot.positions()
        speed = abs(positions[moving - 1] - positions[moving - 2]) / PERIOD_S
        # At 5 rad/s^2 it takes v^2 / 10 rad to stop; at once it would take none.
        assert abs(positions[-1] - positions[moving - 1]) > 0.5 * speed**2 / 10
        assert len(positions) > moving + 1, "it takes several commands to brake"
        assert abs(positions[-1] - positions[-2]) < 1e-3


def test_who_holds_no_switch_does_not_drive(ros_domain: int, tmp_path: Path) -> None:
    with arm(tmp_path, ros_domain, deadman_button=1, deadman_within_s=0.3) as (client, robot):
        joy = client.publisher(JOY, MESSAGE_TYPES[JOY])
        client.until(lambda: joy.get_subscription_count() == 1)
        make = rclpy_maker()
        refused = client.switch("policy_node/enable", True)
        assert refused.message == "the robot is stopped: dead-man: never heard"

        def hold(button: int, periods: int) -> None:
            for _ in range(periods):
                joy.publish(make(MESSAGE_TYPES[JOY], buttons=[0, button]))
                robot.live(1)

        hold(1, 3)
        robot.enable()
        hold(1, 15)
        assert not is_at_rest(robot.positions())
        robot.live(30)  # nothing is heard from whoever holds it
        assert is_at_rest(robot.positions())
        assert "dead-man: not heard for" in robot.reasons()
        hold(1, 10)
        assert is_at_rest(robot.positions())
        assert client.trigger("policy_node/clear_stop").success
        hold(1, 3)
        robot.enable()
        hold(1, 10)
        hold(0, 20)
        assert is_at_rest(robot.positions())
        assert "dead-man: released" in robot.reasons()


def test_an_arm_that_moves_or_is_silent_is_not_enabled(ros_domain: int, tmp_path: Path) -> None:
    with arm(tmp_path, ros_domain, standstill=0.05) as (client, robot):
        assert "no joint states were heard lately" in client.switch("policy_node/enable", True).message
        robot.speed = 0.2
        robot.live(5)
        assert "joint 'elbow' moves at 0.2 a second" in client.switch("policy_node/enable", True).message
        robot.speed = 0.0
        robot.live(3)
        robot.enable()


def test_of_two_policy_nodes_the_second_is_refused(ros_domain: int, tmp_path: Path) -> None:
    with arm(tmp_path, ros_domain) as (client, robot):
        robot.enable()
        client.publisher(ACTION, MESSAGE_TYPES[ACTION])
        client.until(lambda: client.node.count_publishers(ACTION) == 2)
        client.until(lambda: not client.switch("policy_node/enable", True).success)
        refused = client.switch("policy_node/enable", True)
        assert refused.message == "'/action' is published by test_client as well"


def silences(client: Client) -> list[float]:
    """For how many ms joint states had been silent, in each event that says so."""
    told = [event.status[0].message for event in client.received[EVENTS]]
    return [float(found[1]) for text in told if (found := re.search(r"joint_states: silent for (\d+) ms", text))]


def test_a_stream_is_held_for_at_its_own_limit_of_silence(ros_domain: int, tmp_path: Path) -> None:
    """Joints may be silent for 70 ms; cameras, by the robot's own limit, for as long as they like."""
    with arm(tmp_path, ros_domain, replace(ARM, max_proprioception_silence_s=0.07)) as (client, robot):
        client.listen(EVENTS, MESSAGE_TYPES[EVENTS])
        client.until(lambda: client.node.count_publishers(EVENTS) == 1)
        robot.enable()
        robot.live(15)
        client.received[EVENTS].clear()
        robot.silent = True
        robot.live(20)
        assert is_at_rest(robot.positions())
        assert silences(client)
        assert silences(client)[0] >= 70
        assert not any("image_raw: silent" in event.status[0].message for event in client.received[EVENTS])


def test_a_node_that_was_held_up_hears_what_waits_before_it_says_silent(ros_domain: int, tmp_path: Path) -> None:
    save_random_policy(tmp_path / "c", [INSTRUCTION_TEXT], spec=ARM)
    spec = replace(ARM, max_proprioception_silence_s=0.25)
    parameters = {"mode": "real_time", "checkpoint": str(tmp_path / "c")}
    with policy(tmp_path, ros_domain, spec, **parameters) as graph, Client(ros_domain) as client:
        robot = Arm(client)
        client.listen(EVENTS, MESSAGE_TYPES[EVENTS])
        client.until(lambda: client.node.count_publishers(EVENTS) == 1)
        robot.enable()
        robot.live(15)
        client.received[EVENTS].clear()
        os.kill(graph.pid("policy"), signal.SIGSTOP)
        waited_ms = robot.live(12)
        os.kill(graph.pid("policy"), signal.SIGCONT)
        waited_ms = max(waited_ms, robot.live(12))
        # On a machine that stood still the robot was silent, and to say so is right.
        assert max(silences(client), default=0.0) < waited_ms + 100, "the node was held up, not the robot"


def test_a_camera_that_shows_the_same_picture_for_ever_stops_the_arm(ros_domain: int, tmp_path: Path) -> None:
    """The test's own robot always sends one picture, under new stamps."""
    with arm(tmp_path, ros_domain, replace(ARM, max_frozen_s=0.2)) as (client, robot):
        client.listen(EVENTS, MESSAGE_TYPES[EVENTS])
        client.until(lambda: client.node.count_publishers(EVENTS) == 1)
        robot.enable()

        def frozen() -> bool:
            told = [event.status[0] for event in client.received[EVENTS]]
            return any("the very same picture for" in s.message and s.level == b"\x02" for s in told)

        for _ in range(20):
            robot.live(5)
            if frozen():
                break
        assert frozen()
        robot.live(20)
        positions = robot.positions()
        assert abs(positions[-1] - positions[0]) > 0.02
        assert is_at_rest(positions)


def test_a_clock_that_is_set_back_stops_the_arm_until_somebody_says_so(ros_domain: int, tmp_path: Path) -> None:
    with arm(tmp_path, ros_domain, use_sim_time=True) as (client, robot):
        ticks = client.publisher(CLOCK, "rosgraph_msgs/msg/Clock")
        client.until(lambda: ticks.get_subscription_count() == 1)
        began, offset = time.time_ns(), [0]

        def now() -> int:
            at = 1_000 * NANOSECONDS + time.time_ns() - began + offset[0]
            message = rclpy_maker()("rosgraph_msgs/msg/Clock")
            message.clock.sec, message.clock.nanosec = divmod(at, NANOSECONDS)
            ticks.publish(message)
            client.spin(0.005)
            return at

        robot.clock = now
        robot.live(5)
        robot.enable()
        robot.live(15)
        assert not is_at_rest(robot.positions())
        moving, offset[0] = len(robot.positions()), -100 * NANOSECONDS
        robot.live(25)
        positions = robot.positions()
        assert len(positions) > moving + 10, "commands go on at the new time"
        assert is_at_rest(positions)
        assert "clock: set back by" in robot.reasons()
        assert not client.switch("policy_node/enable", True).success
        assert client.trigger("policy_node/clear_stop").success
        robot.live(3)
        robot.enable()
        robot.live(15)
        assert not is_at_rest(robot.positions())

"""Listens to a robot for a while, and commands nothing."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from trainer.robot_check import Heard, Stream
from vla_policy_node.exceptions import MessageError
from vla_policy_node.messages import add_to_buffer, joints_from_message, observation_topics, pose_from_message, stamp_of
from vla_policy_node.observation import Observation, ObservationBuffer
from vla_policy_node.ros_node import message_class, topic_qos
from vla_policy_node.spec import RobotSpec
from vla_policy_node.topics import EE_POSE, INSTRUCTION, JOINT_STATES


def listen(spec: RobotSpec, seconds: float) -> Heard:
    """What comes on the robot's topics in so many seconds, once its publishers were found."""
    rclpy.init()
    node = Node("encore_robot_check")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        return _Listener(node, spec).listen(executor, seconds)
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown()


class _Listener:
    def __init__(self, node: Node, spec: RobotSpec) -> None:
        self._node, self._spec = node, spec
        self._buffer = ObservationBuffer(spec)
        self._buffer.instruction = "whatever it is"  # Without one there is no observation.
        kinds = {topic: kind for topic, kind in observation_topics(spec).items() if topic != INSTRUCTION}
        self._heard = Heard(0.0, {topic: Stream() for topic in kinds})
        for topic, kind in kinds.items():
            node.create_subscription(
                message_class(kind), topic, partial(self._take, topic), topic_qos(topic, lockstep=False, depth=100)
            )

    def listen(self, executor: SingleThreadedExecutor, seconds: float) -> Heard:
        self._spin(executor, 1.0)  # Discovery takes up to a second.
        for stream in self._heard.streams.values():
            stream.stamps_ns.clear()
            stream.arrivals_ns.clear()
        self._spin(executor, seconds)
        self._heard.seconds = seconds
        observed = self._buffer.assemble()
        self._heard.observation = observed if isinstance(observed, Observation) else None
        self._heard.topics = [name for name, _ in self._node.get_topic_names_and_types()]
        for topic, stream in self._heard.streams.items():
            stream.types = _types(self._node.get_publishers_info_by_topic(topic))
        self._heard.listeners = {
            command.topic: _types(self._node.get_subscriptions_info_by_topic(command.topic))
            for command in self._spec.commands
        }
        return self._heard

    def _spin(self, executor: SingleThreadedExecutor, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            executor.spin_once(timeout_sec=left)

    def _take(self, topic: str, message: Any) -> None:
        stream = self._heard.streams[topic]
        stream.arrivals_ns.append(int(self._node.get_clock().now().nanoseconds))
        stream.stamps_ns.append(stamp_of(message))
        try:
            add_to_buffer(self._buffer, self._spec, topic, message)
            if topic == JOINT_STATES:
                self._heard.joints = joints_from_message(message)
            if topic == EE_POSE:
                self._heard.pose = pose_from_message(message)
        except MessageError as error:
            stream.problems.append(str(error))


def _types(found: Sequence[Any]) -> tuple[str, ...]:
    return tuple(info.topic_type for info in found)

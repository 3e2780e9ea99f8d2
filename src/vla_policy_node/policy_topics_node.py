"""What a policy node publishes: commands, chunks, diagnostics, and the messages of the robot's own controllers."""

import time
from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleNode

from vla_policy_node.command_messages import COMMAND_TYPES
from vla_policy_node.command_spec import CommandSpec
from vla_policy_node.events import EventLog, SafetyEvent, event_message
from vla_policy_node.exceptions import PolicyNodeError
from vla_policy_node.ros_node import message_class, publishers, rclpy_maker, settable, topic_qos
from vla_policy_node.spec import RobotSpec
from vla_policy_node.topics import ACTION, ACTION_CHUNK, DIAGNOSTICS, EVENTS, HUMAN_ACTION, MESSAGE_TYPES


class PolicyTopics:
    """Opens the publishers; nothing is sent while the node is not active."""

    def __init__(self, node: LifecycleNode, spec: RobotSpec) -> None:
        self._node, self._open = node, list[Any]()
        self._log = EventLog(self._say)
        self.action, self.chunk, self.human, self.diagnostics, self._events = (
            self._publisher(topic, MESSAGE_TYPES[topic])
            for topic in (ACTION, ACTION_CHUNK, HUMAN_ACTION, DIAGNOSTICS, EVENTS)
        )
        self.controllers: list[tuple[CommandSpec, Callable[[Any], None]]] = [
            (command, self._publisher(command.topic, COMMAND_TYPES[command.kind]).publish) for command in spec.commands
        ]

    def close(self) -> None:
        """Publish no more."""
        for publisher in self._open:
            self._node.destroy_lifecycle_publisher(publisher)

    def tell(self, event: SafetyEvent) -> None:
        """Publish and log that commands begin to be held or limited, or are free again."""
        self._events.publish(event_message(rclpy_maker(), event, self._node.get_name()))
        self._log.see(event, time.monotonic_ns())

    def diagnose(self, message: Any) -> None:
        """Publish diagnostics, and log what has gone on without having been logged."""
        self.diagnostics.publish(message)
        self._log.remind(time.monotonic_ns())

    def _say(self, event: SafetyEvent) -> None:
        log = self._node.get_logger()
        if event.reasons:
            log.warning(f"{'holds' if event.held else 'limited'}: {event.status().message}")
        else:
            log.info("free: what the policy asks for is sent")

    def check_alone(self, lockstep: bool) -> None:
        """Raises: PolicyNodeError: somebody else commands this robot; in lockstep: another policy node does."""
        name = self._node.get_name()
        others = publishers(self._node, ACTION)
        others.remove(name)
        if others and (not lockstep or name in others):
            raise PolicyNodeError(f"'{self.action.topic_name}' is published by {', '.join(others)} as well")

    def _publisher(self, topic: str, kind: str) -> Any:
        qos = topic_qos(topic if topic in MESSAGE_TYPES else ACTION, True)
        publisher = self._node.create_lifecycle_publisher(
            message_class(kind), topic, qos, qos_overriding_options=settable()
        )
        self._open.append(publisher)
        return publisher

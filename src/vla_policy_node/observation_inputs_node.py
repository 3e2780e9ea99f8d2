"""A robot's streams as a node hears them: one subscription a topic, and how each is doing."""

from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.node import Node

from vla_policy_node.diagnostics import Status, StreamMonitor
from vla_policy_node.messages import observation_topics
from vla_policy_node.ros_node import LATCHED, message_class, settable, take_waiting, topic_qos
from vla_policy_node.spec import NANOSECONDS, RobotSpec


class ObservationInputs:
    """Subscribes to all that an observation is made of."""

    def __init__(
        self, node: Node, spec: RobotSpec, lockstep: bool, receive: Callable[[str, Any, StreamMonitor], None]
    ) -> None:
        """Args: receive: is given each message with its topic and that stream's monitor."""
        self._node, self._receive, self._max_silence_s = node, receive, spec.max_silence_s
        stale_ns = max(spec.max_skew_ns, NANOSECONDS)
        self._monitors: dict[str, StreamMonitor] = {}
        self._subscriptions: dict[str, Any] = {}
        for topic, kind in observation_topics(spec).items():
            self._monitors[topic] = StreamMonitor(topic, None if topic in LATCHED else stale_ns)
            self._subscriptions[topic] = node.create_subscription(
                message_class(kind),
                topic,
                partial(self._on_message, topic),
                topic_qos(topic, lockstep),
                qos_overriding_options=settable(),
            )

    def close(self) -> None:
        """Listen no more."""
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)

    def restart(self) -> None:
        """A new episode begins."""
        for monitor in self._monitors.values():
            monitor.restart()

    def clock_set(self) -> None:
        """The clock was set: what was heard before it is not to be compared with what is heard now."""
        for monitor in self._monitors.values():
            monitor.clock_set()

    def silent(self, now_ns: int) -> tuple[str, ...]:
        """Which streams have been silent for longer than the robot's file allows, as reasons to hold."""
        silent = {
            topic: m.silent_ns(now_ns) / NANOSECONDS for topic, m in self._monitors.items() if topic not in LATCHED
        }
        limit = self._max_silence_s
        return tuple(f"{topic}: silent for {1e3 * s:.0f} ms" for topic, s in silent.items() if s > limit)

    def statuses(self, now_ns: int) -> list[Status]:
        """How each stream is doing."""
        return [m.status(now_ns, self._node.count_publishers(topic)) for topic, m in self._monitors.items()]

    def _on_message(self, topic: str, message: Any) -> None:
        self._receive(topic, message, self._monitors[topic])
        for other, subscription in self._subscriptions.items():
            for waiting in take_waiting(subscription):
                self._receive(other, waiting, self._monitors[other])

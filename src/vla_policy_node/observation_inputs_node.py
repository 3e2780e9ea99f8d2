"""A robot's streams as a node hears them: one subscription a topic, and how each is doing."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.node import Node

from vla_policy_node.diagnostics import Status, StreamMonitor
from vla_policy_node.hold_ups import HoldUps
from vla_policy_node.messages import observation_topics
from vla_policy_node.ros_node import LATCHED, message_class, settable, take_waiting, topic_qos
from vla_policy_node.spec import NANOSECONDS, RobotSpec


class ObservationInputs:
    """Subscribes to all that an observation is made of."""

    def __init__(
        self, node: Node, spec: RobotSpec, lockstep: bool, receive: Callable[[str, Any, StreamMonitor], None]
    ) -> None:
        """Args: receive: is given each message with its topic and that stream's monitor."""
        self._node, self._receive = node, receive
        stale_ns = max(spec.max_skew_ns, NANOSECONDS)
        self._monitors: dict[str, StreamMonitor] = {}
        self._subscriptions: dict[str, Any] = {}
        self._limits_ns: dict[str, float] = {}
        for topic, kind in observation_topics(spec).items():
            self._monitors[topic] = StreamMonitor(topic, None if topic in LATCHED else stale_ns)
            if topic not in LATCHED:
                self._limits_ns[topic] = spec.silence_limit_s(topic) * NANOSECONDS
            self._subscriptions[topic] = node.create_subscription(
                message_class(kind),
                topic,
                partial(self._on_message, topic),
                topic_qos(topic, lockstep),
                qos_overriding_options=settable(),
            )
        # Only a node that was held up for as long as a stream may be silent can take it for silent by that.
        self._hold_ups = HoldUps(min(self._limits_ns.values(), default=math.inf), spec.period_ns)

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

    def silent(self) -> tuple[str, ...]:
        """Which streams have been silent for longer than the robot's file allows, as reasons to hold.

        What waits to be heard is heard first: a node that was busy for a moment has no silent robot. Nor has one that
        was held up for longer, until what has come meanwhile has had a period to get here.
        """
        if self._now() <= self.silent_at_ns():
            return ()
        now_ns = self._now()
        silences = ((topic, self._monitors[topic].silent_ns(now_ns), limit) for topic, limit in self._limits_ns.items())
        return tuple(f"{topic}: silent for {ns / 1e6:.0f} ms" for topic, ns, limit in silences if ns > limit)

    def silent_at_ns(self) -> float:
        """When the first stream will have been silent for too long if nothing more comes of it, on the node's clock.

        It has passed only where nothing waits to be heard; inf where no stream can be silent for too long. To be called
        several times a period.
        """
        left_ns = self._hold_ups.left_ns(time.monotonic_ns())
        if (at_ns := self._first_silent_at_ns()) < self._now():
            self._hear_waiting()
            at_ns = self._first_silent_at_ns()
        return max(at_ns, self._now() + left_ns) if left_ns else at_ns

    def _first_silent_at_ns(self) -> float:
        now_ns = self._now()
        left_ns = (limit - self._monitors[topic].silent_ns(now_ns) for topic, limit in self._limits_ns.items())
        return now_ns + min(left_ns, default=math.inf)

    def _now(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def statuses(self, now_ns: int) -> list[Status]:
        """How each stream is doing."""
        return [m.status(now_ns, self._node.count_publishers(topic)) for topic, m in self._monitors.items()]

    def _on_message(self, topic: str, message: Any) -> None:
        self._receive(topic, message, self._monitors[topic])
        self._hear_waiting()

    def _hear_waiting(self) -> None:
        for topic, subscription in self._subscriptions.items():
            for waiting in take_waiting(subscription):
                self._receive(topic, waiting, self._monitors[topic])

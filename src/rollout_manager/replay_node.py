"""Publishes a recorded try again: its messages as they were, with their own timing, and /clock.

Commands go out under /recorded: whatever obeys /action on this domain must not be moved by a recording.
"""

import sys
import time
from pathlib import Path
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_srvs.srv import SetBool

from rollout_manager.bag_reader import EpisodeReader
from rollout_manager.exceptions import RolloutError
from rollout_manager.playback import Playback
from vla_policy_node.exceptions import PolicyNodeError
from vla_policy_node.ros_node import declare, exit_process, message_class, run_node, settable, topic_qos
from vla_policy_node.spec import NANOSECONDS
from vla_policy_node.topics import ACTION, ACTION_CHUNK, CLOCK

RECORDED = "/recorded"
"""Goes before the names of topics that hold commands."""
SETTLE_NS = NANOSECONDS // 2
"""After the first reader is found, others are waited for so long."""
DEPTH = 200
DELIVERED_WITHIN_S = 2.0
"""How long it is waited in the end for readers that have not taken all of it."""
PERIOD_S = 0.002
"""Between two looks for messages that are due."""
CLOCK_EVERY_NS = 10_000_000

PARAMETERS: dict[str, tuple[Any, str]] = {
    "bag": ("", "folder of the episode's bag"),
    "rate": (1.0, "how many times as fast as recorded"),
    "loop": (False, "begin again at the end"),
    "wait": (10.0, "seconds to wait at most for somebody to listen"),
    "enable": ("", "name of a policy node that is enabled before the first message; empty: none"),
}


class ReplayNode:
    """Plays a bag; `~/pause` (std_srvs/SetBool) stops time and lets it go on."""

    def __init__(self) -> None:
        """Raises: BagError: no whole bag, or a rate that is not above 0."""
        self.node: Node = rclpy.create_node("replay_node")
        declare(self.node, PARAMETERS)
        reader = EpisodeReader(Path(self._get("bag")))
        self._playback = Playback(reader, self._get("rate"))
        self._clock_ns = 0
        types = {message.topic: message.type_name for message in reader.raw_messages()}
        self._publishers = {topic: self._publisher(topic, kind) for topic, kind in types.items()}
        self._clock = self.node.create_publisher(message_class("rosgraph_msgs/msg/Clock"), CLOCK, QoSProfile(depth=10))
        self._enable = self._client(self._get("enable"))
        self._patience_ns = time.monotonic_ns() + round(self._get("wait") * NANOSECONDS)
        self._heard_ns: int | None = None
        self._begun = False
        self.node.create_service(SetBool, "~/pause", self._on_pause)
        self.node.create_timer(PERIOD_S, self._on_timer)
        self.node.get_logger().info(f"playing {reader.header.episode_id}: {', '.join(sorted(self._publishers))}")

    def close(self) -> None:
        """Nothing is held beyond the node."""

    def _get(self, name: str) -> Any:
        return self.node.get_parameter(name).value

    def _publisher(self, topic: str, kind: str) -> Any:
        name = RECORDED + topic if topic in (ACTION, ACTION_CHUNK) else topic
        # Reliable: a reader that asks for less takes it too. As deep as a second of any stream, for readers that stall.
        qos = topic_qos(topic, lockstep=True, depth=DEPTH)
        return self.node.create_publisher(message_class(kind), name, qos, qos_overriding_options=settable())

    def _client(self, policy: str) -> Any:
        return self.node.create_client(SetBool, f"/{policy.strip('/')}/enable") if policy else None

    def _on_pause(self, request: Any, response: Any) -> Any:
        now = time.monotonic_ns()
        if request.data:
            self._playback.pause(now)
        elif self._playback.paused:
            self._playback.start(now)
        response.success, response.message = True, "paused" if request.data else "playing"
        return response

    def _on_timer(self) -> None:
        now = time.monotonic_ns()
        if not self._begun:
            if self._others_are_there(now):
                self._begin()
                self._playback.start(time.monotonic_ns())
            return
        for message in self._playback.due(now):
            self._tell_time(message.log_time_ns)
            self._publishers[message.topic].publish(bytes(message.cdr))
        if self._playback.time(now) - self._clock_ns >= CLOCK_EVERY_NS and not self._playback.paused:
            self._tell_time(self._playback.time(now))
        if self._playback.finished:
            self._end(now)

    def _others_are_there(self, now_ns: int) -> bool:
        """Whether somebody has listened for a moment, in which others are found too; or nobody does for long."""
        if self._enable is not None and not self._enable.service_is_ready():
            return False
        if self._heard_ns is None and any(p.get_subscription_count() for p in self._publishers.values()):
            self._heard_ns = now_ns
        return now_ns >= self._patience_ns or (self._heard_ns is not None and now_ns >= self._heard_ns + SETTLE_NS)

    def _begin(self) -> None:
        """What goes before the first message of a pass."""
        self._begun = True
        self._tell_time(self._playback.time(time.monotonic_ns()))
        if self._enable is not None:
            self._enable.call_async(SetBool.Request(data=True))

    def _end(self, now_ns: int) -> None:
        if not self._get("loop"):
            for publisher in self._publishers.values():
                publisher.wait_for_all_acked(Duration(seconds=DELIVERED_WITHIN_S))
            self.node.get_logger().info("all of it is played")
            raise ExternalShutdownException
        self._clock_ns = 0
        self._playback.again(now_ns)
        self._begin()

    def _tell_time(self, at_ns: int) -> None:
        if at_ns == self._clock_ns:
            return
        self._clock_ns = at_ns
        clock = message_class("rosgraph_msgs/msg/Clock")()
        clock.clock.sec, clock.clock.nanosec = divmod(at_ns, NANOSECONDS)
        self._clock.publish(clock)


def main() -> int:
    """Run the node until all is played or it is stopped; returns the exit status."""
    return run_node(ReplayNode, (RolloutError, PolicyNodeError))


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    exit_process(main())

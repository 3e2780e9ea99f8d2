"""The rollout manager's side of an operator's station: tells it that the try is recorded, hears that it is there."""

import json
import time
from collections.abc import Mapping
from typing import Any

from rclpy.node import Node

from rollout_manager.station import STOPPED, StationState
from rollout_manager.try_runner import NodeLostError
from vla_policy_node.messages import text_to_message
from vla_policy_node.ros_node import message_class, rclpy_maker, topic_qos
from vla_policy_node.topics import MESSAGE_TYPES, RECORDING, STATION_STATE

STATION = "station_node"
BEAT_S = 0.3
SILENT_S = 3.0
"""Silence after which a station is taken for lost: nobody could end the try any more."""


class StationLink:
    """Two heartbeats. A try goes on while both are heard."""

    def __init__(self, node: Node) -> None:
        self._make = rclpy_maker()
        kind = message_class(MESSAGE_TYPES[RECORDING])
        self._recording = node.create_publisher(kind, RECORDING, topic_qos(RECORDING, lockstep=True))
        node.create_subscription(kind, STATION_STATE, self._on_state, topic_qos(STATION_STATE, lockstep=True))
        self.state: StationState | None = None
        self._heard_s = self._beat_s = time.monotonic()
        self._said = ""

    def begin(self) -> None:
        """A try begins to be watched."""
        self._heard_s, self._beat_s = time.monotonic(), 0.0

    def beat(self, episode_id: str) -> None:
        """Say that a try is recorded. Raises: NodeLostError: the station is silent."""
        now_s = time.monotonic()
        if now_s - self._heard_s > SILENT_S:
            raise NodeLostError(f"{STATION} died or hangs: nothing heard of it for {SILENT_S:.0f} s")
        if now_s - self._beat_s >= BEAT_S:
            self._beat_s = now_s
            self._recording.publish(text_to_message(self._make, episode_id))

    def is_ready(self) -> bool:
        """Whether the operator's start holds."""
        return self.state is not None and self.state.phase == "ready"

    def called_off(self) -> NodeLostError:
        """The error of a try that the operator started and then stopped."""
        return NodeLostError(f"{STOPPED} before it began")

    def tell(self, content: Mapping[str, Any]) -> bool:
        """Whether the station says that it waits for its operator; prints for what."""
        waits = str(content.get("waiting", ""))
        if waits and waits != self._said:
            print(f"waiting for the operator: {waits}", flush=True)
        self._said = waits
        return bool(waits)

    def _on_state(self, message: Any) -> None:
        self._heard_s = time.monotonic()
        self.state = StationState.from_dict(json.loads(message.data))

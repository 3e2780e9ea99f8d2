"""Teleoperation: `/joy` to `/teleop/action`, while the take-over button is held; another button hands back.

The policy node sends what is asked for here, through its safety filter, in the place of what the policy asks for.
"""

import sys
from typing import Any

import numpy as np
import rclpy
from rclpy.node import Node
from std_srvs.srv import Trigger

from rollout_manager.exceptions import RolloutError
from rollout_manager.teleop import Presses, TeleopDrive, load_mapping
from vla_policy_node.commands import action_from_message, action_to_message
from vla_policy_node.exceptions import MessageError, PolicyNodeError
from vla_policy_node.messages import joints_from_message
from vla_policy_node.observation import Float64Array
from vla_policy_node.ros_node import declare, exit_process, message_class, rclpy_maker, run_node, settable, topic_qos
from vla_policy_node.spec import NANOSECONDS, load_spec
from vla_policy_node.topics import ACTION, JOINT_STATES, JOY, MESSAGE_TYPES, TELEOP_ACTION

PARAMETERS: dict[str, tuple[Any, str]] = {
    "robot": ("", "name in config/robots/, or the path of a robot's YAML file"),
    "mapping": ("", "name in config/teleop/, or the path of a YAML file: which axis moves what"),
    "driver_node": ("policy_node", "the node that commands the robot, and is handed back to"),
    "joy_within_s": (0.3, "how often /joy must be heard; else the button counts as let go"),
}
SENT_NS = NANOSECONDS // 2
"""Age up to which the last command says where the arm is; then its joints do."""


class TeleopNode:
    """The shell around a `TeleopDrive`."""

    def __init__(self) -> None:
        """Raises: PolicyNodeError, TeleopError: there is no such robot or mapping, or they do not fit."""
        self.node: Node = rclpy.create_node("teleop_node")
        declare(self.node, PARAMETERS)
        self._spec = load_spec(self._get("robot"))
        self._mapping = load_mapping(self._get("mapping"))
        self._drive = TeleopDrive(self._spec, self._mapping)
        self._presses = Presses({"hand back": self._mapping.hand_back_button})
        self._make = rclpy_maker()
        self._joy: tuple[int, Any] | None = None
        self._sent: tuple[int, Float64Array] | None = None
        self._measured: Float64Array | None = None
        self._stepped_ns = 0
        kind, qos = message_class(MESSAGE_TYPES[TELEOP_ACTION]), topic_qos(TELEOP_ACTION, lockstep=True)
        self._publisher = self.node.create_publisher(kind, TELEOP_ACTION, qos, qos_overriding_options=settable())
        for topic, callback in ((JOY, self._on_joy), (ACTION, self._on_action), (JOINT_STATES, self._on_joints)):
            reader = topic_qos(topic, lockstep=topic != JOINT_STATES)
            kind = message_class(MESSAGE_TYPES[topic])
            self.node.create_subscription(kind, topic, callback, reader, qos_overriding_options=settable())
        self._hand_back = self.node.create_client(Trigger, f"{self._get('driver_node')}/hand_back")
        self.node.create_timer(1 / self._spec.rate_hz, self._on_clock)

    def close(self) -> None:
        """Nothing is held beyond the node."""

    def _get(self, name: str) -> Any:
        return self.node.get_parameter(name).value

    def _on_joy(self, message: Any) -> None:
        self._joy = self._now(), message
        if self._presses.of(message.buttons) and self._hand_back.service_is_ready():
            self._hand_back.call_async(Trigger.Request()).add_done_callback(self._on_handed_back)

    def _on_handed_back(self, future: Any) -> None:
        self.node.get_logger().info(future.result().message)

    def _on_action(self, message: Any) -> None:
        try:
            self._sent = self._now(), action_from_message(self._spec, message)[1].astype(np.float64)
        except MessageError as error:
            self.node.get_logger().warning(f"{ACTION}: {error}", throttle_duration_sec=5.0)

    def _on_joints(self, message: Any) -> None:
        try:
            joints = joints_from_message(message)
        except MessageError as error:
            self.node.get_logger().warning(f"{JOINT_STATES}: {error}", throttle_duration_sec=5.0)
            return
        position = dict(zip(joints.names, joints.position.tolist(), strict=True))
        if all(d.joint in position for d in self._spec.action if d.joint):
            self._measured = np.array([position[d.joint] if d.joint else 0.0 for d in self._spec.action])

    def _on_clock(self) -> None:
        now_ns = self._now()
        seconds = min((now_ns - self._stepped_ns) / NANOSECONDS, 2 / self._spec.rate_hz)
        self._stepped_ns = now_ns
        fresh = self._joy is not None and now_ns - self._joy[0] <= self._get("joy_within_s") * NANOSECONDS
        at = self._at(now_ns)
        if self._joy is None or at is None or not fresh or not self._mapping.held(self._joy[1].buttons):
            self._drive.let_go()
            return
        joy = self._joy[1]
        action = self._drive.step(joy.axes, joy.buttons, at, seconds)
        self._publisher.publish(action_to_message(self._make, self._spec, now_ns, action))

    def _at(self, now_ns: int) -> Float64Array | None:
        """Where the arm is, (A,): by what was sent last, else as measured; None where neither is known."""
        if self._sent is not None and now_ns - self._sent[0] <= SENT_NS:
            return self._sent[1]
        return self._measured if any(d.joint for d in self._spec.action) else np.zeros(len(self._spec.action))

    def _now(self) -> int:
        return int(self.node.get_clock().now().nanoseconds)


def main() -> int:
    """Run the node until it is stopped; returns the exit status."""
    return run_node(TeleopNode, (RolloutError, PolicyNodeError))


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    exit_process(main())

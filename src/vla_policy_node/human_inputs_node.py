"""What a human who drives says to the policy node: `/teleop/action`, and `~/hand_back`."""

from typing import Any

from rclpy.node import Node
from std_srvs.srv import Trigger

from vla_policy_node.commands import action_from_message
from vla_policy_node.exceptions import MessageError, PolicyNodeError
from vla_policy_node.ros_node import message_class, settable, topic_qos
from vla_policy_node.spec import RobotSpec
from vla_policy_node.takeover import Takeover
from vla_policy_node.topics import MESSAGE_TYPES, TELEOP_ACTION


class HumanInputs:
    """Feeds a `Takeover` from the node's topics and services."""

    def __init__(self, node: Node, spec: RobotSpec, takeover: Takeover) -> None:
        self._node, self._spec, self._takeover = node, spec, takeover
        self._subscription = node.create_subscription(
            message_class(MESSAGE_TYPES[TELEOP_ACTION]),
            TELEOP_ACTION,
            self._on_action,
            topic_qos(TELEOP_ACTION, lockstep=True),
            qos_overriding_options=settable(),
        )
        self._service = node.create_service(Trigger, "~/hand_back", self._on_hand_back)

    def close(self) -> None:
        """Listen no more."""
        self._node.destroy_subscription(self._subscription)
        self._node.destroy_service(self._service)

    def _on_action(self, message: Any) -> None:
        try:
            _, action = action_from_message(self._spec, message)
        except MessageError as error:
            self._node.get_logger().warning(f"{TELEOP_ACTION}: {error}", throttle_duration_sec=5.0)
            return
        self._takeover.ask(self._now(), action)

    def _on_hand_back(self, request: Any, response: Any) -> Any:
        response.success, response.message = True, "the policy goes on"
        try:
            self._takeover.hand_back(self._now())
        except PolicyNodeError as error:
            response.success, response.message = False, str(error)
        return response

    def _now(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

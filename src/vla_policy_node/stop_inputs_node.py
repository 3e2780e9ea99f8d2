"""The topics that stop a robot, heard for a node: emergency stop, dead-man's switch, and joints that move."""

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from std_srvs.srv import Trigger

from vla_policy_node.exceptions import PolicyNodeError
from vla_policy_node.ros_node import message_class, settable, topic_qos
from vla_policy_node.spec import NANOSECONDS
from vla_policy_node.stopping import Standstill, StopConfig, StopLatch
from vla_policy_node.topics import ESTOP, JOY, MESSAGE_TYPES


class StopInputs:
    """Feeds a `StopLatch` and a `Standstill` from the node's topics, and says at once that something was heard."""

    def __init__(self, node: Node, heard: Callable[[], None], disable: Callable[[], None]) -> None:
        """
        Args:
            node: with the parameters of `policy_parameters.STOPS`.
            heard: called after each message.
            disable: called before a stop is cleared: what clears it sets nothing in motion.
        """
        self._node, self._heard, self._disable = node, heard, disable
        self._button: int = node.get_parameter("deadman_button").value
        within = {name: round(NANOSECONDS * node.get_parameter(f"{name}_within_s").value) for name in WITHIN}
        self.latch = StopLatch(StopConfig(within["estop"], self._button >= 0, within["deadman"]))
        self.standstill = Standstill(node.get_parameter("standstill").value)
        self._subscriptions = [self._listen(ESTOP, self._on_estop)]
        if self._button >= 0:
            self._subscriptions.append(self._listen(JOY, self._on_joy))
        self._service = node.create_service(Trigger, "~/clear_stop", self._on_clear)

    def close(self) -> None:
        """Listen no more."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._node.destroy_service(self._service)

    def reasons(self) -> tuple[str, ...]:
        """Why the robot must hold now; empty where nothing stops it."""
        return self.latch.reasons(self._now())

    def joints(self, message: Any) -> None:
        """A sensor_msgs/JointState was heard, used or not."""
        position = dict(zip(message.name, message.position, strict=False))
        self.standstill.see(self._now(), position, dict(zip(message.name, message.velocity, strict=False)))

    def clock_set(self, why: str) -> None:
        """The clock was set: a policy that drives is stopped."""
        self.latch.clock_set(self._now(), why)
        self.standstill.forget()
        self._heard()

    def start(self) -> None:
        """The policy is about to drive. Raises: PolicyNodeError: something stops it, or the arm moves."""
        self.standstill.check(self._now())
        self.latch.drive(self._now())

    def _on_clear(self, request: Any, response: Any) -> Any:
        """Forget what has stopped the robot, unless it still does."""
        self._disable()
        response.success, response.message = True, "cleared; enable the policy to go on"
        try:
            self.latch.clear(self._now())
        except PolicyNodeError as error:
            response.success, response.message = False, str(error)
        return response

    def _listen(self, topic: str, callback: Callable[[Any], None]) -> Any:
        qos = topic_qos(topic, lockstep=True)
        kind = message_class(MESSAGE_TYPES[topic])
        return self._node.create_subscription(kind, topic, callback, qos, qos_overriding_options=settable())

    def _on_estop(self, message: Any) -> None:
        self.latch.estop(self._now(), bool(message.data))
        self._heard()

    def _on_joy(self, message: Any) -> None:
        held = self._button < len(message.buttons) and message.buttons[self._button] == 1
        self.latch.deadman(self._now(), held)
        self._heard()

    def _now(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)


WITHIN = ("estop", "deadman")

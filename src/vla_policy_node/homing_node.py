"""`~/home` of the policy node: the one node that commands the robot also brings it home."""

from collections.abc import Callable, Sequence
from typing import Any

from rclpy.node import Node
from std_srvs.srv import Trigger

from vla_policy_node.control import Step
from vla_policy_node.exceptions import MessageError, PolicyNodeError
from vla_policy_node.homing import Homing, home_of
from vla_policy_node.messages import joints_from_message
from vla_policy_node.safety import SafetyFilter
from vla_policy_node.spec import NANOSECONDS, RobotSpec


class HomeService:
    """Answers at once whether the robot is on its way; `~/describe` says what came of it."""

    def __init__(self, node: Node, spec: RobotSpec, begin: Callable[[], SafetyFilter]) -> None:
        """Args: begin: takes hold of the robot, or raises PolicyNodeError where it must not be moved."""
        self._node, self._spec, self._begin = node, spec, begin
        self._homing: Homing | None = None
        self._service = node.create_service(Trigger, "~/home", self._on_home)

    def close(self) -> None:
        """Offer it no more."""
        self._node.destroy_service(self._service)

    @property
    def active(self) -> bool:
        """Whether the robot is on its way home."""
        return self._homing is not None and self._homing.state == "going"

    def cancel(self, reason: str) -> None:
        """Go no further; the robot is braked by whoever says so."""
        if self._homing is not None:
            self._homing.fail(reason)

    def joints(self, message: Any) -> None:
        """A sensor_msgs/JointState was heard."""
        if self._homing is not None and self.active:
            try:
                self._homing.joints(self._now(), joints_from_message(message))
            except MessageError as error:
                self._node.get_logger().warning(str(error), throttle_duration_sec=5.0)

    def tick(self, send: Callable[[Step], None], stopped: Sequence[str]) -> None:
        """Send the command for now. Args: stopped: why the robot must hold; empty where nothing stops it."""
        if self._homing is not None and (command := self._homing.step(self._now(), stopped)) is not None:
            send(Step(self._now(), command))

    def about(self) -> dict[str, str]:
        """`home`: never, going, home or failed; `home_reason`: why it failed."""
        if self._homing is None:
            return {"home": "never", "home_reason": ""}
        return {"home": self._homing.state, "home_reason": self._homing.reason}

    def _on_home(self, request: Any, response: Any) -> Any:
        timeout_ns = round(NANOSECONDS * self._node.get_parameter("home_timeout_s").value)
        response.success, response.message = True, "on its way home; ~/describe says when it is there"
        try:
            home_of(self._spec)  # Before anything is taken hold of.
            self._homing = Homing(self._spec, self._begin(), self._now(), timeout_ns)
        except PolicyNodeError as error:
            response.success, response.message = False, str(error)
        return response

    def _now(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

"""What an operator's station asks of whatever drives the robot: let go of it, and bring it home."""

import json
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from vla_policy_node.spec import NANOSECONDS

PATIENCE_NS = 5 * NANOSECONDS
"""How long a refusal is asked again: an arm may still be braking from the last try. Also for an answer to come."""
EVERY_NS = NANOSECONDS // 5


class DriverClient:
    """Asks without waiting: call `poll` now and then."""

    def __init__(self, node: Node, driver: str) -> None:
        """Args: driver: the node that commands the robot."""
        self._node, self._driver = node, driver
        self._enable = node.create_client(SetBool, f"{driver}/enable")
        self._home = node.create_client(Trigger, f"{driver}/home")
        self._describe = node.create_client(Trigger, f"{driver}/describe")
        self._arrived: Callable[[str], None] | None = None
        self._refused = ""
        self._under_way = False
        self._answer: Any = None
        self._asked_ns = self._since_ns = 0

    def disable(self) -> None:
        """Take the robot out of the driver's hands, now; also on its way home."""
        self._arrived = None
        if self._enable.service_is_ready():
            self._enable.call_async(SetBool.Request(data=False))

    def home(self, arrived: Callable[[str], None]) -> None:
        """Have the robot brought home. Args: arrived: is told why it is not there; empty where it is."""
        self._arrived, self._refused, self._under_way, self._answer = arrived, "", False, None
        self._since_ns, self._asked_ns = self._now(), 0

    def poll(self) -> None:
        """Ask what is to be asked now, and look at what was answered."""
        if self._arrived is None:
            return
        if self._answer is not None and self._answer.done():
            answer, self._answer = self._answer.result(), None
            self._take(answer)
        elif self._now() - self._since_ns > PATIENCE_NS:
            why = f"does not answer on ROS service {self._driver}/{'describe' if self._under_way else 'home'}"
            self._finish(self._refused or f"{self._driver} {why}")
        elif self._answer is None and self._now() - self._asked_ns >= EVERY_NS:
            self._ask()

    def _ask(self) -> None:
        client = self._describe if self._under_way else self._home
        if client.service_is_ready():
            self._asked_ns = self._now()
            self._answer = client.call_async(Trigger.Request())

    def _take(self, answer: Any) -> None:
        if not self._under_way:
            self._under_way, self._refused = answer.success, "" if answer.success else f"not home: {answer.message}"
            self._since_ns = self._now() if answer.success else self._since_ns
            return
        self._since_ns = self._now()
        about = json.loads(answer.message)
        if about["home"] != "going":
            self._finish("" if about["home"] == "home" else f"not home: {about['home_reason']}")

    def _finish(self, problem: str) -> None:
        arrived, self._arrived = self._arrived, None
        if arrived is not None:
            arrived(problem)

    def _now(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

"""A ROS 2 client for tests of nodes: calls services, sets parameters, publishes, and keeps what it receives."""

import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any

import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from vla_policy_node.ros_node import message_class, topic_qos


class Client:
    """One node in a context of its own; use as a context manager."""

    def __init__(self, domain: int) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node: Any = rclpy.create_node("test_client", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.received: dict[str, list[Any]] = defaultdict(list)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def listen(self, topic: str, kind: str, lockstep: bool = True) -> None:
        """Keep what comes on a topic in `received`."""
        take = partial(self._take, topic)
        self.node.create_subscription(message_class(kind), topic, take, topic_qos(topic, lockstep, depth=100))

    def publisher(self, topic: str, kind: str) -> Any:
        return self.node.create_publisher(message_class(kind), topic, topic_qos(topic, True))

    def until(self, what: Callable[[], bool], timeout_s: float = 30.0) -> None:
        """Spin until something is so; fails where that takes too long."""
        deadline = time.monotonic() + timeout_s
        while not what():
            assert time.monotonic() < deadline, "it did not happen in time"
            self._executor.spin_once(timeout_sec=0.02)

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.02)

    def switch(self, service: str, on: bool) -> Any:
        return self._call(SetBool, service, SetBool.Request(data=on))

    def trigger(self, service: str) -> Any:
        return self._call(Trigger, service, Trigger.Request())

    def set(self, node: str, **values: Any) -> list[str]:
        """Set parameters; the reasons of those that were refused."""
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        request = SetParameters.Request(parameters=parameters)
        answer = self._call(SetParameters, f"{node}/set_parameters", request)
        return [r.reason for r in answer.results if not r.successful]

    def _call(self, kind: Any, service: str, request: Any) -> Any:
        client = self.node.create_client(kind, service)
        self.until(client.service_is_ready)
        future = client.call_async(request)
        self.until(future.done)
        self.node.destroy_client(client)
        return future.result()

    def _take(self, topic: str, message: Any) -> None:
        self.received[topic].append(message)

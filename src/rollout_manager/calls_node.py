"""Service calls of the rollout manager, each with a time limit. It spins the executor itself while it waits."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from rollout_manager.try_runner import NodeLostError, RefusedError


class Calls:
    """Asks other nodes. A service is named `<node>/<service>`."""

    def __init__(self, node: Node, executor: Executor, patience_s: float) -> None:
        """Args: patience_s: how long an answer may take."""
        self._node, self._executor, self._patience_s = node, executor, patience_s
        self._clients: dict[str, Any] = {}

    def switch(self, service: str, on: bool) -> Mapping[str, Any]:
        """Call a std_srvs/SetBool; what its message holds as JSON. Raises: NodeLostError, RefusedError."""
        return self.call(service, SetBool, SetBool.Request(data=on))

    def call(self, service: str, kind: Any, request: Any) -> Mapping[str, Any]:
        """Call a service that answers success and message; the message's JSON. Raises: NodeLostError, RefusedError."""
        response = self.ask(service, kind, request, self._patience_s)
        if not response.success:
            raise RefusedError(f"{service}: {response.message}")
        return json.loads(response.message) if response.message.startswith("{") else {}

    def set(self, node: str, changes: Mapping[str, Any]) -> None:
        """Set parameters of a node. Raises: NodeLostError; RefusedError: with all that it refuses."""
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in changes.items()]
        request = SetParameters.Request(parameters=parameters)
        answer = self.ask(f"{node}/set_parameters", SetParameters, request, self._patience_s)
        refused = [
            f"{_describe(p)}: {r.reason}" for p, r in zip(parameters, answer.results, strict=True) if not r.successful
        ]
        if refused:
            raise RefusedError(f"{node} refuses {'; '.join(refused)}")

    def alive(self, node: str) -> bool:
        """Whether a node answers within a second."""
        request = GetParameters.Request(names=["use_sim_time"])
        try:
            self.ask(f"{node}/get_parameters", GetParameters, request, 1.0)
        except NodeLostError:
            return False
        return True

    def ask(self, service: str, kind: Any, request: Any, timeout_s: float) -> Any:
        """Call any service; its response. Raises: NodeLostError: it is not there, or does not answer in time."""
        client = self._clients.get(service)
        if client is None:
            client = self._clients[service] = self._node.create_client(kind, service)
        if not self.spin(client.service_is_ready, timeout_s):
            raise NodeLostError(f"service {service} is not there")
        future = client.call_async(request)
        self._executor.spin_until_future_complete(future, timeout_s)
        if not future.done():
            client.remove_pending_request(future)
            raise NodeLostError(f"{service.split('/')[0]} did not answer {service} within {timeout_s:.0f} s")
        return future.result()

    def spin(self, until: Callable[[], bool], timeout_s: float) -> bool:
        """Spin until something is so; False where it is not within the time."""
        deadline = time.monotonic() + timeout_s
        while not until():
            if time.monotonic() > deadline:
                return False
            self._executor.spin_once(timeout_sec=0.02)
        return True


def _describe(parameter: ParameterMessage) -> str:
    return f"{parameter.name} = {Parameter.from_parameter_msg(parameter).value!r}"

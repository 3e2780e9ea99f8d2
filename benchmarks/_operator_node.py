"""The operator in benchmarks of a policy node on the stand-in arm: instructs, enables, breaks, and clears."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from vla_policy_node.messages import text_to_message
from vla_policy_node.ros_node import message_class, rclpy_maker, topic_qos
from vla_policy_node.topics import ACTION, ESTOP, INSTRUCTION, MESSAGE_TYPES


class Caller:
    """One node; spins whenever it waits, calls services and publishes."""

    def __init__(self) -> None:
        self.node: Any = rclpy.create_node("bench_operator")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._clients: dict[str, Any] = {}

    def until(self, what: Callable[[], Any], seconds: float = 60.0) -> bool:
        """Spin until something is so; False where it is not within the time."""
        end = time.monotonic() + seconds
        while not what():
            if time.monotonic() > end:
                return False
            self._executor.spin_once(timeout_sec=0.02)
        return True

    def publisher(self, topic: str, kind: str) -> Any:
        """Publishes reliably."""
        return self.node.create_publisher(message_class(kind), topic, topic_qos(topic, True))

    def call(self, kind: Any, service: str, request: Any) -> Any:
        """A service's response. Raises: RuntimeError: it does not answer."""
        # One client a service: a node may answer before it has found a new one, whose answer is lost then.
        if service not in self._clients:
            self._clients[service] = self.node.create_client(kind, service)
        client = self._clients[service]
        self.until(client.service_is_ready)
        future = client.call_async(request)
        if not self.until(future.done):
            raise RuntimeError(f"{service} does not answer")
        return future.result()

    def set_parameters(self, node: str, values: Mapping[str, Any]) -> None:
        """Set parameters of a node. Raises: RuntimeError: it refuses one."""
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        answer = self.call(SetParameters, f"{node}/set_parameters", SetParameters.Request(parameters=parameters))
        if refused := [r.reason for r in answer.results if not r.successful]:
            raise RuntimeError(f"{node}: {refused[0]}")

    def close(self) -> None:
        """End the node."""
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()


class Operator(Caller):
    """Instructs a policy, puts the arm into its hands, and breaks things."""

    def __init__(self, instruction: str) -> None:
        """Waits for the policy node and instructs it."""
        super().__init__()
        self._make = rclpy_maker()
        self._estop, self._instruction = (self.publisher(t, MESSAGE_TYPES[t]) for t in (ESTOP, INSTRUCTION))
        self.until(lambda: self.node.count_publishers(ACTION) and self.node.count_subscribers(INSTRUCTION) >= 1)
        self.instruct(instruction)

    def instruct(self, instruction: str) -> None:
        """What the policy is to do from now on."""
        self._instruction.publish(text_to_message(self._make, instruction))

    def press(self, pressed: bool) -> None:
        """The emergency stop."""
        self._estop.publish(self._make(MESSAGE_TYPES[ESTOP], data=pressed))

    def set(self, **values: Any) -> None:
        """Parameters of the arm."""
        self.set_parameters("arm_node", values)

    def enable(self) -> None:
        """Clear a stop, and put the arm into the policy's hands as soon as it may be."""
        self.call(Trigger, "policy_node/clear_stop", Trigger.Request())
        request = SetBool.Request(data=True)
        self.until(lambda: self.call(SetBool, "policy_node/enable", request).success)

    def disable(self) -> None:
        """Take the arm out of the policy's hands."""
        self.call(SetBool, "policy_node/enable", SetBool.Request(data=False))

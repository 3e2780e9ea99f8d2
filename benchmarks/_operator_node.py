"""The operator in benchmarks of a policy node on the stand-in arm: instructs, enables, breaks, and clears."""

import time
from collections.abc import Callable
from typing import Any

import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from vla_policy_node.messages import text_to_message
from vla_policy_node.ros_node import message_class, rclpy_maker, topic_qos
from vla_policy_node.topics import ACTION, ESTOP, INSTRUCTION, MESSAGE_TYPES


class Operator:
    """One node; spins whenever it waits."""

    def __init__(self, instruction: str) -> None:
        """Waits for the policy node and instructs it."""
        self.node: Any = rclpy.create_node("bench_operator")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._make = rclpy_maker()
        self._estop = self._publisher(ESTOP)
        self._instruction = self._publisher(INSTRUCTION)
        self.until(lambda: self.node.count_publishers(ACTION) and self.node.count_subscribers(INSTRUCTION) >= 1)
        self.instruct(instruction)

    def until(self, what: Callable[[], Any], seconds: float = 60.0) -> bool:
        """Spin until something is so; False where it is not within the time."""
        end = time.monotonic() + seconds
        while not what():
            if time.monotonic() > end:
                return False
            self._executor.spin_once(timeout_sec=0.05)
        return True

    def instruct(self, instruction: str) -> None:
        """What the policy is to do from now on."""
        self._instruction.publish(text_to_message(self._make, instruction))

    def press(self, pressed: bool) -> None:
        """The emergency stop."""
        self._estop.publish(self._make(MESSAGE_TYPES[ESTOP], data=pressed))

    def set(self, **values: Any) -> None:
        """Parameters of the arm."""
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        self._call(SetParameters, "arm_node/set_parameters", SetParameters.Request(parameters=parameters))

    def enable(self) -> None:
        """Clear a stop, and put the arm into the policy's hands as soon as it may be."""
        self._call(Trigger, "policy_node/clear_stop", Trigger.Request())
        request = SetBool.Request(data=True)
        self.until(lambda: self._call(SetBool, "policy_node/enable", request).success)

    def disable(self) -> None:
        """Take the arm out of the policy's hands."""
        self._call(SetBool, "policy_node/enable", SetBool.Request(data=False))

    def close(self) -> None:
        """End the node."""
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()

    def _publisher(self, topic: str) -> Any:
        return self.node.create_publisher(message_class(MESSAGE_TYPES[topic]), topic, topic_qos(topic, True))

    def _call(self, kind: Any, service: str, request: Any) -> Any:
        client = self.node.create_client(kind, service)
        self.until(client.service_is_ready)
        future = client.call_async(request)
        self.until(future.done)
        self.node.destroy_client(client)
        return future.result()

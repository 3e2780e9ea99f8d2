"""The policy as a ROS 2 lifecycle node: camera, joint and pose messages in, action chunks and commands out."""

import json
import sys
from functools import partial
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from vla_policy_node.diagnostics import diagnostics_message
from vla_policy_node.driving_node import Driving
from vla_policy_node.exceptions import CheckpointError, PolicyNodeError
from vla_policy_node.inference import InferenceThread
from vla_policy_node.policy_loading import PolicySlot
from vla_policy_node.policy_parameters import CHOICES, FIXED, PARAMETERS, refusal
from vla_policy_node.ros_node import (
    ParameterError,
    check_choices,
    declare,
    exit_process,
    rclpy_maker,
    result,
    run_node,
    subscribers,
)
from vla_policy_node.spec import load_spec
from vla_policy_node.topics import ACTION, ACTION_CHUNK

SWITCH_S = 0.0005
"""How long one Python thread may keep the interpreter: at Python's 5 ms a tick would wait that long for the network."""


class PolicyNode(LifecycleNode):  # type: ignore[misc]
    """Parameters, services and life cycle; `Driving` does the rest."""

    def __init__(self) -> None:
        super().__init__("policy_node")
        declare(self, PARAMETERS)
        check_choices(self, CHOICES)
        self.failure = ""
        """Why it could not be configured."""
        self._thread = InferenceThread()
        self._slot: PolicySlot | None = None
        self._driving: Driving | None = None
        self._opened: list[Any] = []
        self._diagnosing: Any = None
        self.add_on_set_parameters_callback(self._on_parameters)

    @property
    def node(self) -> LifecycleNode:
        return self

    def close(self) -> None:
        """End the inference thread."""
        if self._driving is not None:
            self._driving.enabled = False
        self._thread.close()

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the robot's description, load the checkpoint, open the topics."""
        try:
            spec = load_spec(self._get("robot"))
            slot = PolicySlot(spec, self._get("device"))
            if path := self._get("checkpoint"):
                self._thread.submit(partial(slot.load, path)).result()
            self._driving, self._slot = Driving(self, spec, slot, self._thread), slot
        except PolicyNodeError as error:
            self.failure = str(error)
            self.get_logger().error(f"not configured: {error}")
            return TransitionCallbackReturn.FAILURE
        self._opened = [
            self.create_service(SetBool, "~/enable", partial(self._on_enable, self._driving)),
            self.create_service(Trigger, "~/describe", partial(self._on_describe, self._driving)),
        ]
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self._driving is not None
        self._driving.activate()
        tell = partial(self._publish_diagnostics, self._driving)
        self._diagnosing = self.create_timer(1.0, tell, clock=Clock(clock_type=ClockType.STEADY_TIME))
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self._driving is not None
        self._driving.deactivate()
        self.destroy_timer(self._diagnosing)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self._driving is not None
        self._driving.close()
        for service in self._opened:
            self.destroy_service(service)
        self._driving = self._slot = None
        return TransitionCallbackReturn.SUCCESS

    # Parameters and services

    def _get(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _on_parameters(self, changes: list[Parameter]) -> Any:
        for change in changes:
            if change.name in FIXED and self._slot is not None and change.value != self._get(change.name):
                return result(f"{change.name} is fixed while configured (now '{self._get(change.name)}')")
            if why := refusal(change.name, change.value):
                return result(why)
            if change.name == "checkpoint" and self._slot is not None:
                return self._load(self._slot, change.value)
        return result("")

    def _load(self, slot: PolicySlot, path: str) -> Any:
        if self._driving is not None and self._driving.enabled and self._get("mode") == "real_time":
            return result("the robot is under control: disable with ~/enable before another checkpoint is loaded")
        try:
            self._thread.submit(partial(slot.load, path)).result()
        except PolicyNodeError as error:
            self.get_logger().error(f"checkpoint refused, '{slot.digest or 'none'}' stays: {error}")
            return result(str(error))
        return result("")

    def _on_describe(self, driving: Driving, request: Any, response: Any) -> Any:
        response.success, response.message = True, json.dumps(driving.about())
        return response

    def _on_enable(self, driving: Driving, request: Any, response: Any) -> Any:
        driving.disable()
        response.success, response.message = True, "disabled"
        if not request.data:
            return response
        try:
            digest = driving.enable()
        except PolicyNodeError as error:
            driving.disable()
            response.success, response.message = False, str(error)
            return response
        listeners = {topic: subscribers(self, topic) for topic in (ACTION, ACTION_CHUNK)}
        response.message = json.dumps({"checkpoint_digest": digest, "listeners": listeners})
        return response

    def _publish_diagnostics(self, driving: Driving) -> None:
        now_ns = int(self.get_clock().now().nanoseconds)
        message = diagnostics_message(rclpy_maker(), self.get_name(), now_ns, driving.statuses())
        driving.topics.diagnose(message)


def build() -> PolicyNode:
    """The node, configured and active where `autostart` says so. Raises: CheckpointError: it cannot be."""
    node = PolicyNode()
    if node.get_parameter("autostart").value:
        success = TransitionCallbackReturn.SUCCESS
        if node.trigger_configure() != success or node.trigger_activate() != success:
            raise CheckpointError(f"policy_node: {node.failure or 'cannot be activated'}")
    return node


def main() -> int:
    """Run the node until it is stopped; returns the exit status."""
    sys.setswitchinterval(SWITCH_S)
    return run_node(build, (PolicyNodeError, ParameterError))


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    exit_process(main())

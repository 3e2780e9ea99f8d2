"""A scripted expert in the place of the policy node: the same topics and services, driven by privileged state."""

import json
import math
import sys
from dataclasses import replace
from functools import partial
from typing import Any

import rclpy
from rclpy.node import Node
from std_srvs.srv import SetBool

from rollout_manager.exceptions import RolloutError
from rollout_manager.experts.demonstrator import Demonstrator
from rollout_manager.experts.expert import EXPERTS, expert_noise, make_expert
from rollout_manager.simulation import state_stamp
from vla_policy_node.commands import action_to_message, chunk_to_message
from vla_policy_node.end_effector import make_safety_filter
from vla_policy_node.exceptions import PolicyNodeError
from vla_policy_node.messages import vector_from_message
from vla_policy_node.policy import ActionChunk
from vla_policy_node.ros_node import (
    check_choices,
    declare,
    exit_process,
    message_class,
    rclpy_maker,
    result,
    run_node,
    settable,
    subscribers,
    topic_qos,
)
from vla_policy_node.spec import load_spec
from vla_policy_node.topics import ACTION, ACTION_CHUNK, MESSAGE_TYPES, PRIVILEGED_STATE

PARAMETERS: dict[str, tuple[Any, str]] = {
    "environment": ("metaworld", "whose expert"),
    "robot": ("", "name in config/robots/, or the path of a robot's YAML file; empty: the environment's own"),
    "task": ("", "task of the next episode; taken up by ~/enable"),
    "seed": (0, "initial state of the next episode"),
    "episode_seed": (0, "fixes all that is random in the next episode; taken up by ~/enable"),
    "exploration": (0.0, "noise on what is sent, as a share of half the action range; what is proposed stays clean"),
    "noise_correlation": (0.0, "correlation of the noise from one step to the next, in [0, 1)"),
    "slips": (0.0, "share of the episodes in which a grasp is made to miss, so that the way back is shown"),
    "pushes": (0.0, "chance at each step that the hand is pushed aside, so that the way back is shown"),
    "start_stamp_ns": (0, "states stamped earlier belong to an earlier episode and are passed over"),
}


class ExpertNode:
    """Answers every privileged state with what the expert would do (the label) and what is sent (with noise)."""

    def __init__(self) -> None:
        """Raises: RolloutError or PolicyNodeError: a parameter is not valid."""
        self.node: Node = rclpy.create_node("expert_node")
        declare(self.node, PARAMETERS)
        check_choices(self.node, {"environment": tuple(EXPERTS)})
        self._spec = load_spec(self._get("robot") or self._get("environment"))
        self._expert = make_expert(self._get("environment"))
        # The expert keeps the motion limits itself, and sends here what it sends in process.
        free = partial(replace, velocity=math.inf, acceleration=math.inf, jerk=math.inf, lead=math.inf)
        self._safety = make_safety_filter(
            replace(self._spec, action=tuple(map(free, self._spec.action)), workspace=None)
        )
        self._make = rclpy_maker()
        self._enabled = False
        self._answered = -1
        self._action, self._chunk = (self._publisher(topic) for topic in (ACTION, ACTION_CHUNK))
        self.node.create_subscription(
            message_class(MESSAGE_TYPES[PRIVILEGED_STATE]),
            PRIVILEGED_STATE,
            self._on_state,
            topic_qos(PRIVILEGED_STATE, lockstep=True),
            qos_overriding_options=settable(),
        )
        self.node.create_service(SetBool, "~/enable", self._on_enable)
        self.node.add_on_set_parameters_callback(self._on_parameters)

    def close(self) -> None:
        """Nothing is held beyond the node."""
        self._enabled = False

    def _get(self, name: str) -> Any:
        return self.node.get_parameter(name).value

    def _publisher(self, topic: str) -> Any:
        qos = topic_qos(topic, lockstep=True)
        kind = message_class(MESSAGE_TYPES[topic])
        return self.node.create_publisher(kind, topic, qos, qos_overriding_options=settable())

    def _on_parameters(self, changes: list[Any]) -> Any:
        for change in changes:
            if change.name in ("environment", "robot") and change.value != self._get(change.name):
                return result(f"{change.name} is fixed when the node starts (now '{self._get(change.name)}')")
            if change.name == "exploration" and not 0.0 <= change.value <= 2.0:
                return result(f"exploration {change.value} is not in [0, 2]")
        return result("")

    def _on_enable(self, request: Any, response: Any) -> Any:
        self._enabled = False
        response.success, response.message = True, "disabled"
        if not request.data:
            return response
        try:
            noise = expert_noise(
                self._get("environment"), self._spec, self._get("exploration"), self._get("noise_correlation")
            )
            self._demonstrator = Demonstrator(self._expert, self._spec, noise, self._get("slips"), self._get("pushes"))
            self._demonstrator.reset(self._get("task"), self._get("seed"), self._get("episode_seed"))
        except RolloutError as error:
            response.success, response.message = False, str(error)
            return response
        self._safety.reset()
        self._answered = self._get("start_stamp_ns") - 1
        self._enabled = True
        listeners = {topic: subscribers(self.node, topic) for topic in (ACTION, ACTION_CHUNK)}
        response.message = json.dumps({"checkpoint_digest": "", "listeners": listeners})
        return response

    def _on_state(self, message: Any) -> None:
        if not self._enabled:
            return
        try:
            stamp_ns = state_stamp(message)
            if stamp_ns <= self._answered:
                return
            shown = self._demonstrator.step(vector_from_message(message))
        except RolloutError as error:
            self._enabled = False
            self.node.get_logger().error(f"disabled: {error}")
            return
        self._answered = stamp_ns
        command = self._safety.check(shown.action)
        if shown.lesson is not None:
            chunk = ActionChunk(stamp_ns, shown.lesson[None])
            self._chunk.publish(chunk_to_message(self._make, self._spec, chunk))
        self._action.publish(action_to_message(self._make, self._spec, stamp_ns, command.action))


def main() -> int:
    """Run the node until it is stopped; returns the exit status."""
    return run_node(ExpertNode, (RolloutError, PolicyNodeError))


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    exit_process(main())

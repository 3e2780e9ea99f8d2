"""A simulated arm with the topics of a real one, in lockstep with whoever commands it or in real time."""

import json
import sys
import time
from typing import Any

import rclpy
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from rollout_manager.env import Env
from rollout_manager.envs.registry import ENVIRONMENTS, make_env
from rollout_manager.episode import Outcome
from rollout_manager.exceptions import RolloutError, SimulatorError
from rollout_manager.simulation import TRY_PARAMETERS, WHICH_TRY, Simulation, outcome_text, refusal, state_to_message
from vla_policy_node.commands import action_from_message
from vla_policy_node.end_effector import make_safety_filter
from vla_policy_node.exceptions import MessageError, PolicyNodeError
from vla_policy_node.messages import readings_to_messages, text_to_message
from vla_policy_node.observation import Float32Array, proprioception_of
from vla_policy_node.ros_node import (
    check_choices,
    declare,
    exit_process,
    message_class,
    publishers,
    rclpy_maker,
    result,
    run_node,
    settable,
    subscribers,
    topic_qos,
)
from vla_policy_node.spec import NANOSECONDS, load_spec
from vla_policy_node.topics import (
    ACTION,
    CAMERA_TYPES,
    EE_POSE,
    HUMAN_ACTION,
    JOINT_STATES,
    MESSAGE_TYPES,
    OUTCOME,
    PRIVILEGED_STATE,
)

PARAMETERS: dict[str, tuple[Any, str]] = {
    "environment": ("metaworld", "which simulator"),
    "robot": ("", "name in config/robots/, or the path of a robot's YAML file; empty: the environment's own"),
    "rules": ("", "YAML file of success rules; empty: the simulator's own"),
    "mode": ("lockstep", "lockstep: a step for every command; real_time: a step every period"),
    **TRY_PARAMETERS,
    "command_timeout_s": (0.5, "real time: age after which a command counts for nothing and the arm holds"),
}
UNNAMED = "UNKNOWN"
DISCOVERY_S = 2.0
"""Time in which nodes that run already make themselves known."""


class SimNode:
    """Publishes what the simulated arm senses, and moves it as `/action` says."""

    def __init__(self) -> None:
        """Raises: RolloutError or PolicyNodeError: a parameter is not valid, or another robot is on this domain."""
        self.node: Node = rclpy.create_node("sim_node")
        declare(self.node, PARAMETERS)
        check_choices(self.node, {"mode": ("lockstep", "real_time"), "environment": tuple(ENVIRONMENTS)})
        self._lockstep = self._get("mode") == "lockstep"
        started = time.monotonic()
        spec = load_spec(self._get("robot") or self._get("environment"))
        self._env: Env = make_env(self._get("environment"), spec, self._get("rules"))
        self._simulation = Simulation(self._env) if self._lockstep else Simulation(self._env, apart_ns=0)
        self._refuse_second(started)
        self._make = rclpy_maker()
        self._publishers = {topic: self._publisher(topic, kind) for topic, kind in self._topics().items()}
        qos = topic_qos(ACTION, self._lockstep)
        if not self._lockstep:  # Where it waits for each command, no human drives.
            kind = message_class(MESSAGE_TYPES[HUMAN_ACTION])
            self.node.create_subscription(kind, HUMAN_ACTION, self._on_human, qos)
        self._subscription = self.node.create_subscription(
            message_class(MESSAGE_TYPES[ACTION]), ACTION, self._on_action, qos, qos_overriding_options=settable()
        )
        self.node.create_service(Trigger, "~/reset", self._on_reset)
        self.node.create_service(SetBool, "~/run", self._on_run)
        self.node.add_on_set_parameters_callback(self._on_parameters)
        self._running = False
        self._published_ns = 0
        self._safety = make_safety_filter(self._env.spec)
        self._command: tuple[int, Float32Array] | None = None
        if not self._lockstep:
            self.node.create_timer(self._env.spec.period_ns / NANOSECONDS, self._on_period)

    def close(self) -> None:
        """Free the simulator."""
        self._env.close()

    def _get(self, name: str) -> Any:
        return self.node.get_parameter(name).value

    def _topics(self) -> dict[str, str]:
        """All that a simulated robot publishes, used by the policy or not."""
        cameras = {c.topic: CAMERA_TYPES[c.transport] for c in self._env.spec.cameras}
        return cameras | {t: MESSAGE_TYPES[t] for t in (JOINT_STATES, EE_POSE, PRIVILEGED_STATE, OUTCOME)}

    def _publisher(self, topic: str, type_name: str) -> Any:
        qos = topic_qos(topic, lockstep=True)
        return self.node.create_publisher(message_class(type_name), topic, qos, qos_overriding_options=settable())

    def _refuse_second(self, started: float) -> None:
        """Two robots on one domain would both move to one command. Raises: SimulatorError: there is one."""
        topics = [JOINT_STATES, *(camera.topic for camera in self._env.spec.cameras)]
        while True:
            over = time.monotonic() - started >= DISCOVERY_S
            for topic in topics:
                others = publishers(self.node, topic)
                # A node's name arrives a little later than its topics.
                if others and (over or not any(UNNAMED in name for name in others)):
                    raise SimulatorError(
                        f"'{topic}' is published already, by {', '.join(others)}: another robot or simulator is on "
                        "this ROS_DOMAIN_ID; stop it or choose another domain"
                    )
            if over:
                return
            time.sleep(0.02)

    def _on_parameters(self, changes: list[Any]) -> Any:
        for change in changes:
            if change.name in ("environment", "robot", "rules", "mode") and change.value != self._get(change.name):
                return result(f"{change.name} is fixed when the node starts (now '{self._get(change.name)}')")
            if reason := refusal(self._env, change.name, change.value):
                return result(reason)
        return result("")

    def _on_reset(self, request: Any, response: Any) -> Any:
        self._running = False
        self._command = None
        self._safety.reset()
        try:
            self._refuse_rival()
            info = self._simulation.reset(
                self._get("task"), self._get("seed"), self._get("time_limit_steps"), self._now()
            )
        except RolloutError as error:
            response.success, response.message = False, str(error)
            return response
        listeners = {topic: subscribers(self.node, topic) for topic in self._publishers}
        response.success, response.message = True, json.dumps({**info.to_dict(), "listeners": listeners})
        return response

    def _refuse_rival(self) -> None:
        others = publishers(self.node, JOINT_STATES)
        if len(others) > 1:
            raise SimulatorError(f"'{JOINT_STATES}' has {len(others)} publishers ({', '.join(others)}), not only this")

    def _on_run(self, request: Any, response: Any) -> Any:
        if request.data and not self._simulation.running:
            response.success, response.message = False, "no try is set up; call ~/reset first"
            return response
        if not request.data and self._running and self._simulation.outcome is not None:
            self._publish_observation()  # The last one: what the last action led to.
        response.success, response.message = True, json.dumps({"stamp_ns": self._published_ns})
        started = request.data and not self._running
        self._running = bool(request.data)
        if started:
            self._publish_observation()
        return response

    def _on_action(self, message: Any) -> None:
        if not self._running or not self._simulation.running:
            return
        try:
            stamp_ns, action = action_from_message(self._env.spec, message)
        except MessageError as error:
            self._end(self._simulation.abort(f"{ACTION}: {error}"))
            return
        if not self._lockstep:
            self._command = (self._now(), action)
        elif stamp_ns == self._simulation.stamp_ns:
            self._step(action)

    def _on_human(self, message: Any) -> None:
        if self._running:
            self._simulation.human_asked()

    def _on_period(self) -> None:
        if not self._running or not self._simulation.running:
            return
        limit_ns = self._get("command_timeout_s") * NANOSECONDS
        fresh = self._command is not None and self._now() - self._command[0] <= limit_ns
        action = self._command[1] if fresh and self._command is not None else None
        reasons = () if fresh else ("no fresh command",)
        self._step(self._safety.check(action, reasons, self._proprioception()).action)

    def _proprioception(self) -> Float32Array | None:
        """Where a robot commanded by position stands; None for others."""
        if not self._safety.watches_joints:
            return None
        readings = self._env.read(cameras=False)
        return proprioception_of(self._env.spec, readings.joints, readings.ee_pose)

    def _step(self, action: Float32Array) -> None:
        try:
            outcome = self._simulation.apply(action)
        except SimulatorError as error:
            outcome = self._simulation.abort(f"simulator: {error}")
        if outcome is None:
            self._publish_observation()
        else:
            self._end(outcome)

    def _end(self, outcome: Outcome) -> None:
        about = {name: self._get(name) for name in WHICH_TRY}
        self._publishers[OUTCOME].publish(text_to_message(self._make, outcome_text(about, outcome)))

    def _publish_observation(self) -> None:
        """Everything the arm senses, all with one stamp; the policy's own topics come last."""
        stamp_ns = self._simulation.stamp_ns if self._lockstep else self._now()
        self._published_ns = stamp_ns
        readings = self._simulation.read()
        state = state_to_message(self._make, stamp_ns, self._env.privileged_state())
        self._publishers[PRIVILEGED_STATE].publish(state)
        for topic, _, message in readings_to_messages(self._make, self._env.spec, readings, stamp_ns):
            self._publishers[topic].publish(message)

    def _now(self) -> int:
        return int(self.node.get_clock().now().nanoseconds)


def main() -> int:
    """Run the node until it is stopped; returns the exit status."""
    return run_node(SimNode, (RolloutError, PolicyNodeError))


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    exit_process(main())

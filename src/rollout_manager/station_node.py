"""The operator's station of a physical arm: to the rollout manager what `sim_node` is for a simulated one.

It answers `~/reset` and `~/run` and publishes `/episode/outcome` as `sim_node` does; the operator says what a simulator
knows by itself, with `~/home`, `~/start`, `~/success`, `~/failure`, `~/discard` and `~/stop`.
"""

import json
import sys
from functools import partial
from typing import Any, get_args

import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from rollout_manager.driver_client_node import DriverClient
from rollout_manager.exceptions import RolloutError
from rollout_manager.schedule import ROBOT
from rollout_manager.simulation import WHICH_TRY, TaskInfo, outcome_text
from rollout_manager.station import Station, StationError, StationState, TryRequest, Verdict
from rollout_manager.teleop import Presses
from vla_policy_node.exceptions import PolicyNodeError
from vla_policy_node.messages import observation_topics, stamp_of, text_from_message, text_to_message
from vla_policy_node.ros_node import (
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
from vla_policy_node.spec import NANOSECONDS, load_spec
from vla_policy_node.topics import ACTION, HUMAN_ACTION, JOY, MESSAGE_TYPES, OUTCOME, RECORDING, STATION_STATE

WORDS = ("home", "start", *get_args(Verdict))
"""What an operator can say: a service each, and a button of a gamepad."""

PARAMETERS: dict[str, tuple[Any, str]] = {
    "robot": ("", "name in config/robots/, or the path of a robot's YAML file"),
    "driver_node": ("policy_node", "the node that commands the robot, and brings it home"),
    "home": (True, "bring the arm home before every try, where the robot's file has a home"),
    "time_limit_s": (60.0, "time after which a try is truncated, where the schedule gives no limit of its own"),
    "operator": ("operator", "author of the labels"),
    "note": ("", "what is to be remembered of the try; goes with the verdict that follows"),
    "task": ("", "task of the try that is asked for"),
    "instruction": ("", "what the robot is told; may be given anew until the try starts"),
    "seed": (0, "number of the scene's initial state"),
    "time_limit_steps": (0, "steps after which the try is truncated; 0: as time_limit_s says"),
    "episode_id": ("", "name of the try, told again with its outcome"),
    "attempt": (0, "which try from this initial state it is, told again with its outcome"),
    **{f"joy_{word}": (-1, f"button of /joy that says {word}; -1: none") for word in WORDS},
}
TICK_S = 0.05
TELL_NS = NANOSECONDS // 5


class StationNode:
    """The shell around a `Station`: services and topics in, effects out."""

    def __init__(self) -> None:
        """Raises: PolicyNodeError: there is no such robot."""
        self.node: Node = rclpy.create_node("station_node")
        declare(self.node, PARAMETERS)
        self._spec = load_spec(self._get("robot"))
        self._make = rclpy_maker()
        self._station = Station(homes=bool(self._spec.home) and self._get("home"))
        self._driver = DriverClient(self.node, self._get("driver_node"))
        self._presses = Presses({word: self._get(f"joy_{word}") for word in WORDS})
        self._last_stamp = 0
        self._told: tuple[int, StationState | None] = 0, None
        self._publishers = {topic: self._publisher(topic) for topic in (OUTCOME, STATION_STATE)}
        for topic, callback in (
            (ACTION, self._on_action),
            (HUMAN_ACTION, lambda message: self._station.count(human=True)),
            (RECORDING, self._on_recording),
            (JOY, self._on_joy),
        ):
            kind = message_class(MESSAGE_TYPES[topic])
            qos = topic_qos(topic, lockstep=True)
            self.node.create_subscription(kind, topic, callback, qos, qos_overriding_options=settable())
        self.node.create_service(Trigger, "~/reset", self._on_reset)
        self.node.create_service(SetBool, "~/run", self._on_run)
        for word in WORDS:
            self.node.create_service(Trigger, f"~/{word}", partial(self._on_word, word))
        self.node.add_on_set_parameters_callback(self._on_parameters)
        self.node.create_timer(TICK_S, self._on_clock)

    def close(self) -> None:
        """Nothing is held beyond the node."""

    def _get(self, name: str) -> Any:
        return self.node.get_parameter(name).value

    def _publisher(self, topic: str) -> Any:
        kind, qos = message_class(MESSAGE_TYPES[topic]), topic_qos(topic, lockstep=True)
        return self.node.create_publisher(kind, topic, qos, qos_overriding_options=settable())

    def _on_parameters(self, changes: list[Any]) -> Any:
        for change in changes:
            if change.name in ("robot", "driver_node", "home") and change.value != self._get(change.name):
                return result(f"{change.name} is fixed when the node starts (now '{self._get(change.name)}')")
            if change.name in ("seed", "time_limit_steps", "time_limit_s") and change.value < 0:
                return result(f"{change.name} {change.value} is negative")
        return result("")

    # The rollout manager

    def _on_reset(self, request: Any, response: Any) -> Any:
        waits = self._station.ask(self._request(), self._now())
        self._carry_out()
        listeners = {topic: subscribers(self.node, topic) for topic in observation_topics(self._spec)}
        content: dict[str, Any] = {"waiting": waits} if waits else self._info().to_dict()
        response.success, response.message = True, json.dumps({**content, "listeners": listeners})
        return response

    def _request(self) -> TryRequest:
        about = {name: self._get(name) for name in WHICH_TRY}
        return TryRequest(**about, limit_ns=self._limit_steps() * self._spec.period_ns)

    def _limit_steps(self) -> int:
        return int(self._get("time_limit_steps") or round(self._get("time_limit_s") * self._spec.rate_hz))

    def _info(self) -> TaskInfo:
        task, spec = self._get("task"), self._spec
        return TaskInfo(
            ROBOT, task, self._get("instruction") or task, self._get("seed"), spec.name, spec.digest,
            self._limit_steps(), self._now(),
        )  # fmt: skip

    def _on_run(self, request: Any, response: Any) -> Any:
        self._station.run(self._now()) if request.data else self._station.rest(self._now())
        self._carry_out()
        # All streams have got as far as the observation that the last command answers.
        response.success, response.message = True, json.dumps({"stamp_ns": self._last_stamp})
        return response

    def _on_recording(self, message: Any) -> None:
        if text_from_message(message) == self._get("episode_id"):
            self._station.heard(self._now())

    def _on_action(self, message: Any) -> None:
        self._last_stamp = stamp_of(message)
        self._station.count()

    # The operator

    def _on_word(self, word: str, request: Any, response: Any) -> Any:
        response.success, response.message = True, ""
        try:
            self._say(word)
        except StationError as error:
            response.success, response.message = False, str(error)
        else:
            response.message = self._station.prompt
        return response

    def _on_joy(self, message: Any) -> None:
        for word in self._presses.of(message.buttons):
            try:
                self._say(word)
            except StationError as error:
                self.node.get_logger().warning(f"{word}: {error}")

    def _say(self, word: str) -> None:
        """Raises: StationError: it makes no sense now."""
        now_ns = self._now()
        if word == "home":
            self._station.home(now_ns)
        elif word == "start":
            self._station.start(now_ns)
        else:
            self._station.say(word, now_ns, self._get("note"))  # type: ignore[arg-type]
            self.node.set_parameters([Parameter("note", value="")])
        self._carry_out()

    # Time and effects

    def _on_clock(self) -> None:
        self._driver.poll()
        self._station.tick(self._now())
        self._carry_out()

    def _carry_out(self) -> None:
        for effect in self._station.take_effects():
            if effect == "disable":
                self._driver.disable()
            elif effect == "home":
                self._driver.home(self._on_homed)
            else:
                self._tell_outcome()
        self._tell()

    def _on_homed(self, problem: str) -> None:
        self._station.homed(problem, self._now())

    def _tell_outcome(self) -> None:
        outcome = self._station.outcome
        assert outcome is not None
        about = {name: self._get(name) for name in WHICH_TRY} | {"author": self._get("operator")}
        self._publishers[OUTCOME].publish(text_to_message(self._make, outcome_text(about, outcome)))

    def _tell(self) -> None:
        """The state, at once when its phase or prompt changes."""
        now_ns = self._now()
        state = self._station.state(now_ns, self._get("instruction") or self._get("task"))
        then_ns, before = self._told
        new = before is None or (before.phase, before.prompt) != (state.phase, state.prompt)
        if new or now_ns - then_ns >= TELL_NS:
            self._told = now_ns, state
            self._publishers[STATION_STATE].publish(text_to_message(self._make, json.dumps(state.to_dict())))
        if new:
            self.node.get_logger().info(f"[{state.phase}] {state.task} seed {state.seed}: {state.prompt}")

    def _now(self) -> int:
        return int(self.node.get_clock().now().nanoseconds)


def main() -> int:
    """Run the node until it is stopped; returns the exit status."""
    return run_node(StationNode, (RolloutError, PolicyNodeError))


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    exit_process(main())

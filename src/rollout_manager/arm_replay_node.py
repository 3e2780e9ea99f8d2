"""Sends a recording to a live arm, and to nothing that somebody else commands."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from rollout_manager.arm_replay import ArmRecording, ArmReplay, ArmReplayConfig, ArmReplayReport
from rollout_manager.exceptions import GraphError
from vla_policy_node.command_messages import COMMAND_TYPES
from vla_policy_node.control import Step
from vla_policy_node.exceptions import PolicyNodeError
from vla_policy_node.messages import joints_from_message
from vla_policy_node.observation import Joints
from vla_policy_node.policy_output import PolicyOutput
from vla_policy_node.policy_parameters import PARAMETERS, STOPS
from vla_policy_node.ros_node import declare, message_class, publishers, rclpy_maker, topic_qos
from vla_policy_node.spec import NANOSECONDS, RobotSpec
from vla_policy_node.stop_inputs_node import StopInputs
from vla_policy_node.topics import ACTION, JOINT_STATES, MESSAGE_TYPES

DISCOVERY_S = 4.0
"""How long nobody new may have been found before anything is sent.

Fast DDS announces a process every 3 s, so one whose first announcements were lost is heard of within that.
"""
LONGEST_DISCOVERY_S = 30.0
"""Where nodes come and go all the time, what is known by then has to do."""
POLICIES = ("policy_node", "expert_node")
LOOK_EVERY_NS = NANOSECONDS
"""Between two looks for somebody else who commands the arm."""


def replay_into_arm(
    recording: ArmRecording,
    spec: RobotSpec,
    config: ArmReplayConfig,
    stops: dict[str, Any] | None = None,
    tell: Callable[[str], None] = lambda phase: None,
) -> ArmReplayReport:
    """Play a recording on the arm of this ROS domain; Ctrl-C and SIGTERM brake it.

    Args:
        stops: values of `policy_parameters.STOPS` that are not their defaults: e-stop and dead-man's switch.
        tell: is told what begins.

    Raises:
        GraphError: somebody else commands the arm, nobody takes commands, or no joint states are heard.
        BagError: the arm is too far from where the recording began.
        PolicyNodeError: the robot is stopped.
    """
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = Node("replay_arm_node")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        declare(node, {name: PARAMETERS[name] for name in STOPS})
        node.set_parameters([rclpy.parameter.Parameter(n, value=v) for n, v in (stops or {}).items()])
        return _Player(node, executor, spec, ArmReplay(recording, spec, config), tell).play()
    finally:
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        rclpy.try_shutdown()


class _Player:
    def __init__(
        self,
        node: Node,
        executor: SingleThreadedExecutor,
        spec: RobotSpec,
        replay: ArmReplay,
        tell: Callable[[str], None],
    ) -> None:
        self._node, self._executor, self._spec, self._replay, self._tell = node, executor, spec, replay, tell
        self._heard: tuple[int, Joints] | None = None
        self._stops = StopInputs(node, lambda: None, lambda: None)
        node.create_subscription(
            message_class(MESSAGE_TYPES[JOINT_STATES]), JOINT_STATES, self._on_joints, topic_qos(JOINT_STATES, False)
        )

    def play(self) -> ArmReplayReport:
        """See `replay_into_arm`."""
        self._find_the_arm()
        assert self._heard is not None
        self._replay.check_start(self._heard[1])
        self._stops.start()
        output = self._open()
        with _interrupts() as interrupted:
            self._run(output, interrupted)
        return self._replay.report

    def _find_the_arm(self) -> None:
        """Raises: GraphError: it is not there, or it is in other hands."""
        if others := self._look_around():
            raise GraphError(f"{others}; stop that first: only one may command an arm")
        deaf = [c.topic for c in self._spec.commands if not self._node.count_subscribers(c.topic)]
        if deaf or not self._spec.commands:
            raise GraphError(f"nobody takes commands on {', '.join(deaf) or 'any topic: the robot names none'}")
        if self._heard is None:
            raise GraphError(
                f"nothing was heard on {JOINT_STATES} in {DISCOVERY_S:g} s: it is not known where the arm is"
            )

    def _look_around(self) -> str:
        """`_rivals`, once nobody new has been found for a while: a publisher is heard of before its node's name is."""
        now = time.monotonic()
        gives_up, still_until, known = now + LONGEST_DISCOVERY_S, now + DISCOVERY_S, set[str]()
        while time.monotonic() < min(still_until, gives_up):
            self._spin(0.1)
            if (names := set(self._node.get_node_names())) - known:
                known |= names
                still_until = time.monotonic() + DISCOVERY_S
        return self._rivals()

    def _rivals(self) -> str:
        """Who else commands this arm, or is there to do so; empty where nobody is."""
        if policies := [name for name in self._node.get_node_names() if name in POLICIES]:
            return f"{' and '.join(sorted(set(policies)))} is on this ROS domain"
        for topic in (ACTION, *(command.topic for command in self._spec.commands)):
            if others := [name for name in publishers(self._node, topic) if name != self._node.get_name()]:
                return f"'{topic}' is published by {', '.join(others)}"
        return ""

    def _open(self) -> PolicyOutput:
        def publisher(topic: str, kind: str) -> Any:
            return self._node.create_publisher(message_class(kind), topic, topic_qos(ACTION, True)).publish

        controllers = [(c, publisher(c.topic, COMMAND_TYPES[c.kind])) for c in self._spec.commands]
        action = publisher(ACTION, MESSAGE_TYPES[ACTION])
        make = rclpy_maker()
        return PolicyOutput(make, self._spec, action, lambda chunk: None, False, controllers, self._now)

    def _run(self, output: PolicyOutput, interrupted: list[str]) -> None:
        """Tick at the robot's rate until all is over, and the arm at rest."""
        period_s, due = self._spec.period_ns / NANOSECONDS, time.monotonic()
        looked_ns, rivals, said = self._now(), "", ""
        while True:
            if self._replay.phase != said:
                said = self._replay.phase
                self._tell(said)
            now_ns = self._now()
            if now_ns - looked_ns > LOOK_EVERY_NS:
                looked_ns, rivals = now_ns, self._rivals()
            assert self._heard is not None
            stopped = (*self._stops.reasons(), *interrupted, *[rivals] * bool(rivals))
            command = self._replay.tick(now_ns, self._heard[1], self._heard[0], stopped)
            if command is not None:
                output.send(Step(now_ns, command))
            if self._replay.phase == "over":
                self._spin(2 * period_s)  # What was sent last is to arrive.
                return
            due = max(due + period_s, time.monotonic())
            self._spin(due - time.monotonic())

    def _spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def _on_joints(self, message: Any) -> None:
        self._stops.joints(message)
        try:
            self._heard = self._now(), joints_from_message(message)
        except PolicyNodeError as error:
            self._node.get_logger().warning(str(error), throttle_duration_sec=1.0)

    def _now(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)


@contextmanager
def _interrupts() -> Iterator[list[str]]:
    """Ctrl-C and SIGTERM as reasons to stop, instead of an end that leaves the arm on its way."""
    found: list[str] = []
    before = {n: signal.signal(n, lambda *_: found.append("interrupted")) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

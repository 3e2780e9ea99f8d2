"""The rollout manager's hands: services, parameters and topics of the simulator and of whatever drives it."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.serialization import serialize_message
from std_srvs.srv import SetBool, Trigger

from rollout_manager.calls_node import Calls
from rollout_manager.cdr import stamp_of_cdr
from rollout_manager.episode import Outcome
from rollout_manager.live_recording import LiveRecording
from rollout_manager.patience import Patience
from rollout_manager.rollout import driver_seed
from rollout_manager.schedule import ROBOT, Schedule, Try
from rollout_manager.simulation import TaskInfo
from rollout_manager.station_link_node import STATION, StationLink
from rollout_manager.stop_recording_node import StopRecording
from rollout_manager.try_runner import NodeLostError, RefusedError
from vla_policy_node.messages import observation_topics, text_to_message
from vla_policy_node.ros_node import message_class, publishers, rclpy_maker, settable, take_waiting, topic_qos
from vla_policy_node.spec import RobotSpec
from vla_policy_node.topics import (
    ACTION,
    ACTION_CHUNK,
    DIAGNOSTICS,
    HUMAN_ACTION,
    INSTRUCTION,
    MESSAGE_TYPES,
    OUTCOME,
)

DRIVERS = {"policy": "policy_node", "expert": "expert_node", "human": "policy_node"}
"""Which node drives."""

STAND_DOWN_S = 1.0
"""What a driver gets to answer when it is to let go of the robot; one that is dead answers never."""


class Link:
    """Drives the nodes of one graph through a try. Spins the executor itself while it waits: one thread, no locks."""

    def __init__(
        self,
        node: Node,
        executor: Executor,
        spec: RobotSpec,
        schedule: Schedule,
        recording: LiveRecording,
        patience: Patience,
        scene: str = "sim_node",
        lockstep: bool = True,
    ) -> None:
        """
        Args:
            scene: the node that sets tries up and judges them; of a physical arm the operator's station does.
            lockstep: the robot waits for each command; else its streams go on, whoever is lost.
        """
        self._lockstep = lockstep
        self._node, self._executor, self._spec = node, executor, spec
        self._schedule, self._recording, self._patience = schedule, recording, patience
        self._driver = DRIVERS[schedule.driver]
        self._calls = Calls(node, executor, patience.service_s)
        self._scene, self._station = scene, None
        if schedule.environment == ROBOT:
            self._scene, self._station = STATION, StationLink(node)
            recording.judged_by("operator")
        self._make = rclpy_maker()
        self._checkpoint = ""
        self._policy_says = ""
        self._outcome: Outcome | None = None
        self._active_at = 0.0
        self._stamps: dict[str, int] = {}
        self._streams: dict[tuple[str, str], Any] = {}
        self._inputs = tuple(topic for topic in observation_topics(spec) if topic != INSTRUCTION)
        self._instruction = node.create_publisher(
            message_class(MESSAGE_TYPES[INSTRUCTION]), INSTRUCTION, topic_qos(INSTRUCTION, True)
        )
        self._listen()

    def _listen(self) -> None:
        types = observation_topics(self._spec) | {t: MESSAGE_TYPES[t] for t in (ACTION_CHUNK, ACTION, HUMAN_ACTION)}
        del types[INSTRUCTION]
        for topic, kind in types.items():
            # Deep enough for whatever comes while a service is waited for: nothing may be missing in the bag.
            qos = topic_qos(topic, self._reliable(topic), depth=200)
            self._streams[topic, kind] = self._node.create_subscription(
                message_class(kind), topic, partial(self._on_raw, topic, kind), qos, raw=True,
                qos_overriding_options=settable(),
            )  # fmt: skip
        for topic, callback in ((OUTCOME, self._on_outcome), (DIAGNOSTICS, self._on_diagnostics)):
            qos = topic_qos(topic, True)
            self._node.create_subscription(message_class(MESSAGE_TYPES[topic]), topic, callback, qos)
        StopRecording(self._node, self._recording)

    def _reliable(self, topic: str) -> bool:
        """A reliable reader gets nothing from a best-effort publisher, such as many a camera is."""
        offered = self._node.get_publishers_info_by_topic(topic)
        return all(info.qos_profile.reliability.name == "RELIABLE" for info in offered)

    def _published(self, topic: str) -> bool:
        return bool(publishers(self._node, topic))

    # What the try runner asks for

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait until simulator, or station, and driver answer. Raises: NodeLostError: one does not within the time."""
        self._checkpoint = ""
        deadline = time.monotonic() + timeout_s
        for name in (self._scene, self._driver):
            while not self._calls.alive(name):
                if time.monotonic() > deadline:
                    raise NodeLostError(
                        f"{name} did not answer within {timeout_s:.0f} s on ROS_DOMAIN_ID="
                        f"{os.environ.get('ROS_DOMAIN_ID', '0')}; start it, or see its log"
                    )
        for topic in self._inputs:
            if not publishers(self._node, topic):
                self._calls.spin(partial(self._published, topic), 2.0)

    def disable(self) -> None:
        self._calls.switch(f"{self._driver}/enable", False)

    def reset(self, attempt: Try) -> TaskInfo:
        changes = {
            "task": attempt.task,
            "seed": attempt.seed,
            "time_limit_steps": attempt.time_limit,
            "episode_id": attempt.episode_id,
            "attempt": attempt.attempt,
        }
        if self._station:
            changes["instruction"] = attempt.instruction
            self._calls.switch(f"{self._scene}/run", False)  # No start that was given for an earlier try holds.
        self._calls.set(self._scene, changes)
        needed = {topic: {self._node.get_name(), self._driver} for topic in self._inputs}
        if self._schedule.driver == "expert":
            needed = {topic: {self._node.get_name()} for topic in self._inputs}
        content = self._matched(partial(self._calls.call, f"{self._scene}/reset", Trigger, Trigger.Request()), needed)
        return TaskInfo(**{f.name: content[f.name] for f in fields(TaskInfo)})

    def prepare(self, attempt: Try, info: TaskInfo) -> str:
        message = text_to_message(self._make, info.instruction)
        self._instruction.publish(message)
        self._recording.preface(INSTRUCTION, MESSAGE_TYPES[INSTRUCTION], serialize_message(message))
        self._info, self._outcome = info, None
        changes: dict[str, Any] = {
            "episode_seed": driver_seed(attempt.seed, attempt.attempt),
            "exploration": attempt.exploration,
            "start_stamp_ns": info.first_stamp_ns,
        }
        if self._schedule.driver == "expert":
            changes |= {"task": attempt.task, "seed": attempt.seed}
            changes["noise_correlation"] = self._schedule.noise_correlation
            changes["slips"] = self._schedule.slips
            changes["pushes"] = self._schedule.pushes
        else:
            changes |= {"execute_every": attempt.execute_every, "driver": self._schedule.driver}
            if self._schedule.checkpoint != self._checkpoint:
                changes["checkpoint"] = self._schedule.checkpoint
        self._calls.set(self._driver, changes)
        self._checkpoint = self._schedule.checkpoint
        return self._checkpoint_digest()

    def enable(self) -> None:
        needed = {ACTION: {self._scene, self._node.get_name()}, ACTION_CHUNK: {self._node.get_name()}}
        if self._station and not self._calls.spin(self._station.is_ready, 1.0):
            raise self._station.called_off()
        try:
            self._matched(partial(self._calls.switch, f"{self._driver}/enable", True), needed)
        except RefusedError as error:
            if not self._station:
                raise
            # An emergency stop, a dead-man's switch: the operator mends it, and starts again.
            raise NodeLostError(str(error)) from error

    def run(self) -> None:
        self._active_at = time.monotonic()
        self._calls.switch(f"{self._scene}/run", True)

    def watch(self) -> Outcome:
        deadline = time.monotonic() + self._patience.try_s
        self._active_at = time.monotonic()
        known = self._writers()
        if self._station:
            self._station.begin()
        while self._outcome is None:
            if self._station:
                self._station.beat(self._recording.episode_id)
            self._executor.spin_once(timeout_sec=0.2)
            self._recording.check()
            now = time.monotonic()
            if now - self._active_at > self._patience.stall_s:
                raise NodeLostError(self._why_silent(known))
            if now > deadline:
                raise NodeLostError(f"the try took longer than {self._patience.try_s:.0f} s")
        return self._outcome

    def stop(self) -> None:
        self.disable()
        last = int(self._calls.switch(f"{self._scene}/run", False)["stamp_ns"])
        if not self._calls.spin(lambda: all(self._stamps.get(t, 0) >= last for t in self._inputs), 2.0):
            late = [t for t in self._inputs if self._stamps.get(t, 0) < last]
            raise NodeLostError(f"the last observation did not arrive on {', '.join(late)}")

    def stand_down(self) -> None:
        request = SetBool.Request(data=False)
        with contextlib.suppress(NodeLostError):
            self._calls.ask(f"{self._driver}/enable", SetBool, request, STAND_DOWN_S)

    # Topics

    def _on_raw(self, topic: str, kind: str, cdr: bytes) -> None:
        self._receive(topic, kind, cdr)
        for (other, other_kind), stream in self._streams.items():
            for waiting in take_waiting(stream):
                self._receive(other, other_kind, waiting)

    def _receive(self, topic: str, kind: str, cdr: bytes) -> None:
        if topic == ACTION or self._lockstep:  # In real time an arm senses on when what drives it is lost.
            self._active_at = time.monotonic()
        stamp_ns = stamp_of_cdr(cdr)
        self._stamps[topic] = stamp_ns
        self._recording.record(topic, kind, stamp_ns, cdr)

    def _on_outcome(self, message: Any) -> None:
        content = json.loads(message.data)
        if content.get("episode_id") != self._recording.episode_id:
            return  # Latched: the outcome of an earlier try.
        if "author" in content:
            self._recording.judged_by(content["author"])
        self._outcome = Outcome.from_dict({f.name: content[f.name] for f in fields(Outcome) if f.name in content})
        self._recording.record_now(OUTCOME, MESSAGE_TYPES[OUTCOME], serialize_message(message))

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name == f"{self._driver}: policy":
                self._policy_says = status.message if status.level != b"\x00" else ""

    # Services

    def _matched(self, ask: Callable[[], Mapping[str, Any]], needed: Mapping[str, set[str]]) -> Mapping[str, Any]:
        """Ask until the node sees all listeners that a try needs: what it published before that would be lost."""
        deadline = time.monotonic() + self._patience.start_s
        while True:
            content = ask()
            if self._station and self._station.tell(content):
                deadline = time.monotonic() + self._patience.start_s  # A person may take as long as they like.
                self._calls.spin(lambda: False, 0.2)
                continue
            missing = {t: names - set(content["listeners"].get(t, ())) for t, names in needed.items()}
            if not any(missing.values()):
                return content
            if time.monotonic() > deadline:
                lost = "; ".join(f"{', '.join(sorted(n))} on {t}" for t, n in missing.items() if n)
                raise NodeLostError(f"not listening within {self._patience.start_s:.0f} s: {lost}")
            self._calls.spin(lambda: False, 0.05)

    def _checkpoint_digest(self) -> str:
        if self._schedule.driver == "expert":
            return ""
        about = self._calls.call(f"{self._driver}/describe", Trigger, Trigger.Request())
        if about["spec_digest"] != self._info.spec_digest:
            raise RefusedError(
                f"{self._driver} is configured for robot '{about['robot']}' ({about['spec_digest']}), but "
                f"{self._scene} is '{self._info.robot}' ({self._info.spec_digest})"
            )
        return str(about["checkpoint_digest"])

    def _writers(self) -> dict[str, set[bytes]]:
        """The endpoints of either node by which a restarted one is told from the one that was there before."""
        topics = {self._scene: OUTCOME, self._driver: ACTION}
        found = {name: self._node.get_publishers_info_by_topic(topic) for name, topic in topics.items()}
        return {name: {bytes(info.endpoint_gid) for info in infos} for name, infos in found.items()}

    def _why_silent(self, known: Mapping[str, set[bytes]]) -> str:
        """In words. Args: known: the nodes' endpoints when the try began."""
        dead = [name for name in (self._scene, self._driver) if not self._calls.alive(name)]
        what = f"nothing happened for {self._patience.stall_s:.0f} s"
        if dead:
            return f"{what}: {' and '.join(dead)} died or hangs"
        if again := [name for name, writers in self._writers().items() if writers - known[name]]:
            return f"{what}: {' and '.join(again)} died and was started again"
        silent = [t for t in self._inputs if not publishers(self._node, t)]
        if silent:
            return f"{what}: no publisher on {', '.join(silent)}"
        return f"{what} though all nodes answer" + (
            f"; {self._driver} says: {self._policy_says}" * bool(self._policy_says)
        )

"""The policy as a ROS 2 lifecycle node: camera, joint and pose messages in, action chunks and commands out."""

import json
import sys
import time
from concurrent.futures import Future
from functools import partial
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from vla_policy_node.chunking import make_executor
from vla_policy_node.clock_watch import ClockWatch
from vla_policy_node.committed import Committed
from vla_policy_node.control import LockstepControl, Proposal, RealTimeControl, Step, Ticker, propose
from vla_policy_node.diagnostics import StreamMonitor
from vla_policy_node.end_effector import make_safety_filter
from vla_policy_node.exceptions import CheckpointError, MessageError, PolicyNodeError
from vla_policy_node.homing_node import HomeService
from vla_policy_node.human_inputs_node import HumanInputs
from vla_policy_node.inference import InferenceThread
from vla_policy_node.messages import add_to_buffer, stamp_of
from vla_policy_node.observation import Missing, Observation, ObservationBuffer
from vla_policy_node.observation_inputs_node import ObservationInputs
from vla_policy_node.policy_loading import PolicySlot
from vla_policy_node.policy_output import PolicyOutput
from vla_policy_node.policy_parameters import CHOICES, FIXED, PARAMETERS, refusal
from vla_policy_node.policy_topics_node import PolicyTopics
from vla_policy_node.ros_node import (
    ParameterError,
    check_choices,
    declare,
    exit_process,
    publish_diagnostics,
    rclpy_maker,
    result,
    run_node,
    subscribers,
)
from vla_policy_node.safety import SafetyFilter
from vla_policy_node.spec import NANOSECONDS, RobotSpec, load_spec
from vla_policy_node.stop_inputs_node import StopInputs
from vla_policy_node.takeover import HumanControl, Takeover
from vla_policy_node.topics import ACTION, ACTION_CHUNK, INSTRUCTION, JOINT_STATES

SWITCH_S = 0.0005
"""How long one Python thread may keep the interpreter: at Python's 5 ms a tick would wait that long for the network."""


class PolicyNode(LifecycleNode):  # type: ignore[misc]
    """Assembles observations, asks the policy on a thread of its own, and sends what the safety filter lets pass."""

    def __init__(self) -> None:
        super().__init__("policy_node")
        declare(self, PARAMETERS)
        check_choices(self, CHOICES)
        self.failure = ""
        self._enabled = self._braking = self._silent = False
        self._episode = 0
        self._thread = InferenceThread()
        self._make = rclpy_maker()
        self._slot: PolicySlot | None = None
        self._clocks: list[Any] = []
        self._entities: list[Any] = []
        self.add_on_set_parameters_callback(self._on_parameters)

    @property
    def node(self) -> LifecycleNode:
        return self

    def close(self) -> None:
        """End the inference thread."""
        self._enabled = False
        self._thread.close()

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the robot's description, load the checkpoint, open the topics."""
        try:
            self._spec: RobotSpec = load_spec(self._get("robot"))
            self._lockstep = self._get("mode") == "lockstep"
            self._buffer = ObservationBuffer(self._spec)
            self._takeover = Takeover(round(NANOSECONDS * self._get("human_within_s")))
            self._build_control()
            self._slot = PolicySlot(self._spec, self._get("device"))
            if path := self._get("checkpoint"):
                self._thread.submit(partial(self._slot.load, path)).result()
            self._open_topics()
        except PolicyNodeError as error:
            self.failure = str(error)
            self.get_logger().error(f"not configured: {error}")
            return TransitionCallbackReturn.FAILURE
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        # Not by the clock that stamps are compared with: after it was set back nothing would tick until it catches up.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._clocks = [self.create_timer(1.0, self._publish_diagnostics, clock=steady)]
        if not self._lockstep:
            # Four looks a period, so that a tick that waited for a late observation is late by a quarter at most.
            period_s = self._spec.period_ns / NANOSECONDS / 4
            self._clocks.append(self.create_timer(period_s, self._on_clock, clock=steady))
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._disable()
        for timer in self._clocks:
            self.destroy_timer(timer)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._disable()
        for opened in (self._inputs, self._stops, self._human, self._home, self._topics):
            opened.close()
        for destroy, entity in self._entities:
            destroy(entity)
        self._entities = []
        self._slot = None
        return TransitionCallbackReturn.SUCCESS

    def _build_control(self) -> None:
        """What an episode starts with: nothing seen, no chunk, nothing sent."""
        period_ns = self._spec.period_ns
        every, decay = self._get("execute_every"), self._get("ensemble_decay")
        executor = make_executor(self._get("execute"), period_ns, every, decay)
        self._buffer.clear()
        self._safety = make_safety_filter(self._spec, self._get("limits"))
        self._lockstep_control = LockstepControl(self._buffer, executor, self._safety)
        self._real_time_control = RealTimeControl(self._buffer, executor, self._safety, self._ask)
        self._human_control = HumanControl(self._buffer, self._safety, self._takeover)
        self._ticker = Ticker(period_ns)
        self._clock_watch = ClockWatch(self._get("use_sim_time"))
        self._proposals: list[tuple[int, Proposal]] = []

    def _open_topics(self) -> None:
        self._inputs = ObservationInputs(self, self._spec, self._lockstep, self._receive)
        self._stops = StopInputs(self, self._on_stop_heard, self._disable)
        self._human = HumanInputs(self, self._spec, self._takeover)
        self._home = HomeService(self, self._spec, self._begin_homing)
        self._topics = topics = PolicyTopics(self, self._spec)
        send = (topics.action.publish, topics.chunk.publish)
        self._output = PolicyOutput(
            self._make,
            self._spec,
            *send,
            self._lockstep,
            topics.controllers,
            self._now,
            topics.tell,
            topics.human.publish,
        )
        self._entities.append((self.destroy_service, self.create_service(SetBool, "~/enable", self._on_enable)))
        self._entities.append((self.destroy_service, self.create_service(Trigger, "~/describe", self._on_describe)))
        self._guard = self.create_guard_condition(self._on_proposal)
        self._entities.append((self.destroy_guard_condition, self._guard))

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
        if self._enabled and not self._lockstep:
            return result("the robot is under control: disable with ~/enable before another checkpoint is loaded")
        try:
            self._thread.submit(partial(slot.load, path)).result()
        except PolicyNodeError as error:
            self.get_logger().error(f"checkpoint refused, '{slot.digest or 'none'}' stays: {error}")
            return result(str(error))
        return result("")

    def _on_describe(self, request: Any, response: Any) -> Any:
        about = {"robot": self._spec.name, "spec_digest": self._spec.digest}
        digest = self._slot.digest if self._slot is not None else ""
        content = about | {"checkpoint_digest": digest} | self._home.about()
        response.success, response.message = True, json.dumps(content)
        return response

    def _on_enable(self, request: Any, response: Any) -> Any:
        self._disable()
        response.success, response.message = True, "disabled"
        if not request.data:
            return response
        try:
            digest = self._enable()
        except PolicyNodeError as error:
            self._disable()
            response.success, response.message = False, str(error)
            return response
        listeners = {topic: subscribers(self, topic) for topic in (ACTION, ACTION_CHUNK)}
        response.message = json.dumps({"checkpoint_digest": digest, "listeners": listeners})
        return response

    def _enable(self) -> str:
        """Start an episode; returns the digest of the checkpoint that drives it; empty where a human does."""
        by_policy = self._get("driver") == "policy"
        if self._lockstep and not by_policy:
            raise PolicyNodeError("driver 'human' needs mode 'real_time': in lockstep nobody waits for a human")
        slot = self._take_hold()
        seed, scale = self._get("episode_seed"), self._get("exploration")
        # On the inference thread, so behind whatever it still does for the last episode.
        digest = self._thread.submit(lambda: slot.start_episode(seed, scale)).result() if by_policy else ""
        self._build_control()
        self._takeover.start(by_policy)
        self._inputs.restart()
        self._output.restart()
        self._start_ns = self._get("start_stamp_ns")
        self.failure, self._enabled = "", True
        return digest

    def _take_hold(self) -> PolicySlot:
        """Raises: PolicyNodeError: the robot must not be moved now."""
        if not self._clocks or self._slot is None:
            raise PolicyNodeError("policy_node is not active; activate it first (parameter autostart does)")
        self._topics.check_alone(self._lockstep)
        if not self._lockstep and not self._safety.at_rest:
            raise PolicyNodeError("the arm is still braking; enable the policy when it rests")
        self._stops.start()
        return self._slot

    def _begin_homing(self) -> SafetyFilter:
        """Take the robot out of the policy's hands, to bring it home."""
        self._disable()
        if self._lockstep:
            raise PolicyNodeError("the way home needs mode 'real_time'; in lockstep the simulator resets the robot")
        self._take_hold()
        self._build_control()
        return self._safety

    def _disable(self) -> None:
        was, self._enabled = self._enabled, False
        self._episode += 1
        if self._entities:
            self._stops.latch.rest()
            was = was or self._home.active
            self._home.cancel("stopped on the way home: the robot was disabled")
        if was and not self._lockstep:
            self._hold("disabled")
            self._braking = not self._safety.at_rest

    def _on_stop_heard(self) -> None:
        driven = self._enabled or self._home.active
        if driven and not self._lockstep and (reasons := self._stops.reasons()):
            self._hold(*reasons)

    def _hold(self, *reasons: str) -> None:
        """Command the robot to rest now, if it is known where it is."""
        if self._safety.located:
            self._output.send(Step(self._now(), self._safety.hold(reasons, self._now())))

    # Data

    def _receive(self, topic: str, message: Any, monitor: StreamMonitor) -> None:
        stamp_ns = stamp_of(message) if topic != INSTRUCTION else None
        monitor.received(self._now(), stamp_ns)
        if topic == JOINT_STATES:
            self._stops.joints(message)
            self._home.joints(message)
        if stamp_ns is not None and (not self._enabled or stamp_ns < self._start_ns):
            return
        try:
            used = add_to_buffer(self._buffer, self._spec, topic, message)
        except MessageError as error:
            monitor.refused(str(error))
            self.get_logger().warning(str(error), throttle_duration_sec=5.0)
            return
        if used and self._enabled:
            self._on_sample(stamp_ns)

    def _on_sample(self, stamp_ns: int | None) -> None:
        if self._lockstep:
            if (observed := self._lockstep_control.due()) is not None:
                tick_ns, episode = self._lockstep_control.tick_ns, self._episode
                self._thread.submit(lambda: self._answer(observed, tick_ns, episode)).add_done_callback(self._settled)
        elif (
            stamp_ns is not None and self._buffer.latest_tick() == stamp_ns and self._ticker.on_observation(self._now())
        ):
            self._tick()

    def _answer(self, observed: Observation | Missing, tick_ns: int, episode: int) -> None:
        """On the inference thread: a lockstep tick from observation to command."""
        assert self._slot is not None
        if isinstance(observed, Observation):
            self._compare(self._slot, observed)
        step = self._lockstep_control.answer(self._slot.policy, observed, tick_ns, self._stops.reasons())
        if episode == self._episode:
            self._output.send(step)

    def _on_clock(self) -> None:
        if why := self._clock_watch.look(self._now(), time.monotonic_ns()):
            self._buffer.clear()
            self._ticker.reset()
            self._inputs.clock_set()
            self._stops.clock_set(why)
        silent = bool(self._enabled and self._inputs.silent(self._now()))
        newly, self._silent = silent and not self._silent, silent
        # A stream that has just fallen silent does not wait for the next tick.
        driven = self._enabled or self._home.active or self._braking
        if not newly and not (driven and self._ticker.on_clock(self._now())):
            return
        if self._enabled:
            self._tick()
        elif self._home.active:
            self._home.tick(self._output.send, self._stops.reasons())
            if not self._home.active:
                self._disable()
                self._braking = True
        else:
            self._braking = not self._safety.at_rest
            self._hold("disabled")

    def _tick(self) -> None:
        stopped = (*self._stops.reasons(), *self._inputs.silent(self._now()))
        if self._takeover.turn(self._now()) == "policy":
            self._real_time_control.tick(self._now(), self._output.send, stopped)
            return
        self._real_time_control.interrupt()
        self._human_control.tick(self._now(), self._output.send, stopped)

    def _ask(self, observation: Observation, committed: Committed | None) -> bool:
        if self._thread.busy:
            return False
        job = partial(self._propose, observation, committed, self._episode)
        self._thread.submit(job).add_done_callback(self._settled)
        return True

    def _propose(self, observation: Observation, committed: Committed | None, episode: int) -> None:
        """On the inference thread: a real-time chunk, handed over to the thread that ticks."""
        assert self._slot is not None
        self._compare(self._slot, observation)
        self._proposals.append((episode, propose(self._slot.policy, observation, committed)))
        self._guard.trigger()

    def _compare(self, slot: PolicySlot, observation: Observation) -> None:
        for text in self._output.compare(lambda: slot.unfamiliar(observation)):
            self.get_logger().warning(text)

    def _on_proposal(self) -> None:
        while self._proposals:
            episode, proposal = self._proposals.pop(0)
            if episode != self._episode:
                continue
            if (step := self._real_time_control.offer(proposal, self._now())) is not None:
                self._output.send(step)
            self._output.tell(proposal)

    def _settled(self, future: "Future[None]") -> None:
        """Where a defect ends a job of the inference thread: the robot is stopped first."""
        if (error := future.exception()) is None:
            return
        self._enabled = False
        self._hold(str(error))
        self.failure = f"{type(error).__name__}: {error}"
        self.get_logger().fatal(f"policy failed, robot holds, disabled: {self.failure}")

    def _now(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _publish_diagnostics(self) -> None:
        now_ns = self._now()
        streams = self._inputs.statuses(now_ns)
        digest = self._slot.digest if self._slot is not None else ""
        delays = self._real_time_control.delays.values()
        policy = self._output.status(self._enabled, digest, self.failure, streams, delays)
        publish_diagnostics(self._topics.diagnostics, self._make, self.get_name(), now_ns, [policy, *streams])


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

"""A robot in the hands of a policy or of a human, at rest, or on its way home: observations in, commands out."""

import math
from concurrent.futures import Future
from functools import partial
from typing import Any

from rclpy.lifecycle import LifecycleNode

from vla_policy_node.chunking import make_executor
from vla_policy_node.committed import Committed
from vla_policy_node.control import LockstepControl, Proposal, RealTimeControl, Step, propose
from vla_policy_node.diagnostics import Status, StreamMonitor
from vla_policy_node.end_effector import make_safety_filter
from vla_policy_node.exceptions import MessageError, PolicyNodeError
from vla_policy_node.homing_node import HomeService
from vla_policy_node.human_inputs_node import HumanInputs
from vla_policy_node.inference import InferenceThread
from vla_policy_node.messages import add_to_buffer, stamp_of
from vla_policy_node.observation import Missing, Observation, ObservationBuffer
from vla_policy_node.observation_inputs_node import ObservationInputs
from vla_policy_node.policy_loading import PolicySlot
from vla_policy_node.policy_output import PolicyOutput
from vla_policy_node.policy_topics_node import PolicyTopics
from vla_policy_node.ros_node import rclpy_maker, settle_garbage
from vla_policy_node.safety import SafetyFilter, travelling
from vla_policy_node.spec import NANOSECONDS, RobotSpec
from vla_policy_node.stop_inputs_node import StopInputs
from vla_policy_node.takeover import HumanControl, Takeover
from vla_policy_node.tick_timers_node import TickTimers
from vla_policy_node.topics import INSTRUCTION, JOINT_STATES


class Driving:
    """Opens a robot's topics on a node, and commands it while that is enabled.

    The policy is asked on a thread of its own; everything else happens on the thread that spins the node.
    """

    def __init__(self, node: LifecycleNode, spec: RobotSpec, slot: PolicySlot, thread: InferenceThread) -> None:
        """Raises: PolicyNodeError: one of the node's parameters is not valid."""
        self._node, self._spec, self._slot, self._thread = node, spec, slot, thread
        self._lockstep = self._get("mode") == "lockstep"
        self._buffer = ObservationBuffer(spec)
        self._takeover = Takeover(round(NANOSECONDS * self._get("human_within_s")))
        self.enabled = False
        self.failure = ""
        """What defect ended the last episode, if one did."""
        self._braking = False
        self._episode = self._start_ns = 0
        self._active = False
        self._ticks = TickTimers(
            node, spec.period_ns, self._on_tick, self._commanding, self._silent_at_ns, self._on_clock_set
        )
        self._build_control()
        self._inputs = ObservationInputs(node, spec, self._lockstep, self._receive)
        self._stops = StopInputs(node, self._on_stop_heard, self.disable)
        self._human = HumanInputs(node, spec, self._takeover)
        self._home = HomeService(node, spec, self._begin_homing)
        self.topics = topics = PolicyTopics(node, spec)
        self._output = PolicyOutput(
            rclpy_maker(),
            spec,
            topics.action.publish,
            topics.chunk.publish,
            self._lockstep,
            topics.controllers,
            self._now,
            topics.tell,
            topics.human.publish,
        )
        self._guard = node.create_guard_condition(self._on_proposal)

    def close(self) -> None:
        """Let go of the robot, and close its topics."""
        self.disable()
        for opened in (self._inputs, self._stops, self._human, self._home, self.topics):
            opened.close()
        self._node.destroy_guard_condition(self._guard)

    def activate(self) -> None:
        """Let the robot be enabled; in real time, begin to tick."""
        self._active = True
        if not self._lockstep:
            self._ticks.start()

    def deactivate(self) -> None:
        """Let go of the robot."""
        self.disable()
        self._active = False
        self._ticks.stop()

    # Taking hold, and letting go

    def enable(self) -> str:
        """Start an episode; returns the digest of the checkpoint that drives it; empty where a human does.

        Raises:
            PolicyNodeError: the robot must not be moved now, or there is no policy.
        """
        by_policy = self._get("driver") == "policy"
        if self._lockstep and not by_policy:
            raise PolicyNodeError("driver 'human' needs mode 'real_time': in lockstep nobody waits for a human")
        self._take_hold()
        seed, scale = self._get("episode_seed"), self._get("exploration")
        # On the inference thread, so behind whatever it still does for the last episode.
        digest = self._thread.submit(lambda: self._slot.start_episode(seed, scale)).result() if by_policy else ""
        self._build_control()
        self._takeover.start(by_policy)
        self._inputs.restart()
        self._output.restart()
        self._start_ns = self._get("start_stamp_ns")
        settle_garbage()  # Of the last episode and, if the policy is another one now, of the one before it.
        self.failure, self.enabled = "", True
        return digest

    def disable(self) -> None:
        """End the episode, or the way home; in real time the robot brakes and holds."""
        was, self.enabled = self.enabled or self._home.active, False
        self._episode += 1
        self._stops.latch.rest()
        self._home.cancel("stopped on the way home: the robot was disabled")
        if was and not self._lockstep:
            self._hold("disabled")
            self._braking = not self._safety.at_rest

    def _build_control(self, spec: RobotSpec | None = None) -> None:
        """What an episode starts with: nothing seen, no chunk, nothing sent. Args: spec: whose limits are kept."""
        period_ns = self._spec.period_ns
        every, decay = self._get("execute_every"), self._get("ensemble_decay")
        executor = make_executor(self._get("execute"), period_ns, every, decay)
        self._buffer.clear()
        self._safety = make_safety_filter(spec or self._spec, self._get("limits"))
        self._lockstep_control = LockstepControl(self._buffer, executor, self._safety)
        self._real_time_control = RealTimeControl(self._buffer, executor, self._safety, self._ask)
        self._human_control = HumanControl(self._buffer, self._safety, self._takeover)
        self._ticks.restart()
        self._proposals: list[tuple[int, Proposal]] = []

    def _take_hold(self) -> None:
        """Raises: PolicyNodeError: the robot must not be moved now."""
        if not self._active:
            raise PolicyNodeError("policy_node is not active; activate it first (parameter autostart does)")
        self.topics.check_alone(self._lockstep)
        if not self._lockstep and not self._safety.at_rest:
            raise PolicyNodeError("the arm is still braking; enable the policy when it rests")
        self._stops.start()

    def _begin_homing(self) -> SafetyFilter:
        """Take the robot out of the policy's hands, to bring it home."""
        self.disable()
        if self._lockstep:
            raise PolicyNodeError("the way home needs mode 'real_time'; in lockstep the simulator resets the robot")
        self._take_hold()
        self._build_control(travelling(self._spec))
        return self._safety

    def _on_stop_heard(self) -> None:
        driven = self.enabled or self._home.active
        if driven and not self._lockstep and (reasons := self._stops.reasons()):
            self._hold(*reasons)

    def _hold(self, *reasons: str) -> None:
        """Command the robot to rest now, if it is known where it is."""
        if self._safety.located:
            self._output.send(Step(self._now(), self._safety.hold(reasons, self._now())))

    # What comes in, and when it is answered

    def _receive(self, topic: str, message: Any, monitor: StreamMonitor) -> None:
        stamp_ns = stamp_of(message) if topic != INSTRUCTION else None
        monitor.received(self._now(), stamp_ns)
        if topic == JOINT_STATES:
            self._stops.joints(message)
            self._home.joints(message)
        if stamp_ns is not None and (not self.enabled or stamp_ns < self._start_ns):
            return
        try:
            used = add_to_buffer(self._buffer, self._spec, topic, message)
        except MessageError as error:
            monitor.refused(str(error))
            self._node.get_logger().warning(str(error), throttle_duration_sec=5.0)
            return
        if used and self.enabled:
            self._on_sample(stamp_ns)

    def _on_sample(self, stamp_ns: int | None) -> None:
        if self._lockstep:
            if (observed := self._lockstep_control.due()) is not None:
                job = partial(self._answer, observed, self._lockstep_control.tick_ns, self._episode)
                self._thread.submit(job).add_done_callback(self._settled)
        elif stamp_ns is not None and self._buffer.latest_tick() == stamp_ns and self._ticks.on_observation():
            self._drive()

    def _on_clock_set(self, why: str) -> None:
        self._buffer.clear()
        self._inputs.clock_set()
        self._stops.clock_set(why)

    def _commanding(self) -> bool:
        return self.enabled or self._home.active or self._braking

    def _silent_at_ns(self) -> float:
        # Also while disabled: looks that are not made would count as the node being held up.
        at_ns = self._inputs.silent_at_ns()
        return at_ns if self.enabled else math.inf

    def _on_tick(self) -> None:
        if self.enabled:
            self._drive()
        elif self._home.active:
            self._home.tick(self._output.send, self._stops.reasons())
            if not self._home.active:
                self.disable()
                self._braking = True
        else:
            self._braking = not self._safety.at_rest
            self._hold("disabled")

    def _drive(self) -> None:
        """Send what the policy or a human wants now."""
        stopped = (*self._stops.reasons(), *self._inputs.silent())
        if self._takeover.turn(self._now()) == "policy":
            self._real_time_control.tick(self._now(), self._output.send, stopped)
            return
        self._real_time_control.interrupt()
        self._human_control.tick(self._now(), self._output.send, stopped)

    # The policy, on the inference thread

    def _answer(self, observed: Observation | Missing, tick_ns: int, episode: int) -> None:
        """On the inference thread: a lockstep tick from observation to command."""
        if isinstance(observed, Observation):
            self._compare(observed)
        step = self._lockstep_control.answer(self._slot.policy, observed, tick_ns, self._stops.reasons())
        if episode == self._episode:
            self._output.send(step)

    def _ask(self, observation: Observation, committed: Committed | None) -> bool:
        if self._thread.busy:
            return False
        job = partial(self._propose, observation, committed, self._episode)
        self._thread.submit(job).add_done_callback(self._settled)
        return True

    def _propose(self, observation: Observation, committed: Committed | None, episode: int) -> None:
        """On the inference thread: a real-time chunk, handed over to the thread that ticks."""
        self._compare(observation)
        self._proposals.append((episode, propose(self._slot.policy, observation, committed)))
        self._guard.trigger()

    def _compare(self, observation: Observation) -> None:
        for text in self._output.compare(lambda: self._slot.unfamiliar(observation)):
            self._node.get_logger().warning(text)

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
        self.enabled = False
        self._hold(str(error))
        self.failure = f"{type(error).__name__}: {error}"
        self._node.get_logger().fatal(f"policy failed, robot holds, disabled: {self.failure}")

    # How it is doing

    def about(self) -> dict[str, str]:
        """Robot, checkpoint and the way home, as `~/describe` tells them."""
        robot = {"robot": self._spec.name, "spec_digest": self._spec.digest}
        return robot | {"checkpoint_digest": self._slot.digest} | self._home.about()

    def statuses(self) -> list[Status]:
        """The policy's own line of diagnostics, and one a stream."""
        streams = self._inputs.statuses(self._now())
        delays = self._real_time_control.delays.values()
        return [self._output.status(self.enabled, self._slot.digest, self.failure, streams, delays), *streams]

    def _get(self, name: str) -> Any:
        return self._node.get_parameter(name).value

    def _now(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

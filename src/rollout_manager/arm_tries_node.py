"""Tries of tasks on the simulated arm in real time, by the services that a rollout manager asks of `sim_node`.

The arm lives on between two tries, as a real one does; what `~/reset` does in no time, a person does there.
"""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from rollout_manager.arms.controlled_arm import ControlledArm
from rollout_manager.envs.panda import PandaEnv
from rollout_manager.exceptions import RolloutError
from rollout_manager.simulation import WHICH_TRY, Simulation, outcome_text, refusal
from vla_policy_node.messages import MessageMaker, observation_topics, text_to_message
from vla_policy_node.ros_node import message_class, subscribers, topic_qos
from vla_policy_node.spec import NANOSECONDS, RobotSpec
from vla_policy_node.topics import ACTION, HUMAN_ACTION, INSTRUCTION, MESSAGE_TYPES, OUTCOME

QUIET_S = 0.2
"""How long no command may have come before the arm is set up anew: what still came after that would throw it about."""
PATIENCE_S = 5.0
"""How long such quiet is waited for: a policy that was disabled brakes for some tenths of a second."""


class ArmTries:
    """Sets tries up, judges them once a period of the robot, and says how they ended."""

    def __init__(
        self,
        node: Node,
        spec: RobotSpec,
        moved: ControlledArm,
        lock: threading.Lock,
        make: MessageMaker,
        forget: Callable[[], None],
    ) -> None:
        """
        Args:
            node: with the parameters of `TRY_PARAMETERS`.
            moved: the arm, which somebody else moves on.
            lock: guards it.
            forget: drops the commands that are still to take effect.
        """
        self._node, self._spec, self._moved, self._lock, self._make = node, spec, moved, lock, make
        self._forget = forget
        self._simulation: Simulation | None = None
        self._running = False
        self._judged_ns = self._commanded_ns = self._asked_ns = 0
        self._actions = 0
        self._quiet: Future | None = None
        self._outcome = node.create_publisher(message_class(MESSAGE_TYPES[OUTCOME]), OUTCOME, topic_qos(OUTCOME, True))
        node.create_subscription(
            message_class(MESSAGE_TYPES[ACTION]), ACTION, self._on_action, topic_qos(ACTION, lockstep=True)
        )
        node.create_subscription(
            message_class(MESSAGE_TYPES[HUMAN_ACTION]), HUMAN_ACTION, self._on_human, topic_qos(HUMAN_ACTION, True)
        )
        # A group of its own: while it waits for quiet, the arm has to go on.
        node.create_service(Trigger, "~/reset", self._on_reset, callback_group=MutuallyExclusiveCallbackGroup())
        node.create_service(SetBool, "~/run", self._on_run)

    def refusal(self, name: str, value: Any) -> str:
        """Why a parameter of the next try cannot have a value; empty where it can."""
        try:
            return refusal(self._env(), name, value) if name != "task" or value else ""
        except RolloutError as error:
            return str(error)

    def commanded(self, now_ns: int) -> None:
        """A controller was sent a command."""
        self._commanded_ns = now_ns

    def update(self, now_ns: int) -> None:
        """The arm has been moved up to now."""
        if self._quiet is not None and not self._quiet.done():
            loud = now_ns - self._commanded_ns < QUIET_S * NANOSECONDS
            if not loud or now_ns - self._asked_ns > PATIENCE_S * NANOSECONDS:
                self._quiet.set_result(loud)
        simulation = self._simulation
        while self._running and simulation is not None and self._judged_ns + self._spec.period_ns <= now_ns:
            self._judged_ns += self._spec.period_ns
            self._judge(simulation)

    def _judge(self, simulation: Simulation) -> None:
        env = self._env()
        if (outcome := simulation.judge(env.judge())) is None:
            return
        self._running = False
        if outcome.ending == "failure" and env.fault:
            outcome = replace(outcome, reason=env.fault)
        about = {name: self._node.get_parameter(name).value for name in WHICH_TRY} | {"commands": self._actions}
        self._outcome.publish(text_to_message(self._make, outcome_text(about, outcome)))

    async def _on_reset(self, request: Any, response: Any) -> Any:
        self._running = False
        self._asked_ns, self._quiet = self._now(), Future()
        loud = await self._quiet
        try:
            if loud:
                raise RolloutError(f"the arm is still commanded after {PATIENCE_S:g} s; disable what drives it first")
            content = self._reset()
        except RolloutError as error:
            response.success, response.message = False, str(error)
            return response
        response.success, response.message = True, json.dumps(content)
        return response

    def _reset(self) -> Mapping[str, Any]:
        self._env()
        assert self._simulation is not None
        task, seed, limit = (self._node.get_parameter(n).value for n in ("task", "seed", "time_limit_steps"))
        with self._lock:
            info = self._simulation.reset(task, seed, limit, self._now())
            self._forget()
            self._moved.restart(self._now())
        topics = [topic for topic in observation_topics(self._spec) if topic != INSTRUCTION]
        return {**info.to_dict(), "listeners": {topic: subscribers(self._node, topic) for topic in topics}}

    def _on_run(self, request: Any, response: Any) -> Any:
        ready = self._simulation is not None and self._simulation.running
        if request.data and not ready:
            response.success, response.message = False, "no try is set up; call ~/reset first"
            return response
        if request.data and not self._running:
            self._judged_ns, self._actions = self._now(), 0
        self._running = bool(request.data)
        response.success, response.message = True, json.dumps({"stamp_ns": self._now()})
        return response

    def _on_action(self, message: Any) -> None:
        self._actions += self._running

    def _on_human(self, message: Any) -> None:
        if self._running and self._simulation is not None:
            self._simulation.human_asked()

    def _env(self) -> PandaEnv:
        """Made when it is first asked for: an arm without these tasks need not fit them. Raises: SimulatorError."""
        if self._simulation is None:
            self._made = PandaEnv(self._spec, self._moved)
            self._simulation = Simulation(self._made, apart_ns=0)
        return self._made

    def _now(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

"""bench_chunking_node.py in one process, on a clock that is counted: arm, controller, the node's control loop."""

from dataclasses import replace

import numpy as np
from _chunking_task import HOME, JOINTS, SteeringPolicy, Synchronous, hands, make_task
from _chunking_tries import EVERY, STAYS_S, TIME_S, WAYS, Case, Hand, Sent, Try, arrived, judged

from rollout_manager.arms.arm import Arm
from rollout_manager.arms.controllers import JointTrajectoryController
from vla_policy_node.chunking import make_executor
from vla_policy_node.command_messages import command_message
from vla_policy_node.committed import Committed
from vla_policy_node.control import Proposal, RealTimeControl, Step, Ticker, propose
from vla_policy_node.end_effector import make_safety_filter
from vla_policy_node.messages import rosbags_maker
from vla_policy_node.observation import Observation, ObservationBuffer
from vla_policy_node.spec import NANOSECONDS, RobotSpec

MS = 1_000_000
JOINTS_NS, CLOCK_NS = 10 * MS, 8 * MS
"""How often the joints are told, and how often the node looks at its clock."""
PICTURE_NS, JITTER_NS = 30 * MS, 5 * MS
"""How late a picture is, and the standard deviation of that, as of `arm_node`."""


class World:
    """One try: the arm and what the policy node does, step by step of the arm's physics."""

    def __init__(self, spec: RobotSpec, case: Case) -> None:
        execute, head = WAYS[case.way]
        self.task = make_task(case.seed, 0.0, head)
        self._spec, self._case, self._make = spec, case, rosbags_maker()
        self.arm, self._random = Arm("panda"), np.random.default_rng(case.seed)
        self._controller = JointTrajectoryController(self.arm.joints[:JOINTS], HOME, open_loop=True)
        self._policy = SteeringPolicy(spec)
        self._policy.reset(case.seed)
        self._buffer = ObservationBuffer(spec)
        self._buffer.instruction = self.task.text()
        own = execute == "synchronous"
        executor = Synchronous(spec.period_ns, EVERY) if own else make_executor(execute, spec.period_ns, EVERY)
        self.control = RealTimeControl(self._buffer, executor, make_safety_filter(spec, "clamp"), self._ask)
        self._ticker = Ticker(spec.period_ns)
        self._pictures: list[tuple[int, int]] = []
        self._answer: tuple[int, Proposal] | None = None
        self.now_ns = NANOSECONDS
        self.hand: list[Hand] = []
        self.sent: list[Sent] = []

    def step(self) -> None:
        """Two milliseconds of the arm, then what arrives, then the clock."""
        before, self.now_ns = self.now_ns, self.now_ns + round(NANOSECONDS * self.arm.period_s)
        fingers = self.arm.measured()[0][JOINTS:]
        self.arm.step(np.append(self._controller.target(self.now_ns), fingers))

        def due(every_ns: int) -> bool:
            return before // every_ns < self.now_ns // every_ns

        if due(JOINTS_NS):
            self._buffer.add_joints(self.now_ns, self.arm.joint_state())
            self.hand.append((self.now_ns / NANOSECONDS, self.arm.hand().position))
        if due(self._spec.period_ns):
            late = PICTURE_NS + round(JITTER_NS * self._random.standard_normal())
            self._pictures.append((self.now_ns + max(0, late), self.now_ns))
        if self._answer is not None and self._answer[0] <= self.now_ns:
            (_, proposal), self._answer = self._answer, None
            if (step := self.control.offer(proposal, self.now_ns)) is not None:
                self._send(step)
        if self._pictured() or (due(CLOCK_NS) and self._ticker.on_clock(self.now_ns)):
            self.control.tick(self.now_ns, self._send)

    def _pictured(self) -> bool:
        """Whether a picture has come that makes a tick."""
        if not self._pictures or self._pictures[0][0] > self.now_ns:
            return False
        stamp_ns = self._pictures.pop(0)[1]
        for camera in self._spec.cameras:
            # No two are alike, or the camera counts as frozen.
            image = np.full((camera.height, camera.width, 3), stamp_ns // self._spec.period_ns % 256, np.uint8)
            self._buffer.add_image(camera.name, stamp_ns, image)
        return self._buffer.latest_tick() == stamp_ns and self._ticker.on_observation(self.now_ns)

    def _ask(self, seen: Observation, committed: Committed | None) -> bool:
        if self._answer is not None:
            return False
        took_ns = self._case.delay_ms * MS
        proposal = replace(propose(self._policy, seen, committed), seconds=took_ns / NANOSECONDS)
        self._answer = self.now_ns + took_ns, proposal
        return True

    def _send(self, step: Step) -> None:
        action = step.command.action
        message = command_message(self._make, self._spec, self._spec.commands[0], self.now_ns, action)
        self._controller.command(message, self.now_ns, self.arm.measured()[:, :JOINTS])
        self.sent.append(Sent(self.now_ns / NANOSECONDS, step.command.held, action.astype(np.float64)))


def simulated(spec: RobotSpec, case: Case) -> Try:
    """One try from home. Raises: RuntimeError: the arm's hardware stopped it, or the policy did nothing."""
    world = World(spec, case)
    goal, began = hands(np.array([world.task.goal]))[0], world.now_ns / NANOSECONDS
    while world.now_ns / NANOSECONDS < began + TIME_S + STAYS_S and arrived(world.hand[-100:], goal) is None:
        world.step()
    if world.arm.fault:
        raise RuntimeError(f"{case.way} at {case.delay_ms} ms, seed {case.seed}: {world.arm.fault}")
    expected = world.control.delays.expected
    return judged(case, world.task, began, world.hand, world.sent, expected, spec.period_ns)

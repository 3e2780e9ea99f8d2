"""What decides in an episode in process: a policy, a scripted expert, or nothing."""

from dataclasses import replace

import numpy as np

from rollout_manager.episode import EpisodeHeader
from rollout_manager.experts.demonstrator import Demonstrator
from rollout_manager.rollout import Decision, Tick, driver_seed
from vla_policy_node.chunking import ChunkExecutor
from vla_policy_node.events import SafetyEvents
from vla_policy_node.policy import ActionChunk, Policy
from vla_policy_node.safety import SafetyFilter


class PolicyDriver:
    """Asks the policy where the executor wants a chunk; each action passes the safety filter, as on the robot."""

    def __init__(self, policy: Policy, executor: ChunkExecutor, safety: SafetyFilter) -> None:
        self._policy = policy
        self._executor = executor
        self._safety = safety
        self._events = SafetyEvents()

    def reset(self, header: EpisodeHeader) -> None:
        self._events.restart()
        self._policy.reset(driver_seed(header.seed, header.attempt))
        self._executor.reset()
        self._safety.reset()

    def step(self, tick: Tick) -> Decision:
        chunk = None
        if self._executor.wants_chunk(tick.stamp_ns):
            chunk = self._policy.act(tick.observation(), self._executor.committed(tick.stamp_ns))
            self._executor.offer(chunk)
        seen = tick.proprioception() if self._safety.watches_joints else None
        command = self._safety.check(self._executor.next(tick.stamp_ns), (), seen)
        return Decision(command.action, chunk, event=self._events.see(tick.stamp_ns, command))


class ExpertDriver:
    """Sends what a demonstrator shows, and proposes what is to be learned from it, if anything is."""

    def __init__(self, demonstrator: Demonstrator) -> None:
        self._demonstrator = demonstrator

    def reset(self, header: EpisodeHeader) -> None:
        """Raises: SimulatorError: the expert has no script for the task."""
        self._demonstrator.reset(header.task, header.seed, driver_seed(header.seed, header.attempt))

    def step(self, tick: Tick) -> Decision:
        shown = self._demonstrator.step(tick.privileged_state())
        chunk = None if shown.lesson is None else ActionChunk(tick.stamp_ns, shown.lesson[None])
        return Decision(shown.action, chunk, self._demonstrator.trouble)


class TakeoverDriver:
    """A policy drives for some steps, then a demonstrator goes on from where it has got to.

    So the expert's answers are learned in states that the policy comes to by itself, and no demonstration shows: the
    idea of DAgger (Ross et al., 2011). As in HG-DAgger (Kelly et al., 2019) the expert drives from then on, here from
    a step that is drawn. Of what the policy does nothing is learned.
    """

    def __init__(self, policy: PolicyDriver, expert: ExpertDriver, steps: tuple[int, int]) -> None:
        """Args: steps: fewest and most that the policy drives; each number between is as likely."""
        self._policy, self._expert, self._steps = policy, expert, steps

    def reset(self, header: EpisodeHeader) -> None:
        """Raises: SimulatorError: the expert has no script for the task."""
        self._policy.reset(header)
        self._expert.reset(header)
        # A stream of its own: slips and pushes are the same with a policy before them or without.
        random = np.random.default_rng([driver_seed(header.seed, header.attempt), 3])
        self._left = int(random.integers(*self._steps, endpoint=True))

    def step(self, tick: Tick) -> Decision:
        if self._left == 0:
            return self._expert.step(tick)
        self._left -= 1
        return replace(self._policy.step(tick), chunk=None)


class NoDriver:
    """Holds still: what the task does by itself, the floor of every comparison."""

    def __init__(self, safety: SafetyFilter) -> None:
        self._safety = safety

    def reset(self, header: EpisodeHeader) -> None:
        self._safety.reset()

    def step(self, tick: Tick) -> Decision:
        # A robot commanded by position holds where it is, which has to be known.
        seen = tick.proprioception() if self._safety.watches_joints else None
        return Decision(self._safety.check(None, ("no driver",), seen).action)

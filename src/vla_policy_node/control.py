"""When a policy node asks its network and what it sends: lockstep and real time, pure. Times are integer ns.

In lockstep the robot waits for its command, so the network is asked in the middle of a tick. In real time a tick
never waits: it sends what the chunks at hand say, and a chunk that arrives later is used from its proper index on.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vla_policy_node.chunking import ChunkExecutor
from vla_policy_node.committed import Committed
from vla_policy_node.delays import ChunkDelays
from vla_policy_node.exceptions import PolicyNodeError
from vla_policy_node.frozen import FrozenCameras
from vla_policy_node.observation import Float32Array, Missing, Observation, ObservationBuffer
from vla_policy_node.policy import ActionChunk, Policy
from vla_policy_node.safety import SafeCommand, SafetyFilter
from vla_policy_node.spec import NANOSECONDS


@dataclass(frozen=True)
class Proposal:
    """What the network answered to one observation."""

    chunk: ActionChunk | None
    seconds: float
    """Time the network took."""
    error: str = ""
    """Why there is no chunk."""


@dataclass(frozen=True)
class Step:
    """What one tick led to."""

    stamp_ns: int
    """Stamp of the observation that is answered; the tick itself where there was none."""
    command: SafeCommand
    proposal: Proposal | None = None
    human: Float32Array | None = None
    """What a human asked for, shape (A,), where one drove."""


def propose(policy: Policy, observation: Observation, committed: Committed | None = None) -> Proposal:
    """Ask the policy. A policy's own error becomes a reason to hold; any other error is a defect and is raised.

    Args: committed: what the chunk is to go on from, see `Policy.act`.
    """
    started = time.perf_counter()
    try:
        chunk = policy.act(observation, committed)
    except PolicyNodeError as error:
        return Proposal(None, time.perf_counter() - started, f"policy: {error}")
    return Proposal(chunk, time.perf_counter() - started)


class LockstepControl:
    """Answers every tick at which all streams have arrived, once."""

    def __init__(self, buffer: ObservationBuffer, executor: ChunkExecutor, safety: SafetyFilter) -> None:
        self._buffer = buffer
        self._executor = executor
        self._safety = safety
        self._answered = -1

    def reset(self) -> None:
        """Start a new episode."""
        self._buffer.clear()
        self._executor.reset()
        self._safety.reset()
        self._answered = -1

    def due(self) -> Observation | Missing | None:
        """The observation that is to be answered now; None until every stream has reached a new instant."""
        tick = self._buffer.latest_tick()
        if isinstance(tick, Missing) or tick <= self._answered:
            return None
        self._answered = tick
        return self._buffer.assemble_at(tick)

    @property
    def tick_ns(self) -> int:
        """The instant that `due` gave last."""
        return self._answered

    def answer(
        self, policy: Policy, observed: Observation | Missing, tick_ns: int, stopped: Sequence[str] = ()
    ) -> Step:
        """The command for one tick; asks the policy where the executor wants a chunk.

        Args: stopped: why the robot must hold, whatever the policy says.
        """
        if isinstance(observed, Missing):
            return Step(tick_ns, self._safety.check(None, (*stopped, *observed.reasons)))
        if stopped:
            return Step(tick_ns, self._safety.check(None, stopped, observed.proprioception))
        wanted = self._executor.wants_chunk(tick_ns)
        proposal = propose(policy, observed, self._executor.committed(tick_ns)) if wanted else None
        if proposal is not None and proposal.chunk is not None:
            self._executor.offer(proposal.chunk)
        why = (proposal.error,) if proposal is not None and proposal.error else ()
        action = self._executor.next(tick_ns)
        return Step(tick_ns, self._safety.check(action, why, observed.proprioception), proposal)


class Ticker:
    """When a real-time tick is due: at the robot's rate, in phase with its observations where they come at it.

    A command that answers an image at once is fresher than one that waits for a clock out of phase with the camera.
    So a new observation brings the tick forward by up to half a period, and while observations set the pace the
    clock waits a quarter of a period longer for a late one.
    """

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._last: int | None = None
        self._follows = False

    def reset(self) -> None:
        self._last = None
        self._follows = False

    def on_observation(self, now_ns: int) -> bool:
        """Whether an observation that is complete now makes a tick."""
        self._follows = True  # One that is too late for its tick, too: the next may be waited for again.
        if self._last is not None and now_ns - self._last < self._period_ns // 2:
            return False
        self._last = now_ns
        return True

    def on_clock(self, now_ns: int) -> bool:
        """Whether a tick is due without a new observation."""
        if now_ns < self.due_ns:
            return False
        self._last, self._follows = now_ns, False
        return True

    @property
    def due_ns(self) -> int:
        """When a tick is due at the latest, whether an observation has come or not; 0: at once."""
        slack = self._period_ns // 4 if self._follows else 0
        return 0 if self._last is None else self._last + self._period_ns + slack


def hold_unseen(
    observed: Observation | Missing,
    stopped: Sequence[str],
    safety: SafetyFilter,
    now_ns: int,
    send: Callable[[Step], None],
) -> None:
    """In real time, hold the robot for what stops it and for what is missing, if it is known where it stands."""
    missing = observed.reasons if isinstance(observed, Missing) else ()
    if safety.located:
        send(Step(now_ns, safety.hold((*stopped, *missing), now_ns)))


class RealTimeControl:
    """Sends a command every tick and never waits for the network."""

    def __init__(
        self,
        buffer: ObservationBuffer,
        executor: ChunkExecutor,
        safety: SafetyFilter,
        ask: Callable[[Observation, Committed | None], bool],
    ) -> None:
        """Args: ask: hands an observation, and what its chunk is to go on from, to the network; False where it is still
        busy."""
        self._period_ns = buffer.spec.period_ns
        self._buffer = buffer
        self._executor = executor
        self._safety = safety
        self._ask = ask
        self._forget()

    def reset(self) -> None:
        """Start a new episode."""
        self._buffer.clear()
        self._executor.reset()
        self._safety.reset()
        self._forget()

    def _forget(self) -> None:
        self._frozen = FrozenCameras(self._buffer.spec)
        self.delays = ChunkDelays(self._period_ns)
        """Of this episode's chunks."""
        self._error = ""
        self._slow = False
        self._ticked_ns = 0
        self._asked: int | None = None
        self._unanswered: Observation | None = None

    def interrupt(self) -> None:
        """Somebody else drives: what was proposed before is void."""
        self._executor.reset()
        self._asked = self._unanswered = None

    def tick(self, now_ns: int, send: Callable[[Step], None], stopped: Sequence[str] = ()) -> None:
        """Send the command for now, then ask the network if a chunk is wanted: it would slow the sending down.

        Nothing is sent where the chunk that was just asked for may still give the command (see `offer`), unless the
        last one took longer than a period; nor to a robot that is commanded by position before it is known where it
        stands.

        Args: stopped: why the robot must hold, whatever the policy says; empty where nothing stops it.
        """
        self._ticked_ns = now_ns
        observed = self._buffer.assemble(now_ns)
        if isinstance(observed, Observation):
            stopped = (*stopped, *self._frozen.check(observed))
        if isinstance(observed, Missing) or stopped:
            self._unanswered = None
            hold_unseen(observed, stopped, self._safety, now_ns, send)
            return
        action, seen = self._executor.next(now_ns), observed.proprioception
        if action is not None:
            self._unanswered = None
            send(Step(observed.stamp_ns, self._safety.check(action, (), seen, now_ns)))
            self._request(observed)
        elif self._request(observed) and self._unanswered is None and not self._slow:
            self._unanswered = observed
        else:
            self._unanswered = None
            why = self._error or "policy: no chunk for this tick yet"
            send(Step(observed.stamp_ns, self._safety.check(None, (why,), seen, now_ns)))

    def offer(self, proposal: Proposal, now_ns: int) -> Step | None:
        """Take the network's answer; gives the command that a tick left open for it."""
        self._error = proposal.error
        self._slow = proposal.seconds * NANOSECONDS > self._period_ns
        if proposal.chunk is not None:
            first_ns = now_ns if self._unanswered is not None else max(now_ns, self._ticked_ns + self._period_ns)
            self.delays.add(proposal.chunk.stamp_ns, now_ns, first_ns)
            self._executor.offer(proposal.chunk)
        if self._unanswered is None:
            return None  # No tick waits, or it was stopped meanwhile.
        observed, self._unanswered = self._unanswered, None
        why = (proposal.error,) if proposal.error else ()
        # The last action of a chunk that is over by now is nearer to what was meant than a hold: single actions of a
        # network that takes more than half a period, or for pictures that come late, would never be sent.
        last_ns = now_ns if proposal.chunk is None else proposal.chunk.last_ns(self._period_ns)
        action = self._executor.next(min(now_ns, last_ns))
        return Step(observed.stamp_ns, self._safety.check(action, why, observed.proprioception, now_ns), proposal)

    def _request(self, observed: Observation) -> bool:
        stamp_ns, delay = observed.stamp_ns, self.delays.expected
        if stamp_ns == self._asked or not self._executor.wants_chunk(stamp_ns, delay):
            return False
        if not self._ask(observed, self._executor.committed(stamp_ns, delay)):
            return False
        self._asked = stamp_ns
        return True

"""Real-time chunking: the soft mask by hand, what is committed, delays, and that no tick goes without its action."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_robot import ROBOT, observation
from test_control import buffer_of, feed

from vla_policy_node.chunking import Ensemble, RealTimeChunking, Replan, make_executor
from vla_policy_node.committed import Committed, soft_mask
from vla_policy_node.control import LockstepControl, Proposal, RealTimeControl, Step
from vla_policy_node.delays import MEMORY, ChunkDelays
from vla_policy_node.exceptions import PolicyNodeError
from vla_policy_node.exploration import Explore, ShiftedAim
from vla_policy_node.observation import Float32Array, Observation
from vla_policy_node.policy import ActionChunk
from vla_policy_node.safety import SafetyFilter
from vla_policy_node.spec import RobotSpec

PERIOD = ROBOT.period_ns
ACTIONS = len(ROBOT.action)


def rows(*values: float) -> Float32Array:
    """Actions of one dimension."""
    return np.array(values, np.float32)[:, None]


def random_walk(seed: int, horizon: int) -> Float32Array:
    return np.random.default_rng(seed).standard_normal((horizon, 2)).cumsum(0).astype(np.float32)


class Timetable:
    """A policy that says of every tick what a timetable does, and blends; `shift` is what it says wrongly."""

    spec: RobotSpec = ROBOT

    def __init__(self, horizon: int, shift: float = 0.0) -> None:
        self.horizon, self.shift = horizon, shift
        self.given: list[Committed | None] = []

    def reset(self, seed: int) -> None:
        self.given = []

    def at(self, stamp_ns: int) -> Float32Array:
        """What it says at a stamp, shape (H, A), before it is blended."""
        ticks = stamp_ns / PERIOD + np.arange(self.horizon)
        actions = np.zeros((self.horizon, ACTIONS), np.float32)
        actions[:, 0] = 0.3 * np.sin(ticks / 5) + self.shift
        return actions

    def act(self, observation: Observation, committed: Committed | None = None) -> ActionChunk:
        self.given.append(committed)
        actions = self.at(observation.stamp_ns)
        return ActionChunk(observation.stamp_ns, actions if committed is None else committed.blended(actions))


def test_the_soft_mask_by_hand() -> None:
    # d = 2, n = 6: c = 4/5, 3/5, 2/5, 1/5 for i = 2 to 5, and W = c (e^c - 1) / (e - 1), with e - 1 = 1.718282.
    wanted = [1, 1, 0.8 * 1.225541 / 1.718282, 0.6 * 0.822119 / 1.718282, 0.4 * 0.491825 / 1.718282]
    wanted += [0.2 * 0.221403 / 1.718282, 0, 0]
    np.testing.assert_allclose(soft_mask(2, 6, 8), wanted, atol=1e-6)
    # Without a delay the first action is bound by n / (n + 1) = 1/2 alone.
    np.testing.assert_allclose(soft_mask(0, 1, 3), [0.5 * 0.648721 / 1.718282, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(soft_mask(5, 3, 4), [1, 1, 1, 0])  # nothing is left to be bound to after 3
    np.testing.assert_array_equal(soft_mask(9, 9, 4), np.ones(4))
    np.testing.assert_array_equal(soft_mask(0, 0, 2), [0, 0])


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 40))
def test_the_soft_mask_falls_from_one_to_nought(delay: int, overlap: int, horizon: int) -> None:
    weights = soft_mask(delay, overlap, horizon)
    assert weights.shape == (horizon,)
    assert ((weights >= 0) & (weights <= 1)).all()
    assert (np.diff(weights) <= 0).all()
    bound = min(delay, overlap, horizon)
    assert (weights[:bound] == 1).all()
    assert (weights[bound:] < 1).all()
    assert (weights[overlap:] == 0).all()


@given(st.integers(0, 2**31), st.integers(0, 12), st.integers(1, 12), st.integers(1, 12))
def test_blending_keeps_what_is_committed_leaves_what_is_free_and_what_agrees(
    seed: int, delay: int, overlap: int, horizon: int
) -> None:
    new, old = random_walk(seed, horizon), random_walk(seed + 1, overlap)
    blended = Committed(old, delay).blended(new)
    assert blended.dtype == np.float32
    bound = min(delay, overlap, horizon)
    np.testing.assert_array_equal(blended[:bound], old[:bound])
    np.testing.assert_array_equal(blended[overlap:], new[overlap:])
    both = slice(0, min(overlap, horizon))
    low, high = np.minimum(old[both], new[both]), np.maximum(old[both], new[both])
    assert ((blended[both] >= low - 1e-5) & (blended[both] <= high + 1e-5)).all()
    np.testing.assert_array_equal(Committed(new[:overlap], delay).blended(new), new)


def test_blending_by_hand() -> None:
    # d = 1, n = 2: bound, then c = 1/2: W = 0.18877.
    weight = 0.5 * (math.exp(0.5) - 1) / (math.e - 1)
    blended = Committed(rows(1, 1), 1).blended(rows(5, 5, 5))
    np.testing.assert_allclose(blended, rows(1, 5 - 4 * weight, 5), rtol=1e-6)


def test_what_is_no_commitment() -> None:
    with pytest.raises(PolicyNodeError, match=r"shape \(0, 2\)"):
        Committed(np.zeros((0, 2), np.float32), 0)
    with pytest.raises(PolicyNodeError, match="not finite"):
        Committed(rows(0, math.nan), 0)
    with pytest.raises(PolicyNodeError, match="delay -1"):
        Committed(rows(0), -1)
    with pytest.raises(PolicyNodeError, match="delay 0 or overlap -2"):
        soft_mask(0, -2, 4)


def test_what_is_left_of_a_chunk_is_committed() -> None:
    executor = make_executor("real_time_chunking", PERIOD, every=2)
    assert isinstance(executor, RealTimeChunking)
    assert executor.committed(0) is None
    executor.offer(ActionChunk(0, rows(10, 11, 12, 13)))
    committed = executor.committed(PERIOD, 2)
    assert committed is not None
    assert committed.delay == 2
    np.testing.assert_array_equal(committed.actions, rows(11, 12, 13))
    assert executor.committed(4 * PERIOD) is None
    executor.offer(ActionChunk(0, rows(10, math.nan, 12, 13)))
    assert executor.committed(PERIOD) is None, "what cannot be sent binds nobody"
    kept = executor.committed(2 * PERIOD)
    assert kept is not None
    np.testing.assert_array_equal(kept.actions, rows(12, 13))
    for other in (Replan(PERIOD, 2), Ensemble(PERIOD, 0.1)):
        other.offer(ActionChunk(0, rows(10, 11)))
        assert other.committed(0) is None


@pytest.mark.parametrize(
    ("name", "every", "delay", "asks_at"),
    [
        ("replan", 0, 0, 8),  # used up
        ("replan", 0, 3, 4),  # 8 - 3 and one to spare
        ("replan", 2, 3, 2),
        ("replan", 6, 3, 4),
        ("replan", 0, 7, 0),
        ("replan", 0, 30, 0),
        ("real_time_chunking", 0, 0, 4),  # half
        ("real_time_chunking", 0, 3, 4),
        ("real_time_chunking", 0, 5, 2),
        ("real_time_chunking", 6, 0, 6),
    ],
)
def test_a_chunk_is_asked_for_before_the_old_one_runs_out(name: str, every: int, delay: int, asks_at: int) -> None:
    executor = make_executor(name, PERIOD, every)
    executor.offer(ActionChunk(0, rows(*range(8))))
    asked = [k for k in range(12) if executor.wants_chunk(k * PERIOD, delay)]
    assert asked == list(range(asks_at, 12))


def test_the_longest_of_the_last_delays_is_expected() -> None:
    delays = ChunkDelays(PERIOD)
    assert delays.expected == 0
    assert delays.values() == {"chunk_delay_ticks": "0", "chunk_delay_count": "0"}
    delays.add(0, 2 * PERIOD + 1, 3 * PERIOD)
    for k in range(1, 4):
        delays.add(k * PERIOD, k * PERIOD + 30, (k + 1) * PERIOD + PERIOD // 4)
    assert delays.expected == 3
    assert delays.values()["chunk_delay_ticks"] == "3"
    assert delays.values()["chunk_delay_ms_max"] == "200.00"
    for _ in range(MEMORY):
        delays.add(0, 1, 1)
    assert delays.expected == 0


class Simulation:
    """Real-time control whose network takes as long as it is told: ticks, and what is sent in them."""

    def __init__(self, executor: str, every: int, policy: Timetable, delays_ns: list[int], latency_ns: int) -> None:
        """Args: delays_ns: what the network takes, one answer after the other, and again; latency_ns: age of an
        observation at its tick."""
        self._policy, self._delays, self._latency = policy, delays_ns, latency_ns
        self._buffer = buffer_of()
        chunks = make_executor(executor, PERIOD, every)
        self.control = RealTimeControl(self._buffer, chunks, SafetyFilter(ROBOT), self._ask)
        self._answers: list[tuple[int, Proposal]] = []
        self.arrived: list[tuple[int, Proposal]] = []
        self._now = self.asked = 0
        self.sent: list[tuple[int, Step]] = []
        """When, and what."""

    def run(self, ticks: int) -> None:
        for tick in range(1, ticks + 1):
            self._wait_until(tick * PERIOD)
            feed(self._buffer, self._now - self._latency)
            self.control.tick(self._now, self._send)

    def _wait_until(self, now_ns: int) -> None:
        while self._answers and self._answers[0][0] <= now_ns:
            self._now, proposal = answer = self._answers.pop(0)
            self.arrived.append(answer)
            if (step := self.control.offer(proposal, self._now)) is not None:
                self._send(step)
        self._now = now_ns

    def _ask(self, seen: Observation, committed: Committed | None) -> bool:
        if self._answers:
            return False
        took = self._delays[self.asked % len(self._delays)]
        self._answers.append((self._now + took, Proposal(self._policy.act(seen, committed), took / 1e9)))
        self.asked += 1
        return True

    def _send(self, step: Step) -> None:
        self.sent.append((self._now, step))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["replan", "real_time_chunking"]),
    st.integers(0, 6),
    st.integers(0, 12),
    st.integers(0, 8),
    st.floats(0.05, 0.45),
)
def test_no_tick_goes_without_its_action_while_chunks_are_long_enough(
    name: str, ticks: int, every: int, more: int, latency: float
) -> None:
    """A chunk that takes d ticks is asked for at most every d: 2 d actions are enough whatever is asked of the rest."""
    delay = ticks + 1  # what the network takes, and up to the next tick
    policy = Timetable(2 * delay + more)
    took = round((ticks + 0.5) * PERIOD)
    simulation = Simulation(name, every, policy, [took], round(latency * PERIOD))
    simulation.run(80)
    begun = next(i for i, (_, step) in enumerate(simulation.sent) if not step.command.held)
    assert begun <= delay
    driven = simulation.sent[begun:]
    assert not [step for _, step in driven if step.command.held]
    times = [at for at, _ in driven]
    assert max(np.diff(times)) <= 1.5 * PERIOD
    assert len(times) >= 80 - delay - 1
    assert simulation.control.delays.expected in (delay, delay - 1)
    # Each is what the timetable says of its tick, whichever chunk it is of.
    at_ticks = [(at, step.command.action[0]) for at, step in driven if at % PERIOD == 0]
    wanted = [policy.at(at - round(latency * PERIOD))[0, 0] for at, _ in at_ticks]
    np.testing.assert_allclose([action for _, action in at_ticks], wanted, atol=1e-6)


def test_chunks_that_are_too_short_leave_gaps_and_say_so() -> None:
    """The property above can fail: 5 ticks of network for chunks of 6."""
    simulation = Simulation("replan", 0, Timetable(6), [round(4.5 * PERIOD)], 0)
    simulation.run(60)
    held = [step for _, step in simulation.sent if step.command.held]
    assert len(held) > 20
    assert held[-1].command.reasons == ("policy: no chunk for this tick yet",)
    assert simulation.control.delays.values()["chunk_delay_ticks"] == "5"


def test_a_slow_networks_tick_is_not_left_open() -> None:
    """A tick waits for its chunk while that may come within it; once it is known not to, the robot is told to hold."""
    simulation = Simulation("replan", 0, Timetable(2), [round(3.5 * PERIOD)], 0)
    simulation.run(40)
    ticks = sorted({at // PERIOD for at, _ in simulation.sent})
    assert ticks == list(range(2, 41)), "the first tick alone was left open"


class Fickle(Timetable):
    """Each of its chunks contradicts the one before."""

    def act(self, observation: Observation, committed: Committed | None = None) -> ActionChunk:
        self.shift = -self.shift
        return super().act(observation, committed)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5), st.integers(1, 8))
def test_what_is_sent_while_the_network_thinks_is_what_its_chunk_begins_with(ticks: int, every: int) -> None:
    policy = Fickle(24, 0.1)
    simulation = Simulation("real_time_chunking", every, policy, [round((ticks + 0.5) * PERIOD)], 0)
    simulation.run(60)
    sent = {at: step.command.action for at, step in simulation.sent}
    compared = 0
    for arrived, proposal in simulation.arrived[2:]:
        assert proposal.chunk is not None
        for k, action in enumerate(proposal.chunk.actions):
            at = proposal.chunk.stamp_ns + k * PERIOD
            if at < arrived:
                np.testing.assert_array_equal(sent[at], action)
                compared += 1
    assert compared >= ticks + 1
    changes = np.abs(np.diff([float(action[0]) for at, action in sorted(sent.items()) if at >= (ticks + 2) * PERIOD]))
    # At the switch the timetable's own step, and of the 0.2 that chunks differ by the part that the mask lets go first.
    mask = soft_mask(ticks + 1, 24 - max(every, ticks + 1), 24)
    assert changes.max() <= 0.3 / 5 + 0.2 * np.abs(np.diff(mask)).max() + 1e-5


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 6), st.integers(1, 10), st.integers(12, 20))
def test_no_jump_is_larger_than_the_blend_explains(seed: int, delay: int, executed: int, horizon: int) -> None:
    """The old chunk up to the delay, then the blended one: by the product rule its steps are those of both, weighted,
    and the mask's step times what they differ by."""
    old, new = random_walk(seed, horizon), random_walk(seed + 1, horizon)
    executor = RealTimeChunking(PERIOD, executed)
    executor.offer(ActionChunk(0, old))
    start = executed * PERIOD
    committed = executor.committed(start, delay)
    assert committed is not None
    blended = committed.blended(new)
    sent = []
    for k in range(horizon):
        if k == delay:
            executor.offer(ActionChunk(start, blended))
        if (action := executor.next(start + k * PERIOD)) is not None:
            sent.append(action)
    if len(sent) < horizon:  # The old one ran out before the new one came.
        assert delay > len(committed.actions)
        return
    weights, padded = committed.weights(horizon)[:, None], committed.padded(horizon)
    overlap = len(committed.actions)
    padded[overlap:] = new[overlap:]
    steps = np.abs(np.diff(np.array(sent), axis=0))
    weighted = weights[1:] * np.abs(np.diff(padded, axis=0)) + (1 - weights[1:]) * np.abs(np.diff(new, axis=0))
    switched = np.abs(np.diff(weights, axis=0)) * np.abs(new - padded)[:-1]
    assert (steps <= weighted + switched + 1e-4).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.integers(8, 12))
def test_without_a_delay_chunks_that_agree_change_nothing(every: int, horizon: int) -> None:
    sent = {}
    for name in ("replan", "real_time_chunking"):
        policy, buffer = Timetable(horizon), buffer_of()
        control = LockstepControl(buffer, make_executor(name, PERIOD, every), SafetyFilter(ROBOT))
        actions = []
        for k in range(30):
            feed(buffer, k * PERIOD)
            observed = control.due()
            assert observed is not None
            actions.append(control.answer(policy, observed, control.tick_ns).command.action)
        sent[name] = np.array(actions)
        times = 0 if name == "replan" else (30 - 1) // every
        assert [c.delay for c in policy.given if c is not None] == [0] * times
    np.testing.assert_allclose(sent["real_time_chunking"], sent["replan"], atol=1e-6)


def test_exploration_displaces_what_is_free_alone() -> None:
    policy = Timetable(6)
    explore = Explore(policy, 0.5)
    explore.reset(3)
    first = explore.act(observation(stamp_ns=0))
    committed = Committed(first.actions[2:], 1)
    second = explore.act(observation(stamp_ns=2 * PERIOD), committed)
    assert policy.given[-1] is committed
    np.testing.assert_array_equal(second.actions[:1], first.actions[2:3])
    moved = np.abs(second.actions - policy.at(2 * PERIOD))[:, 0]
    assert moved[4] > 0
    assert moved[4] == pytest.approx(moved[5])
    aside = ShiftedAim(policy, 1.0)
    aside.act(observation(stamp_ns=0), committed)
    assert policy.given[-1] is committed

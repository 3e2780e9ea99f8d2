"""Lockstep and real-time control by hand arithmetic; the inference thread; diagnostics."""

import threading
from concurrent.futures import TimeoutError as FutureTimeoutError

import numpy as np
import pytest
from small_robot import ROBOT

from vla_policy_node.chunking import Replan
from vla_policy_node.committed import Committed
from vla_policy_node.control import LockstepControl, Proposal, RealTimeControl, Step, Ticker, propose
from vla_policy_node.diagnostics import ERROR, OK, STALE, DurationMonitor, Status, StreamMonitor, worst
from vla_policy_node.exceptions import CheckpointError
from vla_policy_node.inference import InferenceThread
from vla_policy_node.observation import Joints, Observation, ObservationBuffer, Pose
from vla_policy_node.policy import ActionChunk
from vla_policy_node.safety import SafetyFilter
from vla_policy_node.spec import RobotSpec

PERIOD = ROBOT.period_ns  # 100 ms


class Ramp:
    """A policy whose chunk's action i is 0.1 * (i + 1) in `up`."""

    spec: RobotSpec = ROBOT

    def __init__(self, horizon: int = 3) -> None:
        self.horizon = horizon
        self.asked: list[int] = []

    def reset(self, seed: int) -> None:
        self.asked = []

    def act(self, observation: Observation, committed: Committed | None = None) -> ActionChunk:
        self.asked.append(observation.stamp_ns)
        actions = np.zeros((self.horizon, 3), np.float32)
        actions[:, 0] = 0.1 * np.arange(1, self.horizon + 1)
        return ActionChunk(observation.stamp_ns, actions)


class Asked(list[Observation]):
    """What a network was asked about; it takes every question."""

    def __call__(self, observation: Observation, committed: Committed | None) -> bool:
        self.append(observation)
        return True


def feed(buffer: ObservationBuffer, stamp_ns: int, *, pose: bool = True) -> None:
    for camera in ROBOT.cameras:
        buffer.add_image(camera.name, stamp_ns, np.zeros((camera.height, camera.width, 3), np.uint8))
    buffer.add_joints(stamp_ns, Joints(("elbow", "grip"), np.zeros(2), np.zeros(2)))
    if pose:
        buffer.add_pose(stamp_ns, Pose(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0])))


def ticked(control: RealTimeControl, now_ns: int) -> Step | None:
    """What a tick sends."""
    sent: list[Step] = []
    control.tick(now_ns, sent.append)
    assert len(sent) <= 1
    return sent[0] if sent else None


def buffer_of() -> ObservationBuffer:
    buffer = ObservationBuffer(ROBOT)
    buffer.instruction = "open the drawer"
    return buffer


def test_lockstep_answers_each_instant_once_when_all_streams_have_it() -> None:
    buffer, policy = buffer_of(), Ramp()
    control = LockstepControl(buffer, Replan(PERIOD, 2), SafetyFilter(ROBOT))
    sent = []
    for k in range(4):
        feed(buffer, k * PERIOD, pose=False)
        assert control.due() is None
        feed(buffer, k * PERIOD)
        observed = control.due()
        assert observed is not None
        assert control.due() is None
        sent.append(control.answer(policy, observed, control.tick_ns))
    assert policy.asked == [0, 2 * PERIOD]
    assert [round(float(s.command.action[0]), 3) for s in sent] == [0.1, 0.2, 0.1, 0.2]
    assert [s.stamp_ns for s in sent] == [k * PERIOD for k in range(4)]
    assert [s.proposal is not None for s in sent] == [True, False, True, False]


def test_lockstep_holds_and_says_why_without_an_instruction() -> None:
    buffer = ObservationBuffer(ROBOT)
    control = LockstepControl(buffer, Replan(PERIOD, 2), SafetyFilter(ROBOT))
    feed(buffer, 5)
    observed = control.due()
    assert observed is not None
    step = control.answer(Ramp(), observed, control.tick_ns)
    assert step.command.held
    assert step.command.reasons == ("instruction: none given",)


def test_a_policys_own_error_is_a_reason_and_any_other_a_defect() -> None:
    class Fails(Ramp):
        def __init__(self, error: Exception) -> None:
            self.error = error

        def act(self, observation: Observation, committed: Committed | None = None) -> ActionChunk:
            raise self.error

    buffer = buffer_of()
    feed(buffer, 0)
    observed = buffer.assemble()
    assert isinstance(observed, Observation)
    assert propose(Fails(CheckpointError("gone")), observed).error == "policy: gone"
    with pytest.raises(ZeroDivisionError):
        propose(Fails(ZeroDivisionError()), observed)


def test_the_ticker_follows_observations_and_falls_back_to_the_clock() -> None:
    ticker = Ticker(100)
    assert ticker.due_ns == 0
    assert ticker.on_observation(0)
    assert not ticker.on_observation(49)  # a second stream's worth of the same instant
    assert not ticker.on_clock(120)  # an observation may still come
    assert ticker.due_ns == 125
    assert ticker.on_observation(121)
    assert ticker.on_clock(246)  # 125 later: none came
    assert ticker.due_ns == 346
    assert not ticker.on_clock(345)
    assert ticker.on_clock(346)  # 100 later: the clock alone keeps the rate
    assert not ticker.on_observation(390)
    assert ticker.on_observation(396)


def test_after_a_late_observation_the_ticker_is_in_phase_again() -> None:
    """Observations every 100, but the third is 34 late and the fourth 40: a tick each, only the third by the clock."""
    ticker = Ticker(100)
    assert ticker.on_observation(0)
    assert ticker.on_observation(100)
    assert ticker.on_clock(225)
    assert ticker.due_ns == 325, "by the clock, as long as no observation comes"
    assert not ticker.on_observation(234), "its tick was just before it"
    assert not ticker.on_clock(325)
    assert ticker.on_observation(340)


def test_real_time_never_waits_and_uses_a_late_chunk_from_its_proper_index() -> None:
    buffer, asked = buffer_of(), Asked()
    control = RealTimeControl(buffer, Replan(PERIOD, 3), SafetyFilter(ROBOT), asked)
    policy = Ramp()
    feed(buffer, 0)
    assert ticked(control, 1) is None  # asked; the chunk may still give this very command
    feed(buffer, PERIOD)
    second = ticked(control, PERIOD + 1)
    assert second is not None
    assert second.command.held  # the network is late: hold rather than wait
    late = control.offer(Proposal(policy.act(asked[0]), 0.15), PERIOD + 2)
    assert late is None
    feed(buffer, 2 * PERIOD)
    third = ticked(control, 2 * PERIOD + 1)
    assert third is not None
    assert third.command.action[0] == pytest.approx(0.3)  # index 2 of the chunk stamped 0
    assert third.stamp_ns == 2 * PERIOD


@pytest.mark.parametrize(
    ("horizon", "answered_ns", "expected"),
    [
        pytest.param(1, 10, 0.1, id="at once"),
        pytest.param(1, PERIOD * 9 // 10, 0.1, id="a single action after more than half a period"),
        pytest.param(2, PERIOD * 9 // 10, 0.2, id="the action for then, where the chunk has one"),
    ],
)
def test_real_time_answers_with_the_chunk_when_it_comes_within_the_tick(
    horizon: int, answered_ns: int, expected: float
) -> None:
    buffer, asked = buffer_of(), Asked()
    control = RealTimeControl(buffer, Replan(PERIOD, 1), SafetyFilter(ROBOT), asked)
    feed(buffer, 0)
    assert ticked(control, 1) is None
    step = control.offer(Proposal(Ramp(horizon).act(asked[0]), 0.01), answered_ns)
    assert step is not None
    assert not step.command.held
    assert step.stamp_ns == 0
    assert step.command.action[0] == pytest.approx(expected)


def test_real_time_sends_single_actions_for_pictures_that_come_late() -> None:
    buffer, asked = buffer_of(), Asked()
    control = RealTimeControl(buffer, Replan(PERIOD, 1), SafetyFilter(ROBOT), asked)
    for k in range(3):
        feed(buffer, k * PERIOD)
        late = k * PERIOD + PERIOD * 9 // 10
        assert ticked(control, late) is None
        step = control.offer(Proposal(Ramp(1).act(asked[k]), 0.01), late + PERIOD // 20)
        assert step is not None
        assert not step.command.held


def test_real_time_holds_on_stale_input_and_on_nan() -> None:
    buffer = buffer_of()
    control = RealTimeControl(buffer, Replan(PERIOD, 3), SafetyFilter(ROBOT), lambda o, c: True)
    feed(buffer, 0)
    assert ticked(control, 1) is None
    chunk = Ramp().act(Observation(0, {}, np.zeros(3, np.float32), ""))
    chunk.actions[0, 1] = np.nan
    step = control.offer(Proposal(chunk, 0.01), 2)
    assert step is not None
    assert step.command.reasons == ("action: turn is not finite",)
    stale = ticked(control, ROBOT.max_skew_ns + 1)
    assert stale is not None
    assert stale.command.held
    assert len(stale.command.reasons) == 4
    assert all("last sample 100 ms old" in reason for reason in stale.command.reasons)


def test_the_inference_thread_keeps_order_gives_errors_and_ends() -> None:
    thread = InferenceThread()
    gate, seen = threading.Event(), []
    first = thread.submit(gate.wait)
    second = thread.submit(lambda: seen.append(threading.current_thread().name))
    third = thread.submit(lambda: 1 // 0)
    assert thread.busy
    with pytest.raises(FutureTimeoutError):
        second.result(0.05)
    gate.set()
    assert first.result(1)
    second.result(1)
    assert seen == ["inference"]
    with pytest.raises(ZeroDivisionError):
        third.result(1)
    assert not thread.busy
    assert thread.close()


def test_stream_monitor_counts_rates_latencies_drops_and_refusals() -> None:
    monitor = StreamMonitor("/camera/front/image_raw", 1_000_000_000)
    assert monitor.status(0, 0).message == "no publisher on /camera/front/image_raw"
    assert monitor.status(0, 1).level == STALE
    ms = 1_000_000
    for k in [0, 1, 2, 3, 4, 5, 6, 9]:  # 20 Hz; two of them are missing
        monitor.received(k * 50 * ms + 3 * ms, k * 50 * ms)
    status = monitor.status(460 * ms, 1)
    assert status.level == OK
    assert status.values["dropped"] == "2"
    assert status.values["latency_ms_median"] == "3.00"
    assert status.values["rate_hz"] == f"{7 / 0.45:.1f}"
    assert monitor.status(1_600 * ms, 1).message == "last message 1.1 s ago"
    monitor.refused("image of shape ...")
    assert monitor.status(460 * ms, 1).level == ERROR
    monitor.restart()
    assert monitor.status(460 * ms, 1).level == OK


def test_what_a_latched_topic_said_holds() -> None:
    monitor = StreamMonitor("/task/instruction", None)
    assert monitor.status(0, 1).level == STALE, "nothing was said yet"
    monitor.received(0, None)
    assert monitor.status(3600 * 1_000_000_000, 1).level == OK


def test_the_worst_status_speaks() -> None:
    statuses = [Status("a", OK, "fine"), Status("b", STALE, "old"), Status("c", ERROR, "broken")]
    assert worst(statuses) == (ERROR, "broken")
    assert worst(statuses[:2]) == (STALE, "old")
    assert worst(statuses[:1]) == (OK, "")
    assert worst([]) == (OK, "")


def test_durations_in_milliseconds() -> None:
    monitor = DurationMonitor()
    assert monitor.values("inference") == {"inference_count": "0"}
    for seconds in (0.001, 0.002, 0.009):
        monitor.add(seconds)
    assert monitor.values("inference") == {
        "inference_count": "3",
        "inference_ms_median": "2.00",
        "inference_ms_max": "9.00",
    }

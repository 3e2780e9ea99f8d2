"""Chunk executors: which action at which tick, by hand and as properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_policy_node.chunking import Ensemble, Replan, action_index, ensemble_weights, make_executor
from vla_policy_node.exceptions import PolicyNodeError
from vla_policy_node.policy import ActionChunk

PERIOD = 100


def chunk(stamp: int, *values: float) -> ActionChunk:
    return ActionChunk(stamp, np.array(values, np.float32)[:, None])


def value(action: "np.ndarray | None") -> float:
    assert action is not None
    return float(action[0])


@pytest.mark.parametrize(
    ("tick", "index"), [(1000, 0), (1049, 0), (1050, 1), (1100, 1), (1149, 1), (951, 0), (950, 0), (949, -1), (850, -1)]
)
def test_index_is_the_nearest_tick(tick: int, index: int) -> None:
    assert action_index(tick, 1000, PERIOD) == index


@given(st.integers(0, 2**62), st.integers(1, 10**9), st.integers(-5, 50), st.floats(-0.49, 0.49))
def test_index_tolerates_jitter_below_half_a_period(stamp: int, period: int, i: int, jitter: float) -> None:
    assert action_index(stamp + i * period + int(jitter * period), stamp, period) == i


def test_replan_executes_every_and_then_wants_the_next() -> None:
    executor = Replan(PERIOD, every=2)
    assert executor.wants_chunk(0)
    assert executor.next(0) is None
    executor.offer(chunk(0, 10, 11, 12, 13))
    assert [value(executor.next(t)) for t in (0, 100)] == [10, 11]
    assert [executor.wants_chunk(t) for t in (0, 100, 200)] == [False, False, True]
    # Until the new chunk arrives the old one goes on.
    assert value(executor.next(200)) == 12
    executor.offer(chunk(200, 20, 21, 22, 23))
    assert not executor.wants_chunk(200)
    assert value(executor.next(300)) == 21


def test_a_late_chunk_starts_where_the_tick_is() -> None:
    executor = Replan(PERIOD, every=4)
    executor.offer(chunk(0, 10, 11, 12, 13))
    assert value(executor.next(200)) == 12


def test_an_older_chunk_does_not_displace_a_newer_one() -> None:
    executor = Replan(PERIOD, every=4)
    executor.offer(chunk(100, 20, 21))
    executor.offer(chunk(0, 10, 11))
    assert value(executor.next(100)) == 20


def test_a_chunk_is_used_up_and_reset_forgets_it() -> None:
    executor = Replan(PERIOD, every=9)
    executor.offer(chunk(0, 10, 11))
    assert executor.next(200) is None
    assert executor.wants_chunk(200)
    executor.reset()
    assert executor.next(0) is None


@given(st.integers(1, 12), st.integers(1, 8), st.integers(1, 60))
def test_replan_asks_every_k_ticks(every: int, length: int, ticks: int) -> None:
    executor = Replan(PERIOD, every)
    asked = []
    for tick in range(ticks):
        if executor.wants_chunk(tick * PERIOD):
            asked.append(tick)
            executor.offer(chunk(tick * PERIOD, *range(tick, tick + length)))
        assert value(executor.next(tick * PERIOD)) == tick
    assert asked == list(range(0, ticks, min(every, length)))


@given(st.sampled_from(["replan", "ensemble"]), st.integers(1, 6), st.integers(-1000, 2000))
def test_no_action_outside_the_chunks_span(name: str, length: int, tick: int) -> None:
    executor = make_executor(name, PERIOD, every=3)
    executor.offer(chunk(0, *range(length)))
    action = executor.next(tick)
    inside = -PERIOD / 2 <= tick < length * PERIOD - PERIOD / 2
    assert (action is not None) == inside
    if action is not None:
        assert abs(tick - value(action) * PERIOD) <= PERIOD / 2


def test_ensemble_weights_by_hand() -> None:
    # exp(0), exp(-ln 2), exp(-2 ln 2) = 1, 1/2, 1/4; their sum is 7/4.
    np.testing.assert_allclose(ensemble_weights(3, np.log(2)), [4 / 7, 2 / 7, 1 / 7])


@given(st.integers(1, 200), st.floats(-50, 50))
def test_ensemble_weights_sum_to_one(count: int, decay: float) -> None:
    weights = ensemble_weights(count, decay)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()


def test_ensemble_averages_the_oldest_with_most_weight() -> None:
    executor = Ensemble(PERIOD, decay=float(np.log(2)))
    for stamp, values in ((0, (0, 3, 6)), (100, (6, 9)), (200, (0, 0))):
        assert executor.wants_chunk(stamp)
        executor.offer(chunk(stamp, *values))
        assert not executor.wants_chunk(stamp)
    # At tick 200: 6 of the first, 9 of the second, 0 of the third; weights 4/7, 2/7, 1/7.
    assert value(executor.next(200)) == pytest.approx((6 * 4 + 9 * 2 + 0) / 7)
    # At tick 300 only the third reaches.
    assert value(executor.next(300)) == 0
    assert executor.next(400) is None


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20), st.floats(0, 2))
def test_an_ensemble_stays_between_its_predictions(values: list[float], decay: float) -> None:
    executor = Ensemble(PERIOD, decay)
    for i, v in enumerate(values):
        executor.offer(chunk(i * PERIOD, *[v] * len(values)))
    got = value(executor.next((len(values) - 1) * PERIOD))
    assert min(values) - 1e-6 <= got <= max(values) + 1e-6


def test_ensemble_takes_the_last_of_two_with_one_stamp_and_no_older_one() -> None:
    executor = Ensemble(PERIOD, 0.0)
    executor.offer(chunk(100, 1, 1))
    executor.offer(chunk(100, 5, 5))
    executor.offer(chunk(0, 9, 9))
    assert value(executor.next(100)) == 5
    executor.reset()
    assert executor.next(100) is None


def test_errors_name_the_value_and_the_choices() -> None:
    with pytest.raises(PolicyNodeError, match="'average' is not one of replan, ensemble, real_time_chunking"):
        make_executor("average", PERIOD)
    with pytest.raises(PolicyNodeError, match="every -1 is below 0"):
        Replan(PERIOD, -1)
    with pytest.raises(PolicyNodeError, match="period_ns 0"):
        Ensemble(0, 0.1)
    with pytest.raises(PolicyNodeError, match="decay nan"):
        Ensemble(PERIOD, float("nan"))
    for shape in ((3,), (0, 2)):
        with pytest.raises(PolicyNodeError, match="expected"):
            Replan(PERIOD, 1).offer(ActionChunk(0, np.zeros(shape, np.float32)))

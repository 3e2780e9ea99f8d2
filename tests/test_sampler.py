"""Sampling: balance over tasks, the demonstrations' share, and that seed and step decide everything."""

from dataclasses import replace

import numpy as np
import pytest
from episodes import SPEC, make_header
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout_manager.episode import Driver
from trainer.dataset import WindowDataset
from trainer.episode_arrays import EpisodeArrays
from trainer.exceptions import ConfigError
from trainer.prefetch import Prefetcher
from trainer.sampler import WindowSampler


def _episode(task: str, driver: Driver, steps: int) -> EpisodeArrays:
    return EpisodeArrays(
        header=replace(make_header(f"{task}-{driver}-{steps}", task), driver=driver),
        bag_digest="",
        images=np.zeros((steps, 1, 2, 2, 3), np.uint8),
        proprioception=np.zeros((steps, 2), np.float32),
        actions=np.zeros((steps, 2), np.float32),
        stamps=np.arange(steps, dtype=np.int64) * SPEC.period_ns,
        instructions=(task,),
        instruction_index=np.zeros(steps, np.int64),
    )


def _sampler(episodes: list[EpisodeArrays], size: int, share: float = 0.5, seed: int = 0) -> WindowSampler:
    return WindowSampler(WindowDataset(episodes, SPEC, 4), size, share, seed)


MIXED = [
    _episode("push", "expert", 100),
    _episode("open", "expert", 10),
    _episode("reach", "expert", 50),
    _episode("push", "policy", 400),
    _episode("open", "policy", 5),
]


def _counts(sampler: WindowSampler, step: int) -> dict[tuple[str, bool], int]:
    counts: dict[tuple[str, bool], int] = {}
    for window in sampler.windows(step):
        episode = sampler.dataset.episodes[sampler.dataset.episode_of[window]]
        key = (episode.header.task, episode.is_demonstration)
        counts[key] = counts.get(key, 0) + 1
    return counts


def test_tasks_and_shares_are_balanced_whatever_the_lengths() -> None:
    # 64 windows: 48 of demonstrations over 3 tasks, 16 of rollouts over 2.
    wanted = {("push", True): 16, ("open", True): 16, ("reach", True): 16, ("push", False): 8, ("open", False): 8}
    assert _counts(_sampler(MIXED, 64, 0.75), 5) == wanted


def test_a_remainder_favours_no_task_in_the_long_run() -> None:
    sampler = _sampler(MIXED[:3], 4)
    totals = {
        task: sum(_counts(sampler, step).get((task, True), 0) for step in range(300)) for task in ("push", "open")
    }
    assert all(abs(total - 400) < 40 for total in totals.values())
    assert all(max(_counts(sampler, step).values()) == 2 for step in range(20))


@pytest.mark.parametrize(("episodes", "experts"), [(MIXED[:3], 10), (MIXED[3:], 0), (MIXED, 2)])
def test_one_kind_alone_fills_the_batch(episodes: list[EpisodeArrays], experts: int) -> None:
    sampler = _sampler(episodes, 10, 0.2)
    assert sampler.expert_windows == experts
    assert sum(n for (_, expert), n in _counts(sampler, 0).items() if expert) == experts


@settings(deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(1, 40), st.floats(0, 1))
def test_seed_and_step_decide(seed: int, step: int, size: int, share: float) -> None:
    one, other = _sampler(MIXED, size, share, seed), _sampler(MIXED, size, share, seed)
    windows = one.windows(step)
    np.testing.assert_array_equal(windows, other.windows(step))
    assert windows.shape == (size,)
    assert ((windows >= 0) & (windows < len(one.dataset))).all()


def test_steps_and_seeds_differ() -> None:
    sampler = _sampler(MIXED, 64)
    assert (sampler.windows(0) != sampler.windows(1)).any()
    assert (sampler.windows(0) != _sampler(MIXED, 64, seed=1).windows(0)).any()


def test_every_window_is_drawn_in_time() -> None:
    sampler = _sampler(MIXED[:3], 32)
    seen = {int(w) for step in range(150) for w in sampler.windows(step)}
    assert seen == set(range(160))


def test_bad_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="batch_size 0"):
        _sampler(MIXED, 0)
    with pytest.raises(ConfigError, match="expert_share 2"):
        _sampler(MIXED, 4, 2)


def test_batches_gathered_ahead_are_those_of_their_steps() -> None:
    sampler = _sampler(MIXED, 16)
    with Prefetcher(sampler, 5) as batches:
        for step in (0, 1, 2, 4, 3, 4):
            wanted, found = sampler.batch(step), batches.batch(step)
            np.testing.assert_array_equal(found.mask, wanted.mask)
            np.testing.assert_array_equal(found.instruction_ids, wanted.instruction_ids)

"""Scripted experts and the noise on what they execute."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_manager.decisions import DecisionLog
from rollout_manager.drivers import ExpertDriver
from rollout_manager.envs.registry import make_env
from rollout_manager.exceptions import SimulatorError
from rollout_manager.experts.demonstrator import Demonstrator
from rollout_manager.experts.expert import ActionNoise, make_expert
from rollout_manager.rollout import new_header, run_episode
from vla_policy_node.spec import load_spec

SPEC = load_spec("metaworld")


def test_experts_solve_their_tasks_from_the_privileged_state() -> None:
    env, expert = make_env("metaworld"), make_expert("metaworld")
    endings = []
    for task in ("reach-v3", "push-v3", "drawer-open-v3", "window-open-v3", "button-press-topdown-v3"):
        header = new_header(env, task, 0, driver="expert")
        driver = ExpertDriver(Demonstrator(expert, SPEC, ActionNoise(SPEC, 0.0)))
        endings.append(run_episode(env, driver, header, header.time_limit_steps).outcome)
    assert [outcome.ending for outcome in endings] == ["success"] * 5
    assert all(outcome.steps < 150 and outcome.progress == 1 for outcome in endings)


def test_executed_is_clean_plus_noise_and_the_clean_one_is_proposed() -> None:
    env = make_env("metaworld")
    header = new_header(env, "push-v3", 0, driver="expert", exploration=0.1)
    assert header.label_source == "proposed"
    log = DecisionLog()
    run_episode(
        env, ExpertDriver(Demonstrator(make_expert("metaworld"), SPEC, ActionNoise(SPEC, 0.1))), header, 40, [log]
    )
    clean = np.array([d.chunk.actions[0] for d in log.decisions if d.chunk is not None])
    sent = np.array([d.action for d in log.decisions])
    assert len(clean) == len(sent) == 40
    assert np.array_equal(clean[:, 3], sent[:, 3])  # The gripper gets none.
    inside = np.abs(clean[:, :3]) < 0.7
    assert 0.05 < np.std((sent - clean)[:, :3][inside]) < 0.2
    assert np.abs(sent).max() <= 1


def test_noise_has_the_deviation_and_the_correlation_that_are_asked_for() -> None:
    for correlation in (0.0, 0.8):
        noise = ActionNoise(SPEC, 0.2, correlation)
        noise.reset(7)
        drawn = np.array([noise.apply(np.zeros(4, np.float32)) for _ in range(20000)])[:, :3]
        assert drawn.std(axis=0) == pytest.approx(0.2, rel=0.05)
        neighbours = (drawn[1:] * drawn[:-1]).mean(axis=0) / drawn.var(axis=0)
        assert neighbours == pytest.approx(correlation, abs=0.03)


def test_noise_can_fade_with_the_hand_and_spare_dimensions() -> None:
    spec = replace(SPEC, action=(*SPEC.action[:2], replace(SPEC.action[2], noise=0.5), SPEC.action[3]))
    noise = ActionNoise(spec, 0.2, fades=True)
    noise.reset(7)
    still = noise.apply(np.array([0, 0, 0, 1], np.float32))
    assert still.tolist() == [0, 0, 0, 1], "a hand that stands gets none, the gripper does not count as motion"
    half = np.array([0.5, 0, 0, -1], np.float32)
    drawn = np.array([noise.apply(half) - half for _ in range(20000)])
    assert drawn.std(axis=0) == pytest.approx([0.1, 0.1, 0.05, 0.0], rel=0.05)


@given(st.integers(0, 2**31), st.floats(0, 2), st.floats(0, 0.99), st.lists(st.floats(-1, 1), min_size=4, max_size=4))
def test_noise_repeats_with_its_seed_and_stays_within_limits(
    seed: int, scale: float, correlation: float, action: list[float]
) -> None:
    clean = np.array(action, np.float32)
    runs = []
    for _ in range(2):
        noise = ActionNoise(SPEC, scale, correlation)
        noise.reset(seed)
        runs.append(np.array([noise.apply(clean) for _ in range(5)]))
    assert np.array_equal(runs[0], runs[1])
    assert np.abs(runs[0]).max() <= 1
    assert (runs[0][:, 3] == clean[3]).all()
    if scale == 0:
        assert (runs[0] == clean).all()


def test_mistakes_are_named() -> None:
    with pytest.raises(SimulatorError, match="'moon' has no scripted expert; those that have: metaworld"):
        make_expert("moon")
    expert = make_expert("metaworld")
    with pytest.raises(SimulatorError, match="'juggle-v3' is not one of MetaWorld's 50"):
        expert.reset("juggle-v3", 0)
    expert.reset("reach-v3", 0)
    with pytest.raises(SimulatorError, match=r"shape \(4,\), expected \(39,\)"):
        expert.act(np.zeros(4))
    with pytest.raises(SimulatorError, match="scale -1"):
        ActionNoise(SPEC, -1)
    with pytest.raises(SimulatorError, match="correlation 1"):
        ActionNoise(SPEC, 0.1, 1.0)

"""Guidance of a flow: its weight and one step of a linear denoiser by hand, and what it does to a network's chunks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_robot import ROBOT, SMALL, observation, small_network
from torch import Tensor

from vla_policy_node.checkpoint import Lineage, save_checkpoint
from vla_policy_node.committed import Committed
from vla_policy_node.exceptions import NetworkError
from vla_policy_node.network.guidance import LIMIT, Guidance, follow, guidance_weight, guided
from vla_policy_node.network_policy import NetworkPolicy

FLOW = replace(SMALL, head="flow", horizon=8)


def test_the_weight_by_hand() -> None:
    assert guidance_weight(0.5) == pytest.approx(0.5 / 0.25)
    assert guidance_weight(0.2) == pytest.approx((0.04 + 0.64) / 0.16)
    assert guidance_weight(0.9) == LIMIT  # 0.82 / 0.09 = 9.1
    assert guidance_weight(0.9, 20.0) == pytest.approx(0.82 / 0.09)
    assert guidance_weight(0.0) == guidance_weight(1.0) == LIMIT


def test_one_guided_step_of_a_linear_denoiser_by_hand() -> None:
    # v = M A with M = [[0, 2], [0, 0]] at t = 1/2: A1 = (1 + M / 2) A = [[1, 1], [0, 1]] (1, 2) = (3, 2). It is to be
    # (4, *): the error (1, 0) goes back through the transpose, [[1, 0], [1, 1]] (1, 0) = (1, 1). The weight is 2.
    matrix = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    guidance = Guidance(torch.tensor([[4.0], [9.0]]), torch.tensor([1.0, 0.0]))
    chunk = torch.tensor([[[1.0], [2.0]]])
    moved = guided(lambda a, t: matrix @ a, chunk, 0.5, guidance)
    torch.testing.assert_close(moved, torch.tensor([[[4.0 + 2 * 1.0], [0.0 + 2 * 1.0]]]))
    assert not moved.requires_grad


def test_without_a_step_to_go_back_through_nothing_is_pulled() -> None:
    # A denoiser that knows its end whatever the place, v = (g - A) / (1 - t), cannot be led away from it.
    goal = torch.full((1, 3, 1), 0.7)

    def velocity(chunk: Tensor, time: float) -> Tensor:
        return torch.as_tensor((goal - chunk) / (1 - time))

    guidance = Guidance(torch.zeros(3, 1), torch.ones(3))
    torch.testing.assert_close(follow(velocity, torch.randn(1, 3, 1), 10, guidance), goal)


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(0, 2**31))
def test_a_weight_of_nought_changes_nothing(steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    noise, matrix = torch.randn(2, 4, 3, generator=generator), torch.randn(4, 4, generator=generator)
    guidance = Guidance(torch.randn(4, 3, generator=generator), torch.zeros(4))
    free = follow(lambda a, t: matrix @ a, noise, steps)
    torch.testing.assert_close(follow(lambda a, t: matrix @ a, noise, steps, guidance), free)


def test_of_normally_distributed_chunks_the_guided_ones_end_nearer() -> None:
    """Actions that are N(0, C), correlated along the chunk: their velocity is known, v = (E[a | x] - x) / (1 - t)."""
    horizon, bound = 8, 3
    index = torch.arange(horizon)
    covariance = torch.exp(-((index[:, None] - index) ** 2) / 18.0) + 1e-3 * torch.eye(horizon)

    def velocity(chunk: Tensor, time: float) -> Tensor:
        seen = time**2 * covariance + (1 - time) ** 2 * torch.eye(horizon)
        mean = time * covariance @ torch.linalg.solve(seen, chunk)
        return torch.as_tensor((mean - chunk) / (1 - time))

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(200, horizon, 1, generator=generator)
    wanted = torch.full((horizon, 1), 0.8)
    weights = (index < bound).float()
    free, held = follow(velocity, noise, 10), follow(velocity, noise, 10, Guidance(wanted, weights))
    near = (held - wanted)[:, :bound].square().mean().sqrt()
    assert near < 0.35 * (free - wanted)[:, :bound].square().mean().sqrt()
    # What follows goes on from there, because the actions belong together: 0.8 x the correlation, not 0.
    assert held[:, bound, 0].mean() == pytest.approx(0.8, abs=0.25)
    assert free[:, bound, 0].mean() == pytest.approx(0.0, abs=0.25)


def committed_to(value: float, overlap: int, delay: int) -> Committed:
    actions = np.tile(ROBOT.action_low + value * (ROBOT.action_high - ROBOT.action_low), (overlap, 1))
    return Committed(actions.astype(np.float32), delay)


def test_a_networks_chunk_begins_nearer_to_what_is_committed_and_is_fixed_by_the_seed(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", small_network(1, FLOW), Lineage())
    policy = NetworkPolicy.load(tmp_path / "c")
    free_error, error = [], []
    for seed in range(10):
        committed = committed_to(0.9 if seed % 2 else 0.1, 6, 3)
        chunks = []
        for given_to in (None, committed, committed):
            policy.reset(seed)
            chunks.append(policy.act(observation(seed), given_to).actions)
        np.testing.assert_array_equal(chunks[1], chunks[2])
        free_error.append(np.abs(chunks[0] - committed.padded(8))[:3].mean())
        error.append(np.abs(chunks[1] - committed.padded(8))[:3].mean())
        assert np.isfinite(chunks[1]).all()
    assert np.mean(error) < 0.6 * np.mean(free_error)


def test_gradients_of_the_weights_are_neither_needed_nor_left_behind() -> None:
    network = small_network(1, FLOW)
    NetworkPolicy(network).act(observation(), committed_to(0.5, 4, 1))
    assert all(parameter.grad is None for parameter in network.parameters())
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    assert np.isfinite(NetworkPolicy(network).act(observation(), committed_to(0.5, 4, 1)).actions).all()


def test_a_chunk_made_in_one_step_is_blended() -> None:
    policy = NetworkPolicy(small_network())
    free, committed = policy.act(observation()).actions, committed_to(0.3, 4, 2)
    actions = policy.act(observation(), committed).actions
    np.testing.assert_array_equal(actions[:2], committed.actions[:2])
    np.testing.assert_array_equal(actions, committed.blended(free))
    np.testing.assert_array_equal(actions[4:], free[4:])


def test_what_cannot_be_guided_is_refused() -> None:
    network = small_network()
    seen = observation()
    images = torch.from_numpy(np.stack([seen.images["front"], seen.images["wrist"]]))[None]
    language = network.encode_instructions([seen.instruction])
    guidance = Guidance(torch.zeros(5, 3), torch.ones(5))
    with pytest.raises(NetworkError, match="a regression head cannot be guided"):
        network.actions(images, torch.from_numpy(seen.proprioception)[None], *language, None, guidance)
    for config in (SMALL, FLOW):
        with pytest.raises(NetworkError, match=r"shape \(4, 2\), robot 'small' has 3 dimensions"):
            NetworkPolicy(small_network(0, config)).act(seen, Committed(np.zeros((4, 2), np.float32), 0))

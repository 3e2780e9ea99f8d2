"""The flow head: what it is trained for, how it comes to a chunk, and why one would want it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_robot import INSTRUCTIONS, SMALL, observation, small_network
from torch import Tensor
from training_run import NETWORK, make_network, make_sampler, small_training, write_bags

from trainer.loop import train
from trainer.objectives import WAYS, flow_matching
from trainer.training_log import read_history
from vla_policy_node.checkpoint import Lineage, load_checkpoint, load_network, save_checkpoint
from vla_policy_node.committed import soft_mask
from vla_policy_node.exceptions import NetworkError
from vla_policy_node.network.flow_head import Course, FlowHead
from vla_policy_node.network.guidance import Guidance
from vla_policy_node.network.vla import VLANetwork
from vla_policy_node.network_policy import NetworkPolicy

FLOW = replace(SMALL, head="flow")
TEXTS = tuple(INSTRUCTIONS)


def flow_network(seed: int = 0) -> VLANetwork:
    return small_network(seed, FLOW)


def inputs(network: VLANetwork, size: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (size, 2, 24, 32, 3), generator=generator, dtype=torch.uint8)
    return images, torch.randn(size, 3, generator=generator), *network.encode_instructions(TEXTS[:size])


def test_the_velocity_that_leads_to_the_actions_costs_nothing_and_half_of_it_what_it_should() -> None:
    actions, mask = torch.randn(3, 5, 2), torch.ones(3, 5, dtype=torch.bool)
    seen: list[Course] = []

    def exact(course: Course | None) -> Tensor:
        assert course is not None
        seen.append(course)
        # Where one is, x = (1 - t) e + t a, and where it leads say which way: a - e = (a - x) / (1 - t).
        return (actions.repeat_interleave(WAYS, 0) - course.noisy) / (1 - course.time)[:, None, None]

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    assert flow_matching(exact, actions, mask, generator()).item() == pytest.approx(0, abs=1e-6)
    (course,) = seen
    assert len(course.time) == 3 * WAYS
    assert 0 <= course.time.min() <= course.time.max() < 1
    half = flow_matching(lambda c: exact(c) / 2, actions, mask, generator())
    assert half.item() == pytest.approx((exact(course) / 2).square().mean().item(), rel=1e-4)


def test_following_a_constant_velocity_from_noise_ends_where_it_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    network = flow_network()
    monkeypatch.setattr(FlowHead, "forward", lambda self, features: torch.full((3, 5, 3), 2.0))
    actions = network.actions(*inputs(network), torch.Generator().manual_seed(3))
    noise = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(actions, noise + 2.0)


def test_chunks_of_one_observation_are_read_from_it_alone() -> None:
    network = flow_network()
    several = inputs(network)
    noisy, time = torch.randn(6, 5, 3), torch.rand(6)
    together = network(*several, Course(noisy, time))
    for k in range(6):
        alone = network(*(tensor[k // 2, None] for tensor in several), Course(noisy[k, None], time[k, None]))
        torch.testing.assert_close(together[k, None], alone)
    moved = network(*several, Course(noisy, time.flip(0)))
    assert (moved - together).abs().max() > 1e-4


def test_it_needs_a_course() -> None:
    network = flow_network()
    with pytest.raises(NetworkError, match="needs a course"):
        network(*inputs(network))


def test_an_episodes_seed_fixes_its_chunks_and_each_is_another(tmp_path: Path) -> None:
    digest = save_checkpoint(tmp_path / "checkpoint", flow_network(), Lineage())
    policy = NetworkPolicy.load(tmp_path / "checkpoint")
    assert policy.checkpoint_digest == digest

    def episode(seed: int) -> list[bytes]:
        policy.reset(seed)
        return [policy.act(observation()).actions.tobytes() for _ in range(3)]

    first = episode(1)
    assert len(set(first)) == 3
    policy.warm_up()  # It draws nothing from the episode's chances.
    assert episode(1) == first
    assert not set(episode(2)) & set(first)


def test_training_learns_resumes_and_accumulates(tmp_path: Path) -> None:
    config = small_training(40, save_every=20, optimizer=replace(small_training().optimizer, learning_rate=3e-3))
    sampler = make_sampler(write_bags(tmp_path / "bags"), tmp_path / "cache", config)

    def network() -> VLANetwork:
        return make_network(sampler, config=replace(NETWORK, head="flow", dropout=0.0))

    whole = train(network(), sampler, config, tmp_path / "whole", Lineage(), None, False)
    losses = [line["loss"] for line in read_history(whole.folder)]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])

    def stop(step: int, checkpoint: Path) -> float:
        raise InterruptedError

    broken = replace(config, validate_every=30)
    with pytest.raises(InterruptedError):
        train(network(), sampler, broken, tmp_path / "broken", Lineage(), stop, False)
    resumed = train(network(), sampler, broken, tmp_path / "broken", Lineage(), lambda *_: 0.0, False)
    assert [line["loss"] for line in read_history(resumed.folder) if "loss" in line] == losses
    assert load_network(load_checkpoint(whole.checkpoint)).config.head == "flow"


@pytest.fixture(scope="module")
def two_ways() -> VLANetwork:
    """A network that saw one observation answered by +0.8 in half of the demonstrations and by -0.8 in the others."""
    network = flow_network()
    observed = [tensor[:1] for tensor in inputs(network)]
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    ways = torch.tensor([0.8, -0.8]).repeat(8)[:, None, None].expand(16, 5, 3)
    batch = [tensor.expand(16, *tensor.shape[1:]) for tensor in observed]
    for _ in range(150):
        optimizer.zero_grad()
        loss = flow_matching(lambda c: network(*batch, c), ways, torch.ones(16, 5), generator)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network


def chunks_of(network: VLANetwork, guidance: Guidance | None = None) -> Tensor:
    """64 chunks that answer what the network was trained on, (64, 5, 3)."""
    images, posture, features, mask = (tensor[:1].expand(64, *tensor.shape[1:]) for tensor in inputs(network))
    with torch.no_grad():
        return network.actions(images, posture, features, mask, torch.Generator().manual_seed(0), guidance)


def test_of_two_ways_it_takes_one_or_the_other_where_regression_goes_between(two_ways: VLANetwork) -> None:
    ends = chunks_of(two_ways).mean((1, 2))
    assert (ends.abs() - 0.8).abs().median() < 0.1
    assert 16 < int((ends > 0).sum()) < 48


@pytest.mark.parametrize("way", [0.8, -0.8])
def test_guided_it_goes_on_with_the_way_that_is_committed(two_ways: VLANetwork, way: float) -> None:
    free = chunks_of(two_ways)
    guidance = Guidance(torch.full((5, 3), way), torch.from_numpy(soft_mask(2, 3, 5)))
    guided = chunks_of(two_ways, guidance)
    near = (guided - way)[:, :2].abs().mean()
    assert near < 0.25 * (free - way)[:, :2].abs().mean()
    ends = guided.mean((1, 2))
    assert int((ends * way > 0).sum()) >= 60
    assert (guided[:, 3:].mean((1, 2)) - way).abs().median() < 0.15, "what is free goes the same way"

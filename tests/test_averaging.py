"""The running mean of the weights: by hand, put in place and taken back, and in what a checkpoint holds."""

from pathlib import Path

import pytest
import torch
from training_run import run_training, small_training

from trainer.averaging import WeightAverage
from trainer.exceptions import ConfigError
from trainer.train_state import optimizer_tensors
from vla_policy_node.checkpoint import load_checkpoint, load_network


def _network(value: float) -> torch.nn.Linear:
    network = torch.nn.Linear(1, 1)
    with torch.no_grad():
        network.weight.fill_(value)
        network.bias.fill_(-value)
    return network


def test_the_mean_by_hand() -> None:
    network = _network(1.0)
    average = WeightAverage(network, torch.optim.AdamW(network.parameters()), 0.5)
    for step, value in enumerate((1.0, 3.0, 5.0), start=1):
        with torch.no_grad():
            network.weight.fill_(value)
        average.update(step)
    # Decay 2/11, 3/12, 4/13: 1; 1/4 1 + 3/4 3 = 2.5; 4/13 2.5 + 9/13 5 = 4.230769.
    with average.in_place():
        assert network.weight.item() == pytest.approx(4.230769)
        assert network.bias.item() == -1.0
    assert network.weight.item() == 5.0


def test_the_decay_is_never_above_what_is_asked_for() -> None:
    network = _network(0.0)
    average = WeightAverage(network, torch.optim.AdamW(network.parameters()), 0.5)
    average.update(10_000)
    with torch.no_grad():
        network.weight.fill_(8.0)
    average.update(10_001)
    with average.in_place():
        assert network.weight.item() == 4.0


def test_without_a_decay_nothing_is_kept() -> None:
    network = _network(2.0)
    optimizer = torch.optim.AdamW(network.parameters())
    average = WeightAverage(network, optimizer, 0.0)
    average.update(1)
    assert optimizer_tensors(network, optimizer) == {}
    with average.in_place():
        assert network.weight.item() == 2.0


def test_the_weights_come_back_whatever_happens() -> None:
    network = _network(1.0)
    average = WeightAverage(network, torch.optim.AdamW(network.parameters()), 0.9)
    average.update(1)
    with torch.no_grad():
        network.weight.fill_(7.0)
    with pytest.raises(InterruptedError), average.in_place():
        raise InterruptedError
    assert network.weight.item() == 7.0


def test_a_checkpoint_holds_the_mean_and_a_resumed_run_the_same_one(tmp_path: Path) -> None:
    training = small_training(average=0.9)
    unbroken = run_training(tmp_path, "unbroken", training)

    def stop(step: int, checkpoint: Path) -> float:
        raise InterruptedError

    halted = small_training(average=0.9, validate_every=3)
    with pytest.raises(InterruptedError):
        run_training(tmp_path, "broken", halted, stop)
    broken = run_training(tmp_path, "broken", halted, lambda step, checkpoint: float(step))
    plain = run_training(tmp_path, "plain", small_training())
    means, resumed, last = (
        load_network(load_checkpoint(run.checkpoint)).state_dict() for run in (unbroken, broken, plain)
    )
    assert all(torch.equal(means[name], resumed[name]) for name in means)
    assert not all(torch.equal(means[name], last[name]) for name in means), "the mean is not the last weights"


def test_a_decay_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"average 1\.0 is not in"):
        small_training(average=1.0)

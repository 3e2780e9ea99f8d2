"""The network as a policy: chunks for observations, the same after saving, and refusals."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_robot import ROBOT, SMALL, observation, other_robot, small_network

from vla_policy_node.checkpoint import Lineage, load_checkpoint, save_checkpoint
from vla_policy_node.exceptions import CheckpointError, NetworkError
from vla_policy_node.exploration import Explore
from vla_policy_node.network_policy import NetworkPolicy
from vla_policy_node.policy import Policy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "checkpoint", small_network(), Lineage())
    return tmp_path / "checkpoint"


def test_a_chunk_answers_its_observation() -> None:
    policy: Policy = NetworkPolicy(small_network().train())
    policy.reset(0)
    chunk = policy.act(observation(stamp_ns=123))
    assert chunk.stamp_ns == 123
    assert chunk.actions.shape == (SMALL.horizon, 3)
    assert chunk.actions.dtype == np.float32


def test_it_is_the_network_on_one_observation_in_the_specs_units() -> None:
    network = small_network()
    seen = observation()
    images = torch.from_numpy(np.stack([seen.images["front"], seen.images["wrist"]]))[None]
    language = network.encode_instructions([seen.instruction])
    with torch.no_grad():
        expected = network.denormalize(network(images, torch.from_numpy(seen.proprioception)[None], *language))[0]
    np.testing.assert_array_equal(NetworkPolicy(network).act(seen).actions, expected.numpy())


def test_saved_and_loaded_it_acts_the_same(folder: Path) -> None:
    policy = NetworkPolicy.load(folder, ROBOT)
    assert policy.checkpoint_digest == load_checkpoint(folder).digest
    assert policy.spec == ROBOT
    for seed in range(3):
        one, other = (p.act(observation(seed)).actions for p in (policy, NetworkPolicy(small_network())))
        np.testing.assert_array_equal(one, other)


def test_the_instruction_and_the_observation_decide_and_nothing_else() -> None:
    policy = NetworkPolicy(small_network())
    first = policy.act(observation()).actions
    assert (first != policy.act(observation(instruction="close the door")).actions).any()
    assert (first != policy.act(observation(seed=1)).actions).any()
    policy.reset(99)
    np.testing.assert_array_equal(policy.act(observation()).actions, first)


ACT_ELSEWHERE = """
import sys, torch
torch.set_num_threads(int(sys.argv[2]))
from small_robot import observation
from vla_policy_node.network_policy import NetworkPolicy
policy = NetworkPolicy.load(sys.argv[1])
sys.stdout.buffer.write(b"".join(policy.act(observation(seed)).actions.tobytes() for seed in range(5)))
"""


def test_warming_up_changes_nothing() -> None:
    cold, warm = NetworkPolicy(small_network()), NetworkPolicy(small_network())
    warm.warm_up()
    np.testing.assert_array_equal(cold.act(observation()).actions, warm.act(observation()).actions)


def test_another_process_gives_the_same_actions_bit_for_bit(folder: Path) -> None:
    policy = NetworkPolicy.load(folder)
    here = b"".join(policy.act(observation(seed)).actions.tobytes() for seed in range(5))
    command = [sys.executable, "-c", ACT_ELSEWHERE, str(folder), str(torch.get_num_threads())]
    path = os.pathsep.join(p for p in sys.path if p)
    run = subprocess.run(command, capture_output=True, check=True, timeout=120, env={**os.environ, "PYTHONPATH": path})
    assert run.stdout == here


def test_it_answers_on_the_levels_of_the_robot_it_drives_not_of_the_one_it_was_made_for(folder: Path) -> None:
    made_for = NetworkPolicy.load(folder).spec
    *others, last = made_for.action
    levels = (last.low, (last.low + last.high) / 2, last.high)
    now = replace(made_for, action=(*others, replace(last, levels=levels)))
    free, stepped = NetworkPolicy.load(folder), NetworkPolicy.load(folder, now)
    assert stepped.spec is now
    for seed in range(3):
        loose, strict = free.act(observation(seed)).actions, stepped.act(observation(seed)).actions
        np.testing.assert_array_equal(loose[:, :-1], strict[:, :-1])
        assert set(strict[:, -1].tolist()) <= set(np.array(levels, np.float32).tolist())
        assert not set(loose[:, -1].tolist()) <= set(np.array(levels, np.float32).tolist())


def test_exploration_wraps_it() -> None:
    policy = NetworkPolicy(small_network())
    explore = Explore(policy, 0.2)
    explore.reset(3)
    moved = explore.act(observation()).actions - policy.act(observation()).actions
    assert (moved[:, :2] != 0).all()
    np.testing.assert_array_equal(moved[:, 2], 0)


def test_what_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="which differs from robot 'other' in"):
        NetworkPolicy.load(folder, other_robot())
    with pytest.raises(CheckpointError, match="does not exist"):
        NetworkPolicy.load(folder / "nothing")
    for device in ("gpu", "cuda:99"):
        with pytest.raises(NetworkError, match=f"device '{device}' is not one of cpu"):
            NetworkPolicy.load(folder, device=device)
    with pytest.raises(NetworkError, match="instruction 0 of 1 is empty"):
        NetworkPolicy(small_network()).act(observation(instruction=" "))

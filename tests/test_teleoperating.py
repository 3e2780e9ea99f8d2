"""Teleoperation over real DDS: demonstrations, a human who takes over from a policy, and learning from both."""

import os
import pty
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from graph_helpers import header_of, sent_actions
from operator_bench import HAND_BACK, HOME, PANDA, TAKE_OVER, Operator, bench, start_manager
from training_run import NETWORK, small_training

from rollout_manager.bag import EpisodeReader
from rollout_manager.graph import ros_environment
from rollout_manager.results import read_results
from trainer.bc import BehaviourCloningConfig, run_behaviour_cloning
from trainer.dataset import load_episode
from trainer.episode_cache import EpisodeCache
from vla_policy_node.checkpoint import load_checkpoint
from vla_policy_node.commands import action_from_message
from vla_policy_node.topics import ACTION_CHUNK, HUMAN_ACTION

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timeout(400)]

FEW = 4
"""Steps in a second where other processes have the cores and cameras give five pictures a second."""
LEFT = (1.0,)
"""Joint 1's axis at full deflection: 0.5 rad/s."""


def asked(bag: Path) -> dict[int, Any]:
    """What a human asked for, by stamp."""
    return dict(action_from_message(PANDA, m.message) for m in EpisodeReader(bag).messages([HUMAN_ACTION]))


def train(folder: Path, learn_from: str) -> int:
    """Two steps on the bags in `folder`; gradient steps of the checkpoint that comes of it."""
    language = replace(NETWORK.language, dimension=384)
    (folder / "network.yaml").write_text(yaml.safe_dump(replace(NETWORK, language=language).to_dict()))
    config = BehaviourCloningConfig(
        bags=(str(folder / "bags"),),
        robot=str(folder / "robot.yaml"),
        network=str(folder / "network.yaml"),
        training=small_training(2, learn_from=learn_from),
    )
    return load_checkpoint(run_behaviour_cloning(config, folder / learn_from).checkpoint).lineage.gradient_steps


def test_a_demonstration_is_driven_by_hand_and_can_be_learned_from(ros_domain: int, tmp_path: Path) -> None:
    with bench(tmp_path, ros_domain, teleop=True) as (graph, operator):
        start_manager(graph, tmp_path, [0], driver="human")
        operator.begin(home=True)
        operator.hold(0.7)
        assert np.abs(operator.joints() - HOME).max() < 0.02, "nobody drives"
        operator.hold(0.5, LEFT)
        assert np.abs(operator.joints() - HOME).max() < 0.02, "nor without the button"
        operator.turn(0.2)
        assert np.abs((operator.joints() - HOME)[1:]).max() < 0.05
        operator.hold(0.5, (), [TAKE_OVER])
        operator.say("success")
        assert graph.wait("manager", 60) == 0, graph.tail("manager")
    [bag] = (path for path in (tmp_path / "bags").iterdir() if path.name == "robot_cube_s0_a0")
    assert (header_of(bag).driver, header_of(bag).checkpoint_digest) == ("human", "")
    stamps, sent = sent_actions(bag, PANDA)
    human = asked(bag)
    assert set(human) <= set(stamps)
    assert FEW <= len(human) < len(stamps)
    speeds = np.abs(np.diff(sent[:, 0])) * PANDA.rate_hz
    assert speeds.max() < 0.75, "through the same limits: 0.7 rad/s"
    outcome = EpisodeReader(bag).outcome
    assert "a human drove" in outcome.reason
    assert FEW <= outcome.human_steps < outcome.steps
    [row] = read_results(tmp_path / "bags" / "results.csv")
    assert row.human_steps == outcome.human_steps
    assert "1 of 1 initial states solved, results" in graph.log("manager").read_text(), "who demonstrates helps nobody"
    episode = load_episode(bag, PANDA, (24, 32), EpisodeCache(tmp_path / "cache"))
    assert set(episode.stamps.tolist()) <= set(human)
    assert train(tmp_path, "all") == 2


def test_a_human_takes_over_and_hands_back_and_the_bag_says_who_drove(ros_domain: int, tmp_path: Path) -> None:
    with bench(tmp_path, ros_domain, teleop=True) as (graph, operator):
        start_manager(graph, tmp_path, [0])
        operator.begin(home=True)
        operator.hold(1.5)
        operator.turn(operator.joints()[0] + 0.2)
        operator.hold(0.1)  # let go
        still = operator.rest()
        operator.hold(0.2, (), [HAND_BACK])
        operator.client.until(lambda: bool(np.abs(operator.joints() - still).max() > 0.02), 40.0)  # the policy goes on
        operator.hold(0.5)
        operator.say("success")
        assert graph.wait("manager", 60) == 0, graph.tail("manager")
    bag = tmp_path / "bags" / "robot_cube_s0_a0"
    human = sorted(asked(bag))
    stamps, sent = sent_actions(bag, PANDA)
    chunks = sorted(m.log_time_ns for m in EpisodeReader(bag).messages([ACTION_CHUNK]))
    assert header_of(bag).driver == "policy"
    assert "1 of 1 initial states solved, 1 with a human's help" in graph.log("manager").read_text()
    assert len(human) >= FEW
    assert min(chunks) < human[0], "the policy began"
    # Nothing is proposed while a human drives, but what was asked for just before.
    assert not [c for c in chunks if human[0] + 1e9 < c < human[-1]]
    assert max(chunks) > human[-1], "and went on"
    jumps = np.abs(np.diff(sent[:, :7], axis=0)).max()
    assert jumps <= 0.7 / PANDA.rate_hz + 1e-5, "smoothly from hand to hand"
    episode = load_episode(bag, PANDA, (24, 32), EpisodeCache(tmp_path / "cache"))
    assert episode.human is not None
    driven = set(np.asarray(episode.stamps)[np.asarray(episode.human)].tolist())
    assert driven == set(human) & set(episode.stamps.tolist())
    between = [s for s in stamps if human[-1] < s < min(c for c in chunks if c > human[-1])]
    assert len(between) >= FEW
    assert not set(between) & set(episode.stamps.tolist()), "of what nobody drove nothing is learned"
    assert train(tmp_path, "all") == train(tmp_path, "human") == 2


def test_an_operator_at_a_terminal(ros_domain: int, tmp_path: Path) -> None:
    with bench(tmp_path, ros_domain, teleop=True) as (graph, operator):
        start_manager(graph, tmp_path, [0], driver="human")
        operator.until("away")
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "rollout_manager.operator_node", "--ros-args", "-p", "teleop:=panda"]
        with subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=ros_environment(ros_domain), start_new_session=True
        ) as process:
            try:
                os.set_blocking(ours, False)
                said = _shown_until(ours, operator, "[away]")
                _work_the_keys(ours, operator)
                assert graph.wait("manager", 60) == 0, graph.tail("manager")
                said += _shown(ours)
            finally:
                process.terminate()
        assert process.returncode in (0, -15)
    assert "[away] cube seed 0 try 0: home: bring the arm home" in said
    assert "[scene] cube seed 0 try 0: set the scene up, step back, then start ('lift it up')" in said
    reader = EpisodeReader(tmp_path / "bags" / "robot_cube_s0_a0")
    assert reader.header.instruction == "lift it up"
    assert reader.outcome.reason.startswith("by keys; a human drove")
    assert len(asked(reader.path)) >= FEW


def _shown(terminal: int) -> str:
    """What a terminal has shown since it was last asked."""
    try:
        return os.read(terminal, 1 << 20).decode()
    except BlockingIOError:
        return ""


def _shown_until(terminal: int, operator: Operator, text: str) -> str:
    """What a terminal shows until a text is among it."""
    said = ""
    deadline = time.monotonic() + 60.0
    while text not in said:
        assert time.monotonic() < deadline, said
        operator.client.spin(0.1)
        said += _shown(terminal)
    return said


def _work_the_keys(terminal: int, operator: Operator) -> None:
    """Home, an instruction, start, take over and turn joint 1, a note, success."""
    client = operator.client
    while operator.state.phase == "away":  # It can send the arm home once it has found that service.
        os.write(terminal, b"h")
        client.spin(1.0)
    operator.scene()
    os.write(terminal, b":lift it up\r")
    client.until(lambda: operator.state.instruction == "lift it up")
    os.write(terminal, b" ")
    operator.until("running")
    os.write(terminal, b"g")
    for _ in range(400):
        os.write(terminal, b"1")
        client.spin(0.05)
        if operator.joints()[0] > 0.2:
            break
    assert operator.joints()[0] > 0.2
    os.write(terminal, b"gnby keys\r")
    client.spin(0.5)
    os.write(terminal, b"s")

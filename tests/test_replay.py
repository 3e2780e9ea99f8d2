"""Recorded tries again: in the simulator to the last bit, and beside a policy whose errors are known."""

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from episodes import SPEC, make_header, write_bag
from graph_helpers import save_random_policy

from rollout_manager.bag import EpisodeReader, EpisodeWriter
from rollout_manager.drivers import ExpertDriver
from rollout_manager.envs.metaworld import MetaWorldEnv
from rollout_manager.episode import Outcome
from rollout_manager.exceptions import BagError, SimulatorError
from rollout_manager.experts.demonstrator import Demonstrator
from rollout_manager.experts.expert import ActionNoise, make_expert
from rollout_manager.recorder import BagObserver
from rollout_manager.replay import read_recorded, replay_in_simulator
from rollout_manager.rollout import new_header, run_episode
from trainer.cli import main
from trainer.episode_arrays import EpisodeArrays, decode_episode, episode_topics
from trainer.open_loop import error_ahead, error_table, open_loop, plot, write_steps
from vla_policy_node.committed import Committed
from vla_policy_node.observation import Observation
from vla_policy_node.policy import ActionChunk

HORIZON = 3


@pytest.fixture(scope="module")
def env() -> Iterator[MetaWorldEnv]:
    made = MetaWorldEnv()
    yield made
    made.close()


@pytest.fixture(scope="module")
def bag(env: MetaWorldEnv, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A try of the expert, with noise, that succeeds."""
    observer = BagObserver(tmp_path_factory.mktemp("bags"), env.spec)
    driver = ExpertDriver(Demonstrator(make_expert("metaworld"), env.spec, ActionNoise(env.spec, 0.1)))
    header = new_header(env, "reach-v3", 5, driver="expert", exploration=0.1)
    assert run_episode(env, driver, header, 200, [observer]).outcome.success
    assert observer.path is not None
    return observer.path


def test_the_simulator_goes_the_same_way_again(env: MetaWorldEnv, bag: Path) -> None:
    recorded = read_recorded(EpisodeReader(bag), env.spec)
    replayed = replay_in_simulator(recorded, env)
    assert replayed.as_recorded
    assert replayed.outcome == recorded.outcome
    assert len(replayed.hand_m) == recorded.outcome.steps
    assert not replayed.hand_m.any()
    assert not replayed.joints_off.any()
    assert replayed.other_versions == ()


def test_another_action_is_noticed_from_its_step_on(env: MetaWorldEnv, bag: Path) -> None:
    recorded = read_recorded(EpisodeReader(bag), env.spec)
    still = np.zeros(4, np.float32)
    actions = [*recorded.actions[:5], *[still] * (len(recorded.actions) - 5)]
    replayed = replay_in_simulator(replace(recorded, actions=actions), env)
    assert not replayed.as_recorded
    assert replayed.outcome.ending == "truncated"
    assert not replayed.hand_m[:6].any(), "what an action leads to is seen one step later"
    assert replayed.hand_m[6] > 0


def test_an_aborted_try_is_as_recorded_when_all_of_it_is_done(env: MetaWorldEnv, bag: Path) -> None:
    recorded = read_recorded(EpisodeReader(bag), env.spec)
    torn = replace(recorded, actions=recorded.actions[:7], outcome=Outcome("aborted", 7, reason="power"))
    assert replay_in_simulator(torn, env).as_recorded


def test_what_does_not_fit_is_named(env: MetaWorldEnv, bag: Path, tmp_path: Path) -> None:
    recorded = read_recorded(EpisodeReader(bag), env.spec)
    elsewhere = replace(recorded, header=replace(recorded.header, environment="libero"))
    with pytest.raises(SimulatorError, match="is of 'libero', not of 'metaworld'"):
        replay_in_simulator(elsewhere, env)
    with pytest.raises(BagError, match="recorded on robot 'metaworld'"):
        read_recorded(EpisodeReader(bag), SPEC)
    older = replace(recorded, header=replace(recorded.header, versions={"mujoco": "2.1", "gym": "0.2"}))
    said = replay_in_simulator(older, env).other_versions
    assert said[0].endswith("recorded with 2.1")
    assert said[1] == "gym not there, recorded with 0.2"
    empty = write_bag(tmp_path, make_header(), 0)
    with pytest.raises(BagError, match="no message on /action"):
        read_recorded(EpisodeReader(empty), SPEC)


def test_the_command_says_how_each_went(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "simulator", str(bag)]) == 0
    said = capsys.readouterr().out
    assert "as recorded: success after" in said
    assert "hand where it was, to the last bit" in said
    assert main(["replay", "simulator", str(tmp_path)]) == 2
    assert "no bag in" in capsys.readouterr().err
    assert main(["replay", "topics", str(bag), "--rate", "0"]) == 2
    assert "rate 0.0 is not above 0" in capsys.readouterr().err


def test_a_try_that_ends_otherwise_is_told(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reader = EpisodeReader(bag)
    with EpisodeWriter(tmp_path, reader.header) as writer:
        for message in reader.raw_messages():
            writer.write(*message)
        writer.close(Outcome("truncated", reader.outcome.steps))
    assert main(["replay", "simulator", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert f"OTHERWISE: success after {reader.outcome.steps} steps, recorded truncated" in said
    assert "1 ended otherwise than recorded" in said


def test_a_policy_beside_a_bag(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_random_policy(tmp_path / "checkpoint", [EpisodeReader(bag).header.instruction])
    arguments = ["replay", "policy", str(bag), "--checkpoint", str(tmp_path / "checkpoint")]
    assert main([*arguments, "--output", str(tmp_path / "compared")]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("hand_dx", "hand_dy", "hand_dz", "gripper", "steps ahead", "1 plots"))
    rows = list(csv.DictReader((tmp_path / "compared" / "steps.csv").open()))
    assert len(rows) == 4 * EpisodeReader(bag).outcome.steps
    assert (tmp_path / "compared" / f"{bag.name}.svg").read_text().startswith("<?xml")
    assert main([*arguments, "--output", str(tmp_path / "compared"), "--robot", "libero"]) == 2
    assert "made for robot 'metaworld'" in capsys.readouterr().err


class Shifted:
    """Says what was recorded, plus 0.25 in the first dimension for each step ahead and 0.5 always."""

    spec = SPEC

    def __init__(self, episode: EpisodeArrays) -> None:
        self._episode = episode
        self.seeds: list[int] = []

    def reset(self, seed: int) -> None:
        self.seeds.append(seed)

    def act(self, observation: Observation, committed: Committed | None = None) -> ActionChunk:
        at = int(np.searchsorted(self._episode.stamps, observation.stamp_ns))
        np.testing.assert_array_equal(observation.images["camera1"], self._episode.images[at, 1])
        assert observation.instruction == "please push it"
        rows = [self._episode.actions[min(at + k, len(self._episode) - 1)] for k in range(HORIZON)]
        off = np.array([[0.5 + 0.25 * k, 0.0] for k in range(HORIZON)])
        return ActionChunk(observation.stamp_ns, (np.stack(rows) + off).astype(np.float32))


def episode_of(tmp_path: Path, steps: int = 5, skip: tuple[int, ...] = ()) -> EpisodeArrays:
    reader = EpisodeReader(write_bag(tmp_path, make_header(), steps, skip=skip))
    return decode_episode(reader.header, reader.messages(episode_topics(reader.header, SPEC)), SPEC, (16, 20))


def test_errors_by_hand(tmp_path: Path) -> None:
    episode = episode_of(tmp_path)
    policy = Shifted(episode)
    compared = open_loop(policy, episode)
    assert policy.seeds == [0]
    assert compared.predicted.shape == (5, HORIZON, 2)
    first, second = error_table([compared], SPEC)
    assert (first.name, first.unit) == ("dx", "m")
    # 0.5 off of a range of 2, always to the same side.
    assert (first.mean, first.high, first.share, first.bias) == pytest.approx((0.5, 0.5, 0.25, 0.5))
    assert second.mean == pytest.approx(0.0)
    # Half a metre off at once and 0.25 more a step ahead, over two dimensions of range 2.
    assert error_ahead([compared], SPEC) == pytest.approx([0.125, 0.1875, 0.25])


def test_beyond_the_end_and_beyond_a_gap_nothing_is_compared(tmp_path: Path) -> None:
    compared = open_loop(Shifted(episode := episode_of(tmp_path, steps=6, skip=(3,))), episode)
    # Steps 0 to 2, a gap, steps 4 and 5: the chunks of the last steps before it and at the end are cut short.
    there = ~np.isnan(compared.errors[..., 0])
    assert there.sum(axis=1).tolist() == [3, 2, 1, 2, 1]


def test_steps_are_written_as_they_are(tmp_path: Path) -> None:
    compared = open_loop(Shifted(episode := episode_of(tmp_path)), episode)
    write_steps(tmp_path / "steps.csv", [compared], SPEC)
    rows = list(csv.DictReader((tmp_path / "steps.csv").open()))
    assert len(rows) == 5 * 2
    assert rows[2] == {
        "episode_id": "episode",
        "step": "1",
        "stamp_ns": str(episode.stamps[1]),
        "dimension": "dx",
        "recorded": str(float(episode.actions[1, 0])),
        "predicted": str(float(compared.predicted[1, 0, 0])),
    }
    assert not list(tmp_path.glob("*.tmp"))
    svg = plot(compared, SPEC)
    for expected in ("dx", "grip", "recorded", "predicted for this step", "episode", "time, s"):
        assert f">{expected}</text>" in svg

"""Learning from tries in which a human took over: whose action is the label, and which steps are learned from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from episodes import SPEC, START_NS, chunk_at, human_at, make_header, sent_at, write_bag
from hypothesis import given
from hypothesis import strategies as st
from training_run import NETWORK, SIZE, make_sampler, small_training

from rollout_manager.episode import LabelSource
from trainer.bc import BehaviourCloningConfig, run_behaviour_cloning
from trainer.dataset import WindowDataset, load_episode
from trainer.episode_arrays import EpisodeArrays, policy_labels
from trainer.episode_cache import EpisodeCache
from trainer.exceptions import DatasetError
from vla_policy_node.checkpoint import load_checkpoint

DRIVEN = (4, 5, 6)
HANDED_BACK = 9
"""The policy's first chunk after it; at steps 7 and 8 nobody drives."""
CHUNKS = (0, 2, HANDED_BACK, 11)


def taken_over(folder: Path, name: str = "taken", label_source: LabelSource = "sent") -> Path:
    made = make_header(name, driver="policy", label_source=label_source)
    return write_bag(folder, made, 12, human=DRIVEN, chunks_at=CHUNKS)


def load(path: Path, cache: Path) -> EpisodeArrays:
    return load_episode(path, SPEC, SIZE, EpisodeCache(cache))


def steps_of(episode: EpisodeArrays) -> list[int]:
    return [(stamp - START_NS) // SPEC.period_ns for stamp in episode.stamps.tolist()]


def test_the_label_is_what_the_human_asked_for_where_they_drove(tmp_path: Path) -> None:
    path = taken_over(tmp_path / "bags")
    for _ in range(2):  # decoded, then from the cache
        episode = load(path, tmp_path / "c")
        assert steps_of(episode) == [0, 1, 2, 3, 4, 5, 6, 9, 10, 11], "at 7 and 8 nobody drove"
        assert episode.human is not None
        assert np.flatnonzero(episode.human).tolist() == [4, 5, 6]
        for row, step in enumerate(steps_of(episode)):
            wanted = human_at(step) if step in DRIVEN else sent_at(step)
            np.testing.assert_array_equal(episode.actions[row], wanted)


def test_of_an_exploring_policy_the_rest_is_what_it_proposed(tmp_path: Path) -> None:
    episode = load(taken_over(tmp_path / "bags", label_source="proposed"), tmp_path / "c")
    assert steps_of(episode) == [0, 1, 2, 3, 4, 5, 6, 9, 10, 11]
    for row, step in enumerate(steps_of(episode)):
        made = max(k for k in CHUNKS if k <= step)
        wanted = human_at(step) if step in DRIVEN else chunk_at(made)[step - made]
        np.testing.assert_array_equal(episode.actions[row], wanted)


def test_a_teleoperated_demonstration_is_what_the_human_drove_of_it(tmp_path: Path) -> None:
    header = make_header("shown", driver="human")
    episode = load(write_bag(tmp_path / "bags", header, 12, human=DRIVEN, chunks_at=()), tmp_path / "c")
    assert steps_of(episode) == list(DRIVEN), "standing still before it begins is not shown"
    assert episode.is_demonstration
    assert episode.learned(by_human=True).all()
    # One that was recorded by something else has no such topic: all of it counts.
    imported = load(write_bag(tmp_path / "bags", make_header("other", driver="human"), 5, chunks_at=()), tmp_path / "c")
    assert steps_of(imported) == [0, 1, 2, 3, 4]


def test_only_what_a_human_drove_is_drawn_and_no_chunk_reaches_beyond_it(tmp_path: Path) -> None:
    bags = [taken_over(tmp_path / "bags"), write_bag(tmp_path / "bags", make_header("alone", driver="policy"), 6)]
    episodes = [load(path, tmp_path / "c") for path in bags]
    everything = WindowDataset(episodes, SPEC, 4)
    assert everything.learned.sum() == 10 + 6
    assert everything.gather(np.array([4])).mask[0].tolist() == [True] * 3 + [False], "steps 7 and 8 are missing"
    dataset = WindowDataset(episodes, SPEC, 4, by_human=True)
    assert np.flatnonzero(dataset.learned).tolist() == [4, 5, 6]
    batch = dataset.gather(np.array([4, 6]))
    assert batch.mask.tolist() == [[True, True, True, False], [True, False, False, False]]
    np.testing.assert_array_equal(batch.actions[0, :3], [human_at(4), human_at(5), human_at(6)])
    sampler = replace(make_sampler(bags, tmp_path / "c", small_training()), dataset=dataset)
    assert set(np.concatenate([sampler.windows(k) for k in range(20)]).tolist()) == {4, 5, 6}
    with pytest.raises(DatasetError, match=r"a human drove no step of 1 episodes; set training.learn_from to all"):
        WindowDataset(episodes[1:], SPEC, 4, by_human=True)


@given(human=st.sets(st.integers(0, 30)), chunks=st.sets(st.integers(0, 30)))
def test_the_policy_drives_until_a_human_does_and_from_its_next_chunk_on(human: set[int], chunks: set[int]) -> None:
    ticks = {tick: np.zeros(1, np.float32) for tick in range(31) if tick not in human}
    driving, expected = True, []
    for tick in range(31):
        if tick in human:
            driving = False
        elif tick in chunks:
            driving = True
        if driving:
            expected.append(tick)
    assert sorted(policy_labels(ticks, human, chunks)) == expected


@pytest.mark.parametrize("learn_from", ["all", "human"])
def test_a_run_learns_from_either(tmp_path: Path, learn_from: str) -> None:
    for k in range(2):
        taken_over(tmp_path / "bags", f"taken{k}")
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump(SPEC.to_dict()))
    language = replace(NETWORK.language, dimension=384)
    (tmp_path / "network.yaml").write_text(yaml.safe_dump(replace(NETWORK, language=language).to_dict()))
    config = BehaviourCloningConfig(
        bags=(str(tmp_path / "bags"),),
        robot=str(tmp_path / "robot.yaml"),
        network=str(tmp_path / "network.yaml"),
        training=small_training(2, learn_from=learn_from),
    )
    made = load_checkpoint(run_behaviour_cloning(config, tmp_path / "run").checkpoint)
    assert made.lineage.gradient_steps == 2
    assert sorted(made.lineage.episodes) == ["taken0", "taken1"]

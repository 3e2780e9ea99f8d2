"""Bags to windows: parity with the live observation, labels, padding, the cache and its damage."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from episodes import SPEC, START_NS, chunk_at, make_header, make_spec, readings_at, sent_at, write_bag

from rollout_manager.bag import EpisodeReader
from rollout_manager.exceptions import BagError
from trainer.dataset import WindowDataset, load_episode, load_episodes
from trainer.decoding import WORTH_A_PROCESS, decode_bags
from trainer.episode_arrays import EpisodeArrays, decode_episode, proposed_labels
from trainer.episode_cache import EpisodeCache, cache_key, read_entry, write_entry
from trainer.exceptions import DatasetError
from vla_policy_node.exceptions import MessageError
from vla_policy_node.network.images import stack_images
from vla_policy_node.observation import Observation, ObservationBuffer
from vla_policy_node.policy import ActionChunk

SIZE = (16, 20)


def _load(path: Path, cache: Path, size: tuple[int, int] = SIZE) -> EpisodeArrays:
    return load_episode(path, SPEC, size, EpisodeCache(cache))


def test_windows_hold_the_observations_of_the_live_robot(tmp_path: Path) -> None:
    episode = _load(write_bag(tmp_path, make_header(), 6), tmp_path / "cache")
    assert len(episode) == 6
    buffer = ObservationBuffer(SPEC)
    buffer.instruction = "please push it"
    for step in range(6):
        stamp = START_NS + step * SPEC.period_ns
        buffer.add_readings(stamp, readings_at(step))
        live = buffer.assemble()
        assert isinstance(live, Observation)
        assert live.stamp_ns == episode.stamps[step]
        np.testing.assert_array_equal(stack_images(live.images, SPEC.camera_names, *SIZE), episode.images[step])
        np.testing.assert_array_equal(live.proprioception, episode.proprioception[step])
        assert live.instruction == episode.instructions[episode.instruction_index[step]]


def test_images_are_resized_as_for_the_network(tmp_path: Path) -> None:
    episode = _load(write_bag(tmp_path, make_header(), 2), tmp_path / "cache", (8, 8))
    assert episode.images.shape == (2, 2, 8, 8, 3)
    wanted = stack_images(readings_at(1).images, SPEC.camera_names, 8, 8)
    np.testing.assert_array_equal(episode.images[1], wanted)


def test_labels_are_what_was_sent_or_what_was_proposed(tmp_path: Path) -> None:
    sent = _load(write_bag(tmp_path / "a", make_header(), 6), tmp_path / "cache")
    np.testing.assert_array_equal(sent.actions, [sent_at(step) for step in range(6)])
    header = make_header(label_source="proposed")
    proposed = _load(write_bag(tmp_path / "b", header, 6), tmp_path / "cache")
    # A chunk every second step: odd steps take the second action of the chunk before.
    np.testing.assert_array_equal(proposed.actions, [chunk_at(step - step % 2)[step % 2] for step in range(6)])


def test_a_tick_past_the_newest_chunk_has_no_label() -> None:
    period = SPEC.period_ns
    chunks = [ActionChunk(0, chunk_at(0, 2)), ActionChunk(4 * period, chunk_at(4, 2))]
    labels = proposed_labels([-period, *(k * period for k in range(6))], chunks, period)
    assert sorted(labels) == [0, period, 4 * period, 5 * period]
    np.testing.assert_array_equal(labels[5 * period], chunk_at(4, 2)[1])


def test_labels_are_held_to_the_limits(tmp_path: Path) -> None:
    episode = _load(write_bag(tmp_path, make_header(), 40), tmp_path / "cache")
    assert sent_at(39)[0] > 1.0
    assert episode.actions.max() == 1.0


def test_an_action_logged_before_its_samples_waits_for_them(tmp_path: Path) -> None:
    path = write_bag(tmp_path, make_header(), 4)
    reader = EpisodeReader(path)
    messages = list(reader.messages())
    # The recorder's queues may reorder topics; here every action comes before the samples of its own tick.
    messages.sort(key=lambda m: (m.log_time_ns, m.topic != "/action"))
    shuffled = decode_episode(reader.header, messages, SPEC, SIZE)
    plain = _load(path, tmp_path / "cache")
    np.testing.assert_array_equal(shuffled.images, plain.images)
    np.testing.assert_array_equal(shuffled.actions, plain.actions)


def test_chunks_end_with_the_episode_by_hand(tmp_path: Path) -> None:
    episodes = [
        _load(write_bag(tmp_path, make_header(f"e{n}", task), n), tmp_path / "cache")
        for n, task in ((3, "push"), (2, "open"))
    ]
    dataset = WindowDataset(episodes, SPEC, chunk=3)
    assert (len(dataset), dataset.tasks) == (5, ("open", "push"))
    assert dataset.instructions == ("please open it", "please push it")
    batch = dataset.gather(np.array([0, 1, 2, 3, 4]))
    assert batch.mask.tolist() == [
        [True, True, True],
        [True, True, False],
        [True, False, False],
        [True, True, False],
        [True, False, False],
    ]
    dx = batch.actions[..., 0]
    steps = [[0, 1, 2], [1, 2, 2], [2, 2, 2], [0, 1, 1], [1, 1, 1]]
    np.testing.assert_array_equal(dx, [[sent_at(step)[0] for step in row] for row in steps])
    assert batch.instruction_ids.tolist() == [1, 1, 1, 0, 0]
    np.testing.assert_array_equal(batch.seen[3], episodes[1].images[0])
    np.testing.assert_array_equal(batch.proprioception[1], episodes[0].proprioception[1])


def test_a_gap_in_time_ends_a_chunk(tmp_path: Path) -> None:
    episode = _load(write_bag(tmp_path, make_header(), 6, skip=(3,)), tmp_path / "cache")
    assert episode.run_ends(SPEC.period_ns).tolist() == [3, 3, 3, 5, 5]
    batch = WindowDataset([episode], SPEC, 2).gather(np.arange(5))
    assert batch.mask[:, 1].tolist() == [True, True, False, True, False]


def test_the_cache_gives_the_same_without_decoding(tmp_path: Path) -> None:
    path, cache = write_bag(tmp_path, make_header(), 4), EpisodeCache(tmp_path / "cache")
    first = load_episode(path, SPEC, SIZE, cache)
    key = cache_key(EpisodeReader(path).digest, SPEC, SIZE)

    def never() -> EpisodeArrays:
        raise AssertionError("decoded again")

    again = cache.get(key, never)
    assert isinstance(again.images, np.memmap)
    assert again.header == first.header
    assert (again.bag_digest, again.instructions) == (first.bag_digest, first.instructions)
    for name in ("images", "proprioception", "actions", "stamps", "instruction_index"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "entry"])
def test_a_damaged_cache_entry_is_made_anew(tmp_path: Path, damage: str) -> None:
    path, cache = write_bag(tmp_path, make_header(), 4), tmp_path / "cache"
    whole = _load(path, cache)
    images = np.array(whole.images)
    (folder,) = cache.iterdir()
    file = folder / ("entry.json" if damage == "entry" else "images.npy")
    content = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        file.write_bytes(content[: len(content) // 2])
    assert read_entry(folder) is None
    np.testing.assert_array_equal(_load(path, cache).images, images)
    assert read_entry(folder) is not None
    assert [p.name for p in cache.iterdir()] == [folder.name]


def test_another_spec_size_or_bag_has_another_key() -> None:
    keys = {
        cache_key("a", SPEC, (8, 8)),
        cache_key("b", SPEC, (8, 8)),
        cache_key("a", SPEC, (8, 9)),
        cache_key("a", make_spec(1), (8, 8)),
    }
    assert len(keys) == 4


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    path = write_bag(tmp_path, make_header(), 2)
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="cannot be written"):
        _load(path, tmp_path / "file")


def test_two_writers_of_one_entry_leave_one_whole_entry(tmp_path: Path) -> None:
    episode = _load(write_bag(tmp_path, make_header(), 2), tmp_path / "cache")
    folder = tmp_path / "other" / "key"
    write_entry(folder, episode)
    first = folder.stat().st_ino
    write_entry(folder, episode)
    assert folder.stat().st_ino == first, "another process may be reading the first one"
    write_entry(folder, replace(episode, bag_digest="second"))
    found = read_entry(folder)
    assert found is not None
    assert found.bag_digest == "second"
    assert len(list(folder.parent.iterdir())) == 1


def test_processes_that_decode_the_same_episode_do_not_take_it_from_one_another(tmp_path: Path) -> None:
    episode = _load(write_bag(tmp_path, make_header(), 2), tmp_path / "first")
    cache = EpisodeCache(tmp_path / "shared")
    keys = [f"{number:032x}" for number in range(40)]

    def work() -> list[int]:
        return [len(cache.get(key, lambda: episode)) for key in keys]

    with ThreadPoolExecutor(4) as threads:
        lengths = [future.result() for future in [threads.submit(work) for _ in range(4)]]
    assert lengths == [[len(episode)] * len(keys)] * 4
    assert len(list(cache.root.iterdir())) == len(keys)


def test_what_cannot_be_trained_on_is_named(tmp_path: Path) -> None:
    good = write_bag(tmp_path / "bags", make_header(), 2)
    other = write_bag(tmp_path / "bags", make_header("other", spec=make_spec(1)), 2, make_spec(1))
    empty = write_bag(tmp_path / "bags", make_header("empty"), 0)
    torn = write_bag(tmp_path / "bags", make_header("torn"), 2)
    mcap = next(torn.glob("*.mcap"))
    mcap.write_bytes(mcap.read_bytes()[:-200])
    cache = EpisodeCache(tmp_path / "cache")
    loaded = load_episodes([good, other, empty, torn], SPEC, SIZE, cache)
    assert [e.header.episode_id for e in loaded.episodes] == ["episode"]
    assert "recorded on robot 'testbot' with spec" in loaded.problems[str(other)]
    assert "no observation with a sent action" in loaded.problems[str(empty)]
    assert str(torn) in loaded.problems
    with pytest.raises(DatasetError, match="none of 2 bags can be trained on"):
        load_episodes([other, empty], SPEC, SIZE, cache)
    with pytest.raises(DatasetError, match="no bag was given"):
        load_episodes([], SPEC, SIZE, cache)
    with pytest.raises(BagError):
        _load(tmp_path / "nowhere", tmp_path / "cache")


def test_the_first_steps_of_an_episode_alone(tmp_path: Path) -> None:
    paths = [write_bag(tmp_path / "bags", make_header(f"e{i}"), 6, seed=i) for i in range(3)]
    cache = EpisodeCache(tmp_path / "cache")
    all_of_them = load_episodes(paths, SPEC, SIZE, cache).episodes
    cut = load_episodes(paths, SPEC, SIZE, cache, steps={paths[0]: 4, paths[1]: 0, paths[2]: 99}).episodes
    assert [(len(e), e.whole) for e in cut] == [(4, False), (6, True), (6, True)]
    for name in ("images", "proprioception", "actions", "stamps", "instruction_index"):
        np.testing.assert_array_equal(getattr(cut[0], name), getattr(all_of_them[0], name)[:4])
    dataset = WindowDataset(cut, SPEC, 3)
    # What is masked is what lies behind the cut: of the window from the last step only that step is learned.
    assert dataset.gather(np.array([1, 3])).mask.tolist() == [[True, True, True], [True, False, False]]


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    large = make_spec(size=(32, 40))
    path = write_bag(tmp_path, make_header(spec=SPEC), 2, large)
    with pytest.raises(MessageError, match="32, 40"):
        _load(path, tmp_path / "cache")


def test_a_dataset_needs_episodes_and_a_chunk() -> None:
    with pytest.raises(DatasetError, match="there are 0, chunk 8"):
        WindowDataset([], SPEC, 8)


def test_processes_that_decode_give_the_arrays_of_one(tmp_path: Path) -> None:
    bags = [
        write_bag(tmp_path / "bags", make_header(f"e{i:02}"), 2 + i % 3, seed=i) for i in range(2 * WORTH_A_PROCESS)
    ]
    torn = write_bag(tmp_path / "torn", make_header("torn"), 4)
    recording = next(torn.glob("*.mcap"))
    recording.write_bytes(recording.read_bytes()[:-200])
    alone = load_episodes([*bags, torn], SPEC, SIZE, EpisodeCache(tmp_path / "alone"))
    cache = EpisodeCache(tmp_path / "together")
    advanced: list[int] = []
    decode_bags([*bags, torn], SPEC, SIZE, cache, 2, lambda: advanced.append(1))
    assert len(advanced) == len(bags) + 1
    assert sorted(p.name for p in cache.root.iterdir()) == sorted(p.name for p in (tmp_path / "alone").iterdir())
    together = load_episodes([*bags, torn], SPEC, SIZE, cache, workers=2)
    assert together.problems == alone.problems
    assert list(alone.problems) == [str(torn)]
    for one, other in zip(alone.episodes, together.episodes, strict=True):
        assert one.header == other.header
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.actions, other.actions)

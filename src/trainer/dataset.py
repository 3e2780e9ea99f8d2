"""Training windows: an observation and the chunk of actions that followed it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rollout_manager.bag import EpisodeReader
from rollout_manager.exceptions import BagError
from trainer.episode_arrays import BoolArray, EpisodeArrays, FeatureArray, Int64Array, decode_episode, episode_topics
from trainer.episode_cache import EpisodeCache, cache_key
from trainer.exceptions import DatasetError
from trainer.progress import ProgressBar
from vla_policy_node.exceptions import MessageError
from vla_policy_node.observation import Float32Array, ImageArray
from vla_policy_node.spec import RobotSpec


@dataclass(frozen=True)
class Batch:
    """B windows with chunks of H actions."""

    seen: ImageArray | FeatureArray
    """What the cameras showed: images, uint8 RGB of shape (B, C, height, width, 3), or features of a frozen vision
    encoder, float16 or float32 of shape (B, C, N, W)."""
    proprioception: Float32Array
    """Shape (B, P), in the spec's units."""
    instruction_ids: Int64Array
    """Shape (B,): indices into the dataset's `instructions`."""
    actions: Float32Array
    """Shape (B, H, A), in the spec's units; beyond the episode's end its last action is repeated."""
    mask: BoolArray
    """Shape (B, H): False for what is beyond the episode's end."""

    def part(self, first: int, stride: int) -> "Batch":
        """Every `stride`-th window, beginning with `first`."""
        rows = slice(first, None, stride)
        seen = self.seen[rows]
        return Batch(
            seen if seen.flags.c_contiguous else seen.copy(),
            self.proprioception[rows],
            self.instruction_ids[rows],
            self.actions[rows],
            self.mask[rows],
        )


class WindowDataset:
    """Every window of some episodes, numbered from 0. Images and features stay on disk until a batch asks for them."""

    def __init__(self, episodes: Sequence[EpisodeArrays], spec: RobotSpec, chunk: int, by_human: bool = False) -> None:
        """
        Args:
            episodes: in an order that fixes the windows' numbers.
            spec: theirs.
            chunk: H, actions a window.
            by_human: of tries that a policy began, only what a human drove is learned from.

        Raises:
            DatasetError: there is no episode, the chunk is not positive, only some episodes have features, or there is
                no step to learn from.
        """
        if not episodes or chunk < 1:
            raise DatasetError(f"a dataset needs an episode and a chunk; there are {len(episodes)}, chunk {chunk}")
        if len({(e.seen.dtype, e.seen.shape[1:]) for e in episodes}) > 1:
            shapes = sorted({f"{e.seen.dtype} {e.seen.shape[1:]}" for e in episodes})
            raise DatasetError(f"what the cameras showed is not of one kind and shape: {', '.join(shapes)}")
        self.episodes = tuple(episodes)
        self.spec = spec
        self.chunk = chunk
        self.tasks = tuple(sorted({e.header.task for e in episodes}))
        self.instructions = tuple(sorted({text for e in episodes for text in e.instructions}))
        lengths = np.array([len(e) for e in episodes], np.int64)
        starts = np.cumsum(lengths) - lengths
        self.episode_of: Int64Array = np.repeat(np.arange(len(episodes), dtype=np.int64), lengths)
        self.step_of: Int64Array = np.arange(lengths.sum(), dtype=np.int64) - starts[self.episode_of]
        self.proprioception = np.concatenate([np.asarray(e.proprioception) for e in episodes])
        self.actions = np.concatenate([np.asarray(e.actions) for e in episodes])
        self.learned: BoolArray = np.concatenate([e.learned(by_human) for e in episodes])
        """Shape (N,): which windows begin with a step that is learned from."""
        if not self.learned.any():
            raise DatasetError(f"a human drove no step of {len(episodes)} episodes; set training.learn_from to all")
        runs = [e.run_ends(spec.period_ns, by_human) + start for e, start in zip(episodes, starts, strict=True)]
        self._run_ends: Int64Array = np.concatenate(runs)
        self._instruction_ids: Int64Array = np.concatenate([self._numbers(e) for e in episodes])

    def __len__(self) -> int:
        return len(self.episode_of)

    @property
    def task_of_episode(self) -> Int64Array:
        """Index into `tasks` of every episode."""
        return np.array([self.tasks.index(e.header.task) for e in self.episodes], np.int64)

    @property
    def demonstrations(self) -> BoolArray:
        """Of every episode, whether it is a demonstration."""
        return np.array([e.is_demonstration for e in self.episodes], np.bool_)

    def gather(self, windows: Int64Array) -> Batch:
        """The windows of these numbers, shape (B,), as one batch."""
        steps = windows[:, None] + np.arange(self.chunk)
        ends = self._run_ends[windows][:, None]
        return Batch(
            seen=self._seen(windows),
            proprioception=self.proprioception[windows],
            instruction_ids=self._instruction_ids[windows],
            actions=self.actions[np.minimum(steps, ends - 1)],
            mask=steps < ends,
        )

    def _seen(self, windows: Int64Array) -> ImageArray | FeatureArray:
        first = self.episodes[0].seen
        seen = np.empty((len(windows), *first.shape[1:]), first.dtype)
        places = zip(self.episode_of[windows].tolist(), self.step_of[windows].tolist(), strict=True)
        for i, (episode, step) in enumerate(places):
            seen[i] = self.episodes[episode].seen[step]
        return seen

    def _numbers(self, episode: EpisodeArrays) -> Int64Array:
        numbers = np.array([self.instructions.index(text) for text in episode.instructions], np.int64)
        return np.asarray(numbers[episode.instruction_index], np.int64)


@dataclass(frozen=True)
class LoadedEpisodes:
    """What could be read, and why the rest could not."""

    episodes: tuple[EpisodeArrays, ...]
    problems: dict[str, str]
    """Bag path -> what is wrong with it."""


def load_episode(path: Path, spec: RobotSpec, image_size: tuple[int, int], cache: EpisodeCache) -> EpisodeArrays:
    """One bag as arrays, from the cache where it is there.

    Raises:
        BagError, MessageError, DatasetError: the bag cannot be trained on; the message says why.
    """
    reader = EpisodeReader(path)

    def decode() -> EpisodeArrays:
        messages = reader.messages(episode_topics(reader.header, spec))
        return decode_episode(reader.header, messages, spec, image_size, reader.digest)

    return cache.get(cache_key(reader.digest, spec, image_size), decode)


def load_episodes(
    paths: Sequence[Path],
    spec: RobotSpec,
    image_size: tuple[int, int],
    cache: EpisodeCache,
    progress: bool = False,
    workers: int = 1,
    steps: Mapping[Path, int] | None = None,
) -> LoadedEpisodes:
    """All bags as arrays, in the order of their paths. A bag that cannot be used is named, not fatal.

    Args:
        image_size: height and width that the network takes.
        progress: show it.
        workers: processes that decode at once, where there is enough that is not in the cache.
        steps: by path, how many of its first steps are wanted; 0, or no entry: all.

    Raises:
        DatasetError: none of them can be used.
    """
    episodes: list[EpisodeArrays] = []
    problems: dict[str, str] = {}
    if workers > 1:
        _decode_new(paths, spec, image_size, cache, progress, workers)
    with ProgressBar("reading bags", len(paths), visible=progress) as bar:
        for path in sorted(paths):
            try:
                episodes.append(load_episode(path, spec, image_size, cache).first((steps or {}).get(path, 0)))
            except (BagError, MessageError, DatasetError) as error:
                problems[str(path)] = str(error)
            bar.advance()
    if not episodes:
        details = "; ".join(list(problems.values())[:3]) or "no bag was given"
        raise DatasetError(f"none of {len(paths)} bags can be trained on: {details}")
    return LoadedEpisodes(tuple(episodes), problems)


def _decode_new(
    paths: Sequence[Path],
    spec: RobotSpec,
    image_size: tuple[int, int],
    cache: EpisodeCache,
    progress: bool,
    workers: int,
) -> None:
    """Decode what is not in the cache, several bags at a time."""
    from trainer.decoding import decode_bags  # Its workers import this file.

    new = [path for path in paths if not cache.has(_key(path, spec, image_size))]
    with ProgressBar("decoding bags", len(new), visible=progress) as bar:
        decode_bags(new, spec, image_size, cache, workers, bar.advance)


def _key(path: Path, spec: RobotSpec, image_size: tuple[int, int]) -> str:
    """The bag's name in a cache; empty where it cannot be read, which is told when it is to be."""
    try:
        return cache_key(EpisodeReader(path).digest, spec, image_size)
    except BagError:
        return ""

"""Which windows make up a batch: a pure function of the seed and the step, so that a resumed run draws the same."""

from dataclasses import dataclass, field

import numpy as np

from trainer.config import require
from trainer.dataset import Batch, WindowDataset
from trainer.episode_arrays import BoolArray, Int64Array


@dataclass(frozen=True)
class WindowSampler:
    """Batches balanced over tasks, with a fixed share of demonstrations where there are rollouts too."""

    dataset: WindowDataset
    batch_size: int
    expert_share: float = 0.5
    """Share of each batch drawn from demonstrations; of no effect while all episodes are of one kind."""
    seed: int = 0
    _pools: dict[bool, list[Int64Array]] = field(init=False, repr=False)
    """Demonstration or not -> the windows of each task that has any."""

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, f"sampler: batch_size {self.batch_size} is not at least 1")
        require(0 <= self.expert_share <= 1, f"sampler: expert_share {self.expert_share} is not in [0, 1]")
        demonstrations = self.dataset.demonstrations
        pools = {kind: self._by_task(demonstrations == kind) for kind in (True, False)}
        object.__setattr__(self, "_pools", pools)

    @property
    def expert_windows(self) -> int:
        """Windows of demonstrations in each batch."""
        if not self._pools[False]:
            return self.batch_size
        return round(self.batch_size * self.expert_share) if self._pools[True] else 0

    def windows(self, step: int) -> Int64Array:
        """The window numbers of a step's batch, shape (B,), in random order."""
        rng = np.random.default_rng([self.seed, step])
        experts = self.expert_windows
        parts = [
            _draw(self._pools[True], experts, rng),
            _draw(self._pools[False], self.batch_size - experts, rng),
        ]
        return rng.permutation(np.concatenate(parts))

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        return self.dataset.gather(self.windows(step))

    def _by_task(self, episodes: BoolArray) -> list[Int64Array]:
        tasks = self.dataset.task_of_episode[self.dataset.episode_of]
        wanted = episodes[self.dataset.episode_of] & self.dataset.learned
        pools = [np.flatnonzero(wanted & (tasks == task)) for task in range(len(self.dataset.tasks))]
        return [pool for pool in pools if len(pool)]


def _draw(pools: list[Int64Array], count: int, rng: np.random.Generator) -> Int64Array:
    """`count` windows, as many of each pool as of any other to within one, uniformly within a pool."""
    if count == 0:
        return np.empty(0, np.int64)
    # A fresh order each time decides who gets the remainder, so that no task is favoured over many batches.
    order = rng.permutation(len(pools))
    chosen = [pools[order[i % len(pools)]] for i in range(count)]
    places = rng.random(count)
    return np.array([pool[int(u * len(pool))] for pool, u in zip(chosen, places, strict=True)], np.int64)

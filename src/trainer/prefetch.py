"""The next batch is gathered while a gradient step runs: on a GPU it would otherwise take a fifth of the time."""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import TracebackType

from trainer.dataset import Batch
from trainer.sampler import WindowSampler


class Prefetcher(AbstractContextManager["Prefetcher"]):
    """Batches of a sampler, one ahead. What a batch holds depends on its step alone, so any order may be asked for."""

    def __init__(self, sampler: WindowSampler, steps: int) -> None:
        """Args: steps: how many there are; nothing is gathered beyond them."""
        self._sampler, self._steps = sampler, steps
        self._thread = ThreadPoolExecutor(1, "batches")
        self._ahead: tuple[int, Future[Batch]] | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)

    def batch(self, step: int) -> Batch:
        """The batch of a step. Raises: whatever gathering it raises."""
        if self._ahead is not None and self._ahead[0] == step:
            batch = self._ahead[1].result()
        else:
            batch = self._sampler.batch(step)
        if step + 1 < self._steps:
            self._ahead = step + 1, self._thread.submit(self._sampler.batch, step + 1)
        return batch

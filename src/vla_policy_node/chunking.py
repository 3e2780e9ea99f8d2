"""How chunks of actions are executed: pure, and without a clock. Ticks, stamps and periods are integer ns.

A chunk's action `i` is meant for the tick `stamp + i * period`. A chunk that arrives late therefore starts with the
action for the tick that it meets, and one that is used up gives nothing: an action is never held beyond its tick.

A delay is how many actions of a chunk are over before it is there (see `delays.py`); in lockstep it is 0.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from vla_policy_node.committed import Committed
from vla_policy_node.exceptions import PolicyNodeError
from vla_policy_node.observation import Float32Array, Float64Array
from vla_policy_node.policy import ActionChunk


class ChunkExecutor(Protocol):
    """Turns chunks into one action a tick."""

    def reset(self) -> None:
        """Forget every chunk, for a new episode."""
        ...

    def wants_chunk(self, tick_ns: int, delay: int = 0) -> bool:
        """Whether a chunk that answers the observation at this tick, and takes `delay` ticks, is to be asked for."""
        ...

    def committed(self, tick_ns: int, delay: int = 0) -> Committed | None:
        """What that chunk is to go on from; None where it is free."""
        ...

    def offer(self, chunk: ActionChunk) -> None:
        """Take a new chunk; one older than the newest is passed over."""
        ...

    def next(self, tick_ns: int) -> Float32Array | None:
        """The action for this tick, shape (A,), or None where no chunk spans it."""
        ...


def action_index(tick_ns: int, stamp_ns: int, period_ns: int) -> int:
    """Which of a chunk's actions is nearest to the tick; below 0 or beyond the last where the tick is outside."""
    return (2 * (tick_ns - stamp_ns) + period_ns) // (2 * period_ns)


def ensemble_weights(count: int, decay: float) -> Float64Array:
    """Weights exp(-decay * i) / sum, i = 0 for the oldest prediction; shape (count,).

    Source: temporal ensembling of ACT (Zhao et al., 2023, arXiv 2304.13705, algorithm 2).
    """
    # Measured from the largest exponent, so that neither sign of the decay can overflow.
    exponents = -decay * np.arange(count, dtype=np.float64)
    weights = np.exp(exponents - exponents.max(initial=0.0))
    return np.asarray(weights / weights.sum())


class Replan:
    """Executes the first `every` actions of a chunk, then goes over to the next one at once."""

    def __init__(self, period_ns: int, every: int) -> None:
        """Args: every: actions executed of a chunk before the next is asked for; 0: all of them.

        Raises: PolicyNodeError: `period_ns` is below 1 or `every` below 0.
        """
        self._period_ns = _at_least("period_ns", period_ns, 1)
        self._every = _at_least("every", every, 0)
        self._chunk: ActionChunk | None = None

    def reset(self) -> None:
        """Forget the chunk."""
        self._chunk = None

    def wants_chunk(self, tick_ns: int, delay: int = 0) -> bool:
        """True without a chunk, outside its span, after `every` of its actions, or so many before its end that it
        would run out while the network thinks."""
        if self._chunk is None:
            return True
        length = len(self._chunk.actions)
        # One tick more than is known, for a network that is not always equally slow.
        last = length - (delay + 1 if delay else 0)
        return not 0 <= action_index(tick_ns, self._chunk.stamp_ns, self._period_ns) < min(self._of(length), last)

    def committed(self, tick_ns: int, delay: int = 0) -> Committed | None:
        """None: what the next chunk says does not depend on this one."""
        return None

    def offer(self, chunk: ActionChunk) -> None:
        """Take the chunk unless a newer one is there."""
        _check(chunk)
        if self._chunk is None or chunk.stamp_ns >= self._chunk.stamp_ns:
            self._chunk = chunk

    def next(self, tick_ns: int) -> Float32Array | None:
        """The newest chunk's action for the tick."""
        return None if self._chunk is None else _action_at(self._chunk, tick_ns, self._period_ns)

    def _of(self, length: int) -> int:
        """How many actions of a chunk of `length` are executed before the next is asked for."""
        return self._every or length


class RealTimeChunking(Replan):
    """As `Replan`, but each chunk goes on from the one before, which goes on while the network thinks.

    Source: Black, Galliker and Levine (2025), arXiv 2506.07339, algorithm 1. Where `every` is 0, half of a chunk is
    executed before the next is asked for, as in their experiments: the other half is what both have in common.
    """

    def committed(self, tick_ns: int, delay: int = 0) -> Committed | None:
        """What is left of the chunk from the tick on; None where nothing is, or what is not to be sent (NaN)."""
        if self._chunk is None:
            return None
        index = action_index(tick_ns, self._chunk.stamp_ns, self._period_ns)
        left = self._chunk.actions[index:] if 0 <= index < len(self._chunk.actions) else None
        return Committed(left, delay) if left is not None and np.isfinite(left).all() else None

    def _of(self, length: int) -> int:
        return self._every or (length + 1) // 2


class Ensemble:
    """Asks for a chunk every tick and averages what all chunks say of it, see `ensemble_weights`."""

    def __init__(self, period_ns: int, decay: float) -> None:
        """Raises: PolicyNodeError: `period_ns` is below 1 or `decay` is not finite."""
        self._period_ns = _at_least("period_ns", period_ns, 1)
        if not np.isfinite(decay):
            raise PolicyNodeError(f"executor: decay {decay} is not a finite number")
        self._decay = decay
        self._chunks: list[ActionChunk] = []

    def reset(self) -> None:
        """Forget all chunks."""
        self._chunks = []

    def wants_chunk(self, tick_ns: int, delay: int = 0) -> bool:
        """True unless the newest chunk was made for this very tick."""
        return not self._chunks or action_index(tick_ns, self._chunks[-1].stamp_ns, self._period_ns) != 0

    def committed(self, tick_ns: int, delay: int = 0) -> Committed | None:
        """None: an average wants chunks that do not depend on each other."""
        return None

    def offer(self, chunk: ActionChunk) -> None:
        """Add the chunk; chunks that ended before it began are dropped."""
        _check(chunk)
        if self._chunks and chunk.stamp_ns < self._chunks[-1].stamp_ns:
            return
        alive = [
            c
            for c in self._chunks
            if c.stamp_ns != chunk.stamp_ns
            and action_index(chunk.stamp_ns, c.stamp_ns, self._period_ns) < len(c.actions)
        ]
        self._chunks = [*alive, chunk]

    def next(self, tick_ns: int) -> Float32Array | None:
        """The weighted mean of all predictions for the tick, oldest first."""
        found = [_action_at(chunk, tick_ns, self._period_ns) for chunk in self._chunks]
        predictions = [action for action in found if action is not None]
        if not predictions:
            return None
        weights = ensemble_weights(len(predictions), self._decay)
        return (weights @ np.stack(predictions).astype(np.float64)).astype(np.float32)


EXECUTORS: dict[str, Callable[[int, int, float], ChunkExecutor]] = {
    "replan": lambda period_ns, every, decay: Replan(period_ns, every),
    "ensemble": lambda period_ns, every, decay: Ensemble(period_ns, decay),
    "real_time_chunking": lambda period_ns, every, decay: RealTimeChunking(period_ns, every),
}
"""What a configuration's `execute` may name; arguments are period in ns, `every` and `decay`."""


def make_executor(name: str, period_ns: int, every: int = 1, decay: float = 0.01) -> ChunkExecutor:
    """The executor called `name`.

    Args:
        every: actions executed of a chunk before the next is asked for; 0: all of them (replan) or half
            (real_time_chunking); ensemble asks every tick.
        decay: weight decay a step of age, 0.01 as in ACT (ensemble only).

    Raises:
        PolicyNodeError: no such executor, or an argument out of range.
    """
    if name not in EXECUTORS:
        raise PolicyNodeError(f"executor '{name}' is not one of {', '.join(EXECUTORS)}")
    return EXECUTORS[name](period_ns, every, decay)


def _action_at(chunk: ActionChunk, tick_ns: int, period_ns: int) -> Float32Array | None:
    index = action_index(tick_ns, chunk.stamp_ns, period_ns)
    return chunk.actions[index] if 0 <= index < len(chunk.actions) else None


def _check(chunk: ActionChunk) -> None:
    if chunk.actions.ndim != 2 or not len(chunk.actions):
        raise PolicyNodeError(f"chunk: actions of shape {chunk.actions.shape}, expected (H, A) with H at least 1")


def _at_least(name: str, value: int, least: int) -> int:
    if value < least:
        raise PolicyNodeError(f"executor: {name} {value} is below {least}")
    return value

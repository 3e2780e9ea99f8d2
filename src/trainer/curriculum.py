"""What an iteration of filtered behaviour cloning asks for, given how well the policy does by now."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.exceptions import ConfigError


@dataclass(frozen=True)
class PartialCreditConfig:
    """While few tries succeed, those that came far are kept too; how far rises to all the way."""

    sparse_below: float = 0.1
    """Success of a task counts as sparse below this share of its tries; 0 turns partial credit off."""
    start: float = 0.5
    """Progress that a try needs in the first iteration, in [0, 1]."""
    full_at: int = 3
    """The iteration from which on only success is kept."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.sparse_below <= 1.0 or not 0.0 <= self.start <= 1.0 or self.full_at < 1:
            raise ConfigError(
                f"partial credit: sparse_below {self.sparse_below} and start {self.start} must be in [0, 1], "
                f"full_at {self.full_at} at least 1"
            )


def progress_needed(config: PartialCreditConfig, iteration: int, successes: int, tries: int) -> float:
    """The progress that a try of a task needs to be kept; 1 means success alone.

        start + (1 - start) * (iteration - 1) / (full_at - 1), at most 1, while success is sparse

    `iteration` counts from 1; `successes` of `tries` is how the task went in this iteration.
    """
    sparse = tries > 0 and successes / tries < config.sparse_below
    if not sparse or iteration >= config.full_at:
        return 1.0
    return config.start + (1.0 - config.start) * (iteration - 1) / (config.full_at - 1)


def not_mastered(successes: Mapping[str, tuple[int, int]], mastered: float) -> tuple[str, ...]:
    """The tasks whose success, as (successes, tries), is below `mastered`; an untried task is not mastered."""
    return tuple(task for task, (k, n) in successes.items() if n == 0 or k / n < mastered)


def states_by_uncertainty(successes: Mapping[str, tuple[int, int]], states: int, share: float) -> dict[str, int]:
    """How many of its `states` initial states each task tries, when only a share of all of them is to be tried.

    A task's part grows with the standard deviation of one try, sqrt(p (1 - p)), p = (k + 1) / (n + 2) (Laplace's rule)
    for k successes of n tries: more where a try may go either way, fewer where it is known how it goes. No task gets
    none, and none more than it has.

    Args:
        successes: per task (successes, tries).
        states: initial states of each task.
        share: of all initial states, in (0, 1].
    """
    shares = {task: (k + 1) / (n + 2) for task, (k, n) in successes.items()}
    weights = {task: math.sqrt(p * (1 - p)) for task, p in shares.items()}
    given = dict.fromkeys(successes, 1)
    for _ in range(round(share * states * len(successes)) - len(successes)):
        # The one that is farthest below its part gets the next (Jefferson's method); equals in the tasks' order.
        behind = [task for task in given if given[task] < states]
        chosen = max(behind, key=lambda task: weights[task] / (given[task] + 1))
        given[chosen] += 1
    return given


def check_attempts(attempts: Sequence[float]) -> None:
    """Raises: ConfigError: the exploration scales of the attempts are not 0 or more, or there are none."""
    if not attempts or any(not 0.0 <= scale <= 2.0 for scale in attempts):
        raise ConfigError(f"attempts {list(attempts)}: at least one exploration scale, each in [0, 2]")


def check_execute_every(execute_every: Sequence[int]) -> None:
    """Raises: ConfigError: of one of the attempts' chunks no action would be carried out."""
    if any(every < 1 for every in execute_every):
        raise ConfigError(f"execute_every {list(execute_every)}: of each chunk at least 1 action is carried out")

"""The decisions of an episode, kept and made once more: a try is drawn only if it was worth keeping."""

from collections.abc import Sequence
from dataclasses import dataclass

from rollout_manager.env import Env
from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.rollout import START_NS, Decision, EpisodeResult, Observer, StepRecord, Tick, run_episode
from vla_policy_node.observation import Readings


@dataclass
class DecisionLog:
    """An observer that keeps the decisions of one episode, for `replay_actions`."""

    needs_images = False

    def start(self, header: EpisodeHeader) -> None:
        self.decisions: list[Decision] = []

    def step(self, record: StepRecord) -> None:
        self.decisions.append(Decision(record.action, record.chunk, event=record.event))

    def finish(self, outcome: Outcome, stamp_ns: int, readings: Readings | None) -> None:
        pass


class ReplayDriver:
    """Gives back decisions made earlier, one a tick."""

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self._decisions = decisions
        self._index = 0

    def reset(self, header: EpisodeHeader) -> None:
        self._index = 0

    def step(self, tick: Tick) -> Decision:
        decision = self._decisions[self._index]
        self._index += 1
        return decision


def replay_actions(
    env: Env,
    header: EpisodeHeader,
    decisions: Sequence[Decision],
    observers: Sequence[Observer],
    start_ns: int = START_NS,
) -> EpisodeResult:
    """Run the episode of `header` again with the same decisions, now for `observers` that need images.

    An environment whose reset is exact gives the same states again, so a try can be run without rendering and be
    rendered only where it was worth keeping.
    """
    return run_episode(env, ReplayDriver(decisions), header, len(decisions), observers, start_ns)

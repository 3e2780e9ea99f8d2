"""Filtered behaviour cloning: a policy tries tasks, keeps what succeeded, learns from it, and tries again.

    base    = clone(demonstrations)
    repeat:   tries = rollouts of the policy; kept += those of them that succeeded
              policy = train(demonstrations + kept)

The gain means nothing without what it is compared with: the same gradient steps on demonstrations alone, from the
same start and chosen on the same validation seeds (`control`), and the best checkpoint that any training on
demonstrations alone ever gave (`best_bc`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from trainer.curriculum import not_mastered
from trainer.fbc_config import FBCConfig

Successes = Mapping[str, tuple[int, int]]
"""Per task: successes, tries."""
Episodes = Mapping[str, int]
"""Paths of bags, relative to the run's folder, and how many of the first steps of each are learned from; 0: all."""


@dataclass(frozen=True)
class Trained:
    """A checkpoint that was chosen on the validation seeds."""

    name: str
    """Of the training run that it comes from."""
    checkpoint: str
    """Its folder, relative to the run's."""
    digest: str
    steps: int
    """Gradient steps since the first weights of its lineage."""
    validation: Successes

    @property
    def score(self) -> float:
        """Share of the validation tries that succeeded."""
        return sum(k for k, _ in self.validation.values()) / max(1, sum(n for _, n in self.validation.values()))


@dataclass(frozen=True)
class Tries:
    """What an iteration collected: folders of bags, relative to the run's."""

    iteration: int
    bags: tuple[str, ...]


class Stages(Protocol):
    """The work of each step of the algorithm. A step that was finished before gives back what it gave then."""

    def demonstrate(self) -> str:
        """The folder of the demonstrations' bags, relative to the run's."""
        ...

    def train(self, arm: str, iteration: int, start: Trained | None, episodes: Episodes) -> Trained:
        """Train on demonstrations and on the episodes, from `start` or from new weights.

        The checkpoint is chosen among the run's own by success on the validation seeds. Iteration 0 is the base;
        the runs of one iteration draw the same random numbers, whatever their arm.
        """
        ...

    def collect(self, iteration: int, policy: Trained, tasks: Sequence[str]) -> Tries:
        """Try the tasks on the iteration's own seeds, retrying with exploration what failed."""
        ...

    def keep(self, tries: Tries, filtered: bool = True) -> Episodes:
        """What is to be learned from; `filtered=False` keeps failed tries too, all of each."""
        ...

    def evaluate(self, arm: str, policy: Trained) -> None:
        """Measure a policy on the evaluation seeds."""
        ...

    def zero_shot(self, arm: str, policy: Trained) -> None:
        """Measure a policy on the tasks that nothing was trained on."""
        ...


def filtered_behaviour_cloning(config: FBCConfig, stages: Stages) -> dict[str, Trained]:
    """The whole run. Returns every arm by name: `bc`, `fbc_1`, `fbc_2`, ... and the references.

    It ends early once every task is mastered.
    """
    stages.demonstrate()
    arms = {"bc": stages.train("bc", 0, None, {})}
    tries: list[Tries] = []
    policy = arms["bc"]
    while (collected := _try(config, stages, policy, len(tries) + 1)) is not None:
        tries.append(collected)
        policy = arms[f"fbc_{len(tries)}"] = _learn(config, stages, policy, tries)
    arms |= _references(config, stages, arms["bc"], tries)
    for arm, trained in arms.items():
        stages.evaluate(arm, trained)
    if config.zero_shot.wanted:
        for arm, trained in arms.items():
            stages.zero_shot(arm, trained)
    return arms


def references_beside(config: FBCConfig, stages: Stages) -> None:
    """Train what the policy is compared with, in a process beside the one of `filtered_behaviour_cloning`.

    What one of the two has begun the other waits for: the policy tries while its control is trained. Where the rounds
    end early the last controls are trained in vain.
    """
    stages.demonstrate()
    base = stages.train("bc", 0, None, {})
    if config.references.control:
        _controls(config, stages, base, config.iterations)
    if config.references.unfiltered:
        policy, unfiltered, tries = base, base, list[Tries]()
        while (collected := _try(config, stages, policy, len(tries) + 1)) is not None:
            tries.append(collected)
            # Before the policy itself: that one the other process is at.
            unfiltered = _unfiltered(config, stages, unfiltered, tries)
            policy = _learn(config, stages, policy, tries)


def _try(config: FBCConfig, stages: Stages, policy: Trained, iteration: int) -> Tries | None:
    """What the policy's next round of tries collects; None after the last round, or once it has mastered every task."""
    tasks = not_mastered(policy.validation, config.collection.mastered)
    if not tasks or iteration > config.iterations:
        return None
    return stages.collect(iteration, policy, tasks)


def _learn(config: FBCConfig, stages: Stages, policy: Trained, tries: Sequence[Tries]) -> Trained:
    """The next policy, of demonstrations and of what succeeded in all rounds so far."""
    return stages.train("fbc", len(tries), _start(config, policy), _kept(stages, tries))


def _start(config: FBCConfig, policy: Trained) -> Trained | None:
    return policy if config.start == "continued" else None


def _references(config: FBCConfig, stages: Stages, base: Trained, tries: Sequence[Tries]) -> dict[str, Trained]:
    """The arms to compare with: trained as often and as long as the policy was, on other episodes."""
    arms: dict[str, Trained] = {}
    if config.references.control:
        cloned = [base, *_controls(config, stages, base, len(tries))]
        arms["control"] = cloned[-1]
        # Of equals `max` takes the first: the one that was trained least.
        arms["best_bc"] = max(cloned, key=lambda trained: trained.score)
    if config.references.unfiltered:
        policy = base
        for i in range(1, len(tries) + 1):
            policy = _unfiltered(config, stages, policy, tries[:i])
        arms["unfiltered"] = policy
    return arms


def _controls(config: FBCConfig, stages: Stages, base: Trained, iterations: int) -> list[Trained]:
    """After each iteration, the policy that was trained on demonstrations alone."""
    cloned = [base]
    for i in range(1, iterations + 1):
        cloned.append(stages.train("control", i, _start(config, cloned[-1]), {}))
    return cloned[1:]


def _unfiltered(config: FBCConfig, stages: Stages, policy: Trained, tries: Sequence[Tries]) -> Trained:
    """The next policy of those that learn from all tries so far."""
    return stages.train("unfiltered", len(tries), _start(config, policy), _kept(stages, tries, filtered=False))


def _kept(stages: Stages, tries: Sequence[Tries], filtered: bool = True) -> Episodes:
    """What is learned from of all rounds so far."""
    return {path: steps for collected in tries for path, steps in stages.keep(collected, filtered).items()}

"""The stages of filtered behaviour cloning on disk: each is done once, whatever interrupts the run.

A run's folder:

    config.yaml  journal.json    the resolved configuration; finished stages and what they gave
    bags/demonstrations/         one bag a try, labels beside it
    bags/iteration_<i>/
    tries/<plan>.csv             one row a try
    training/<run>/              checkpoints, log and state to resume from; not of a base that was given
    validation.csv               the tries that checkpoints were chosen by
    evaluation.csv               the tries that arms are measured by
    zero_shot.csv                those on tasks that nothing was trained on
    results.csv  report/         those of the arms by name, and the report
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rollout_manager.pool import WorkerPool
from rollout_manager.results import EpisodeResultRow, latest_by_episode, read_results
from trainer.bc import behaviour_cloning, image_size
from trainer.collection import CollectionPlan, Collector, done_tries
from trainer.curriculum import states_by_uncertainty
from trainer.dataset import load_episodes
from trainer.episode_cache import EpisodeCache
from trainer.evaluate import EvaluationPlan, evaluate, rollout_score
from trainer.exceptions import TrainerError
from trainer.fbc import Episodes, Trained, Tries
from trainer.fbc_config import FBCConfig
from trainer.fbc_selection import DEMONSTRATIONS, demonstrated_bags, kept_bags
from trainer.journal import Journal, Output
from trainer.loop import TrainResult
from trainer.statistics import by_task
from vla_policy_node.checkpoint import Checkpoint, load_checkpoint
from vla_policy_node.network.config import NetworkConfig, load_network_config
from vla_policy_node.normalization import Statistics
from vla_policy_node.spec import load_spec

VALIDATION, EVALUATION, ZERO_SHOT = "validation.csv", "evaluation.csv", "zero_shot.csv"


@dataclass(frozen=True)
class RunStages:
    """`trainer.fbc.Stages` in a folder."""

    config: FBCConfig
    folder: Path
    journal: Journal
    collector: Collector
    pool: WorkerPool
    """Tries checkpoints; stays the caller's."""
    say: Callable[[str], None] = print
    """Is told in a few words what begins."""

    def demonstrate(self) -> str:
        """See `Stages`. Raises: TrainerError: of some task there is no successful demonstration."""
        if self.config.demonstrations.bags:
            return self.config.demonstrations.bags
        what = f"the scripted expert demonstrates {len(self.config.tasks)} tasks"
        return str(self._stage("demonstrations", what, self._demonstrate)["bags"])

    def train(self, arm: str, iteration: int, start: Trained | None, episodes: Episodes) -> Trained:
        """See `Stages`."""
        name = f"{arm}_{iteration}" if iteration else arm
        own = f" and {len(episodes)} own tries" if episodes else ""
        what = f"training {name} on the demonstrations{own}"
        if (given := self.config.base_checkpoint) and not iteration:
            output = self._stage(f"train {name}", f"trying {given} on the validation states", self._given)
        else:
            output = self._stage(f"train {name}", what, lambda: self._train(name, iteration, start, episodes))
        validation = {task: (k, n) for task, (k, n) in output["validation"].items()}
        return Trained(name, output["checkpoint"], output["digest"], output["steps"], validation)

    def collect(self, iteration: int, policy: Trained, tasks: Sequence[str]) -> Tries:
        """See `Stages`."""
        what = f"iteration {iteration}: {policy.name} tries {len(tasks)} tasks"
        output = self._stage(f"collect {iteration}", what, lambda: self._collect(iteration, policy, tasks))
        return Tries(iteration, tuple(output["bags"]))

    def keep(self, tries: Tries, filtered: bool = True) -> Episodes:
        """See `Stages`."""
        kind, what = ("", "filtering") if filtered else (" unfiltered", "taking all of")
        name = f"keep {tries.iteration}{kind}"
        output = self._stage(
            name,
            f"{what} iteration {tries.iteration}'s tries",
            lambda: kept_bags(self.config, self.folder, tries, filtered),
        )
        return {**dict.fromkeys(output["episodes"], 0), **output.get("first_steps", {})}

    def evaluate(self, arm: str, policy: Trained) -> None:
        """See `Stages`."""
        what = f"evaluating {arm} on {len(self.config.seed_plan.evaluation)} new initial states a task"
        plan = self._plan(self.folder / policy.checkpoint, self.config.seed_plan.evaluation)
        self._stage(f"evaluate {arm}", what, lambda: self._measure(policy, plan, EVALUATION))

    def zero_shot(self, arm: str, policy: Trained) -> None:
        """See `Stages`."""
        config = self.config.zero_shot
        first = self.config.seeds.evaluation
        plan = replace(
            self._plan(self.folder / policy.checkpoint, range(first, first + config.seeds)),
            tasks=config.tasks,
            time_limit=config.time_limit,
            rules="",
        )
        what = f"trying {arm} on {len(config.tasks)} tasks that it was not trained on"
        self._stage(f"zero-shot {arm}", what, lambda: self._measure(policy, plan, ZERO_SHOT))

    def _stage(self, name: str, what: str, work: Callable[[], Output]) -> Output:
        if self.journal.output(name) is None:
            self.say(what)
        return self.journal.run(name, work)

    def _demonstrate(self) -> Output:
        plan = CollectionPlan(
            name="demonstrations",
            driver="expert",
            tasks=self.config.tasks,
            seeds=self.config.seed_plan.demonstrations,
            bags=self.folder / DEMONSTRATIONS,
            results=self.folder / "tries" / "demonstrations.csv",
            attempts=(self.config.demonstrations.noise,),
            noise_correlation=self.config.demonstrations.noise_correlation,
            slips=self.config.demonstrations.slips,
            pushes=self.config.demonstrations.pushes,
            time_limit=self.config.time_limit,
        )
        self.collector.collect(plan)
        return {"bags": str(DEMONSTRATIONS), **self._tried(plan)}

    def _collect(self, iteration: int, policy: Trained, tasks: Sequence[str]) -> Output:
        bags = Path("bags") / f"iteration_{iteration}"
        plan = CollectionPlan(
            name=f"iteration {iteration}",
            driver="policy",
            tasks=tuple(tasks),
            seeds=self.config.seed_plan.collection_of(iteration),
            bags=self.folder / bags,
            results=self.folder / "tries" / f"iteration_{iteration}.csv",
            checkpoint=self.folder / policy.checkpoint,
            attempts=self.config.collection.attempts,
            states_of=self._states_of(policy, tasks),
            first_attempt=0 if self.config.collection.fresh else (iteration - 1) * len(self.config.collection.attempts),
            time_limit=self.config.time_limit,
            execute_every=self.config.collection.execute_every or (self.config.evaluation.execute_every,),
        )
        self.collector.collect(plan)
        self._check_driver(plan, policy)
        skipped = [task for task in self.config.tasks if task not in tasks]
        return {"bags": [str(bags)], "skipped": skipped, "policy": policy.digest, **self._tried(plan)}

    def _states_of(self, policy: Trained, tasks: Sequence[str]) -> dict[str, int]:
        """How many initial states each task tries; empty: all of them."""
        collection = self.config.collection
        if collection.active == 1:
            return {}
        validation = {task: policy.validation[task] for task in tasks}
        return states_by_uncertainty(validation, collection.seeds_per_task, collection.active)

    def _check_driver(self, plan: CollectionPlan, policy: Trained) -> None:
        """Raises: TrainerError: a try was driven by another checkpoint than the one asked for."""
        drove = {row.checkpoint_digest for row in done_tries(plan) if row.ending != "aborted"}
        if drove - {policy.digest}:
            raise TrainerError(f"{plan.name}: driven by {', '.join(sorted(drove))} instead of {policy.digest} alone")

    def _tried(self, plan: CollectionPlan) -> Output:
        rows = done_tries(plan)
        if all(row.ending == "aborted" for row in rows):
            reason = rows[0].reason if rows else "no try was made"
            raise TrainerError(f"{plan.name}: nothing was collected: {reason}")
        results = str(plan.results.relative_to(self.folder))
        return {"results": results, "tries": len(rows), "successes": sum(row.success for row in rows)}

    def _train(self, name: str, iteration: int, start: Trained | None, episodes: Episodes) -> Output:
        config = self.config
        spec = load_spec(config.robot)
        network = network_of(config)
        demonstrations = demonstrated_bags(config, self.folder)
        own = {self.folder.resolve() / path: steps for path, steps in episodes.items()}
        cache = EpisodeCache(self.folder / "cache")
        size = image_size(network, spec)
        loaded = load_episodes([*demonstrations, *own], spec, size, cache, True, config.workers, own)
        training = config.retrain if iteration else config.base
        result = behaviour_cloning(
            loaded.episodes,
            spec,
            network,
            replace(training, seed=training.seed + iteration),
            self.folder / "training" / name,
            cache,
            self._score,
            self.folder / start.checkpoint if start else None,
            statistics=self._statistics(),
        )
        counts = {"demonstrations": len(demonstrations), "own": len(episodes), "unusable": loaded.problems}
        return {**self._chosen(result, start), **counts}

    def _given(self) -> Output:
        """What a training run that made the base that was given would have said of it."""
        base = given_base(self.config)
        self._score(base.lineage.gradient_steps, base.folder)
        validation = self._validated(base.digest)
        tries = [sum(counts) for counts in zip(*validation.values(), strict=True)]
        return {
            "checkpoint": str(base.folder),
            "digest": base.digest,
            "parent": base.lineage.parent,
            "steps": base.lineage.gradient_steps,
            "validation": validation,
            "candidates": [(base.lineage.gradient_steps, *tries, True)],
            "demonstrations": len(base.lineage.episodes),
            "own": 0,
        }

    def _score(self, step: int, checkpoint: Path) -> float:
        """See `trainer.loop.Validate`."""
        return rollout_score(self._validation, self.folder / VALIDATION, self.pool)(step, checkpoint)

    def _validated(self, digest: str) -> dict[str, tuple[int, int]]:
        """By task: successes and tries of a checkpoint on the validation seeds."""
        rows = by_task(measured(self.folder / VALIDATION, digest))
        return {task: (sum(r.success for r in rows[task]), len(rows[task])) for task in rows}

    def _statistics(self) -> Statistics | None:
        """Those of the base: recomputing them on what was filtered is known to make policies worse."""
        base = self.journal.output("train bc")
        return load_checkpoint(self.folder / base["checkpoint"]).statistics if base else None

    def _chosen(self, result: TrainResult, start: Trained | None) -> Output:
        """What a training run gave: its best checkpoint, and how every candidate did on the validation seeds."""
        before = start.steps if start else 0
        candidates = []
        for candidate in result.progress.candidates:
            rows = measured(self.folder / VALIDATION, candidate.digest)
            solved = sum(row.success for row in rows)
            candidates.append((before + candidate.step, solved, len(rows), candidate == result.best))
        return {
            "checkpoint": str(result.checkpoint.relative_to(self.folder)),
            "digest": result.best.digest,
            "parent": start.digest if start else "",
            "steps": before + result.best.step,
            "validation": self._validated(result.best.digest),
            "candidates": candidates,
        }

    def _validation(self, checkpoint: Path) -> EvaluationPlan:
        return self._plan(checkpoint, self.config.seed_plan.validation)

    def _measure(self, policy: Trained, plan: EvaluationPlan, results: str) -> Output:
        rows = evaluate(plan, self.folder / results, policy.digest, pool=self.pool)
        solved = sum(row.success for row in rows)
        return {"checkpoint": policy.checkpoint, "digest": policy.digest, "tries": len(rows), "successes": solved}

    def _plan(self, checkpoint: Path, seeds: range) -> EvaluationPlan:
        return EvaluationPlan(
            tasks=self.config.tasks,
            seeds=tuple(seeds),
            checkpoint=str(checkpoint),
            environment=self.config.environment,
            robot=self.config.robot,
            rules=self.config.rules,
            time_limit=self.config.time_limit,
            execute_every=self.config.evaluation.execute_every,
            workers=self.config.workers,
        )


def given_base(config: FBCConfig) -> Checkpoint:
    """The policy that `base_checkpoint` names. Raises: CheckpointError: it is none, or of another robot."""
    return load_checkpoint(Path(config.base_checkpoint).resolve(), load_spec(config.robot))


def network_of(config: FBCConfig) -> NetworkConfig:
    """Of every policy of a run: that of the base that was given, or the configuration's."""
    return given_base(config).config if config.base_checkpoint else load_network_config(config.network)


def measured(path: Path, digest: str) -> list[EpisodeResultRow]:
    """The rows of a results file that are of one checkpoint, each initial state once."""
    return list(latest_by_episode(row for row in read_results(path) if row.checkpoint_digest == digest).values())

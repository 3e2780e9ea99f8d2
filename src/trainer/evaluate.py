"""Measures success: any driver on tasks and initial states, one row an episode, counted with intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rollout_manager.episode import episode_id
from rollout_manager.pool import WorkerPool, run_pool
from rollout_manager.pool_request import EpisodeRequest, Record
from rollout_manager.results import EpisodeResultRow, append_result, latest_by_episode, read_results
from trainer.config import require
from trainer.exceptions import TrainingError
from trainer.progress import ProgressBar
from trainer.seeds import in_rounds
from trainer.statistics import DEFAULT_GATE, GateConfig, Summary, Verdict, by_task, gate, success_by_state
from vla_policy_node.checkpoint import load_checkpoint


@dataclass(frozen=True)
class EvaluationPlan:
    """What drives, and which initial states it is tried on."""

    tasks: tuple[str, ...]
    """Names of the environment's tasks."""
    seeds: tuple[int, ...]
    """Initial states; the same ones for every task."""
    driver: Literal["policy", "expert", "none"] = "policy"
    """A checkpoint, the scripted expert, or nothing at all: the robot holds still."""
    checkpoint: str = ""
    """Folder of the checkpoint that drives."""
    environment: str = "metaworld"
    """Where tasks are tried."""
    robot: str = ""
    """A robot of `config/robots/` or the path of such a file; empty: the environment's own."""
    time_limit: int = 0
    """Steps after which a try is given up; 0: the environment's own limit."""
    execute: Literal["replan", "ensemble", "real_time_chunking"] = "replan"
    """How chunks are carried out."""
    execute_every: int = 8
    """Actions of a chunk that are carried out before the next is asked for."""
    workers: int = 2
    """Processes that try tasks at once."""
    bags: str = ""
    """Folder that every try is recorded in; empty: nowhere."""
    rules: str = ""
    """YAML file of success rules; empty: the simulator's own."""

    def __post_init__(self) -> None:
        require(len(self.tasks) > 0 and len(self.seeds) > 0, "evaluation: no tasks or no seeds given")
        require(self.workers >= 1, f"evaluation: workers {self.workers} is not at least 1")
        require(self.execute_every >= 1, f"evaluation: execute_every {self.execute_every} is not at least 1")
        require(self.driver != "policy" or bool(self.checkpoint), "evaluation: driver 'policy' needs a checkpoint")

    def requests(self) -> list[EpisodeRequest]:
        """One try of every task from every initial state, in rounds."""
        record: Record = "all" if self.bags else "none"
        return [
            EpisodeRequest(
                environment=self.environment,
                task=task,
                seed=seed,
                driver=self.driver,
                checkpoint=self.checkpoint if self.driver == "policy" else None,
                time_limit=self.time_limit or None,
                bag_root=self.bags or None,
                record=record,
                execute=self.execute,
                execute_every=self.execute_every,
                robot=self.robot or None,
                rules=self.rules,
            )
            for task, seed in in_rounds(self.tasks, self.seeds)
        ]


def evaluate(
    plan: EvaluationPlan,
    results: Path,
    checkpoint_digest: str = "",
    visible: bool = True,
    pool: WorkerPool | None = None,
) -> list[EpisodeResultRow]:
    """Try everything in the plan and write a row an episode; gives the plan's rows.

    Tries that `results` already holds, by the same driver and checkpoint, are not made again; aborted ones are.

    Args:
        checkpoint_digest: of the plan's checkpoint, which tells its rows from those of others in the file.
        pool: workers that are there already; else `plan.workers` are started for this call.

    Raises:
        TrainingError: every try was aborted; the message gives the first reason.
    """
    wanted = {request.episode_id: request for request in plan.requests()}
    rows = _done(plan, results, checkpoint_digest)
    missing = [request for name, request in wanted.items() if name not in rows]
    with ProgressBar(f"evaluating {plan.driver}", len(wanted), len(wanted) - len(missing), visible) as bar:
        for result in (pool.run(missing) if pool else run_pool(missing, plan.workers)) if missing else ():
            row = EpisodeResultRow.of(result.header, result.outcome)
            append_result(results, row)
            rows[row.episode_id] = row
            bar.advance(f"{sum(r.success for r in rows.values())} solved")
    found = [rows[name] for name in wanted if name in rows]
    if found and all(row.ending == "aborted" for row in found):
        raise TrainingError(f"all {len(found)} tries were aborted; the first: {found[0].reason}")
    return found


def _done(plan: EvaluationPlan, results: Path, digest: str) -> dict[str, EpisodeResultRow]:
    if not results.is_file():
        return {}
    same = [r for r in read_results(results) if r.driver == plan.driver and r.checkpoint_digest == digest]
    ids = {episode_id(plan.environment, task, seed) for seed in plan.seeds for task in plan.tasks}
    latest = latest_by_episode(same)
    return {name: row for name, row in latest.items() if name in ids and row.ending != "aborted"}


def rollout_score(
    plan_of: Callable[[Path], EvaluationPlan], results: Path, pool: WorkerPool | None = None
) -> Callable[[int, Path], float]:
    """A `Validate` for the training loop: `mean_success` of the checkpoint on a plan."""

    def validate(step: int, checkpoint: Path) -> float:
        plan = plan_of(checkpoint)
        return mean_success(evaluate(plan, results, load_checkpoint(checkpoint).digest, visible=False, pool=pool))

    return validate


def mean_success(rows: Sequence[EpisodeResultRow]) -> float:
    """The mean over tasks of the share of tries that succeeded; aborted tries are not counted, 0 without any."""
    rates = [Summary.of(of_task).rate for of_task in by_task(rows).values()]
    counted = [rate.value for rate in rates if rate.trials]
    return sum(counted) / len(counted) if counted else 0.0


def compare(
    old: Sequence[EpisodeResultRow], new: Sequence[EpisodeResultRow], config: GateConfig = DEFAULT_GATE
) -> Verdict:
    """Compare two policies on the initial states they share, and say whether the new one may replace the old."""
    return gate(success_by_state(old), success_by_state(new), config)


def table(rows: Sequence[EpisodeResultRow]) -> str:
    """Success with trials and interval, and steps to success, a line a task and one for all."""
    groups = {**by_task(rows), "all": list(rows)}
    width = max(map(len, groups))
    lines = [f"{'task':<{width}}  success (95 % Wilson interval)         steps to success"]
    for name, group in groups.items():
        summary = Summary.of(group)
        steps = f"{summary.steps.mean:.1f}" if summary.steps.successes else "-"
        aborted = f"  ({summary.aborted} aborted)" if summary.aborted else ""
        lines.append(f"{name:<{width}}  {summary!s:<38}  {steps}{aborted}")
    return "\n".join(lines)

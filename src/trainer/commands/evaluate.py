"""`encore evaluate`: how often, and how fast, a checkpoint, the scripted expert, or nothing at all succeeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trainer.commands.arguments import parse
from trainer.commands.place import Place
from trainer.exceptions import ConfigError

if TYPE_CHECKING:
    from rollout_manager.results import EpisodeResultRow
    from trainer.evaluate import EvaluationPlan


@dataclass(frozen=True, kw_only=True)
class EvaluateCommand(Place):
    """Measure success on the same initial states for whatever drives: one CSV row a try, and a table.

    Tries that the CSV file already holds are not made again.
    """

    checkpoint: Path | None = None
    """Folder of the checkpoint that drives; without it `--driver` says what does."""
    driver: Literal["policy", "expert", "none"] = "policy"
    """A checkpoint, the scripted expert, or nothing: the robot holds still."""
    against: Path | None = None
    """Folder of an older checkpoint, tried on the same initial states: may the new one replace it?"""
    seeds: int = 20
    """Initial states a task."""
    first_seed: int = 30_000
    """The seeds are this one and those that follow."""
    results: Path = Path("results.csv")
    """CSV file that gets a row a try."""
    bags: Path | None = None
    """Folder that gets a bag a try; without it nothing is recorded."""
    time_limit: int = 0
    """Steps after which a try is given up; 0: the environment's own limit."""
    execute: Literal["replan", "ensemble", "real_time_chunking"] = "replan"
    """How chunks are carried out."""
    execute_every: int = 8
    """Actions of a chunk carried out before the next is asked for."""
    workers: int = 2
    """Processes that try at once."""


def main(arguments: Sequence[str]) -> int:
    """Run the command. Returns 1 where the gate, asked with `--against`, does not let the new checkpoint replace.

    Raises:
        ConfigError, CheckpointError, SimulatorError: the options name something that is not there.
    """
    options = parse(EvaluateCommand, arguments, "evaluate")
    if (options.driver == "policy") != (options.checkpoint is not None):
        raise ConfigError("evaluate: give --checkpoint FOLDER, or --driver expert, or --driver none")
    if options.against is not None and options.checkpoint is None:
        raise ConfigError("evaluate: --against compares two checkpoints; give --checkpoint FOLDER too")
    if options.bags is not None and options.against is not None:
        raise ConfigError("evaluate: --bags records the tries of one checkpoint; leave out --against")

    from trainer.evaluate import compare, table

    rows = measure(options, options.checkpoint)
    print(table(rows))
    print(f"one row a try in {options.results}")
    if options.against is None:
        return 0
    old = measure(options, options.against)
    print(f"\nagainst {options.against}:\n{table(old)}")
    verdict = compare(old, rows)
    print(f"\n{verdict.decision}: {verdict.reason}")
    return 0 if verdict.decision == "replace" else 1


def measure(options: EvaluateCommand, checkpoint: Path | None) -> "list[EpisodeResultRow]":
    """Try everything with one driver. Raises as `main`."""
    from rollout_manager.envs.registry import make_env
    from trainer.evaluate import evaluate
    from vla_policy_node.checkpoint import load_checkpoint
    from vla_policy_node.spec import load_spec

    spec = load_spec(options.robot_name)
    digest = load_checkpoint(checkpoint, spec).digest if checkpoint else ""
    make_env(options.environment, spec, options.rules).close()  # Refuses what it cannot be before anything is started.
    return evaluate(_plan(options, checkpoint), options.results, digest)


def _plan(options: EvaluateCommand, checkpoint: Path | None) -> "EvaluationPlan":
    from trainer.evaluate import EvaluationPlan

    return EvaluationPlan(
        tasks=options.find_tasks(),
        seeds=tuple(range(options.first_seed, options.first_seed + options.seeds)),
        driver=options.driver,
        checkpoint=str(checkpoint or ""),
        environment=options.environment,
        robot=options.robot_name,
        rules=options.rules,
        time_limit=options.time_limit,
        execute=options.execute,
        execute_every=options.execute_every,
        workers=options.workers,
        bags=str(options.bags or ""),
    )

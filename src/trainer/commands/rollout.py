"""`encore rollout`: a checkpoint tries tasks, with exploration where it fails; each try is a labelled bag."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer.commands.arguments import parse
from trainer.commands.place import Place
from trainer.commands.tries import run_plan


@dataclass(frozen=True, kw_only=True)
class RolloutCommand(Place):
    """Have a checkpoint try tasks. The same command again goes on where it was."""

    checkpoint: Path
    """The checkpoint's folder."""
    output: Path
    """Folder that gets `bags/` and `tries.csv`."""
    per_task: int = 10
    """Initial states a task."""
    first_seed: int = 10_000
    """The seeds are this one and those that follow."""
    attempts: tuple[float, ...] = (0.0,)
    """Exploration of each try of an initial state; the next is made only where the one before failed."""
    time_limit: int = 0
    """Steps after which a try is given up; 0: the environment's own limit."""
    execute_every: tuple[int, ...] = (8,)
    """Actions of a chunk carried out before the next is asked for, of each attempt in turn."""
    via: Literal["ros", "pool"] = "ros"
    """`ros`: over the ROS graph, nodes as processes of their own. `pool`: in process, without ROS."""
    workers: int = 1
    """Processes that try at once (`pool`), or graphs (`ros`)."""


def main(arguments: Sequence[str]) -> int:
    """Run the command. Raises: CheckpointError, RolloutError: the checkpoint or a task is not what it should be."""
    options = parse(RolloutCommand, arguments, "rollout")

    from trainer.collection import CollectionPlan
    from vla_policy_node.checkpoint import load_checkpoint
    from vla_policy_node.spec import load_spec

    load_checkpoint(options.checkpoint, load_spec(options.robot_name))  # Refused here, not by every try.
    plan = CollectionPlan(
        name="rollouts",
        driver="policy",
        tasks=options.find_tasks(),
        seeds=range(options.first_seed, options.first_seed + options.per_task),
        bags=options.output / "bags",
        results=options.output / "tries.csv",
        checkpoint=options.checkpoint,
        attempts=options.attempts,
        time_limit=options.time_limit,
        execute_every=options.execute_every,
    )
    return run_plan(plan, options, options.via, options.workers)

"""`encore demonstrate`: the environment's scripted expert shows tasks; each try is a labelled bag."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from trainer.commands.arguments import parse
from trainer.commands.place import Place
from trainer.commands.tries import run_plan
from trainer.config import require


@dataclass(frozen=True, kw_only=True)
class DemonstrateCommand(Place):
    """Have the scripted expert show tasks. The same command again goes on where it was."""

    output: Path
    """Folder that gets `bags/` and `tries.csv`."""
    per_task: Annotated[int, tyro.conf.arg(aliases=["--episodes-per-task"])] = 10
    """Initial states a task."""
    first_seed: int = 0
    """The seeds are this one and those that follow."""
    noise: float = 0.1
    """Standard deviation of the noise in what the expert sends, as a share of half the action range; what is
    learned is its clean proposal."""
    noise_correlation: float = 0.0
    """Of that noise, from one step to the next, in [0, 1): how long it pulls one way."""
    slips: float = 0.0
    """Share of the episodes in which a grasp is made to miss, so that the way back is shown; the miss itself is not
    learned."""
    pushes: float = 0.0
    """Chance at each step that the hand is pushed aside, so that the way back is shown; the push itself is not
    learned."""
    takeover_from: Path | None = None
    """Folder of a checkpoint that drives first. The expert goes on from where it has got to; only that is learned."""
    takeover_steps: tuple[int, int] = (20, 100)
    """Fewest and most steps that the checkpoint drives."""
    time_limit: int = 0
    """Steps after which a try is given up; 0: the environment's own limit."""
    via: Literal["ros", "pool"] = "pool"
    """`ros`: over the ROS graph, nodes as processes of their own. `pool`: in process, without ROS."""
    workers: int = 2
    """Processes that try at once (`pool`), or graphs (`ros`)."""


def main(arguments: Sequence[str]) -> int:
    """Run the command. Raises: RolloutError: an unknown task or environment, or nothing can be recorded."""
    options = parse(DemonstrateCommand, arguments, "demonstrate")

    from trainer.collection import CollectionPlan

    _check_takeover(options)
    plan = CollectionPlan(
        name="demonstrations",
        driver="expert",
        tasks=options.find_tasks(),
        seeds=range(options.first_seed, options.first_seed + options.per_task),
        bags=options.output / "bags",
        results=options.output / "tries.csv",
        attempts=(options.noise,),
        noise_correlation=options.noise_correlation,
        slips=options.slips,
        pushes=options.pushes,
        checkpoint=options.takeover_from,
        takeover=options.takeover_steps,
        time_limit=options.time_limit,
    )
    return run_plan(plan, options, options.via, options.workers)


def _check_takeover(options: DemonstrateCommand) -> None:
    """Raises: ConfigError, CheckpointError: the expert cannot take over as is asked for."""
    if options.takeover_from is None:
        return

    from vla_policy_node.checkpoint import load_checkpoint
    from vla_policy_node.spec import load_spec

    low, high = options.takeover_steps
    require(0 <= low <= high, f"takeover-steps {low} {high}: the fewest and the most, 0 or more")
    require(options.via == "pool", "takeover-from: an expert takes over in process only; use --via pool")
    load_checkpoint(options.takeover_from, load_spec(options.robot_name))  # Refused here, not by every try.

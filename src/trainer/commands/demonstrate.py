"""`encore demonstrate`: the environment's scripted expert shows tasks; each try is a labelled bag."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from trainer.commands.arguments import parse
from trainer.commands.place import Place
from trainer.commands.tries import run_plan


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
        time_limit=options.time_limit,
    )
    return run_plan(plan, options, options.via, options.workers)

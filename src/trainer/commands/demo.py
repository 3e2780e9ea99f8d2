"""`encore demo`: the whole loop on simulated tasks, from demonstrations to a report."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from trainer.commands.arguments import configured, parse
from trainer.fbc_config import FBCConfig


@dataclass(frozen=True)
class DemoCommand:
    """The whole loop over ROS: demonstrations, behaviour cloning, filtered behaviour cloning, evaluation, report.

    Interrupted with Ctrl-C, the same command goes on where it was. Every field of the configuration is an option.
    """

    config: str = "demo"
    """`demo` (about 20 minutes on 2 cores), `demo_quick` (a few minutes), or the path of a YAML file."""
    output: Path = Path("demo")
    """Folder of the run: bags, checkpoints, results and report."""
    run: Annotated[FBCConfig, tyro.conf.arg(name="")] = field(default_factory=lambda: FBCConfig(tasks=("push-v3",)))
    """What is run."""


def main(arguments: Sequence[str]) -> int:
    """Run the command. Raises: ConfigError, and whatever error of ours stops the run."""
    run = configured(FBCConfig, arguments, "", "demo")
    options = parse(DemoCommand, arguments, "demo", DemoCommand(run=run))

    from trainer.demo import run_and_report

    run_and_report(options.run, options.output)
    return 0

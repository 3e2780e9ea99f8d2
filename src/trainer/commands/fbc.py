"""`encore fbc`: filtered behaviour cloning from a configuration, resumable at every stage."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from trainer.commands.arguments import configured, parse
from trainer.fbc_config import FBCConfig


@dataclass(frozen=True)
class FBCCommand:
    """Filtered behaviour cloning: try tasks, keep what succeeded, retrain, again; then measure, and report.

    The same command on the same output goes on where it was. Every field of the configuration is an option.
    """

    output: Path
    """Folder of the run: bags, checkpoints, results and report."""
    config: str = "metaworld"
    """A configuration of config/fbc/, or the path of a YAML file."""
    minutes: float = 0.0
    """End after so long with exit code 3, for the same command to go on later; 0: when everything is done."""
    references_beside: bool = False
    """Train only the arms that the policy is compared with, beside the same command without this option: where there is
    a GPU, it trains them while the policy tries."""
    run: Annotated[FBCConfig, tyro.conf.arg(name="")] = field(default_factory=lambda: FBCConfig(tasks=("push-v3",)))
    """What is run."""


def main(arguments: Sequence[str]) -> int:
    """Run the command. Raises: ConfigError, TimeIsUp, and whatever error of ours stops the run."""
    run = configured(FBCConfig, arguments, "fbc", "metaworld")
    options = parse(FBCCommand, arguments, "fbc", FBCCommand(output=tyro.MISSING, run=run))

    from trainer.demo import run_and_report, train_references
    from trainer.pieces import piece_of

    with piece_of(options.minutes):
        (train_references if options.references_beside else run_and_report)(options.run, options.output)
    return 0

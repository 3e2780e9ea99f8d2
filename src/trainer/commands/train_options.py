"""The options of `encore train`, and what it does with them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from trainer.bc import BehaviourCloningConfig, run_behaviour_cloning
from trainer.commands.arguments import find_config, option, parse
from trainer.config import load_config, save_config


@dataclass(frozen=True)
class TrainCommand:
    """Train a policy to do what was done in recorded episodes. The same command again goes on where it was."""

    output: Path
    """Folder of the run: checkpoints, log, state to resume from, the resolved configuration."""
    config: str = ""
    """A configuration of config/train/, or the path of a YAML file. Every field of it is an option, too."""
    run: Annotated[BehaviourCloningConfig, tyro.conf.arg(name="")] = field(default_factory=BehaviourCloningConfig)
    """What is trained on what, and how."""


def train(arguments: Sequence[str]) -> int:
    """Run the command. Raises as `trainer.commands.train.main`."""
    named = option(arguments, "--config")
    run = load_config(BehaviourCloningConfig, find_config(named, "train") if named else None)
    options = parse(TrainCommand, arguments, "train", TrainCommand(output=tyro.MISSING, run=run))
    save_config(options.run, options.output / "config.yaml")
    result = run_behaviour_cloning(options.run, options.output)
    best = result.best
    score = "not validated" if best.score is None else f"validation success {100 * best.score:.1f} %"
    print(f"{result.checkpoint} ({best.digest}), after {best.step} steps, {score}")
    return 0

"""`encore robot check`: whether a robot, or what stands in for it, offers what its file says."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from trainer import diagnosis
from trainer.commands.arguments import parse
from trainer.exceptions import ConfigError
from vla_policy_node.checkpoint import load_checkpoint
from vla_policy_node.spec import load_spec


@dataclass(frozen=True)
class CheckRobot:
    """Listen to a robot and say what is missing, mistyped, too slow, late or in other units than its file says.

    Nothing is commanded. The exit code is 0 where nothing is missing, else 1.
    """

    robot: tyro.conf.Positional[str]
    """A robot of config/robots/, or the path of such a file."""
    seconds: float = 3.0
    """How long to listen."""
    checkpoint: Path | None = None
    """Folder of a checkpoint: is the robot like the data that it was trained on? A camera that is upside down is told,
    and joints in degrees."""


def main(arguments: Sequence[str]) -> int:
    """Run the command. Returns 0 or 1, see there. Raises: SpecError: no such robot; ConfigError: a time not above 0."""
    options = parse(CheckRobot, _checked(arguments), "robot check")
    if options.seconds <= 0:
        raise ConfigError(f"robot check: seconds {options.seconds} is not above 0")
    spec = load_spec(options.robot)
    trained = None if options.checkpoint is None else load_checkpoint(options.checkpoint, spec).statistics

    from trainer.robot_check import check_robot
    from trainer.robot_check_node import listen

    findings = check_robot(spec, listen(spec, options.seconds), trained)
    print(diagnosis.table(findings, shutil.get_terminal_size((100, 24)).columns))
    wrong = [finding.part for finding in findings if finding.state == "missing"]
    print(f"\nnot ready: {', '.join(wrong)}" if wrong else f"\n'{spec.name}' is there as its file says")
    return 1 if wrong else 0


def _checked(arguments: Sequence[str]) -> Sequence[str]:
    """The arguments behind `check`. Raises: ConfigError: another subcommand."""
    if arguments and not arguments[0].startswith("-"):
        if arguments[0] != "check":
            raise ConfigError(f"robot: '{arguments[0]}' is not one of check")
        return arguments[1:]
    return arguments

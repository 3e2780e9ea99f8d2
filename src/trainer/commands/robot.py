"""`encore robot`: whether a robot offers what its file says, and what such a file says of a model's joints."""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from trainer import diagnosis
from trainer.commands.arguments import parse
from trainer.exceptions import ConfigError
from vla_policy_node.arm_files import JointLimits, joint_limits
from vla_policy_node.spec import load_spec

DECIMALS = 4
"""Of a limit; it is rounded inwards."""


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


@dataclass(frozen=True)
class ReadLimits:
    """Print the lines of a robot's file for the joints of an arm's model, with the limits that the model gives.

    Joints without limits of position are refused. Acceleration, jerk and lead are no part of such models: add them.
    """

    model: tyro.conf.Positional[str]
    """A URDF or MJCF file, or a name in config/arms/."""


def main(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code; `--help` and no subcommand leave by SystemExit.

    Raises:
        ConfigError: no such subcommand; and as each of them.
    """
    if arguments and not arguments[0].startswith("-"):
        if arguments[0] not in SUBCOMMANDS:
            raise ConfigError(f"robot: '{arguments[0]}' is not one of {', '.join(SUBCOMMANDS)}")
        return SUBCOMMANDS[arguments[0]](arguments[1:])
    print(f"usage: encore robot {{{','.join(SUBCOMMANDS)}}} ..., and --help behind each of them")
    raise SystemExit(0 if arguments else 2)


def check(arguments: Sequence[str]) -> int:
    """`check`. Returns 0 or 1, see there. Raises: SpecError: no such robot; ConfigError: a time not above 0."""
    options = parse(CheckRobot, arguments, "robot check")
    if options.seconds <= 0:
        raise ConfigError(f"robot check: seconds {options.seconds} is not above 0")
    spec = load_spec(options.robot)

    from trainer.robot_check import check_robot
    from trainer.robot_check_node import listen
    from vla_policy_node.checkpoint import load_checkpoint

    trained = None if options.checkpoint is None else load_checkpoint(options.checkpoint, spec).statistics
    findings = check_robot(spec, listen(spec, options.seconds), trained)
    print(diagnosis.table(findings, shutil.get_terminal_size((100, 24)).columns))
    wrong = [finding.part for finding in findings if finding.state == "missing"]
    print(f"\nnot ready: {', '.join(wrong)}" if wrong else f"\n'{spec.name}' is there as its file says")
    return 1 if wrong else 0


def limits(arguments: Sequence[str]) -> int:
    """`limits`. Raises: SpecError: no such model, or joints without limits of position."""
    print("\n".join(spec_lines(joint_limits(parse(ReadLimits, arguments, "robot limits").model))))
    return 0


def spec_lines(joints: Sequence[JointLimits]) -> list[str]:
    """Proprioception and action of a robot's file, as YAML."""
    seen = [f"  - {{name: {j.name}, source: joint_position, key: {j.name}, unit: {j.unit}}}" for j in joints]
    return ["proprioception:", *seen, "action:  # add acceleration, jerk and lead: docs/safety.md", *map(_line, joints)]


def _line(joint: JointLimits) -> str:
    step = 10**DECIMALS
    low, high = math.ceil(joint.low * step) / step, math.floor(joint.high * step) / step
    ends = f"low: {low:.10g}, high: {high:.10g}, hold: last, joint: {joint.name}"
    speed = f", velocity: {joint.velocity:.10g}" if joint.velocity > 0 else ""
    unknown = "" if speed else "the model gives no velocity"
    effort = f"up to {joint.effort:g} {'N' if joint.unit == 'm' else 'Nm'}" if joint.effort > 0 else ""
    told = "; ".join(part for part in (effort, unknown) if part)
    return f"  - {{name: {joint.name}, unit: {joint.unit}, {ends}{speed}}}" + (f"  # {told}" if told else "")


SUBCOMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {"check": check, "limits": limits}

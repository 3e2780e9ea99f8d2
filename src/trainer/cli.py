"""The command `encore`: picks a subcommand, and turns every error meant for a person into one line.

Only the chosen subcommand's module is imported, so that help is there at once.
"""

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from rollout_manager.exceptions import RolloutError
from trainer.exceptions import TrainerError
from trainer.pieces import Terminated, TimeIsUp, terminable
from vla_policy_node.exceptions import PolicyNodeError

COMMANDS: Mapping[str, tuple[str, str]] = {
    "demonstrate": ("trainer.commands.demonstrate", "have a scripted expert show tasks; each try is a bag"),
    "rollout": ("trainer.commands.rollout", "have a checkpoint try tasks, over ROS or in process; each try is a bag"),
    "train": ("trainer.commands.train", "behaviour cloning of bags: a checkpoint"),
    "fbc": ("trainer.commands.fbc", "filtered behaviour cloning: try, keep what succeeded, retrain, again"),
    "evaluate": ("trainer.commands.evaluate", "measure success; compare two checkpoints on the same initial states"),
    "report": ("trainer.commands.report", "make the report of a run anew"),
    "bags": ("trainer.commands.bags", "list, show, verify or recover recorded episodes"),
    "label": ("trainer.commands.label", "say how an episode went, overruling earlier labels"),
    "replay": (
        "trainer.commands.replay",
        "recorded tries again: in the simulator, on an arm, beside a policy, or as topics",
    ),
    "up": ("trainer.commands.up", "start the ROS nodes of a configuration, without ROS installed"),
    "robot": ("trainer.commands.robot", "check: whether a robot offers what its file says; limits: those of a model"),
    "doctor": ("trainer.commands.doctor", "what of this machine is ready, what is not, and the command that mends it"),
    "demo": ("trainer.commands.demo", "the whole loop on simulated tasks, with a report at the end"),
}
"""Name of each subcommand: its module, which has `main(arguments) -> exit code`, and what it does."""

FAILED, UNFINISHED, INTERRUPTED, TERMINATED = 2, 3, 130, 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `encore`.

    Returns the exit code: 0, 1 (the command's own no), 2 (an error), 3 (time is up), 130 (Ctrl-C), 143 (SIGTERM).
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(overview())
        return 0 if given else FAILED
    name, *rest = given
    if name not in COMMANDS:
        return _fail(f"'{name}' is not a command; valid are {', '.join(COMMANDS)}")
    try:
        command = cast(Callable[[Sequence[str]], int], importlib.import_module(COMMANDS[name][0]).main)
        with terminable():
            return command(rest)
    except (PolicyNodeError, RolloutError, TrainerError) as error:
        return _fail(str(error))
    except TimeIsUp as end:
        print(f"\nencore {name}: {end}; the same command goes on where it was", file=sys.stderr)
        return UNFINISHED
    except KeyboardInterrupt as end:
        told = isinstance(end, Terminated)
        print(
            f"\nencore {name}: {end if told else 'interrupted'}; the same command goes on where it was", file=sys.stderr
        )
        return TERMINATED if told else INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough of it (`encore bags list | head`). Python's own flush at exit must not
        # complain about it either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def overview() -> str:
    """What `encore --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: encore COMMAND [OPTIONS]    (encore COMMAND --help lists a command's options)",
            "",
            "A robot learns from its own successes.",
            "",
            *lines,
        ]
    )


def _fail(message: str) -> int:
    print(f"encore: {' '.join(message.split())}", file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())

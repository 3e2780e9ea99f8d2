"""How every command reads its options: YAML first, the command line on top."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import tyro

from trainer.config import load_config
from trainer.exceptions import ConfigError
from vla_policy_node.locations import find_preset

T = TypeVar("T")


def parse(kind: type[T], arguments: Sequence[str], command: str, default: T | None = None) -> T:
    """The options of `encore <command>` as a dataclass. `--help` and a wrong option leave by SystemExit.

    Raises:
        ConfigError: a value is out of range, or contradicts another.
    """
    prog, args = f"encore {command}", list(arguments)
    return (
        tyro.cli(kind, args=args, prog=prog)
        if default is None
        else tyro.cli(kind, args=args, prog=prog, default=default)
    )


def configured(kind: type[T], arguments: Sequence[str], folder: str, fallback: str) -> T:
    """The configuration that `--config` names, or the fallback, before the command line changes it.

    Raises:
        ConfigError: no such configuration; the message lists those there are.
    """
    return load_config(kind, find_config(option(arguments, "--config") or fallback, folder))


def find_config(name: str, folder: str = "") -> Path:
    """A YAML file by its path, or by its name in `config/<folder>/`.

    Raises:
        ConfigError: there is none; the message lists the names.
    """
    return find_preset("configuration", name, folder, ConfigError)


def option(arguments: Sequence[str], name: str) -> str | None:
    """The value of `name VALUE` or `name=VALUE` on a command line, or None."""
    for i, argument in enumerate(arguments):
        if argument == name and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(f"{name}="):
            return argument.removeprefix(f"{name}=")
    return None

"""`encore label`: a person's word on how an episode went. It overrules every rule; the history stays."""

import getpass
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from rollout_manager.labels import LabelOutcome, append_label, make_label, read_labels
from trainer.commands.arguments import parse


@dataclass(frozen=True)
class LabelCommand:
    """Label an episode, overruling what was said of it before. Without an outcome: print its labels."""

    bag: tyro.conf.Positional[Path]
    """The episode's bag folder."""
    outcome: tyro.conf.Positional[LabelOutcome | None] = None
    """`discard`: whatever came of it, nothing is to be learned from it."""
    author: str = ""
    """Who says so; empty: the user's name."""
    note: str = ""
    """Why, in words."""


def main(arguments: Sequence[str]) -> int:
    """Run the command. Raises: LabelError: no such bag, or its labels are damaged."""
    options = parse(LabelCommand, arguments, "label")
    bag = Path(os.path.normpath(options.bag))
    if options.outcome is not None:
        author = options.author or getpass.getuser()
        append_label(bag, make_label(bag.name, options.outcome, author, note=options.note))
    for label in read_labels(bag):
        print(f"{label.outcome:<8} by {label.author} ({label.rule}) {label.note}".rstrip())
    return 0

"""A task by the name that a person writes: in full, by suite and index, or by a part that only one task has. Pure."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from rollout_manager.exceptions import SimulatorError

Suites = Mapping[str, Sequence[str]]
"""The tasks of each suite of an environment, in the suite's own order."""

SHOWN = 8
"""How many names a message lists."""


def find_task(suites: Suites, text: str, suite: str = "") -> str:
    """The full name of the task that `text` means.

    Args:
        text: its name, a part of its name that no other task has, or `suite/index`, counted from 0.
        suite: where to look; empty: in all suites.

    Raises:
        SimulatorError: no such task or suite, or several; the message lists the near ones.
    """
    tasks = tasks_of(suites, suite) if suite else list(dict.fromkeys(t for tasks in suites.values() for t in tasks))
    if text in tasks:
        return text
    if match := re.fullmatch(r"(\w+)/(\d+)", text):
        return _by_index(suites, match[1], int(match[2]), suite)
    parts = [task for task in tasks if _plain(text) in _plain(task)] if _plain(text) else []
    # A name that ends so is meant before one that goes on: "turn on the stove" and not "... and put the pan on it".
    whole = [task for task in parts if _plain(task).endswith(_plain(text))]
    if len(whole or parts) == 1:
        return (whole or parts)[0]
    if parts:
        raise SimulatorError(f"task '{text}' may be any of {len(parts)}: {_listed(parts)}")
    if elsewhere := [name for name, others in suites.items() if text in others]:
        raise SimulatorError(f"task '{text}' is one of suite {', '.join(elsewhere)}, not of {suite}")
    near = get_close_matches(text, tasks, n=SHOWN, cutoff=0.4)
    hint = f"near ones are {_listed(near)}" if near else f"some are {_listed(tasks)}"
    raise SimulatorError(f"task '{text}' is not one of the {len(tasks)} of {suite or ', '.join(suites)}; {hint}")


def tasks_of(suites: Suites, name: str) -> Sequence[str]:
    if name not in suites:
        raise SimulatorError(f"suite '{name}' is not one of {', '.join(suites)}")
    return suites[name]


def _by_index(suites: Suites, named: str, index: int, suite: str) -> str:
    tasks = tasks_of(suites, named)
    if suite not in ("", named):
        raise SimulatorError(f"task '{named}/{index}' is one of suite {named}, not of {suite}")
    if index >= len(tasks):
        raise SimulatorError(f"suite {named} has tasks 0 to {len(tasks) - 1}, no {index}")
    return tasks[index]


def _plain(text: str) -> str:
    """Without what people write in different ways: case, blanks, hyphens, underscores."""
    return re.sub(r"[\s_-]+", " ", text).strip().lower()


def _listed(tasks: Sequence[str]) -> str:
    return ", ".join(tasks[:SHOWN]) + (", ..." if len(tasks) > SHOWN else "")

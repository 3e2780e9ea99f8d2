"""Tasks by the names that people write: in full, by suite and index, or by a part that only one task has."""

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches

from rollout_manager.exceptions import SimulatorError

Suites = Mapping[str, Sequence[str]]
"""The tasks of each suite of an environment, in the suite's own order."""

SHOWN = 8
"""How many names a message lists."""


def _metaworld() -> Suites:
    from rollout_manager.envs.metaworld_tasks import SUITES

    return SUITES


def _libero() -> Suites:
    from rollout_manager.envs.libero.suites import suite_names

    return suite_names()


def _panda() -> Suites:
    from rollout_manager.envs.panda_tasks import TASKS

    return {"tabletop": tuple(TASKS)}


SUITES_OF: dict[str, Callable[[], Suites]] = {"metaworld": _metaworld, "libero": _libero, "panda": _panda}


def suites_of(environment: str) -> Suites:
    """The suites of an environment. Raises: SimulatorError: no such environment."""
    if environment not in SUITES_OF:
        raise SimulatorError(f"environment '{environment}' is not one of {', '.join(SUITES_OF)}")
    return SUITES_OF[environment]()


def find_tasks(environment: str, named: Sequence[str], suite: str = "") -> tuple[str, ...]:
    """The full names of the tasks that a person asks for: those named, or else all of the suite.

    Raises:
        SimulatorError: an unknown, ambiguous or repeated task, or neither a task nor a suite.
    """
    suites = suites_of(environment)
    if not named and not suite:
        raise SimulatorError(f"no task: name tasks of {environment}, or one of its suites: {', '.join(suites)}")
    if not named:
        return tuple(_suite(suites, suite))
    found = tuple(find_task(suites, text, suite) for text in named)
    if repeated := sorted({task for task in found if found.count(task) > 1}):
        raise SimulatorError(f"tasks named twice: {', '.join(repeated)}")
    return found


def find_task(suites: Suites, text: str, suite: str = "") -> str:
    """The full name of the task that `text` means.

    Args:
        text: its name, a part of its name that no other task has, or `suite/index`, counted from 0.
        suite: where to look; empty: in all suites.

    Raises:
        SimulatorError: no such task or suite, or several; the message lists the near ones.
    """
    tasks = _suite(suites, suite) if suite else list(dict.fromkeys(t for tasks in suites.values() for t in tasks))
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


def _suite(suites: Suites, name: str) -> Sequence[str]:
    if name not in suites:
        raise SimulatorError(f"suite '{name}' is not one of {', '.join(suites)}")
    return suites[name]


def _by_index(suites: Suites, named: str, index: int, suite: str) -> str:
    tasks = _suite(suites, named)
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

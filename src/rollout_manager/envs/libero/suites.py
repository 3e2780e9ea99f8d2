"""LIBERO's five suites and their 130 tasks, read from the installed files without importing any of its code."""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rollout_manager.envs.libero.package import package_root
from rollout_manager.envs.task_names import find_task as find_name
from rollout_manager.exceptions import SimulatorError

SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")

TASK_MAP = Path("benchmark") / "libero_suite_task_map.py"
"""The file that says which tasks a suite has, in which order."""

SCENE = re.compile(r"^[A-Z_]+SCENE\d+_")
"""What the names of tasks of libero_10 and libero_90 begin with."""


@dataclass(frozen=True)
class LiberoTask:
    """One task of LIBERO."""

    suite: str
    index: int
    """Its place in the suite, from 0, in the benchmark's own order."""
    name: str
    """Name of its BDDL file without the ending; no two of the 130 tasks share one."""
    instruction: str
    """The task in words, as the benchmark gives it to policies."""
    bddl_file: Path
    states_file: Path
    """The 50 initial states, see `initial_states.py`."""


@cache
def suite_tasks(suite: str) -> tuple[LiberoTask, ...]:
    """The tasks of a suite in the benchmark's own order.

    Raises:
        SimulatorError: no such suite, or LIBERO is not installed or lacks files.
    """
    if suite not in SUITES:
        raise SimulatorError(f"suite '{suite}' is not one of LIBERO's: {', '.join(SUITES)}")
    root = package_root()
    return tuple(_task(root, suite, index, name) for index, name in enumerate(_task_map(root)[suite]))


def all_tasks() -> tuple[LiberoTask, ...]:
    """All 130 tasks, suite by suite. Raises: SimulatorError: LIBERO is not installed or lacks files."""
    return tuple(task for suite in SUITES for task in suite_tasks(suite))


def suite_names() -> dict[str, tuple[str, ...]]:
    """The names of each suite's tasks. Raises: SimulatorError: as `all_tasks`."""
    return {suite: tuple(task.name for task in suite_tasks(suite)) for suite in SUITES}


def find_task(text: str, suite: str = "") -> LiberoTask:
    """The task that a person means.

    Args:
        text: its name, a part of it that no other task has, or `suite/index`.
        suite: where to look; empty: in all suites.

    Raises:
        SimulatorError: no such task or suite, or several; the message lists the near ones.
    """
    names = suite_names()
    found = find_name(names, text, suite)
    return next(task for task in all_tasks() if task.name == found)


def instruction_of(name: str) -> str:
    """The task in words, from its name, as the benchmark makes it.

    The BDDL files have a sentence too, and for 29 tasks another one; demonstrations and published evaluations use this.
    """
    return SCENE.sub("", name).replace("_", " ")


@cache
def _task_map(root: Path) -> Mapping[str, Sequence[str]]:
    """Names of the tasks of each suite. Raises: SimulatorError: the file is not as it should be."""
    path = root / TASK_MAP
    try:
        (assignment,) = ast.parse(path.read_text(), str(path)).body
        if not isinstance(assignment, ast.Assign):
            raise ValueError("it holds something else than one dictionary")
        suites: dict[str, list[str]] = ast.literal_eval(assignment.value)
    except (OSError, SyntaxError, ValueError) as error:
        raise SimulatorError(f"LIBERO's list of tasks, {path}, cannot be read: {error}") from error
    if missing := [suite for suite in SUITES if suite not in suites]:
        raise SimulatorError(f"LIBERO's list of tasks, {path}, lacks {', '.join(missing)}")
    return suites


def _task(root: Path, suite: str, index: int, name: str) -> LiberoTask:
    bddl_file = root / "bddl_files" / suite / f"{name}.bddl"
    states_file = root / "init_files" / suite / f"{name}.pruned_init"
    for path in (bddl_file, states_file):
        if not path.is_file():
            raise SimulatorError(f"LIBERO's task {suite}/{index} lacks its file {path}")
    return LiberoTask(suite, index, name, instruction_of(name), bddl_file, states_file)

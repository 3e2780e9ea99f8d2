"""The tasks of every environment, by the names that people write."""

from collections.abc import Callable, Sequence

from rollout_manager.envs.task_names import Suites, find_task, tasks_of
from rollout_manager.exceptions import SimulatorError


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
        return tuple(tasks_of(suites, suite))
    found = tuple(find_task(suites, text, suite) for text in named)
    if repeated := sorted({task for task in found if found.count(task) > 1}):
        raise SimulatorError(f"tasks named twice: {', '.join(repeated)}")
    return found

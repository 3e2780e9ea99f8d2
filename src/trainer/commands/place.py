"""What every command that tries tasks is told: where, which, and with which robot."""

from dataclasses import dataclass
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where tasks are tried, and which."""

    tasks: tuple[str, ...] = ()
    """The tasks: names, parts of names that only one task has, or suite/index. None: all of the suite."""
    environment: Annotated[str, tyro.conf.arg(aliases=["--env"])] = "metaworld"
    """Which simulator."""
    suite: str = ""
    """A suite of its tasks, such as mt10 or libero_90; empty: all there are."""
    robot: str = ""
    """A robot of config/robots/, or the path of such a file; empty: the environment's own."""

    rules: str = ""
    """YAML file of success rules for these tasks; empty: the simulator's own."""

    def find_tasks(self) -> tuple[str, ...]:
        """The tasks' full names. Raises: SimulatorError: unknown, ambiguous or no tasks."""
        from rollout_manager.envs.tasks import find_tasks

        return find_tasks(self.environment, self.tasks, self.suite)

    @property
    def robot_name(self) -> str:
        return self.robot or self.environment

"""The one interface of a simulated robot, whatever simulates it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from vla_policy_node.observation import Float32Array, Float64Array, Readings
from vla_policy_node.spec import RobotSpec


@dataclass(frozen=True)
class StepResult:
    """What one action led to. `truncated` is not here: time limits belong to whoever runs the episode."""

    success: bool
    progress: float
    """Partial credit now, in [0, 1]."""
    failure: bool = False
    """The task cannot be solved any more and the simulator ended it."""


@dataclass(frozen=True)
class Landmarks:
    """Where the things of a scene are now, by their names; for success rules, never for policies."""

    positions: Mapping[str, Float64Array]
    """Of bodies and places, each (3,) in m in the world's frame."""
    joints: Mapping[str, float]
    """Of hinges (rad) and slides (m)."""


class Env(Protocol):
    """A simulated robot with a set of tasks. One task is set up at a time."""

    @property
    def name(self) -> str:
        """Name of the environment, as in the configuration: `metaworld`, `libero`, ..."""
        ...

    @property
    def spec(self) -> RobotSpec: ...

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of all tasks that `reset` takes."""
        ...

    def instruction(self, task: str) -> str:
        """The task in words. Raises: SimulatorError: unknown task."""
        ...

    def default_time_limit(self, task: str) -> int:
        """Steps after which a try of the task is given up unless the caller says otherwise."""
        ...

    def reset(self, task: str, seed: int) -> None:
        """Set the task up at the initial state that `seed` fixes. Raises: SimulatorError: unknown task or seed."""
        ...

    def step(self, action: Float32Array) -> StepResult:
        """Apply one action, shape (A,), clipped to the spec's limits, and advance by one period."""
        ...

    def read(self, cameras: bool = True) -> Readings:
        """What the sensors say now; without cameras nothing is rendered."""
        ...

    def privileged_state(self) -> Float64Array:
        """What only a simulator knows, shape (S,); for scripted experts, never for policies."""
        ...

    def landmarks(self) -> Landmarks:
        """Where everything is now."""
        ...

    def versions(self) -> dict[str, str]:
        """Versions of the simulator and of what decides its behaviour."""
        ...

    def close(self) -> None:
        """Free the renderer."""
        ...

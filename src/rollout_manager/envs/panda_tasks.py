"""Tabletop tasks of the stand-in arm: where things stand at the start, and when a task is solved.

They look at the arm and never move it, so that the same predicate judges a try in lockstep and one in real time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rollout_manager.arms.arm import Arm
from rollout_manager.env import StepResult
from rollout_manager.exceptions import SimulatorError
from vla_policy_node.observation import Float64Array

COLOURS = ((0.8, 0.1, 0.1), (0.1, 0.6, 0.15), (0.1, 0.25, 0.8), (0.85, 0.7, 0.1))
"""Red, green, blue and yellow: the cube is one of them."""
ARM_SPREAD = 0.08
"""rad by which each joint of the arm may begin beside its place at home."""
HOVER = 0.10
"""m above the cube's middle at which the hand has reached it."""
NEAR, NEAR_UP = 0.025, 0.04
"""m, to the side and up or down, at which the hand is where it should be: to the side no further than the cube goes."""
LIFT = 0.08
"""m that the cube is to be lifted."""
FLOOR = -0.05
"""m, height of the cube below which it has fallen from the table."""
HALF_CUBE = 0.025
FINGERS = ("panda_finger_joint1", "panda_finger_joint2")


@dataclass(frozen=True)
class Tabletop:
    """What the predicates are told: positions in m in the frame of the arm's base."""

    hand: Float64Array
    """The point between the finger tips, (3,)."""
    cube: Float64Array
    """The cube's middle, (3,)."""
    start: Float64Array
    """Where that was at the beginning, (3,)."""
    line: float
    """x of the line on the table."""


@dataclass(frozen=True)
class TabletopTask:
    """One task."""

    instruction: str
    time_limit: int
    low: tuple[float, float]
    """The cube's least x and y at the beginning, m."""
    high: tuple[float, float]
    """The largest."""
    progress: Callable[[Tabletop], float]
    """Partial credit; from 1 on the task is solved."""
    line: bool = False
    """Whether the line is to be seen."""
    steps: int = 1
    """For how many in a row it has to be solved: a hand that flies by holds nowhere."""


def reached(table: Tabletop) -> float:
    """1 where the hand is above the cube, else how near to that it is."""
    off = table.hand - table.cube - (0, 0, HOVER)
    side, up = float(np.hypot(off[0], off[1])), abs(float(off[2]))
    if side < NEAR and up < NEAR_UP:
        return 1.0
    return min(0.99, max(0.0, 1.0 - float(np.linalg.norm(off)) / 0.4))


def pushed(table: Tabletop) -> float:
    """Share of the way to the line that the cube has come, all of it beyond."""
    goal = table.line + HALF_CUBE
    return float((table.cube[0] - table.start[0]) / (goal - table.start[0]))


def lifted(table: Tabletop) -> float:
    """Share of the height that the cube has been lifted."""
    return float((table.cube[2] - table.start[2]) / LIFT)


TASKS = {
    "reach_cube": TabletopTask("hold the hand above the cube", 150, (0.44, -0.12), (0.56, 0.12), reached, steps=10),
    "push_cube": TabletopTask(
        "push the cube beyond the white line", 240, (0.46, -0.12), (0.53, 0.12), pushed, line=True
    ),
    "lift_cube": TabletopTask("lift the cube", 240, (0.44, -0.12), (0.56, 0.12), lifted),
}
"""By name."""


def check_task(name: str) -> TabletopTask:
    """The task called so. Raises: SimulatorError: there is none."""
    if name not in TASKS:
        raise SimulatorError(f"task '{name}' is not one of panda's: {', '.join(TASKS)}")
    return TASKS[name]


def check_model(arm: Arm) -> None:
    """Raises: SimulatorError: a model without what the tasks are about."""
    for kind, name in (("joint", "cube"), ("geom", "cube"), ("geom", "line"), ("joint", FINGERS[0])):
        try:
            getattr(arm.model, kind)(name)
        except KeyError as error:
            raise SimulatorError(f"the arm's model has no {kind} '{name}', which its tasks need") from error


def set_up(arm: Arm, task: TabletopTask, seed: int) -> None:
    """Put arm and cube where the seed says. The same seed gives the same bits."""
    random = np.random.default_rng(seed)
    arm.reset()
    spread = random.uniform(-ARM_SPREAD, ARM_SPREAD, len(arm.joints))
    spread[[arm.joints.index(name) for name in FINGERS]] = 0.0
    arm.reset(arm.measured()[0] + spread)
    arm.data.joint("cube").qpos[:2] = random.uniform(task.low, task.high)
    arm.model.geom("cube").rgba[:3] = COLOURS[random.integers(len(COLOURS))]
    arm.model.geom("line").rgba[3] = float(task.line)
    arm.settle()


def look(arm: Arm, start: Float64Array) -> Tabletop:
    """What the predicates are told now. Args: start: the cube's place at the beginning, (3,)."""
    hand, cube = arm.hand().position, np.array(arm.data.joint("cube").qpos[:3])
    return Tabletop(hand, cube, start, float(arm.model.geom("line").pos[0]))


class Judge:
    """How a try stands, period by period."""

    def __init__(self, task: TabletopTask) -> None:
        self._task, self._solved = task, 0

    def step(self, table: Tabletop, fault: str) -> StepResult:
        """After one more period. Args: fault: why the hardware has stopped the arm; nothing is solved any more then."""
        progress = min(1.0, max(0.0, self._task.progress(table)))
        failed = bool(table.cube[2] < FLOOR) or bool(fault)
        self._solved = self._solved + 1 if progress >= 1.0 and not failed else 0
        return StepResult(self._solved >= self._task.steps, progress, failed)

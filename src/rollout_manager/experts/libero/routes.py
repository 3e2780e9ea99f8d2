"""Ways for the hand around what stands about."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

import numpy as np

from rollout_manager.experts.libero.frames import UP, Frame, angle_between, between
from rollout_manager.experts.libero.imagination import TOUCH, Held, Imagination
from rollout_manager.experts.libero.wandering import spaced, wander
from vla_policy_node.observation import Float64Array

SPACING, TURN_SPACING = 0.025, 0.35
"""Between the poses of a way that are checked: m, rad."""
RISES = (0.0, 0.06, 0.12, 0.2)
"""How far above the higher of its ends a way around may lead, in m."""
ASIDE = ((-0.12, 0.0), (0.0, 0.12), (0.0, -0.12), (-0.2, 0.0))
"""Level steps, in m, with which a way out from under something may begin: to the robot, or aside."""
STEP = 0.35
"""Between the joint angles of a way that was searched for, in rad: the hand goes straight from one to the next."""
CLEARANCES = (0.02, 0.008, TOUCH)
"""How far a way keeps from things, in m: the first for which there is one."""


def along(first: Frame, second: Frame) -> Iterator[Frame]:
    """Poses on the straight way from the one to the other, the last included, the first not."""
    distance = float(np.linalg.norm(second.position - first.position))
    parts = max(distance / SPACING, angle_between(first.rotation, second.rotation) / TURN_SPACING)
    count = max(1, int(np.ceil(parts)))
    for k in range(1, count + 1):
        yield between(first, second, k / count)


def clear(
    imagination: Imagination,
    way: Sequence[Frame],
    start: Float64Array | None = None,
    held: Held | None = None,
    opening: float | None = None,
    clearance: float = TOUCH,
) -> bool:
    """Whether the hand can be at all poses of a way, straight lines between them, and meets nothing there.

    Args: start: joint angles from which the first pose is reached, shape (7,); the present ones without.
    """
    arm = imagination.reach(way[0], start)
    if arm is None or imagination.collides(arm, held, opening, clearance):
        return False
    for first, second in pairwise(way):
        for pose in along(first, second):
            arm = imagination.reach(pose, arm)
            if arm is None or imagination.collides(arm, held, opening, clearance):
                return False
    return True


def route(
    imagination: Imagination, start: Frame, goal: Frame, held: Held | None = None, opening: float | None = None
) -> list[Frame]:
    """Poses to go through, `goal` last: straight there if that is free, else up, across and down.

    Where none of these is free a way is searched for; where none is found it is the highest one: contact on it may
    still give way.
    """
    ways = [[goal], *(_over(start, goal, rise) for rise in RISES)]
    # Out from under something first.
    for aside in ASIDE:
        out = start.shifted(np.array([*aside, 0.0]))
        ways += [[out, goal], [out, *_over(out, goal, RISES[1])]]
    for clearance in CLEARANCES:
        for way in ways:
            # Where the hand is now it may touch what it has just let go.
            first = next(along(start, way[0]))
            if clear(imagination, [first, *way], None, held, opening, clearance):
                return way
    return _around(imagination, goal, held, opening) or _over(start, goal, RISES[-1])


def _around(imagination: Imagination, goal: Frame, held: Held | None, opening: float | None) -> list[Frame] | None:
    """A way that only a search finds."""
    low, high = imagination.joint_ends
    for clearance in CLEARANCES[1:]:
        for posture in imagination.postures:
            there = imagination.reach(goal, posture)
            free = partial(_is_free, imagination, held, opening, clearance)
            if there is not None and (path := wander(imagination.arm, there, low, high, free)):
                poses = [imagination.hand_at(angles) for angles in spaced(path, imagination.arm, STEP)]
                return [*poses[:-1], goal]
    return None


def _is_free(
    imagination: Imagination, held: Held | None, opening: float | None, clearance: float, arm: Float64Array
) -> bool:
    return not imagination.collides(arm, held, opening, clearance)


def _over(start: Frame, goal: Frame, rise: float) -> list[Frame]:
    """Up, across and down."""
    top = max(start.position[2], goal.position[2]) + rise
    up, over = (Frame(np.array([frame.position[0], frame.position[1], top]), frame.rotation) for frame in (start, goal))
    return [up, over, goal]


def backed(frame: Frame, direction: Float64Array, distances: Sequence[float]) -> list[Frame]:
    """A pose, and poses behind it at some distances against a direction."""
    return [frame.shifted(-distance * direction) for distance in (0.0, *distances)]


def raised(frame: Frame, height: float) -> Frame:
    """A pose that much higher."""
    return frame.shifted(height * UP)

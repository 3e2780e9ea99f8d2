"""Ways through the space of joint angles, where no simple one is free: RRT-Connect (Kuffner and LaValle, ICRA 2000)."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from vla_policy_node.observation import Float64Array

STRIDE, SPACING = 1.0, 0.12
"""Longest edge of a tree, and between the angles on it that are checked, in rad (Euclidean over the joints)."""
BRANCHES, SHORTCUTS = 1000, 60
"""Random angles that the trees are grown towards, and tries to cut a corner."""

Free = Callable[[Float64Array], bool]
"""Whether the arm may be at some joint angles, shape (7,)."""


class _Tree:
    def __init__(self, root: Float64Array) -> None:
        self.angles = [root]
        self.parents = [-1]

    def nearest(self, angles: Float64Array) -> int:
        return int(np.argmin(((np.array(self.angles) - angles) ** 2).sum(axis=1)))

    def grow(self, towards: Float64Array, free: Free, most: float = np.inf) -> bool:
        """New leaves, one stride after the other, until something is in the way; whether there is a leaf at the end.

        Args: most: leaves, at most.
        """
        last, grown = self.nearest(towards), 0
        while grown < most:
            here = self.angles[last]
            distance = float(np.linalg.norm(towards - here))
            there = towards if distance <= STRIDE else here + (towards - here) * (STRIDE / distance)
            if not edge_free(here, there, free):
                break
            self.angles.append(there)
            self.parents.append(last)
            last, grown = len(self.angles) - 1, grown + 1
            if distance <= STRIDE:
                return True
        return False

    def path(self) -> list[Float64Array]:
        """From the root to the youngest leaf."""
        found, at = [], len(self.angles) - 1
        while at >= 0:
            found.append(self.angles[at])
            at = self.parents[at]
        return found[::-1]


def wander(
    start: Float64Array, goal: Float64Array, low: Float64Array, high: Float64Array, free: Free
) -> list[Float64Array] | None:
    """Joint angles to go through in straight lines, `goal` last and `start` not among them; None where none is found.

    Args:
        start, goal: joint angles, shape (7,).
        low, high: the joints' ends, shape (7,).
    """
    if not free(start) or not free(goal):
        return None
    rng = np.random.default_rng(0)
    mine, other = _Tree(start), _Tree(goal)
    for branch in range(BRANCHES):
        # The other's root first: mostly the way is not far.
        aim = other.angles[0] if branch < 2 else rng.uniform(low, high)
        before = len(mine.angles)
        mine.grow(aim, free, np.inf if branch < 2 else 1)
        if (len(mine.angles) > before or branch < 2) and other.grow(mine.angles[-1], free):
            path = mine.path() + other.path()[-2::-1]
            path = path if np.array_equal(path[0], start) else path[::-1]
            return _shortened(path, free, rng)[1:]
        mine, other = other, mine
    return None


def edge_free(first: Float64Array, second: Float64Array, free: Free) -> bool:
    """Whether the arm may be anywhere on the straight line, its beginning aside."""
    count = max(1, int(np.ceil(float(np.linalg.norm(second - first)) / SPACING)))
    return all(free(first + (second - first) * (k / count)) for k in range(1, count + 1))


def _shortened(path: list[Float64Array], free: Free, rng: np.random.Generator) -> list[Float64Array]:
    """The path with corners cut where the straight line is free."""
    for _ in range(SHORTCUTS):
        if len(path) < 3:
            break
        first, last = sorted(rng.choice(len(path), 2, replace=False))
        if last - first > 1 and edge_free(path[first], path[last], free):
            path = path[: first + 1] + path[last:]
    return path


def spaced(path: list[Float64Array], start: Float64Array, spacing: float) -> list[Float64Array]:
    """The path's angles with others on its straight lines between them, no further apart than `spacing` rad."""
    found = []
    for first, second in pairwise([start, *path]):
        count = max(1, int(np.ceil(float(np.linalg.norm(second - first)) / spacing)))
        found += [first + (second - first) * (k / count) for k in range(1, count + 1)]
    return found

"""Which grasp and which place go together: a hand can reach both, and meets nothing on the way in or out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from rollout_manager.experts.libero.delivering import SAME_PLACE, Failures, Placing, alike, find_placing
from rollout_manager.experts.libero.frames import Frame
from rollout_manager.experts.libero.grasping import AZIMUTHS, TILTS, YAWS, Grasp, easier_turn, grasps, tilted, top_down
from rollout_manager.experts.libero.imagination import OPEN, Held, Imagination
from rollout_manager.experts.libero.placing import Placement, placements
from rollout_manager.experts.libero.routes import backed, clear, raised
from rollout_manager.experts.libero.world import Goal, World
from vla_policy_node.observation import Float64Array

NEAR, ABOVE_GROUND = 0.13, 0.004
"""What is further from a thing is not in the way of the fingers, nor is what it stands on, in m."""
MOST_POINTS, MOST_AROUND = 1200, 600
YAW_COST, TILT_COST = 0.5, 0.5
"""For a quarter turn; for a hand that lies level. So much, that things of one shape are taken the same way wherever
they stand: a policy cannot learn a choice whose reason it does not see."""
SIDE_COST = 2.0
"""For a metre to the left of a thing's middle, as the arm sees it: of two sides of a rim, which are alike, always the
right one is taken, for the same reason. Where it cannot be, or the thing has slipped, it costs nothing."""
PREGRASP = (0.03, 0.08)
GRASPS_LOOKED_AT, GRASPS_TRIED = 300, 8
"""Of each way the hand may lean: how many are looked at, and of how many that go it is seen where they lead. In a
drawer nearly all of them meet its sides."""
DEAREST = 1.4
"""Grasps that cost more slip, such as those across the edge of a plate: what has no better one is pushed instead."""
BARELY_APART = 0.006
LOOSE = 0.01
"""How far a thing in the closed hand has to come up, or back the way the hand came, in m."""


class ImpossibleError(Exception):
    """There is no way that the expert knows; the message says what of."""


@dataclass(frozen=True)
class Carry:
    """How a thing is taken and where it goes."""

    grasp: Grasp
    placing: Placing


def choose(world: World, imagination: Imagination, goal: Goal, failed: Failures) -> Carry:
    """The cheapest grasp of the goal's thing with which it can be placed so that the goal holds.

    Raises:
        ImpossibleError: no grasp, no place, or none that go together.
    """
    name = goal[1]
    imagination.refresh()
    trouble = f"no free place for {name} where ({' '.join(goal)}) would hold"
    for lying in (False, True):
        places = placements(world, imagination, goal, lying)
        if not places:
            continue
        for side_cost in (0.0,) if failed.grasps else (SIDE_COST, 0.0):
            found, tried = _cheapest(world, imagination, goal, failed, places, side_cost)
            if found is not None:
                return found
        if not tried:
            raise ImpossibleError(f"no grasp of {name} is within reach")
        trouble = f"none of {tried} grasps of {name} can bring it to where ({' '.join(goal)}) would hold"
    raise ImpossibleError(trouble)


def _cheapest(
    world: World,
    imagination: Imagination,
    goal: Goal,
    failed: Failures,
    places: Sequence[Placement],
    side_cost: float,
) -> tuple[Carry | None, int]:
    """The cheapest grasp that can bring a thing to one of some places, if there is one; and how many were tried."""
    name = goal[1]
    thing = world.frame(name)
    tried, best, least = 0, None, np.inf
    for least_cost, lean in _leans():
        if least_cost >= least:
            break
        usable = _usable(world, imagination, name, lean, failed.grasps, side_cost, min(least, DEAREST))
        for grasp in islice(usable, GRASPS_TRIED):
            if grasp.cost >= least:
                break
            tried += 1
            held = _held(grasp, name, thing)
            placing = find_placing(world, imagination, goal, held, places, failed, least - grasp.cost)
            if placing is not None:
                best, least = Carry(grasp, placing), grasp.cost + placing.cost
    return best, tried


Lean = Sequence[tuple[Float64Array, float]]
"""Ways to turn the hand, each with its cost."""


def _leans() -> Iterator[tuple[float, Lean]]:
    """Ways to turn the hand: pointing down, and then leaning more and more; the least that each lot costs with it."""
    yield 0.0, [(top_down(yaw), YAW_COST * abs(yaw) / (np.pi / 2)) for yaw in YAWS]
    for tilt in TILTS:
        cost = TILT_COST * tilt / (np.pi / 2)
        yield cost, [(rotation, cost) for azimuth in AZIMUTHS for rotation in tilted(tilt, azimuth)]


def _usable(
    world: World,
    imagination: Imagination,
    name: str,
    lean: Lean,
    failed: Sequence[Frame],
    side_cost: float,
    limit: float,
) -> Iterator[Grasp]:
    """Grasps of a thing, cheaper than `limit`, that the hand can reach without meeting anything, the cheapest first."""
    thing = world.frame(name)
    avoided = list(failed)
    looked_at: list[Frame] = []
    for grasp in _candidates(world, imagination, name, lean, side_cost):
        if grasp.cost >= limit:
            return
        in_thing = thing.inverse() @ grasp.hand
        if any(alike(in_thing, other, SAME_PLACE) for other in avoided):
            continue
        if any(alike(in_thing, other, BARELY_APART) for other in looked_at):
            continue
        looked_at.append(in_thing)
        came = backed(grasp.hand, grasp.hand.rotation[:, 2], PREGRASP)
        if clear(imagination, came) and _comes_loose(imagination, _held(grasp, name, thing), grasp.hand):
            avoided.append(in_thing)  # One of those that are nearly the same is enough.
            yield grasp
        if len(looked_at) == GRASPS_LOOKED_AT:
            return


def _held(grasp: Grasp, name: str, thing: Frame) -> Held:
    """A thing as a grasp will hold it."""
    return Held(name, grasp.hand.inverse() @ thing, min(OPEN, grasp.width / 2))


def _comes_loose(imagination: Imagination, held: Held, hand: Frame) -> bool:
    """Whether the hand, closed, can move a thing: not where a finger goes down behind the side of a drawer as well."""
    ways = raised(hand, LOOSE), hand.shifted(-LOOSE * hand.rotation[:, 2])
    return any(clear(imagination, [way], None, held) for way in ways)


def _candidates(world: World, imagination: Imagination, name: str, lean: Lean, side_cost: float) -> list[Grasp]:
    """Grasps with the hand turned in some ways, by the thing's shape and what is near it; the cheapest first."""
    rng = np.random.default_rng(0)
    points = _thinned(world.object_cloud(name), MOST_POINTS, rng)
    around = world.cloud(world.others(world.body(name)))
    low, high = points.min(axis=0) - NEAR, points.max(axis=0) + NEAR
    low[2] += NEAR + ABOVE_GROUND
    around = _thinned(around[((around > low) & (around < high)).all(axis=1)], MOST_AROUND, rng)
    present, wrist, middle = world.hand.rotation, float(world.arm[-1]), (points.min(axis=0) + points.max(axis=0)) / 2
    found = [
        Grasp(g.hand, g.width, g.cost + cost + imagination.stretch_cost(g.hand) + side_cost * _left(g.hand, middle))
        for rotation, cost in lean
        for g in grasps(points, around, easier_turn(rotation, present, wrist), rng)
    ]
    return sorted(found, key=lambda g: g.cost)


def _left(hand: Frame, middle: Float64Array) -> float:
    """How far left of a thing's middle the hand is, in m: the arm looks along the world's x, its left is along y."""
    return max(0.0, float(hand.position[1] - middle[1]))


def _thinned(points: Float64Array, most: int, rng: np.random.Generator) -> Float64Array:
    return points if len(points) <= most else points[rng.permutation(len(points))[:most]]

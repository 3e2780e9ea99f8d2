"""How a thing in the hand gets to one of the places where it could be put."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from rollout_manager.experts.libero.frames import UP, Frame, horizontal, rotation_about, unit
from rollout_manager.experts.libero.imagination import OPEN, Held, Imagination
from rollout_manager.experts.libero.placing import Placement, target
from rollout_manager.experts.libero.routes import clear
from rollout_manager.experts.libero.world import Goal, World
from vla_policy_node.observation import Float64Array

DROPS = (0.004, 0.02, 0.04, 0.07, 0.11, 0.16)
"""How far above where it will rest a thing is let go, in m."""
DROP_COST = 1.0
"""A metre of it."""
TIP, TIP_COST = np.deg2rad(25.0), 0.25
TIPPED_PLACES, TIPPED_DROPS = 12, (0.02, 0.03, 0.045)
"""A thing that is tipped a little gets past what stands about its place, and falls flat there."""
CROWDED_COST = 0.1
"""Of a place where the fingers cannot open all the way, and of one to which the hand comes near other things."""
COMFORT = 0.005
"""A hand that keeps further from things does not come near them, in m."""
ABOVE, BESIDE = (0.05, 0.1), (0.06, 0.12, 0.2)
"""How far from its place a thing is on its way there, from above and from the side, in m."""
UNDER = 0.04
"""How far aside and above its place a thing is before it goes under something, in m."""
FINE = 0.005
ENDS_TRIED = 300
SAME_PLACE, SAME_TURN = 0.015, 0.3


@dataclass(frozen=True)
class Placing:
    """How a thing in the hand goes to its place."""

    goal_frame: Frame
    """Of the thing, where it is let go."""
    hand_rotation: Float64Array
    """Of the hand then, shape (3, 3)."""
    entry: Float64Array
    """Points on the way there, as seen from there in the world's axes, the nearest first; shape (K, 3)."""
    cost: float


@dataclass
class Failures:
    """What went wrong with a thing, not to be tried again."""

    grasps: list[Frame] = field(default_factory=list)
    """Poses of the hand in the thing's frame at which it slipped."""
    places: list[Frame] = field(default_factory=list)
    """Poses of the thing in the world to which it could not be brought."""

    def had_place(self, frame: Frame) -> bool:
        return any(alike(frame, other, SAME_PLACE) for other in self.places)


def find_placing(
    world: World,
    imagination: Imagination,
    goal: Goal,
    held: Held,
    places: Sequence[Placement],
    failed: Failures,
    limit: float = np.inf,
) -> Placing | None:
    """The cheapest way, below a limit, to one of some places as a thing is held; it is let go as low as can be."""
    hand_in_thing = held.in_hand.inverse()
    axes = target(world, goal).rotation
    middle = _middle(world, held.name)
    best: Placing | None = None
    for cost, frame in sorted(_ends(places, axes, middle), key=lambda end: end[0])[:ENDS_TRIED]:
        if cost >= limit:
            break
        hand = frame @ hand_in_thing
        arm = imagination.reach(hand)
        if arm is None or imagination.collides(arm, held) or failed.had_place(frame):
            continue
        if imagination.collides(arm, held, OPEN):
            cost += CROWDED_COST  # The fingers cannot open all the way to let go.
        cost += imagination.stretch_cost(hand)
        for entry in _entries(axes):
            way = [hand, *(hand.shifted(offset) for offset in entry)]
            if cost < limit and clear(imagination, way, arm, held):
                cost += 0.0 if clear(imagination, way[1:], arm, held, None, COMFORT) else CROWDED_COST
                if cost < limit:
                    best, limit = Placing(frame, hand.rotation, entry, cost), cost
                break
    return best


def hand_for(position: Float64Array, rotation: Float64Array, held: Held) -> Frame:
    """Where the hand, turned so, brings the origin of what it holds to a position, shape (3,)."""
    return Frame(position - rotation @ held.in_hand.position, rotation)


def can_place(imagination: Imagination, held: Held, placing: Placing) -> bool:
    """Whether a thing can be brought there as it is held."""
    hand = hand_for(placing.goal_frame.position, placing.hand_rotation, held)
    return clear(imagination, [hand, *(hand.shifted(offset) for offset in placing.entry)], None, held)


def alike(first: Frame, second: Frame, distance: float) -> bool:
    """Whether two frames are nearer to each other than a distance in m, and turned about alike."""
    apart = float(np.linalg.norm(first.position - second.position))
    return apart < distance and float(np.trace(first.rotation.T @ second.rotation)) > 1 + 2 * np.cos(SAME_TURN)


def _middle(world: World, name: str) -> Float64Array:
    """Of a thing, in its own frame, shape (3,)."""
    local = world.frame(name).inverse().points(world.object_cloud(name))
    middle: Float64Array = (local.min(axis=0) + local.max(axis=0)) / 2
    return middle


def _ends(places: Sequence[Placement], axes: Float64Array, middle: Float64Array) -> Iterator[tuple[float, Frame]]:
    """Poses in which a thing may be let go, each with its cost: as it will rest or tipped a bit, above there."""
    for place in places:
        for drop in DROPS:
            if drop <= max(DROPS[0], place.headroom):
                yield place.cost + DROP_COST * drop, place.frame.shifted(drop * UP)
    spots: list[Placement] = []
    for place in places:
        if len(spots) < TIPPED_PLACES and all(_apart(place, other) > FINE for other in spots):
            spots.append(place)
    for place in spots:
        for level in _levels(axes):
            tipped = rotation_about(np.cross(UP, level), TIP) @ place.frame.rotation
            shift = place.frame.rotation @ middle - tipped @ middle
            for drop in TIPPED_DROPS:
                position = place.frame.position + shift + drop * UP
                yield place.cost + TIP_COST + DROP_COST * drop, Frame(position, tipped)


def _apart(first: Placement, second: Placement) -> float:
    return float(np.linalg.norm(first.frame.position - second.frame.position))


def _levels(axes: Float64Array) -> list[Float64Array]:
    """The level ones of a place's axes, both ways."""
    return [sign * horizontal(axes[:, k]) for k in range(3) if abs(axes[2, k]) < 0.5 for sign in (1.0, -1.0)]


def _entries(axes: Float64Array) -> Iterator[Float64Array]:
    """Ways by which a thing may come to its place: points on them as seen from there, the nearest first, shape (K, 3).

    From above, level along the place's axes, half way between, and from above and then under something.
    """
    yield np.outer(ABOVE, UP)
    levels = _levels(axes)
    yield from (np.outer(BESIDE, level) for level in levels)
    yield from (np.outer(BESIDE, unit(level + UP)) for level in levels)
    for level in levels:
        under = UNDER * (level + UP)
        yield np.stack([under, under + ABOVE[-1] * UP])

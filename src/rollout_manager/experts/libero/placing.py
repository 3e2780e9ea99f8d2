"""Where a thing could be put so that a goal holds, from its shape and the benchmark's own reading of the goal."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from rollout_manager.experts.libero.frames import UP, Frame, angle_between, rotation_about
from rollout_manager.experts.libero.imagination import Imagination
from rollout_manager.experts.libero.world import Goal, Joint, World
from vla_policy_node.observation import Float64Array

ON_OBJECT = 0.02
"""How far from the middle of what it stands on a thing may be put, in m; the benchmark grants 0.03."""
LEVEL = 0.01
"""Heights are tried at this spacing, in m, then halved down to `FINEST`."""
FINEST = 0.001
GRID = (0.0, 0.01, -0.01, 0.02, -0.02, 0.03, -0.03, 0.04, -0.04, 0.06, -0.06)
"""Offsets from a region's middle that are tried, in m."""
SPREAD = 0.055
"""How far off the middle of a region things are best put of which several go there, in m."""
TURNS = np.deg2rad(np.arange(-150, 181, 30))
LIE_DOWN_COST = 0.6
TURN_COST = 0.25
"""For half a turn."""
OFFSET_COST = 3.0
"""A metre off the middle."""
GAPS, TIGHT_COST = (0.004, 0.01), 0.15
"""What a place costs for each of these distances, in m, that it does not keep from what stands beside it."""
TIPS_COST = 0.4
"""Of a place where a thing does not stay as it is put."""
MOST_HEADROOM = 0.16
MOST, MOST_A_SPOT, WORTH_LOOKING = 60, 3, 0.15
"""Placements that are looked at in all and at one spot, and how much dearer than the cheapest one they may be."""
TRIES_A_TURN = 25
"""Where a thing turned in some way finds no place so often, it is given up to turn it so."""
LEANS = 0.5
SAME_ANGLE = 0.02
Holds = Callable[[Float64Array], bool]


@dataclass(frozen=True)
class Placement:
    """A pose of an object in the world in which it rests, and the goal holds once it is let go."""

    frame: Frame
    cost: float
    headroom: float
    """How far above it the thing may be let go and falls there freely, in m."""


@dataclass(frozen=True)
class Target:
    """What a goal says about where a thing's origin has to be."""

    centre: Float64Array
    """In the world, shape (3,)."""
    rotation: Float64Array
    """The axes along which its room extends, shape (3, 3)."""
    low: float
    high: float
    """Heights between which the thing's lowest point may come to rest, in m."""
    offsets: tuple[float, ...]
    spread: float
    """How far off the middle a thing is best put, in m: other things may be to come."""
    drawer: Joint | None
    """Of a drawer that is to be shut on it."""
    holds: Holds


def target(world: World, goal: Goal) -> Target:
    """What ("on" or "in", thing, place) asks for."""
    predicate, name, place = goal
    if not world.is_region(place):
        return _on_object(world, name, place)
    frame, region = world.region(place)
    # The benchmark takes a box's half extents along the world's axes so, which suits boxes turned by quarters.
    half = np.abs(frame.rotation @ np.asarray(region.size, float))
    check = region.in_box if predicate == "in" else region.under

    def holds(origin: Float64Array) -> bool:
        return bool(check(frame.position, frame.rotation, origin))

    reach = half[2] + (0.02 if predicate == "in" else 0.12)
    shared = sum(other[0] == "on" and other[2] == place for other in world.goals) > 1
    spread = SPREAD if shared else 0.0
    middle = float(frame.position[2])
    low = middle - half[2] - 0.03
    return Target(frame.position, frame.rotation, low, middle + reach, GRID, spread, _to_be_shut(world, place), holds)


def _to_be_shut(world: World, region: str) -> Joint | None:
    joints = world.joints(region) if ("close", region) in world.goals else []
    return next((joint for joint in joints if joint.slides), None)


def _on_object(world: World, name: str, place: str) -> Target:
    frame = world.frame(place)
    points = world.object_cloud(place)

    def holds(origin: Float64Array) -> bool:
        aside = origin[:2] - frame.position[:2]
        return bool(np.hypot(*aside) < ON_OBJECT and origin[2] >= frame.position[2])

    low, high = float(points[:, 2].min()), float(points[:, 2].max())
    return Target(frame.position, frame.rotation, low, high + 0.03, (0.0, 0.01, -0.01), 0.0, None, holds)


def placements(world: World, imagination: Imagination, goal: Goal, lying: bool = False) -> list[Placement]:
    """Poses of the thing of a goal that are free, rest on something and make the goal hold; the best first.

    Args: lying: whether it is laid down, or stands as it does now.

    Each takes some dozen collision checks, so that not all that there are are looked at.
    """
    name = goal[1]
    wanted = target(world, goal)
    present = world.frame(name)
    local = present.inverse().points(world.object_cloud(name))
    middle = (local.min(axis=0) + local.max(axis=0)) / 2
    found: list[Placement] = []
    there: Counter[tuple[float, ...]] = Counter()
    in_vain: Counter[int] = Counter()
    least = np.inf
    for cost, rotation, offset in sorted(_poses(present.rotation, wanted, lying), key=lambda pose: pose[0]):
        if len(found) >= MOST or cost > least + WORTH_LOOKING:
            break
        if there[tuple(offset)] >= MOST_A_SPOT or in_vain[id(rotation)] >= TRIES_A_TURN:
            continue
        place = wanted.centre + wanted.rotation @ offset
        frame = _rest(imagination, name, rotation, place, local, wanted)
        if frame is not None and wanted.drawer is not None and imagination.blocks(wanted.drawer, name, frame):
            frame = None
        in_vain[id(rotation)] += frame is None
        if frame is not None:
            in_vain[id(rotation)] = -(len(GRID) ** 2)
            there[tuple(offset)] += 1
            tight = sum(imagination.object_collides(name, frame.shifted((gap + FINEST) * UP), gap) for gap in GAPS)
            stays = imagination.carried(name, frame.shifted(-2 * FINEST * UP), frame.points(middle[None])[0])
            cost += TIGHT_COST * tight + (0.0 if stays else TIPS_COST)
            found.append(Placement(frame, cost, _headroom(imagination, name, frame)))
            least = min(least, found[-1].cost)
    return sorted(found, key=lambda placement: placement.cost)


def _poses(present: Float64Array, wanted: Target, lying: bool) -> Iterator[tuple[float, Float64Array, Float64Array]]:
    """What each costs, how the thing is turned, and where off the target's middle it is put."""
    for rotation in (_lying if lying else _upright)(present, wanted):
        turn = TURN_COST * angle_between(present, rotation) / np.pi + LIE_DOWN_COST * lying
        for offset in _offsets(wanted):
            off = abs(float(np.linalg.norm(offset)) - wanted.spread)
            yield turn + OFFSET_COST * off, rotation, offset


def _offsets(wanted: Target) -> Iterator[Float64Array]:
    """Along the two axes of the target that are nearest to level."""
    level = np.argsort(np.abs(wanted.rotation[2]))[:2]
    for first in wanted.offsets:
        for second in wanted.offsets:
            offset = np.zeros(3)
            offset[level[0]], offset[level[1]] = first, second
            yield offset


def levelled(rotation: Float64Array) -> Float64Array:
    """A thing that leans a little, set upright; one that lies or leans more stays as it is."""
    upward = int(np.argmax(np.abs(rotation[2])))
    axis = rotation[:, upward] * np.sign(rotation[2, upward])
    lean = np.cross(axis, UP)
    sine = float(np.linalg.norm(lean))
    if sine < 1e-6 or sine > np.sin(LEANS):
        return rotation
    return rotation_about(lean / sine, float(np.arcsin(sine))) @ rotation


def _upright(present: Float64Array, wanted: Target) -> list[Float64Array]:
    """The thing as it stands now, turned about the vertical: not at all, square to the target, or anyhow."""
    angles = [0.0]
    for angle in (*_square_angles(present, wanted.rotation), *TURNS):
        if all(abs(angle - other) > SAME_ANGLE for other in angles):
            angles.append(float(angle))
    standing = levelled(present)
    return [rotation_about(UP, angle) @ standing for angle in angles]


def _lying(present: Float64Array, wanted: Target) -> list[Float64Array]:
    """The thing tipped over a quarter turn, and then square to the target."""
    found = []
    for azimuth in np.deg2rad((0.0, 90.0, 180.0, 270.0)):
        axis = present @ np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
        axis = axis - UP * (axis @ UP)
        if np.linalg.norm(axis) < 0.5:
            continue
        tipped = rotation_about(axis / np.linalg.norm(axis), np.pi / 2) @ present
        found += [rotation_about(UP, angle) @ tipped for angle in _square_angles(tipped, wanted.rotation)]
    return found


def _square_angles(present: Float64Array, wanted: Float64Array) -> list[float]:
    """Turns about the vertical, in (-pi, pi], that lay a thing's level axes along the target's."""
    mine, theirs = (_level_azimuth(rotation) for rotation in (present, wanted))
    return [float((theirs - mine + k * np.pi / 2 + np.pi) % (2 * np.pi) - np.pi) for k in range(4)]


def _level_azimuth(rotation: Float64Array) -> float:
    axis = rotation[:, int(np.argmin(np.abs(rotation[2])))]
    return float(np.arctan2(axis[1], axis[0]))


def _rest(
    imagination: Imagination,
    name: str,
    rotation: Float64Array,
    place: Float64Array,
    local: Float64Array,
    wanted: Target,
) -> Frame | None:
    """The thing lowered at `place` until something carries it; None where it is in the way or the goal fails.

    Args: local: points on its surface in its own frame, shape (N, 3).
    """
    heights = (local @ rotation.T)[:, 2]
    bottom, height = float(heights.min()), float(np.ptp(heights))

    def at(lowest: float) -> Frame:
        return Frame(np.array([place[0], place[1], lowest - bottom]), rotation)

    free: float | None = None
    ceiling = np.inf
    for lowest in np.arange(wanted.high, wanted.low - 2 * LEVEL, -LEVEL):
        if lowest + height > ceiling:
            continue
        if not imagination.object_collides(name, at(float(lowest))):
            free = float(lowest)
        elif free is not None:
            frame = at(_halve(free, float(lowest), lambda height: imagination.object_collides(name, at(height))))
            if wanted.holds(frame.position):
                return frame
            # It would rest on the shelf above, say. Below that it may be once it is wholly below.
            free, ceiling = None, float(lowest)
    return None


def _headroom(imagination: Imagination, name: str, frame: Frame) -> float:
    free = 0.0
    while free < MOST_HEADROOM and not imagination.object_collides(name, frame.shifted((free + LEVEL) * UP)):
        free += LEVEL
    return free


def _halve(free: float, blocked: float, collides: Callable[[float], bool]) -> float:
    """The lowest height that is free, to within `FINEST`."""
    while free - blocked > FINEST:
        middle = (free + blocked) / 2
        free, blocked = (free, middle) if collides(middle) else (middle, blocked)
    return free

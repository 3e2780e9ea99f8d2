"""Where two fingers could hold a thing, from points on its surface alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rollout_manager.experts.libero.frames import UP, Frame, rotation_about, unit
from vla_policy_node.observation import Float64Array

WIDEST = 0.068
"""What the hand closes on, in m: it opens to 0.08, and has to come down around the thing."""
FINGER_HALF = 0.010
"""Half the width of a finger, in m."""
PAD = (-0.012, 0.005)
"""Where the pads begin and end along the way the hand points, from their middle, in m."""
TIP = 0.0105
"""From there to the fingers' ends, and a little air, in m."""
OPEN_FINGERS = (0.036, 0.062)
"""From the middle to an open finger's inner and outer side, in m."""
DEPTHS = (0.02, 0.03, 0.012)
"""How far the pads go past the near side of what they hold, in m."""
CANDIDATES = 60
TOP_HALF, FINGER_SWEEP, FINGER_LENGTH = 0.012, 0.013, 0.06
"""How far aside the hand looks for the thing's top; half of what a finger sweeps; how long it is; in m."""
FREE_WRIST = 2.2
"""The arm's last joint turns to 2.9 rad either way; from here on a hand that leans as well gets stuck there."""
LEAST_POINTS = 3
"""On the thing between the pads."""
ROOM, BESIDE = 0.06, (0.06, 0.02)
"""More room beside the hand, in m, is no better; half of what the hand takes up itself, closing and across."""
OFF_CENTRE_COST, DEPTH_COST, WIDTH_COST, CROWD_COST, SLANT_COST = 4.0, 2.0, 0.5, 2.0, 12.0
"""What a metre costs: off the thing's middle, off the best depth, of width, of room that lacks, of slanting sides."""
SLANT_MOST = 0.03

Mask = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.intp]

YAWS = np.deg2rad(np.arange(-90, 90, 15))
TILTS = np.deg2rad((25.0, 45.0, 65.0, 90.0))
AZIMUTHS = np.deg2rad(np.arange(0, 360, 45))


@dataclass(frozen=True)
class Grasp:
    """A pose of the hand in the world at which closing it holds the thing."""

    hand: Frame
    width: float
    """Of what is between the fingers, in m."""
    cost: float


def hand_rotation(approach: Float64Array, closing: Float64Array) -> Float64Array:
    """A hand that points along `approach` and closes along `closing`, made square to it; shape (3, 3)."""
    pointing = unit(approach)
    across = unit(closing - pointing * (closing @ pointing))
    return np.stack([across, np.cross(pointing, across), pointing], axis=1)


def top_down(yaw: float) -> Float64Array:
    """A hand that points down; at yaw 0 the fingers close along the world's y, as at reset."""
    return rotation_about(UP, yaw) @ hand_rotation(-UP, np.array([0.0, 1.0, 0.0]))


def tilted(tilt: float, azimuth: float) -> Iterator[Float64Array]:
    """Hands that lean from the vertical by `tilt` and point towards `azimuth`: closing level, and closing upright."""
    level = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    approach = -np.cos(tilt) * UP + np.sin(tilt) * level
    aside = np.cross(UP, level)
    yield hand_rotation(approach, aside)
    yield hand_rotation(approach, np.cross(approach, aside))


def other_way_round(rotation: Float64Array) -> Float64Array:
    """The same grasp with the fingers in each other's place."""
    turned: Float64Array = rotation @ np.diag([-1.0, -1.0, 1.0])
    return turned


def nearer_turn(rotation: Float64Array, present: Float64Array) -> Float64Array:
    """The same grasp with the fingers the other way round, where the hand has to turn less for it."""
    other = other_way_round(rotation)
    return other if np.trace(other @ present.T) > np.trace(rotation @ present.T) else rotation


def easier_turn(rotation: Float64Array, present: Float64Array, wrist: float) -> Float64Array:
    """As `nearer_turn`, but the other way round where the nearer one takes the wrist near the end of its range.

    Args: wrist: the arm's last joint at present, in rad; it grows as the hand turns about the way it points.
    """
    nearer = nearer_turn(rotation, present)
    turn = present.T @ nearer
    there = abs(wrist + float(np.arctan2(turn[1, 0], turn[0, 0])))
    return other_way_round(nearer) if there > max(FREE_WRIST, abs(wrist)) else nearer


def grasps(points: Float64Array, around: Float64Array, rotation: Float64Array, rng: np.random.Generator) -> list[Grasp]:
    """Grasps with the hand turned as `rotation`, best first.

    Args:
        points: on the thing's surface, shape (N, 3), in the world.
        around: on the surfaces of what is near it, shape (M, 3).
        rotation: of the hand, shape (3, 3).
        rng: picks the places that are tried.
    """
    mine = points @ rotation
    """Along the closing direction, across the fingers, and along the way the hand points."""
    near_others = around @ rotation
    centre = (mine.min(axis=0) + mine.max(axis=0)) / 2
    places = np.vstack([centre, mine[rng.permutation(len(mine))[:CANDIDATES]]])
    near = _near(mine, places)
    found = [g for depth in DEPTHS for g in _at_depth(near, near_others, centre, depth, rotation)]
    return sorted(found, key=lambda grasp: grasp.cost)


@dataclass(frozen=True)
class _Near:
    """Points of a thing in the hand's axes that fingers at some places may meet: one entry a place and point."""

    places: Float64Array
    """Where the hand may close, shape (P, 3)."""
    place: IndexArray
    """Of each entry: which place, in ascending order, shape (K,)."""
    closing: Float64Array
    """Along the closing direction, shape (K,)."""
    across: Float64Array
    """From the place across the fingers, shape (K,)."""
    deep: Float64Array
    """Along the way the hand points, shape (K,)."""
    furthest: float
    """The thing's end along the way the hand points."""

    @cached_property
    def top(self) -> Float64Array:
        """Of each place: where the hand comes upon the thing, shape (P,); infinite where there is nothing."""
        above = (np.abs(self.across) < FINGER_HALF) & (np.abs(self.closing - self.places[self.place, 0]) < TOP_HALF)
        top: Float64Array = np.minimum.reduceat(np.where(above, self.deep, np.inf), self._first)
        return top

    def extent(self, chosen: Mask) -> tuple[Float64Array, Float64Array]:
        """Of each place: the least and the greatest `closing` of chosen entries, shape (P,); 0 where there is none."""
        low = np.minimum.reduceat(np.where(chosen, self.closing, np.inf), self._first)
        high = np.maximum.reduceat(np.where(chosen, self.closing, -np.inf), self._first)
        return np.where(np.isfinite(low), low, 0.0), np.where(np.isfinite(high), high, 0.0)

    def count(self, chosen: Mask) -> IndexArray:
        """Of each place: how many entries are chosen, shape (P,)."""
        number: IndexArray = np.add.reduceat(chosen, self._first, dtype=np.intp)
        return number

    @cached_property
    def _first(self) -> IndexArray:
        """The first entry of each place."""
        return np.searchsorted(self.place, np.arange(len(self.places)))


def _near(mine: Float64Array, places: Float64Array) -> _Near:
    across = mine[None, :, 1] - places[:, None, 1]
    beside = np.abs(across) < FINGER_SWEEP
    some = beside.any(axis=1)
    across, beside, places = across[some], beside[some], places[some]
    place, point = np.nonzero(beside)
    return _Near(places, place, mine[point, 0], across[beside], mine[point, 2], float(mine[:, 2].max()))


def _at_depth(
    near: _Near, others: Float64Array, centre: Float64Array, depth: float, rotation: Float64Array
) -> list[Grasp]:
    # The fingers' ends must not reach beyond the thing: it may lie on something.
    reach = np.minimum(near.top + depth, near.furthest - TIP)
    past = near.deep - reach[near.place]
    strip = np.abs(near.across) < FINGER_HALF
    open_hand = np.abs(near.closing - near.places[near.place, 0]) < OPEN_FINGERS[0]
    between = strip & (past > PAD[0]) & (past < PAD[1]) & open_hand
    low, high = near.extent(between)
    beside = np.abs(near.closing - ((low + high) / 2)[near.place])
    finger = (beside > OPEN_FINGERS[0]) & (beside < OPEN_FINGERS[1]) & (past > -FINGER_LENGTH) & (past < TIP)
    held = np.isfinite(near.top) & (near.count(between) >= LEAST_POINTS)
    fits = np.flatnonzero(held & (high - low <= WIDEST) & (near.count(finger) == 0))
    if not len(fits):
        return []
    at = np.stack([(low + high)[fits] / 2, near.places[fits, 1], reach[fits]], axis=1)
    width = (high - low)[fits]
    cost = OFF_CENTRE_COST * np.hypot(*(at - centre)[:, :2].T) + DEPTH_COST * abs(depth - DEPTHS[0])
    cost += (
        WIDTH_COST * width + SLANT_COST * _slant(near, between, past)[fits] + CROWD_COST * (ROOM - _room(others, at))
    )
    hands = at @ rotation.T
    return [Grasp(Frame(hand, rotation), float(w), float(c)) for hand, w, c in zip(hands, width, cost, strict=True)]


def _slant(near: _Near, between: Mask, past: Float64Array) -> Float64Array:
    """How far what is held is from having two parallel sides square to the fingers, in m over a finger's width.

    A wedge slides out to its narrow side, least where that is the hand's side; sides that slant alike turn the thing.
    """
    middle = (PAD[0] + PAD[1]) / 2
    left, right = near.extent(between & (near.across < 0)), near.extent(between & (near.across >= 0))
    upper, lower = near.extent(between & (past < middle)), near.extent(between & (past >= middle))
    sideways = np.abs((left[1] - left[0]) - (right[1] - right[0]))
    downward = np.maximum(0.0, (upper[1] - upper[0]) - (lower[1] - lower[0]))
    turned = np.abs((left[0] + left[1]) - (right[0] + right[1])) / 2
    slant: Float64Array = np.minimum(SLANT_MOST, sideways + downward + 0.5 * turned)
    return slant


def _room(others: Float64Array, at: Float64Array) -> Float64Array:
    """How far other things keep from hands at `at`, shape (F, 3), all in the hand's axes, up to `ROOM`; shape (F,)."""
    if not len(others):
        return np.full(len(at), ROOM)
    closing = np.maximum(0.0, np.abs(others[None, :, 0] - at[:, None, 0]) - BESIDE[0])
    across = np.maximum(0.0, np.abs(others[None, :, 1] - at[:, None, 1]) - BESIDE[1])
    beyond = others[None, :, 2] >= at[:, None, 2] + TIP
    nearest = np.where(beyond, np.inf, np.hypot(closing, across)).min(axis=1)
    room: Float64Array = np.minimum(ROOM, nearest)
    return room

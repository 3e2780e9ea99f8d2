"""Where two fingers could hold a thing, from points on its surface alone."""

from collections.abc import Iterator
from dataclasses import dataclass

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
ROOM = 0.06
"""More room beside the hand, in m, is no better."""
OFF_CENTRE_COST, DEPTH_COST, WIDTH_COST, CROWD_COST, SLANT_COST = 4.0, 2.0, 0.5, 2.0, 12.0
"""What a metre costs: off the thing's middle, off the best depth, of width, of room that lacks, of slanting sides."""
SLANT_MOST = 0.03

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


def nearer_turn(rotation: Float64Array, present: Float64Array) -> Float64Array:
    """The same grasp with the fingers the other way round, where the hand has to turn less for it."""
    other = rotation @ np.diag([-1.0, -1.0, 1.0])
    return other if np.trace(other @ present.T) > np.trace(rotation @ present.T) else rotation


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
    found: list[Grasp] = []
    for depth in DEPTHS:
        found += _at_depth(mine, near_others, places, centre, depth, rotation)
    return sorted(found, key=lambda grasp: grasp.cost)


def _at_depth(
    mine: Float64Array,
    others: Float64Array,
    places: Float64Array,
    centre: Float64Array,
    depth: float,
    rotation: Float64Array,
) -> list[Grasp]:
    closing, across = (mine[None, :, k] - places[:, None, k] for k in range(2))
    strip = np.abs(across) < FINGER_HALF
    top = np.where(strip & (np.abs(closing) < 0.012), mine[None, :, 2], np.inf).min(axis=1)
    # The fingers' ends must not reach beyond the thing: it may lie on something.
    reach = np.minimum(top + depth, mine[:, 2].max() - TIP)
    past = mine[None, :, 2] - reach[:, None]
    between = strip & (past > PAD[0]) & (past < PAD[1]) & (np.abs(closing) < OPEN_FINGERS[0])
    rows = np.flatnonzero(np.isfinite(top) & (between.sum(axis=1) >= 3))
    between, across, past = between[rows], across[rows], past[rows]
    low, high = _extent(mine[:, 0], between)
    beside = np.abs(mine[None, :, 0] - (low + high)[:, None] / 2)
    finger = (np.abs(across) < 0.013) & (beside > OPEN_FINGERS[0]) & (beside < OPEN_FINGERS[1])
    fits = (high - low <= WIDEST) & ~(finger & (past > -0.06) & (past < TIP)).any(axis=1)
    slant = _slant(mine[:, 0], between[fits], across[fits], past[fits])
    found = []
    for row, left, right, slanted in zip(rows[fits], low[fits], high[fits], slant, strict=True):
        at = np.array([(left + right) / 2, places[row, 1], reach[row]])
        off_centre, width = float(np.hypot(*(at - centre)[:2])), float(right - left)
        cost = OFF_CENTRE_COST * off_centre + DEPTH_COST * abs(depth - DEPTHS[0]) + WIDTH_COST * width
        cost += SLANT_COST * float(slanted) + CROWD_COST * (ROOM - _room(others, at))
        found.append(Grasp(Frame(rotation @ at, rotation), width, cost))
    return found


Mask = npt.NDArray[np.bool_]


def _extent(closing: Float64Array, chosen: Mask) -> tuple[Float64Array, Float64Array]:
    """The least and the greatest of `closing`, shape (N,), among the points that each row of `chosen` chooses."""
    low = np.where(chosen, closing, np.inf).min(axis=1)
    high = np.where(chosen, closing, -np.inf).max(axis=1)
    return np.where(np.isfinite(low), low, 0.0), np.where(np.isfinite(high), high, 0.0)


def _slant(closing: Float64Array, between: Mask, across: Float64Array, past: Float64Array) -> Float64Array:
    """How far what is held is from having two parallel sides square to the fingers, in m over a finger's width.

    A wedge slides out to its narrow side, least where that is the hand's side; sides that slant alike turn the thing.
    """
    middle = (PAD[0] + PAD[1]) / 2
    left, right = _extent(closing, between & (across < 0)), _extent(closing, between & (across >= 0))
    near, far = _extent(closing, between & (past < middle)), _extent(closing, between & (past >= middle))
    sideways = np.abs((left[1] - left[0]) - (right[1] - right[0]))
    downward = np.maximum(0.0, (near[1] - near[0]) - (far[1] - far[0]))
    turned = np.abs((left[0] + left[1]) - (right[0] + right[1])) / 2
    slant: Float64Array = np.minimum(SLANT_MOST, sideways + downward + 0.5 * turned)
    return slant


def _room(others: Float64Array, at: Float64Array) -> float:
    """How far other things keep from the hand at `at`, all in the hand's axes, up to `ROOM`."""
    beside = others[others[:, 2] < at[2] + 0.01]
    if not len(beside):
        return ROOM
    closing = np.maximum(0.0, np.abs(beside[:, 0] - at[0]) - 0.06)
    across = np.maximum(0.0, np.abs(beside[:, 1] - at[1]) - 0.02)
    return float(min(ROOM, np.hypot(closing, across).min()))

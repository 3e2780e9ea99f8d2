"""Handles of drawers and doors, and how a hand comes to one."""

from collections.abc import Iterator

import numpy as np

from rollout_manager.experts.libero.frames import UP, Frame
from rollout_manager.experts.libero.grasping import hand_rotation, nearer_turn
from rollout_manager.experts.libero.imagination import Imagination
from rollout_manager.experts.libero.routes import backed, clear
from rollout_manager.experts.libero.world import World
from vla_policy_node.observation import Float64Array

HANDLE_DEPTH = 0.012
"""What stands out furthest of a drawer or door, within this, is its handle (m)."""
APPROACH = 0.1
"""From here the hand goes straight to a handle, in m."""


def handle_of(points: Float64Array, outward: Float64Array) -> tuple[Float64Array, Float64Array]:
    """The middle of what stands out furthest along a direction, shape (3,), and its extents, shape (3,)."""
    out = points @ outward
    furthest = points[out > out.max() - HANDLE_DEPTH]
    low, high = furthest.min(axis=0), furthest.max(axis=0)
    return (low + high) / 2, high - low


def _hands(
    at: Float64Array, outward: Float64Array, tilts: Float64Array, upright: bool, present: Float64Array
) -> Iterator[Frame]:
    """Hands that point inward and down, closing upright or level."""
    for tilt in tilts:
        pointing = -np.cos(tilt) * UP - np.sin(tilt) * outward
        aside = np.cross(UP, outward)
        closing = np.cross(pointing, aside) if upright else aside
        yield Frame(at, nearer_turn(hand_rotation(pointing, closing), present))


def first_clear(
    imagination: Imagination,
    world: World,
    at: Float64Array,
    outward: Float64Array,
    tilts: Float64Array,
    upright: bool,
    opening: float,
) -> Frame | None:
    """The first hand at a place, tilted from the vertical by one of some angles, that can get there and back.

    Args:
        outward: level direction from the handle to the hand, shape (3,).
        upright: whether the fingers close up and down, or level.
        opening: of each finger, in m.
    """
    imagination.refresh()
    for hand in _hands(at, outward, tilts, upright, world.hand.rotation):
        if clear(imagination, backed(hand, hand.rotation[:, 2], (0.04, APPROACH)), None, None, opening):
            return hand
    return None

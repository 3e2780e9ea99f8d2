"""Drawers: taking hold of the handle and pulling, or pushing shut. They open towards decreasing positions."""

import numpy as np

from rollout_manager.experts.libero.carrying import ImpossibleError
from rollout_manager.experts.libero.frames import UP, Frame
from rollout_manager.experts.libero.handles import APPROACH, first_clear, handle_of
from rollout_manager.experts.libero.imagination import OPEN as OPEN_FINGER
from rollout_manager.experts.libero.imagination import Imagination
from rollout_manager.experts.libero.motion import CLOSE, EXACT, GRIPPER_STEPS, KEEP, OPEN, Motion, Way, go, hold
from rollout_manager.experts.libero.pick_place import travel
from rollout_manager.experts.libero.routes import raised
from rollout_manager.experts.libero.world import Goal, Joint, World
from vla_policy_node.observation import Float64Array

PULL_TILTS = np.deg2rad((60.0, 50.0, 40.0, 30.0, 20.0, 75.0))
DRAG_TILTS = np.deg2rad((35.0, 45.0, 25.0, 55.0))
PUSH_TILTS = np.deg2rad((40.0, 20.0, 55.0, 70.0))
"""From the vertical, of a hand that pulls, drags or pushes, in rad."""
OPENED = -0.152
"""A drawer that came out so far (m) is open; -0.14 counts."""
OVER_HANDLE, PRESS = 0.015, 0.03
"""Where the hand begins to press on a handle, above its top, and how far below it aims to, in m."""
PUSH_ASIDE, EDGE = (0.0, 0.03, -0.03, 0.06, -0.06, 0.09, -0.09), 0.015
"""Where a drawer is pushed beside its handle's middle, and how far from its front's edges at least, in m."""
BEFORE_FRONT = 0.03
"""Where the hand stops that begins to push, in m."""
WIDE = (OPEN_FINGER, 0.02)
"""How wide each finger is open where the hand takes a handle, in m: the first that goes. Half open is harder to learn:
for a few steps the hand closes, and then no more."""
HALF_OPEN_STEPS = 4
PULL_STEPS, PUSH_STEPS = 60, 80
LEAD = 0.03
"""How far ahead of where it is the hand aims while it pulls or pushes, in m."""


def pull_drawer(world: World, imagination: Imagination, goal: Goal, joint: Joint) -> Motion[None]:
    """Take the handle, closing upright around it, and pull; where there is no room for that, drag it by friction.

    Drawers open towards decreasing positions.
    """
    outward = -joint.axis
    handle, extent = handle_of(world.cloud(world.geoms(joint.body)), outward)
    ways = ((first_clear(imagination, world, handle, outward, PULL_TILTS, True, wide), wide) for wide in WIDE)
    hand, wide = next(((way, wide) for way, wide in ways if way is not None), (None, 0.0))
    press = 0.0
    if hand is not None:
        yield from _take_handle(world, imagination, hand, wide < OPEN_FINGER)
    else:
        above = handle + (extent[2] / 2 + OVER_HANDLE) * UP
        hand = first_clear(imagination, world, above, outward, DRAG_TILTS, upright=False, opening=0.0)
        if hand is None:
            raise ImpossibleError(f"no way to take the handle of {goal[1]}")
        yield from _press_on_handle(world, imagination, hand)
        press = PRESS
    start = world.hand
    for _ in range(PULL_STEPS):
        if world.joints(goal[1])[0].position < OPENED:
            break
        pulled = float((world.hand.position - start.position) @ outward)
        aim = start.shifted((pulled + LEAD) * outward - press * UP)
        yield from go(world, aim, CLOSE, Way(within=0.003, steps=1))
    if press:
        yield from go(world, raised(world.hand, 0.05), CLOSE, Way(within=0.02, steps=20))
    yield from hold(OPEN, 4)
    pointing = hand.rotation[:, 2]
    yield from go(world, world.hand.shifted(-0.12 * pointing + 0.03 * UP), OPEN, Way(within=0.02, steps=40))
    yield from go(world, raised(world.hand, 0.1), OPEN, Way(within=0.03, steps=40))


def _take_handle(world: World, imagination: Imagination, hand: Frame, half_open: bool) -> Motion[None]:
    """Close around a handle; half open before, where the cabinet's front is near."""
    pointing = hand.rotation[:, 2]
    yield from travel(world, imagination, hand.shifted(-APPROACH * pointing), OPEN)
    # It begins to close only where it stands as it should, so that one who looks on can see when.
    yield from go(world, hand.shifted(-APPROACH * pointing), OPEN, Way(within=0.008, steps=30))
    if half_open:
        yield from hold(CLOSE, HALF_OPEN_STEPS)
    yield from go(world, hand.shifted(0.008 * pointing), KEEP if half_open else OPEN, EXACT)
    yield from hold(CLOSE, GRIPPER_STEPS)


def _press_on_handle(world: World, imagination: Imagination, hand: Frame) -> Motion[None]:
    """Bring the closed fingers' ends down on a handle."""
    yield from hold(CLOSE, GRIPPER_STEPS)
    yield from travel(world, imagination, hand.shifted(-APPROACH * hand.rotation[:, 2]), CLOSE)
    yield from go(world, hand, CLOSE, Way(within=0.006, steps=50, speed=0.5))
    yield from go(world, raised(hand, -PRESS), CLOSE, Way(within=0.003, speed=0.5, steps=25, stall=0.0004))


def push_points(points: Float64Array, outward: Float64Array) -> list[Float64Array]:
    """Where a drawer may be pushed, by points on it, shape (N, 3): at its handle's middle, else beside it or above.

    Something may stand before the one or the other.
    """
    handle, _ = handle_of(points, outward)
    aside = np.cross(UP, outward)
    across = points @ aside
    sides = [s for s in PUSH_ASIDE if across.min() + EDGE < handle @ aside + s < across.max() - EDGE]
    rises = [0.0, *(rise for rise in (points[:, 2].max() - EDGE - handle[2],) if rise > 0)]
    return [handle + side * aside + rise * UP for rise in rises for side in sides]


def push_drawer(world: World, imagination: Imagination, goal: Goal, joint: Joint) -> Motion[None]:
    """Push the front shut with the closed hand."""
    inward = joint.axis
    points = world.cloud(world.geoms(joint.body))
    hands = (
        first_clear(imagination, world, at - BEFORE_FRONT * inward, -inward, PUSH_TILTS, upright=False, opening=0.0)
        for at in push_points(points, -inward)
    )
    contact = next((hand for hand in hands if hand is not None), None)
    if contact is None:
        raise ImpossibleError(f"no way to push {goal[1]} shut")
    start = contact.shifted(-0.04 * inward)
    yield from hold(CLOSE, 2)
    yield from travel(world, imagination, start, CLOSE)
    yield from go(world, start, CLOSE, Way(within=0.01, steps=40))
    for _ in range(PUSH_STEPS):
        if world.satisfied(goal):
            break
        pushed = float((world.hand.position - start.position) @ inward)
        aim = start.shifted((pushed + LEAD) * inward)
        yield from go(world, aim, CLOSE, Way(within=0.003, steps=1))
    yield from go(world, world.hand.shifted(-0.06 * inward), CLOSE, Way(within=0.02, steps=20))

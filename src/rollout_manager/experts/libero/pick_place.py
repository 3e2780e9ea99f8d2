"""Taking a thing and putting it where a goal wants it."""

from dataclasses import replace
from itertools import islice

import numpy as np

from rollout_manager.experts.libero.carrying import (
    PLACES_TRIED,
    ImpossibleError,
    Placing,
    can_place,
    choose,
    find_placing,
    hand_for,
)
from rollout_manager.experts.libero.frames import Frame, angle_between
from rollout_manager.experts.libero.grasping import Grasp
from rollout_manager.experts.libero.imagination import Held, Imagination
from rollout_manager.experts.libero.motion import (
    CLOSE,
    EXACT,
    GRIPPER_STEPS,
    OPEN,
    THROUGH,
    Motion,
    Way,
    go,
    hold,
)
from rollout_manager.experts.libero.placing import placements
from rollout_manager.experts.libero.routes import raised, route
from rollout_manager.experts.libero.world import Goal, World
from vla_policy_node.observation import Float64Array

PREGRASP = 0.08
"""From here the hand goes straight to a grasp, in m."""
LIFT = 0.08
RISEN = 0.02
"""A thing that rose less with the hand has slipped, in m."""
LEAST_GAP = 0.0025
"""Closer together the fingers hold nothing, in m."""
SLIPPED = 0.04
"""A thing that moved further in the hand was lost, in m."""
HANGS = 0.35
"""A thing that turned more in the hand, in rad, hangs from it."""
RETREAT = 0.1


class LostError(Exception):
    """A thing slipped out of the hand."""


def carry(world: World, imagination: Imagination, goal: Goal, failed: list[Frame]) -> Motion[None]:
    """Bring the thing of a goal ("on" or "in", thing, place) to its place; what is in the hand already stays there.

    Args: failed: grasps that slipped, as poses of the hand in the thing's frame; it grows where this one does.

    Raises:
        ImpossibleError: no grasp or place that goes.
        LostError: the thing was not in the hand when it should have been.
    """
    name = goal[1]
    placing: Placing | None = None
    if not world.held(name):
        yield from let_go(world)
        choice = choose(world, imagination, goal, failed)
        wanted = choice.grasp.hand.inverse() @ world.frame(name)
        yield from pick(world, imagination, name, choice.grasp, failed)
        placing = _straightened(choice.placing, wanted, _held(world, name))
    imagination.refresh()
    held = _held(world, name)
    if placing is None or not can_place(imagination, held, placing):
        places = list(islice(placements(world, imagination, goal), PLACES_TRIED))
        placing = find_placing(world, imagination, goal, held, places) or placing
    if placing is None:
        raise ImpossibleError(f"{name} cannot be brought to where ({' '.join(goal)}) would hold as it is held")
    yield from place(world, imagination, name, placing)


def _held(world: World, name: str) -> Held:
    return Held(name, world.hand.inverse() @ world.frame(name))


def _straightened(placing: Placing, wanted: Frame, held: Held) -> Placing:
    """The hand turned so that the thing comes to its place as it should, though it turned a little when it was taken.

    Where it turned much it hangs, and would go on hanging however the hand is turned.
    """
    if angle_between(wanted.rotation, held.in_hand.rotation) > HANGS:
        return placing
    return replace(placing, hand_rotation=placing.goal_frame.rotation @ held.in_hand.rotation.T)


def let_go(world: World) -> Motion[None]:
    """Open the hand where it is, and back out of what it held."""
    if world.opening > 0.07:
        return
    held_something = bool(world.in_hand())
    yield from hold(OPEN, GRIPPER_STEPS)
    if held_something:
        yield from retreat(world)


def retreat(world: World, distance: float = RETREAT) -> Motion[None]:
    """Go back the way the hand points."""
    hand = world.hand
    yield from go(world, hand.shifted(-distance * hand.rotation[:, 2]), OPEN, Way(within=0.02, steps=40))


def travel(
    world: World, imagination: Imagination, goal: Frame, grip: float, held: Held | None = None, way: Way = THROUGH
) -> Motion[None]:
    """Go to a pose around what stands about."""
    imagination.refresh()
    opening = world.opening / 2 if grip == CLOSE else 0.04
    poses = route(imagination, world.hand, goal, held, opening)
    for pose in poses[:-1]:
        yield from go(world, pose, grip, THROUGH)
    yield from go(world, poses[-1], grip, way)


def pick(world: World, imagination: Imagination, name: str, grasp: Grasp, failed: list[Frame]) -> Motion[None]:
    """Take a thing and lift it.

    Raises:
        LostError: it did not come along.
    """
    pointing = grasp.hand.rotation[:, 2]
    in_thing = world.frame(name).inverse() @ grasp.hand
    yield from travel(world, imagination, grasp.hand.shifted(-PREGRASP * pointing), OPEN)
    yield from go(world, grasp.hand.shifted(-0.03 * pointing), OPEN, Way(within=0.007, steps=40))
    yield from go(world, grasp.hand, OPEN, EXACT)
    yield from hold(CLOSE, GRIPPER_STEPS + 1)
    before = world.frame(name).position[2]
    yield from go(world, raised(world.hand, LIFT), CLOSE, Way(within=0.015, speed=0.6, steps=30))
    if world.frame(name).position[2] - before < RISEN or world.opening < LEAST_GAP:
        failed.append(in_thing)
        yield from hold(OPEN, 3)
        yield from retreat(world)
        raise LostError(f"{name} slipped out of the hand")


def place(world: World, imagination: Imagination, name: str, placing: Placing) -> Motion[None]:
    """Bring a thing that is held to its place, let go of it and back out.

    Raises:
        LostError: it slipped on the way.
    """
    held = _held(world, name)
    there = placing.goal_frame.position

    def hand_at(position: Float64Array) -> Frame:
        return hand_for(position, placing.hand_rotation, _held(world, name))

    before = there - placing.distance * placing.entry
    yield from travel(world, imagination, hand_at(before), CLOSE, held, Way(within=0.02, turned=0.2))
    _check_held(world, held)
    yield from go(world, lambda: hand_at(before), CLOSE, Way(within=0.008, steps=60))
    yield from go(world, lambda: hand_at(there), CLOSE, Way(within=0.006, speed=0.5, steps=70, stall=0.0006))
    _check_held(world, held)
    yield from hold(OPEN, 6)
    yield from retreat(world, 0.12)
    yield from hold(OPEN, 8)


def _check_held(world: World, held: Held) -> None:
    now = _held(world, held.name)
    moved = float(np.linalg.norm(now.in_hand.position - held.in_hand.position))
    if world.opening < LEAST_GAP or (moved > SLIPPED and not world.held(held.name)):
        raise LostError(f"{held.name} slipped on the way")

"""Taking a thing and putting it where a goal wants it."""

from dataclasses import replace
from functools import partial

import numpy as np

from rollout_manager.experts.libero.carrying import ImpossibleError, choose
from rollout_manager.experts.libero.delivering import Failures, Placing, can_place, find_placing, hand_for
from rollout_manager.experts.libero.frames import Frame, angle_between, between, horizontal
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
from rollout_manager.experts.libero.routes import clear, raised, route
from rollout_manager.experts.libero.world import Goal, World
from vla_policy_node.observation import Float64Array

PREGRASP = 0.08
"""From here the hand goes straight to a grasp, in m."""
LIFTS = (0.08, 0.05, 0.03)
"""How far a thing is lifted first, in m: the first that goes."""
CAME_ALONG = 0.35
"""A thing that went less of the hand's way with it has slipped."""
STOPPED = 0.04
"""Further from its place a thing is not let go, in m."""
LEAST_GAP = 0.0025
"""Closer together the fingers hold nothing, in m."""
SLIPPED = 0.04
"""A thing that moved further in the hand was lost, in m."""
HANGS = 0.35
"""A thing that turned more in the hand, in rad, hangs from it."""
RETREAT = 0.1
WAYS_TRIED = 3
DRAWN_IN, DRAWING_IN = 0.08, Way(within=0.02, steps=20, stall=0.001)


class LostError(Exception):
    """A thing slipped out of the hand."""


def carry(world: World, imagination: Imagination, goal: Goal, failed: Failures) -> Motion[None]:
    """Bring the thing of a goal ("on" or "in", thing, place) to its place; what is in the hand already stays there.

    Args: failed: what not to try again; it grows where this try fails.

    Raises:
        ImpossibleError: no grasp or place that goes.
        LostError: the thing was not in the hand when it should have been, or did not get to its place.
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
        ways = (
            find_placing(world, imagination, goal, held, placements(world, imagination, goal, lying), failed)
            for lying in (False, True)
        )
        placing = next((way for way in ways if way is not None), placing)
    if placing is None:
        raise ImpossibleError(f"{name} cannot be brought to where ({' '.join(goal)}) would hold as it is held")
    yield from place(world, imagination, name, placing, failed)


def _held(world: World, name: str) -> Held:
    return Held(name, world.hand.inverse() @ world.frame(name), world.opening / 2)


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
    """Go to a pose around what stands about; where the hand gets stuck, look for a way from there."""
    for _ in range(WAYS_TRIED):
        imagination.refresh()
        opening = world.opening / 2 if grip == CLOSE else None
        poses = route(imagination, world.hand, goal, held, opening)
        for pose in poses[:-1]:
            if not (yield from go(world, pose, grip, THROUGH)):
                break
        else:
            if (yield from go(world, poses[-1], grip, replace(way, stall=THROUGH.stall))):
                return
        yield from go(world, _drawn_in(world), grip, DRAWING_IN)


def _drawn_in(world: World) -> Frame:
    """Nearer to the robot: a hand that gets stuck mostly has stretched the arm too far."""
    hand = world.hand
    return hand.shifted(DRAWN_IN * horizontal(world.base - hand.position))


def pick(world: World, imagination: Imagination, name: str, grasp: Grasp, failed: Failures) -> Motion[None]:
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
    before, start = world.frame(name).position, world.hand.position
    lifted = _lifted(world, imagination, _held(world, name))
    yield from go(world, lifted, CLOSE, Way(within=0.015, speed=0.6, steps=30))
    way = world.hand.position - start
    came = float((world.frame(name).position - before) @ way) / max(float(way @ way), 1e-6)
    if came < CAME_ALONG or world.opening < LEAST_GAP:
        failed.grasps.append(in_thing)
        yield from hold(OPEN, 3)
        yield from retreat(world)
        raise LostError(f"{name} slipped out of the hand")


def _lifted(world: World, imagination: Imagination, held: Held) -> Frame:
    """Where the hand goes first with what it took: up, or as far up as it can, or back."""
    hand = world.hand
    ways = [*(raised(hand, height) for height in LIFTS), hand.shifted(-LIFTS[0] * hand.rotation[:, 2])]
    imagination.refresh()
    # What it stands on it touches at first.
    return next((way for way in ways if clear(imagination, [between(hand, way, 0.3), way], None, held)), ways[0])


def place(world: World, imagination: Imagination, name: str, placing: Placing, failed: Failures) -> Motion[None]:
    """Bring a thing that is held to its place, let go of it and back out.

    Raises:
        LostError: it slipped on the way, or was stopped.
    """
    held = _held(world, name)
    there = placing.goal_frame.position

    def hand_at(position: Float64Array) -> Frame:
        return hand_for(position, placing.hand_rotation, _held(world, name))

    before = there + placing.entry[-1]
    yield from travel(world, imagination, hand_at(before), CLOSE, held, Way(within=0.02, turned=0.2))
    _check_held(world, held)
    yield from go(world, partial(hand_at, before), CLOSE, Way(within=0.008, steps=60))
    for offset in placing.entry[-2::-1]:
        yield from go(world, partial(hand_at, there + offset), CLOSE, Way(within=0.012, steps=40))
    yield from go(world, partial(hand_at, there), CLOSE, Way(within=0.006, speed=0.5, steps=70, stall=0.0006))
    _check_held(world, held)
    if float(np.linalg.norm(world.frame(name).position - there)) > STOPPED:
        failed.places.append(placing.goal_frame)
        yield from go(world, partial(hand_at, before), CLOSE, Way(within=0.03, steps=40))
        raise LostError(f"{name} was stopped on the way to its place")
    yield from hold(OPEN, 6)
    yield from retreat(world, 0.12)
    yield from hold(OPEN, 8)


def _check_held(world: World, held: Held) -> None:
    now = _held(world, held.name)
    moved = float(np.linalg.norm(now.in_hand.position - held.in_hand.position))
    if world.opening < LEAST_GAP or (moved > SLIPPED and not world.held(held.name)):
        raise LostError(f"{held.name} slipped on the way")

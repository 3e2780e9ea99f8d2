"""Drawers and doors: taking hold of a handle and pulling, or pushing shut."""

from collections.abc import Iterator

import numpy as np

from rollout_manager.experts.libero.carrying import ImpossibleError
from rollout_manager.experts.libero.frames import UP, Frame, rotation_about, unit
from rollout_manager.experts.libero.grasping import hand_rotation, nearer_turn
from rollout_manager.experts.libero.imagination import Imagination
from rollout_manager.experts.libero.motion import CLOSE, EXACT, GRIPPER_STEPS, KEEP, OPEN, Motion, Way, go, hold
from rollout_manager.experts.libero.pick_place import let_go, retreat, travel
from rollout_manager.experts.libero.routes import backed, clear, raised
from rollout_manager.experts.libero.world import Goal, Joint, World
from vla_policy_node.observation import Float64Array

HANDLE_DEPTH = 0.012
"""What stands out furthest of a drawer, within this, is its handle (m)."""
PULL_TILTS = np.deg2rad((60.0, 50.0, 40.0, 30.0, 20.0, 75.0))
PUSH_TILTS = np.deg2rad((40.0, 20.0, 55.0, 70.0))
"""From the vertical, of a hand that pulls or pushes along the level."""
APPROACH = 0.1
HALF_OPEN_STEPS = 4
PULL_STEPS, PUSH_STEPS = 60, 80
LEAD = 0.03
"""How far ahead of where it is the hand aims while it pulls or pushes, in m."""


def articulate(world: World, imagination: Imagination, goal: Goal) -> Motion[None]:
    """Make ("open" or "close", drawer or door) hold.

    Raises:
        ImpossibleError: the handle is out of reach.
    """
    predicate, name = goal
    joints = world.joints(name)
    if not joints:
        raise ImpossibleError(f"{name} has no joint to {predicate}")
    yield from let_go(world)
    for joint in joints:
        if world.satisfied(goal):
            return
        if joint.slides:
            yield from (pull_drawer if predicate == "open" else push_drawer)(world, imagination, goal, joint)
        else:
            yield from (pull_door if predicate == "open" else push_door)(world, imagination, goal, joint)


def handle_of(points: Float64Array, outward: Float64Array) -> tuple[Float64Array, Float64Array]:
    """The middle of what stands out furthest along a direction, shape (3,), and its extents, shape (3,)."""
    out = points @ outward
    furthest = points[out > out.max() - HANDLE_DEPTH]
    low, high = furthest.min(axis=0), furthest.max(axis=0)
    return (low + high) / 2, high - low


def pull_drawer(world: World, imagination: Imagination, goal: Goal, joint: Joint) -> Motion[None]:
    """Take the handle, closing upright around it, and pull. Drawers open towards decreasing positions."""
    outward = -joint.axis
    handle, _ = handle_of(world.cloud(world.geoms(joint.body)), outward)
    hand = _first_clear(imagination, world, handle, outward, PULL_TILTS, upright=True, opening=0.02)
    if hand is None:
        raise ImpossibleError(f"no way to take the handle of {goal[1]}")
    pointing = hand.rotation[:, 2]
    yield from travel(world, imagination, hand.shifted(-APPROACH * pointing), OPEN)
    yield from hold(CLOSE, HALF_OPEN_STEPS)
    yield from go(world, hand.shifted(-APPROACH * pointing), KEEP, Way(within=0.008, steps=30))
    yield from go(world, hand.shifted(0.008 * pointing), KEEP, EXACT)
    yield from hold(CLOSE, GRIPPER_STEPS)
    start = world.hand
    for _ in range(PULL_STEPS):
        if world.satisfied(goal) and world.joints(goal[1])[0].position < -0.152:
            break
        pulled = float((world.hand.position - start.position) @ outward)
        aim = start.shifted((pulled + LEAD) * outward)
        yield from go(world, aim, CLOSE, Way(within=0.003, steps=1))
    yield from hold(OPEN, 4)
    yield from go(world, world.hand.shifted(-0.12 * pointing + 0.03 * UP), OPEN, Way(within=0.02, steps=40))
    yield from go(world, raised(world.hand, 0.1), OPEN, Way(within=0.03, steps=40))


def push_drawer(world: World, imagination: Imagination, goal: Goal, joint: Joint) -> Motion[None]:
    """Push the front shut with the closed hand."""
    inward = joint.axis
    handle, _ = handle_of(world.cloud(world.geoms(joint.body)), -inward)
    contact = _first_clear(imagination, world, handle - 0.03 * inward, -inward, PUSH_TILTS, upright=False, opening=0.0)
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


def push_door(world: World, imagination: Imagination, goal: Goal, joint: Joint) -> Motion[None]:
    """Push the edge that is furthest from the hinge shut, along its circle."""
    points = world.cloud(world.geoms(joint.body))
    edge, radius, _ = _edge(points, joint)
    turn = 1.0 if joint.axis[2] > 0 else -1.0
    """Doors close towards increasing positions; this is the way as seen from above."""
    forward = turn * np.cross(UP, unit(radius))
    hand_turned = nearer_turn(hand_rotation(-UP, radius), world.hand.rotation)
    start = Frame(edge - 0.10 * forward, hand_turned)
    yield from hold(CLOSE, 2)
    yield from travel(world, imagination, start, CLOSE)
    yield from go(world, start, CLOSE, Way(within=0.015, steps=50))
    opened = joint.position
    for _ in range(PUSH_STEPS):
        if world.satisfied(goal):
            break
        swung = turn * (world.joints(goal[1])[0].position - opened)
        spoke = rotation_about(UP, swung) @ radius
        forward = turn * np.cross(UP, unit(spoke))
        aim = np.array([*(joint.anchor + spoke)[:2], edge[2]]) - 0.005 * forward
        yield from go(world, Frame(aim, world.hand.rotation), CLOSE, Way(within=0.003, steps=1))
    yield from go(world, world.hand.shifted(-0.06 * forward), CLOSE, Way(within=0.02, steps=20))


def pull_door(world: World, imagination: Imagination, goal: Goal, joint: Joint) -> Motion[None]:
    """Take the handle, pull the door ajar, then push it on from the inside."""
    points = world.cloud(world.geoms(joint.body))
    _, radius, _ = _edge(points, joint)
    turn = -1.0 if joint.axis[2] > 0 else 1.0
    outward = turn * np.cross(UP, unit(radius))
    handle, _ = handle_of(points, outward)
    hand = _first_clear(imagination, world, handle, outward, PULL_TILTS, upright=False, opening=0.04)
    if hand is None:
        raise ImpossibleError(f"no way to take the handle of {goal[1]}")
    pointing = hand.rotation[:, 2]
    yield from travel(world, imagination, hand.shifted(-APPROACH * pointing), OPEN)
    yield from go(world, hand.shifted(-APPROACH * pointing), OPEN, Way(within=0.008, steps=30))
    yield from go(world, hand.shifted(0.004 * pointing), OPEN, EXACT)
    yield from hold(CLOSE, GRIPPER_STEPS)
    start, spoke = world.hand, world.hand.position - joint.anchor
    for _ in range(PULL_STEPS):
        swung = turn * abs(world.joints(goal[1])[0].position - joint.position)
        if world.satisfied(goal) or abs(swung) > 0.6:
            break
        aim = joint.anchor + rotation_about(UP, swung + turn * 0.12) @ spoke
        yield from go(world, Frame(np.array([*aim[:2], start.position[2]]), start.rotation), CLOSE, Way(steps=1))
    yield from hold(OPEN, 4)
    yield from retreat(world)


def _edge(points: Float64Array, joint: Joint) -> tuple[Float64Array, Float64Array, float]:
    """Of a door's points: the middle of its free edge near its top, the level way there from the hinge, its length."""
    away = np.linalg.norm((points - joint.anchor)[:, :2], axis=1)
    free = points[away > away.max() - 0.05]
    edge = free.mean(axis=0)
    edge[2] = free[:, 2].max() - 0.03
    radius = edge - joint.anchor
    radius[2] = 0.0
    return edge, radius, float(away.max())


def _hands(
    at: Float64Array, outward: Float64Array, tilts: Float64Array, upright: bool, present: Float64Array
) -> Iterator[Frame]:
    """Hands that point inward and down, closing upright or level."""
    for tilt in tilts:
        pointing = -np.cos(tilt) * UP - np.sin(tilt) * outward
        aside = np.cross(UP, outward)
        closing = np.cross(pointing, aside) if upright else aside
        yield Frame(at, nearer_turn(hand_rotation(pointing, closing), present))


def _first_clear(
    imagination: Imagination,
    world: World,
    at: Float64Array,
    outward: Float64Array,
    tilts: Float64Array,
    upright: bool,
    opening: float,
) -> Frame | None:
    imagination.refresh()
    for hand in _hands(at, outward, tilts, upright, world.hand.rotation):
        if clear(imagination, backed(hand, hand.rotation[:, 2], (0.04, APPROACH)), None, None, opening):
            return hand
    return None

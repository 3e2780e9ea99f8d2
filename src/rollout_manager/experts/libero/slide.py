"""Dragging a thing along what it lies on, where it is too flat to be taken."""

from collections.abc import Iterator

import numpy as np

from rollout_manager.experts.libero.carrying import ImpossibleError
from rollout_manager.experts.libero.frames import UP, Frame, horizontal
from rollout_manager.experts.libero.grasping import TIP, hand_rotation, nearer_turn
from rollout_manager.experts.libero.imagination import Imagination
from rollout_manager.experts.libero.motion import CLOSE, GRIPPER_STEPS, Motion, Way, go, hold
from rollout_manager.experts.libero.pick_place import let_go, travel
from rollout_manager.experts.libero.placing import target
from rollout_manager.experts.libero.routes import backed, clear, raised
from rollout_manager.experts.libero.world import Goal, World
from vla_policy_node.observation import Float64Array

AHEAD = (0.2, 0.1, 0.3)
"""Where the fingers press on a thing: from its middle towards where it goes, as shares of the way to its edge."""
TILTS = np.deg2rad((0.0, 15.0, 30.0, 45.0))
PRESS, LEAD = 0.012, 0.035
"""How far below and ahead of where it is the hand aims, in m."""
STEPS = 120
LEFT_BEHIND = 0.12
"""Further from the hand a thing does not follow it, in m."""
NEAR = 0.01
"""From the middle of its place a thing need not be dragged any nearer, in m."""


def slide(world: World, imagination: Imagination, goal: Goal) -> Motion[None]:
    """Press the closed fingers on the thing of ("on", thing, region), inside its rim if it has one, and drag it there.

    Raises:
        ImpossibleError: there is no room for the hand above the thing.
    """
    _, name, _ = goal
    yield from let_go(world)
    yield from hold(CLOSE, GRIPPER_STEPS)
    wanted = target(world, goal).centre
    imagination.refresh()
    hand = next((hand for hand in _hands(world, name, wanted) if _reachable(imagination, hand)), None)
    if hand is None:
        raise ImpossibleError(f"no room to drag {name}")
    yield from travel(world, imagination, hand.shifted(-0.08 * hand.rotation[:, 2]), CLOSE)
    yield from go(world, hand, CLOSE, Way(within=0.006, steps=60, speed=0.5))
    for _ in range(STEPS):
        thing = world.frame(name).position
        if world.satisfied(goal) and float(np.hypot(*(wanted - thing)[:2])) < NEAR:
            break
        if float(np.hypot(*(world.hand.position - thing)[:2])) > LEFT_BEHIND:
            break
        ahead = world.hand.position + LEAD * _way(world, name, wanted)
        aim = Frame(np.array([ahead[0], ahead[1], hand.position[2] - PRESS]), hand.rotation)
        yield from go(world, aim, CLOSE, Way(within=0.001, steps=1))
    yield from go(world, raised(world.hand, 0.1), CLOSE, Way(within=0.02, steps=30))


def _reachable(imagination: Imagination, hand: Frame) -> bool:
    return clear(imagination, backed(hand, hand.rotation[:, 2], (0.04, 0.08)), None, None, 0.0)


def _hands(world: World, name: str, wanted: Float64Array) -> Iterator[Frame]:
    """Closed hands whose fingers end just above the thing, nearly upright ones first; they lean the way it goes."""
    forward = _way(world, name, wanted)
    points = world.object_cloud(name)
    middle = world.frame(name).position
    edge = float(((points - middle) @ forward).max())
    aside = np.cross(UP, forward)
    for tilt in TILTS:
        pointing = -np.cos(tilt) * UP - np.sin(tilt) * forward
        rotation = nearer_turn(hand_rotation(pointing, aside), world.hand.rotation)
        for share in AHEAD:
            at = middle + share * edge * forward
            beneath = points[np.hypot(*(points - at)[:, :2].T) < 0.012]
            if len(beneath):
                tip = np.array([at[0], at[1], beneath[:, 2].max() + 0.002])
                yield Frame(tip - TIP * pointing, rotation)


def _way(world: World, name: str, wanted: Float64Array) -> Float64Array:
    """The level direction from a thing to where it should be, shape (3,)."""
    return horizontal(wanted - world.frame(name).position + 1e-6)

"""Knobs: taking one from above and turning it."""

import numpy as np

from rollout_manager.experts.libero.carrying import ImpossibleError
from rollout_manager.experts.libero.frames import UP, Frame, rotation_about
from rollout_manager.experts.libero.grasping import hand_rotation, nearer_turn
from rollout_manager.experts.libero.imagination import Imagination
from rollout_manager.experts.libero.motion import CLOSE, EXACT, GRIPPER_STEPS, OPEN, Motion, Way, go, hold
from rollout_manager.experts.libero.pick_place import let_go, travel
from rollout_manager.experts.libero.routes import raised
from rollout_manager.experts.libero.world import Goal, World
from vla_policy_node.observation import Float64Array

RIDGE = 0.012
"""The top of a knob, within this of its highest point, is what fingers take (m)."""
TURN_STEP, MOST_TURN = 0.06, 1.8
"""How far the hand aims to have turned with each step, and in all, in rad."""
STEPS = 100
PAST_ON, PAST_OFF = 0.6, -0.003
"""Positions at which the knob is let go, beyond those that count as on or off, in rad."""


def ridge(points: Float64Array) -> tuple[Float64Array, Float64Array]:
    """The middle of a knob's top, shape (3,), and the level direction in which it is longest, shape (3,)."""
    top = points[points[:, 2] > points[:, 2].max() - RIDGE]
    middle = top.mean(axis=0)
    direction = np.linalg.svd(top[:, :2] - middle[:2], full_matrices=False)[2][0]
    return np.array([middle[0], middle[1], top[:, 2].max()]), np.array([direction[0], direction[1], 0.0])


def turn_knob(world: World, imagination: Imagination, goal: Goal) -> Motion[None]:
    """Make ("turnon" or "turnoff", stove) hold. Knobs turn on towards increasing positions.

    Raises:
        ImpossibleError: it has no knob.
    """
    predicate, name = goal
    joints = world.joints(name)
    if not joints:
        raise ImpossibleError(f"{name} has no knob")
    knob = joints[0]
    yield from let_go(world)
    top, along = ridge(world.cloud(world.geoms(knob.body)))
    hand = Frame(top - RIDGE * UP, nearer_turn(hand_rotation(-UP, np.cross(UP, along)), world.hand.rotation))
    yield from travel(world, imagination, raised(hand, 0.08), OPEN)
    yield from go(world, raised(hand, 0.04), OPEN, Way(within=0.006, steps=50))
    yield from go(world, hand, OPEN, EXACT)
    yield from hold(CLOSE, GRIPPER_STEPS - 2)
    way = float(np.sign(knob.axis[2])) * (1.0 if predicate == "turnon" else -1.0)
    for step in range(STEPS):
        position = world.joints(name)[0].position
        if (position > PAST_ON) if predicate == "turnon" else (position < PAST_OFF):
            break
        turned = rotation_about(UP, way * min(TURN_STEP * (step // 2 + 1), MOST_TURN)) @ hand.rotation
        yield from go(world, Frame(hand.position, turned), CLOSE, Way(within=0.002, turned=0.02, steps=1))
    yield from hold(OPEN, 4)
    yield from go(world, raised(world.hand, 0.12), OPEN, Way(within=0.02, steps=40))

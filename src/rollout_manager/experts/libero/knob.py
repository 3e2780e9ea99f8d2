"""Knobs: taking one from above and turning it."""

import numpy as np

from rollout_manager.experts.libero.carrying import ImpossibleError
from rollout_manager.experts.libero.frames import UP, Frame, rotation_about
from rollout_manager.experts.libero.grasping import hand_rotation, nearer_turn, other_way_round
from rollout_manager.experts.libero.imagination import Imagination
from rollout_manager.experts.libero.motion import CLOSE, EXACT, GRIPPER_STEPS, OPEN, Motion, Way, go, hold
from rollout_manager.experts.libero.pick_place import let_go, travel
from rollout_manager.experts.libero.routes import raised
from rollout_manager.experts.libero.world import Goal, World
from vla_policy_node.observation import Float64Array

RIDGE = 0.012
"""The top of a knob, within this of its highest point, is what fingers take (m)."""
TURN_STEP, LAG, MOST_TURN = 0.06, 0.25, 2.6
"""How far the hand aims to have turned with each two steps, how far the knob stays behind, and how far the hand turns
at once, in rad."""
SHARES = (0.25, 0.5, 0.75, 1.0)
STEPS = 110
PATIENCE, LEAST_PROGRESS = 20, 0.02
"""A knob that turns less than so many rad in so many steps is let go and taken anew."""
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
    imagination.refresh()
    past = PAST_ON if predicate == "turnon" else PAST_OFF
    way = float(np.sign(knob.axis[2])) * (1.0 if predicate == "turnon" else -1.0)
    most = min(abs(past - knob.position) + LAG, MOST_TURN)
    hand = _hand(world, imagination, Frame(top - RIDGE * UP, hand_rotation(-UP, np.cross(UP, along))), way * most)
    yield from travel(world, imagination, raised(hand, 0.08), OPEN)
    yield from go(world, raised(hand, 0.04), OPEN, Way(within=0.006, steps=50))
    yield from go(world, hand, OPEN, EXACT)
    yield from hold(CLOSE, GRIPPER_STEPS - 2)
    last = np.inf
    for step in range(STEPS):
        position = world.joints(name)[0].position
        if position > past if predicate == "turnon" else position < past:
            break
        if step % PATIENCE == PATIENCE - 1:
            if abs(position - last) < LEAST_PROGRESS:
                break
            last = position
        turned = rotation_about(UP, way * min(TURN_STEP * (step // 2 + 1), most)) @ hand.rotation
        yield from go(world, Frame(hand.position, turned), CLOSE, Way(within=0.002, turned=0.02, steps=1))
    yield from hold(OPEN, 4)
    yield from go(world, raised(world.hand, 0.12), OPEN, Way(within=0.02, steps=40))


def _hand(world: World, imagination: Imagination, hand: Frame, turn: float) -> Frame:
    """Of two ways round, the nearer one from which the hand can turn all the way."""
    near = Frame(hand.position, nearer_turn(hand.rotation, world.hand.rotation))
    for start in (near, Frame(hand.position, other_way_round(near.rotation))):
        arm = imagination.reach(start)
        for share in SHARES:
            turned = Frame(hand.position, rotation_about(UP, share * turn) @ start.rotation)
            arm = None if arm is None else imagination.reach(turned, arm)
        if arm is not None:
            return start
    return near

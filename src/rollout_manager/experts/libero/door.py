"""Doors on a hinge: pulling one ajar by its handle, pushing it on from the inside, pushing it shut.

They close towards increasing positions.
"""

from dataclasses import dataclass

import numpy as np

from rollout_manager.experts.libero.carrying import ImpossibleError
from rollout_manager.experts.libero.frames import UP, Frame, rotation_about, unit
from rollout_manager.experts.libero.grasping import hand_rotation, nearer_turn
from rollout_manager.experts.libero.handles import APPROACH, first_clear, handle_of
from rollout_manager.experts.libero.imagination import Imagination
from rollout_manager.experts.libero.motion import CLOSE, EXACT, GRIPPER_STEPS, OPEN, Motion, Way, go, hold
from rollout_manager.experts.libero.pick_place import retreat, travel
from rollout_manager.experts.libero.routes import raised
from rollout_manager.experts.libero.world import Goal, Joint, World
from vla_policy_node.observation import Float64Array

PULL_TILTS = np.deg2rad((60.0, 50.0, 40.0, 75.0, 30.0))
"""From the vertical, of a hand that pulls at a handle, in rad."""
AJAR = 0.6
"""Open so far, in rad, a door is pushed on from the inside."""
PULL_LEAD = 0.12
"""How far ahead of where it is the hand aims while it pulls, in rad."""
BELOW_TOP = 0.03
"""Of a door's edge: where the hand pushes, in m."""
INNER_SHARE = 0.85
"""Of the way from the hinge to the edge: where it pushes from the inside."""
PULL_STEPS, PUSH_STEPS = 60, 100


@dataclass(frozen=True)
class Swing:
    """How a door moves, seen from above."""

    anchor: Float64Array
    """On the hinge, shape (3,)."""
    spoke: Float64Array
    """Level way from the hinge to the free edge as it is now, shape (3,)."""
    top: float
    """Height of the edge's upper end, in m."""
    closing: float
    """1.0 where the door closes anticlockwise, else -1.0."""

    def turned(self, angle: float) -> Float64Array:
        """The spoke when the door is further open by an angle in rad."""
        return rotation_about(UP, -self.closing * angle) @ self.spoke

    def opening(self, spoke: Float64Array) -> Float64Array:
        """The way a spoke's end goes when the door opens: a level direction, shape (3,)."""
        return -self.closing * np.cross(UP, unit(spoke))


def swing_of(points: Float64Array, joint: Joint) -> Swing:
    """How a door moves, from points on its surface, shape (N, 3)."""
    away = np.linalg.norm((points - joint.anchor)[:, :2], axis=1)
    edge = points[away > away.max() - 0.05]
    spoke = edge.mean(axis=0) - joint.anchor
    return Swing(
        joint.anchor,
        np.array([spoke[0], spoke[1], 0.0]),
        float(edge[:, 2].max()),
        1.0 if joint.axis[2] > 0 else -1.0,
    )


def open_door(world: World, imagination: Imagination, goal: Goal, joint: Joint) -> Motion[None]:
    """Pull the door ajar by its handle if it is not, and push it on from the inside.

    Raises:
        ImpossibleError: the handle is out of reach.
    """
    if _openness(world, goal) < AJAR / 2:
        yield from _pull_ajar(world, imagination, goal, joint)
    swing = swing_of(world.cloud(world.geoms(joint.body)), joint)
    yield from _push(world, imagination, goal, swing, opens=True)


def close_door(world: World, imagination: Imagination, goal: Goal, joint: Joint) -> Motion[None]:
    """Push the door's free edge shut, along its circle."""
    swing = swing_of(world.cloud(world.geoms(joint.body)), joint)
    yield from _push(world, imagination, goal, swing, opens=False)


def _openness(world: World, goal: Goal) -> float:
    """How far the door is open, in rad."""
    joint = world.joints(goal[1])[0]
    return float(world.model.jnt_range[joint.index][1]) - joint.position


def _pull_ajar(world: World, imagination: Imagination, goal: Goal, joint: Joint) -> Motion[None]:
    points = world.cloud(world.geoms(joint.body))
    swing = swing_of(points, joint)
    outward = swing.opening(swing.spoke)
    handle, _ = handle_of(points, outward)
    hand = first_clear(imagination, world, handle, outward, PULL_TILTS, upright=False, opening=0.04)
    if hand is None:
        raise ImpossibleError(f"no way to take the handle of {goal[1]}")
    pointing = hand.rotation[:, 2]
    yield from travel(world, imagination, hand.shifted(-APPROACH * pointing), OPEN)
    yield from go(world, hand.shifted(-APPROACH * pointing), OPEN, Way(within=0.008, steps=30))
    yield from go(world, hand.shifted(0.004 * pointing), OPEN, EXACT)
    yield from hold(CLOSE, GRIPPER_STEPS)
    start, began = world.hand, _openness(world, goal)
    arm = start.position - joint.anchor
    for _ in range(PULL_STEPS):
        opened = _openness(world, goal) - began
        if opened > AJAR or world.satisfied(goal):
            break
        aim = joint.anchor + rotation_about(UP, -swing.closing * (opened + PULL_LEAD)) @ arm
        # The hand keeps its heading: the bar turns between the fingers.
        yield from go(world, Frame(np.array([*aim[:2], start.position[2]]), start.rotation), CLOSE, Way(steps=1))
    yield from hold(OPEN, 4)
    yield from retreat(world)


def _push(world: World, imagination: Imagination, goal: Goal, swing: Swing, opens: bool) -> Motion[None]:
    """Push the closed hand against the door near its edge, from the inside or the outside, and follow its circle."""
    spoke = swing.spoke * (INNER_SHARE if opens else 1.0)
    way = 1.0 if opens else -1.0
    forward = way * swing.opening(spoke)
    height = swing.top - BELOW_TOP
    hand_turned = nearer_turn(hand_rotation(-UP, spoke), world.hand.rotation)
    at = swing.anchor + spoke - (0.045 if opens else 0.10) * forward
    start = Frame(np.array([at[0], at[1], height]), hand_turned)
    yield from hold(CLOSE, GRIPPER_STEPS if opens else 2)
    yield from travel(world, imagination, raised(start, 0.1), CLOSE)
    yield from go(world, start, CLOSE, Way(within=0.012, steps=60))
    began = _openness(world, goal)
    for _ in range(PUSH_STEPS):
        if world.satisfied(goal):
            break
        arm = rotation_about(UP, -swing.closing * (_openness(world, goal) - began)) @ spoke
        forward = way * swing.opening(arm)
        aim = swing.anchor + arm - 0.005 * forward
        yield from go(world, Frame(np.array([aim[0], aim[1], height]), world.hand.rotation), CLOSE, Way(steps=1))
    yield from go(world, raised(world.hand, 0.12), CLOSE, Way(within=0.03, steps=30))

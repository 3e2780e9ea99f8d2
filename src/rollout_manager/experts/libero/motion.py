"""How the hand moves: generators that yield one action a step and read the world that has been brought up to date.

An action is what OSC_POSE takes: three displacements, three rotations and the gripper, each in [-1, 1].
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from rollout_manager.experts.libero.frames import Frame, angle_between, rotation_vector
from rollout_manager.experts.libero.world import World
from vla_policy_node.observation import Float64Array

Result = TypeVar("Result")
Motion = Generator[Float64Array, None, Result]
"""Yields actions, shape (7,); returns what came of it."""

OPEN, KEEP, CLOSE = -1.0, 0.0, 1.0
"""The gripper's action: it opens, stays as it is, or closes. It needs 8 steps from one end to the other."""
GRIPPER_STEPS = 8

FULL_STEP, FULL_TURN = 0.05, 0.5
"""What an action of 1 displaces (m) and turns (rad) the goal of the controller."""
GAIN, TURN_GAIN = 1.6, 1.2
MOST_TURN = 0.8
LEAST_TURN = 0.005
"""A hand that turns less in a step, in rad, stands."""


@dataclass(frozen=True)
class Way:
    """How to go somewhere."""

    within: float = 0.008
    """Arrived at this distance, in m."""
    turned: float = 0.06
    """And turned to within this angle, in rad."""
    speed: float = 1.0
    """Largest component of the displacement, as a share of the action's range."""
    steps: int = 80
    """After so many it ends, arrived or not."""
    stall: float = 0.0
    """It ends where the hand moves less than this in a step, in m, and hardly turns: something is in the way. 0: it
    goes on."""


THROUGH = Way(within=0.03, turned=0.3, stall=0.001)
"""On the way to somewhere else."""
EXACT = Way(within=0.004, speed=0.5, steps=40, stall=0.0005)


def action_towards(hand: Frame, target: Frame, grip: float, speed: float = 1.0) -> Float64Array:
    """The action, shape (7,), that takes the hand towards a pose."""
    move = (target.position - hand.position) / FULL_STEP * GAIN
    turn = rotation_vector(target.rotation @ hand.rotation.T) / FULL_TURN * TURN_GAIN
    # Slowed down alike, so that the hand turns as it goes and keeps to the straight way between two poses.
    share = min(1.0, speed / max(float(np.abs(move).max()), 1e-9), MOST_TURN / max(float(np.abs(turn).max()), 1e-9))
    return np.concatenate([share * move, share * turn, [grip]])


def go(world: World, target: Frame | Callable[[], Frame], grip: float, way: Way = Way()) -> Motion[bool]:
    """Take the hand to a pose, which may move; returns whether it got there."""
    last: Frame | None = None
    for step in range(way.steps):
        hand = world.hand
        aim = target() if callable(target) else target
        near = float(np.linalg.norm(aim.position - hand.position)) < way.within
        if near and angle_between(hand.rotation, aim.rotation) < way.turned:
            return True
        if way.stall and last is not None and step > 4 and _stands(last, hand, way.stall):
            return False
        last = hand
        yield action_towards(hand, aim, grip, way.speed)
    return False


def _stands(before: Frame, now: Frame, least: float) -> bool:
    moved = float(np.linalg.norm(now.position - before.position))
    return moved < least and angle_between(before.rotation, now.rotation) < LEAST_TURN


def hold(grip: float, steps: int) -> Motion[None]:
    """Stay, with the gripper opening, closing or as it is."""
    for _ in range(steps):
        yield np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, grip])

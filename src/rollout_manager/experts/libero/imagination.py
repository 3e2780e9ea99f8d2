"""What would be if the hand were elsewhere: inverse kinematics and collisions on a copy of the scene's state."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rollout_manager.envs.rendering import import_mujoco
from rollout_manager.experts.libero.frames import Frame, rotation_vector
from rollout_manager.experts.libero.world import World
from vla_policy_node.observation import Float64Array

ITERATIONS, PATIENCE = 40, 8
"""Steps of inverse kinematics in all, and without coming a hundredth nearer."""
STEP = 0.4  # rad a joint and iteration at most
POSITION_TOLERANCE, ANGLE_TOLERANCE = 0.002, 0.02  # m, rad
DAMPING = 1e-4
LIMIT_MARGIN = 0.05
"""Joints stay this far from their ends (rad): the controller knows nothing of limits."""
POSTURE_GAIN = 0.1
OPEN = 0.04
"""Where a finger's joint is when the hand is open, in m."""
TOUCH = -0.001
"""Less deep in each other things only touch, in m."""

TIPPING = 0.004
"""A thing whose middle is further outside of what carries it, in m, tips over."""

LEAST_LIFT = 0.3
"""What presses on it more level than this (sine of the angle) does not carry a thing."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Held:
    """An object that moves with the hand."""

    name: str
    in_hand: Frame
    """The object's frame in the hand's."""
    opening: float
    """Of each finger, in m."""


class Imagination:
    """A state of its own of the same model; `refresh` brings it to the present."""

    def __init__(self, world: World) -> None:
        self._mujoco = mujoco = import_mujoco()
        self._world = world
        self._model = world.model
        self._data = mujoco.MjData(world.model)
        self._jacobian = np.zeros((6, world.model.nv))
        low, high = world.arm_range.T
        self._low, self._high = low + LIMIT_MARGIN, high - LIMIT_MARGIN
        self.rest()

    def rest(self) -> None:
        """Take the arm's present posture for the one that it is drawn to."""
        self._home = self._world.arm
        self.refresh()

    def refresh(self) -> None:
        """Forget what was imagined: everything is where it is in the world."""
        self._data.qpos[:] = self._world.data.qpos
        self._mujoco.mj_kinematics(self._model, self._data)

    def reach(self, hand: Frame, start: Float64Array | None = None) -> Float64Array | None:
        """Joint angles, shape (7,), that bring the hand there from `start` (the present ones); None where none do.

        Damped least squares (Wampler, 1986), with a pull to the posture at reset as the controller has one.
        """
        mujoco, data, world = self._mujoco, self._data, self._world
        angles = world.arm if start is None else start.copy()
        jacobian = self._jacobian
        nearest, since = np.inf, 0
        for _ in range(ITERATIONS):
            data.qpos[world.arm_qpos] = angles
            mujoco.mj_kinematics(self._model, data)
            at = data.site_xpos[world.hand_site]
            turn = rotation_vector(hand.rotation @ data.site_xmat[world.hand_site].reshape(3, 3).T)
            error = np.concatenate([hand.position - at, turn])
            if np.linalg.norm(error[:3]) < POSITION_TOLERANCE and np.linalg.norm(turn) < ANGLE_TOLERANCE:
                return angles
            apart = float(np.linalg.norm(error))
            nearest, since = (apart, 0) if apart < 0.99 * nearest else (nearest, since + 1)
            if since == PATIENCE:
                return None
            mujoco.mj_comPos(self._model, data)
            mujoco.mj_jacSite(self._model, data, jacobian[:3], jacobian[3:], world.hand_site)
            arm = jacobian[:, world.arm_dofs]
            inverse = arm.T @ np.linalg.inv(arm @ arm.T + DAMPING * np.eye(6))
            change = inverse @ error
            change += POSTURE_GAIN * (np.eye(7) - inverse @ arm) @ (self._home - angles)
            largest = np.abs(change).max()
            angles = np.clip(angles + change * min(1.0, STEP / largest), self._low, self._high)
        return None

    def collides(
        self, arm: Float64Array, held: Held | None = None, opening: float | None = None, clearance: float = TOUCH
    ) -> bool:
        """Whether the arm, or what it holds, would be nearer to something else than `clearance`.

        Args:
            arm: joint angles, shape (7,).
            held: goes where the hand goes.
            opening: of each finger, in m; without it as what is held wants it, or open.
            clearance: in m; below 0 things may be in each other so far.
        """
        data, world = self._data, self._world
        if opening is None:
            opening = OPEN if held is None else held.opening
        data.qpos[world.arm_qpos] = arm
        data.qpos[world.finger_qpos] = opening, -opening
        self._mujoco.mj_kinematics(self._model, data)
        moved = world.moving_geoms
        if held is not None:
            hand = Frame(data.site_xpos[world.hand_site].copy(), data.site_xmat[world.hand_site].reshape(3, 3).copy())
            self._put(held.name, hand @ held.in_hand)
            moved = moved | self._mine(held.name)
        found = self._meet(moved, clearance)
        if held is not None:
            self._put(held.name, world.frame(held.name))
        return found

    def object_collides(self, name: str, frame: Frame, clearance: float = 0.0) -> bool:
        """Whether an object at `frame`, with no hand around it, would be in something other than the robot."""
        self._put(name, frame)
        found = self._meet(self._mine(name), clearance, ignored=self._world.robot_geoms)
        self._put(name, self._world.frame(name))
        return found

    def carried(self, name: str, frame: Frame, middle: Float64Array) -> bool:
        """Whether an object that touches something at `frame` has its middle, shape (3,), between the points of touch.

        Then it stays; else it tips over.
        """
        self._put(name, frame)
        self._mujoco.mj_collision(self._model, self._data)
        contact, mine = self._data.contact, self._mine(name)
        first, second = mine[contact.geom[:, 0]], mine[contact.geom[:, 1]]
        upward = contact.frame[:, 2] * np.where(second, 1.0, -1.0)  # MuJoCo's normals point to the second shape.
        points = contact.pos[(first != second) & (upward > LEAST_LIFT)][:, :2]
        self._put(name, self._world.frame(name))
        if not len(points):
            return False
        low, high = points.min(axis=0), points.max(axis=0)
        return bool(((middle[:2] > low - TIPPING) & (middle[:2] < high + TIPPING)).all())

    def _mine(self, name: str) -> Mask:
        mask = np.zeros(self._model.ngeom, bool)
        mask[self._world.geoms(self._world.body(name))] = True
        return mask

    def _put(self, name: str, frame: Frame) -> None:
        joint = self._model.joint(self._world.problem.objects_dict[name].joints[-1])
        quaternion = np.empty(4)
        self._mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(frame.rotation).ravel())
        first = joint.qposadr[0]
        self._data.qpos[first : first + 7] = np.concatenate([frame.position, quaternion])
        self._mujoco.mj_kinematics(self._model, self._data)

    def _meet(self, moved: Mask, clearance: float, ignored: Mask | None = None) -> bool:
        data, option = self._data, self._model.opt
        flags, margin = option.enableflags, option.o_margin
        if clearance > 0:  # MuJoCo tells of pairs this near that do not touch yet.
            option.enableflags, option.o_margin = flags | self._mujoco.mjtEnableBit.mjENBL_OVERRIDE, clearance
        self._mujoco.mj_collision(self._model, data)
        option.enableflags, option.o_margin = flags, margin
        contact = data.contact
        if not len(contact.dist):
            return False
        pairs = contact.geom
        across = moved[pairs[:, 0]] != moved[pairs[:, 1]]
        if ignored is not None:
            across &= ~ignored[pairs].any(axis=1)
        return bool((across & (contact.dist < clearance)).any())

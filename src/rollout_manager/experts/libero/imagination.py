"""What would be if the hand were elsewhere: inverse kinematics and collisions on a copy of the scene's state."""

import copy
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rollout_manager.envs.rendering import import_mujoco
from rollout_manager.experts.libero.frames import UP, Frame
from rollout_manager.experts.libero.world import Joint, World
from vla_policy_node.observation import Float64Array

ITERATIONS, PATIENCE = 40, 6
"""Steps of inverse kinematics in all, and without coming a hundredth nearer."""
STEP = 0.4  # rad a joint and iteration at most
POSITION_TOLERANCE, ANGLE_TOLERANCE = 0.002, 0.02  # m, rad
DAMPING = 1e-4
LIMIT_MARGIN = 0.05
"""Joints stay this far from their ends (rad): the controller knows nothing of limits."""
POSTURE_GAIN = 0.1
SHOULDER, FLANGE, LONGEST = 0.333, 0.204, 0.80
"""Of the Panda, in m: the shoulder above the foot, the wrist behind the fingers, the farthest that the wrist gets."""
COMFORTABLE, STRETCH_COST = 0.71, 12.0
"""The wrist moves easily this far from the shoulder, in m; what a metre more costs: a straight arm gets stuck."""
OPEN = 0.04
"""Where a finger's joint is when the hand is open, in m."""
TOUCH = -0.001
"""Less deep in each other things only touch, in m."""
TIPPING = 0.004
"""A thing whose middle is further outside of what carries it, in m, tips over."""
LEAST_LIFT = 0.3
"""What presses on it more level than this (sine of the angle) does not carry a thing."""
PLATE = 0.006
"""Half a plate's thickness at most, in m."""

Mask = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.intp]
Bits = tuple[npt.NDArray[np.int32], ...]
"""Of shapes and of bodies: what they are and what they meet, as MuJoCo's contype and conaffinity have it."""
THE_ROBOT = ""
ABOVE_MUJOCOS = 8
"""LIBERO's shapes use no bit from here on."""


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
        self._model = copy.copy(world.model)  # Which shapes may meet is set anew for each question.
        self._data = mujoco.MjData(self._model)
        self._jacobian, self._quaternion = np.zeros((6, world.model.nv)), np.zeros(4)
        self._damping = DAMPING * np.eye(6)
        self._shoulder = world.base + SHOULDER * UP
        low, high = world.arm_range.T
        self._solids: dict[str, tuple[IndexArray, IndexArray]] = {}
        self._bits: dict[tuple[str, ...], Bits] = {}
        self._asked: tuple[str, ...] = ()
        joints = {name: thing.joints[-1] for name, thing in world.problem.objects_dict.items()}
        self._qpos = {name: int(world.model.joint(joint).qposadr[0]) for name, joint in joints.items()}
        self._low, self._high = low + LIMIT_MARGIN, high - LIMIT_MARGIN
        self.rest()

    def rest(self) -> None:
        """Take the arm's present posture for the one that it is drawn to."""
        self._home = self._world.arm
        self.refresh()

    def refresh(self) -> None:
        """Forget what was imagined: everything is where it is in the world."""
        model = self._world.model  # A reset moves fixtures in it.
        self._model.body_pos[:], self._model.body_quat[:] = model.body_pos, model.body_quat
        self._data.qpos[:] = self._world.data.qpos
        self._mujoco.mj_kinematics(self._model, self._data)

    @property
    def arm(self) -> Float64Array:
        """The arm's present joint angles in rad, shape (7,)."""
        return self._world.arm

    @property
    def postures(self) -> tuple[Float64Array, Float64Array]:
        """Joint angles to begin from in search of others: the present ones, and those at rest; each of shape (7,)."""
        return self._world.arm, self._home

    @property
    def joint_ends(self) -> tuple[Float64Array, Float64Array]:
        """Between which the arm's joints stay, in rad; each of shape (7,)."""
        return self._low, self._high

    def hand_at(self, arm: Float64Array) -> Frame:
        """Where the hand is at some joint angles, shape (7,)."""
        data, site = self._data, self._world.hand_site
        data.qpos[self._world.arm_qpos] = arm
        self._mujoco.mj_kinematics(self._model, data)
        return Frame(data.site_xpos[site].copy(), data.site_xmat[site].reshape(3, 3).copy())

    def reach(self, hand: Frame, start: Float64Array | None = None) -> Float64Array | None:
        """Joint angles, shape (7,), that bring the hand there from `start`; None where none are found.

        Without a start it is the present ones, or else those at rest.
        """
        if self._stretch(hand) > LONGEST:
            return None
        starts = self.postures if start is None else (start,)
        return next((found for angles in starts if (found := self._descend(hand, angles)) is not None), None)

    def stretch_cost(self, hand: Frame) -> float:
        """What it costs that the arm is nearly straight with the hand there."""
        return STRETCH_COST * max(0.0, self._stretch(hand) - COMFORTABLE)

    def _stretch(self, hand: Frame) -> float:
        """From the shoulder to the wrist, in m."""
        return float(np.linalg.norm(hand.position - FLANGE * hand.rotation[:, 2] - self._shoulder))

    def _descend(self, hand: Frame, angles: Float64Array) -> Float64Array | None:
        """Damped least squares (Wampler, 1986), with a pull to the posture at rest as the controller has one."""
        mujoco, data, world = self._mujoco, self._data, self._world
        jacobian, wanted, error, forces = self._jacobian, np.empty(4), np.empty(6), np.empty(6)
        mujoco.mju_mat2Quat(wanted, np.ascontiguousarray(hand.rotation).ravel())
        nearest, since = np.inf, 0
        for _ in range(ITERATIONS):
            data.qpos[world.arm_qpos] = angles
            mujoco.mj_kinematics(self._model, data)
            self._error(hand.position, wanted, error)
            off, turned = math.hypot(*error[:3]), math.hypot(*error[3:])
            if off < POSITION_TOLERANCE and turned < ANGLE_TOLERANCE:
                return angles
            nearest, since = (off + turned, 0) if off + turned < 0.99 * nearest else (nearest, since + 1)
            if since == PATIENCE:
                return None
            mujoco.mj_comPos(self._model, data)
            mujoco.mj_jacSite(self._model, data, jacobian[:3], jacobian[3:], world.hand_site)
            arm = jacobian[:, world.arm_dofs]
            homeward = POSTURE_GAIN * (self._home - angles)
            square = arm @ arm.T + self._damping
            mujoco.mju_cholFactor(square, 0.0)
            mujoco.mju_cholSolve(forces, square, error - arm @ homeward)
            change = homeward + arm.T @ forces
            largest = np.abs(change).max()
            angles = np.minimum(np.maximum(angles + change * min(1.0, STEP / largest), self._low), self._high)
        return None

    def _error(self, position: Float64Array, wanted: Float64Array, error: Float64Array) -> None:
        """Into `error`, shape (6,): what the imagined hand lacks to a position, m, and to a quaternion, rad."""
        mujoco, data, site = self._mujoco, self._data, self._world.hand_site
        error[:3] = position - data.site_xpos[site]
        mujoco.mju_mat2Quat(self._quaternion, data.site_xmat[site])
        mujoco.mju_negQuat(self._quaternion, self._quaternion)
        mujoco.mju_mulQuat(self._quaternion, wanted, self._quaternion)
        mujoco.mju_quat2Vel(error[3:], self._quaternion, 1.0)

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
        data.qpos[world.finger_qpos] = opening, -opening
        hand = self.hand_at(arm)
        if held is None:
            return self._meet((THE_ROBOT,), clearance)
        self._put(held.name, hand @ held.in_hand)
        found = self._meet((THE_ROBOT, held.name), clearance) or self._pierced(held.name)
        self._put_back(held.name)
        return found

    def object_collides(self, name: str, frame: Frame, clearance: float = 0.0) -> bool:
        """Whether an object at `frame`, with no hand around it, would be in something other than the robot."""
        self._put(name, frame)
        found = self._meet((name,), clearance) or self._pierced(name)
        self._put_back(name)
        return found

    def blocks(self, drawer: Joint, name: str, frame: Frame) -> bool:
        """Whether an object at `frame` in a drawer would be in the way when that is shut."""
        shut = float(self._model.jnt_range[drawer.index][1])
        address = self._model.jnt_qposadr[drawer.index]
        self._data.qpos[address] = shut
        found = self.object_collides(name, frame.shifted((shut - drawer.position) * drawer.axis))
        self._data.qpos[address] = drawer.position
        return found

    def carried(self, name: str, frame: Frame, middle: Float64Array) -> bool:
        """Whether an object that touches something at `frame` has its middle, shape (3,), between the points of touch.

        Then it stays; else it tips over.
        """
        self._put(name, frame)
        self._select((name,))
        self._mujoco.mj_collision(self._model, self._data)
        contact, mine = self._data.contact, self._mine(name)
        upward = contact.frame[:, 2] * np.where(mine[contact.geom[:, 1]], 1.0, -1.0)  # Normals point to the second one.
        points = contact.pos[upward > LEAST_LIFT][:, :2]
        self._put_back(name)
        if not len(points):
            return False
        low, high = points.min(axis=0), points.max(axis=0)
        return bool(((middle[:2] > low - TIPPING) & (middle[:2] < high + TIPPING)).all())

    def _mine(self, name: str) -> Mask:
        mask = np.zeros(self._model.ngeom, bool)
        mask[self._world.geoms(self._world.body(name))] = True
        return mask

    def _put(self, name: str, frame: Frame) -> None:
        first = self._qpos[name]
        self._data.qpos[first : first + 3] = frame.position
        self._mujoco.mju_mat2Quat(self._quaternion, np.ascontiguousarray(frame.rotation).ravel())
        self._data.qpos[first + 3 : first + 7] = self._quaternion
        self._mujoco.mj_kinematics(self._model, self._data)

    def _put_back(self, name: str) -> None:
        """Where it is in the world; whoever asks next computes where that is."""
        first = self._qpos[name]
        self._data.qpos[first : first + 7] = self._world.data.qpos[first : first + 7]

    def _boxes_of(self, chosen: Mask, least: float, most: float) -> IndexArray:
        """Boxes among some shapes whose least half extent is in a range, in m."""
        model = self._world.model
        boxes = (model.geom_type == self._mujoco.mjtGeom.mjGEOM_BOX) & (model.geom_contype | model.geom_conaffinity > 0)
        thin = model.geom_size.min(axis=1)
        return np.flatnonzero(chosen & boxes & (thin >= least) & (thin < most))

    def _pierced(self, name: str) -> bool:
        """Whether a thin plate of something else is right inside an object, of which MuJoCo does not always tell."""
        if name not in self._solids:
            mine = self._mine(name)
            others = ~(mine | self._world.robot_geoms)
            self._solids[name] = self._boxes_of(mine, PLATE, np.inf), self._boxes_of(others, 0.0, PLATE)
        model, data = self._model, self._data
        boxes, plates = self._solids[name]
        for box in boxes:
            apart = ((data.geom_xpos[plates] - data.geom_xpos[box]) ** 2).sum(axis=1)
            for plate in plates[apart < (model.geom_rbound[plates] + model.geom_rbound[box]) ** 2]:
                if self._mujoco.mj_geomDistance(model, data, int(box), int(plate), 0.01, None) < TOUCH:
                    return True
        return False

    def _meet(self, moved: tuple[str, ...], clearance: float) -> bool:
        """Whether the robot's moving parts, an object, or both are nearer to anything else than `clearance`, m."""
        self._select(moved)
        data, option = self._data, self._model.opt
        flags, margin = option.enableflags, option.o_margin
        if clearance > 0:  # MuJoCo tells of pairs this near that do not touch yet.
            option.enableflags, option.o_margin = flags | self._mujoco.mjtEnableBit.mjENBL_OVERRIDE, clearance
        self._mujoco.mj_collision(self._model, data)
        option.enableflags, option.o_margin = flags, margin
        return bool(data.ncon) and bool(data.contact.dist.min() < clearance)

    def _select(self, moved: tuple[str, ...]) -> None:
        """Let MuJoCo look only at pairs of one shape that is moved and one that is not."""
        if moved == self._asked:
            return
        self._asked = moved
        if moved not in self._bits:
            self._bits[moved] = self._bits_of(moved)
        model = self._model
        (model.geom_contype[:], model.geom_conaffinity[:], model.body_contype[:], model.body_conaffinity[:]) = (
            self._bits[moved]
        )

    def _bits_of(self, moved: tuple[str, ...]) -> Bits:
        """The world's own, shifted so that what is moved meets all else that it would meet, but nothing of its own."""
        model, world = self._world.model, self._world
        inside = np.zeros(model.ngeom, bool)
        for name in moved:
            inside |= world.moving_geoms if name == THE_ROBOT else self._mine(name)
        left_out = np.zeros(model.ngeom, bool) if THE_ROBOT in moved else world.robot_geoms
        is_what = np.where(inside, model.geom_contype, model.geom_contype << ABOVE_MUJOCOS)
        meets = np.where(inside, model.geom_conaffinity << ABOVE_MUJOCOS, model.geom_conaffinity)
        is_what[left_out], meets[left_out] = 0, 0
        bodies = np.zeros(model.nbody, np.int32), np.zeros(model.nbody, np.int32)
        for of_bodies, of_shapes in zip(bodies, (is_what, meets), strict=True):
            np.bitwise_or.at(of_bodies, model.geom_bodyid, of_shapes)
        return is_what, meets, *bodies

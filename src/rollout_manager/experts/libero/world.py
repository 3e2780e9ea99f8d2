"""What the expert knows: one scene in the state it was last told, in terms of objects, regions, joints and the hand."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rollout_manager.envs.rendering import import_mujoco
from rollout_manager.experts.libero.frames import Frame
from rollout_manager.experts.libero.surfaces import Kind, Shape, surface_points
from vla_policy_node.observation import Float64Array

Goal = tuple[str, ...]
"""A predicate and what it is about, as in the BDDL file: ("on", "akita_black_bowl_1", "plate_1")."""

ROBOT_PREFIXES = ("robot0", "gripper0", "mount0")
STANDING = ("mount0", "robot0_base", "robot0_link0", "robot0_link1")
"""Parts of the robot that stay where they are."""
ARM_JOINTS = tuple(f"robot0_joint{i}" for i in range(1, 8))
FINGER_JOINTS = ("gripper0_finger_joint1", "gripper0_finger_joint2")
FINGERS = ("gripper0_leftfinger", "gripper0_rightfinger")
PADS = ("gripper0_finger1_pad_collision", "gripper0_finger2_pad_collision")
HAND_SITE = "gripper0_grip_site"
"""Between the finger pads. Its x axis is the way the fingers close, z the way they point."""


@dataclass(frozen=True)
class Joint:
    """A drawer's slide or a door's or knob's hinge."""

    name: str
    index: int
    body: int
    """The part that moves."""
    slides: bool
    position: float
    """m or rad."""
    axis: Float64Array
    """Direction of increasing position, shape (3,), in the world."""
    anchor: Float64Array
    """A point on a hinge's axis, shape (3,), in the world."""


class World:
    """Reads one `LiberoScene`. Whoever sets the scene's state decides what time it is."""

    def __init__(self, scene: Any) -> None:
        """Args: scene: a `LiberoScene` that has been reset."""
        mujoco = import_mujoco()
        self.scene = scene
        self.model, self.data = scene.model, scene.data
        self.problem = scene.problem
        self.goals: tuple[Goal, ...] = tuple(tuple(goal) for goal in scene.goals)
        model = self.model
        bodies = [model.body(b).name for b in range(model.nbody)]
        self.robot_bodies = {b for b, name in enumerate(bodies) if name.startswith(ROBOT_PREFIXES)}
        self.robot_geoms = np.isin(model.geom_bodyid, list(self.robot_bodies))
        still = [b for b in self.robot_bodies if bodies[b].startswith(STANDING)]
        self.moving_geoms = self.robot_geoms & ~np.isin(model.geom_bodyid, still)
        self._points = {g: surface_points(shape) for g in range(model.ngeom) if (shape := _shape(mujoco, model, g))}
        self._geoms: dict[int, list[int]] = {}
        self.arm_qpos = np.array([model.joint(name).qposadr[0] for name in ARM_JOINTS])
        self.arm_dofs = np.array([model.joint(name).dofadr[0] for name in ARM_JOINTS])
        self.arm_range = np.array([model.joint(name).range for name in ARM_JOINTS])
        self.finger_qpos = np.array([model.joint(name).qposadr[0] for name in FINGER_JOINTS])
        # LIBERO lets fingers pass through its microwave, where a plan should not send them. Nothing else changes by it.
        for body in (b for b, name in enumerate(bodies) if name in FINGERS):
            model.body_contype[body] = 1
            model.geom_contype[(model.geom_bodyid == body) & (model.geom_conaffinity != 0)] = 1
        self.hand_site = int(model.site(HAND_SITE).id)
        self._pads = [int(model.geom(name).id) for name in PADS]
        self._mujoco = mujoco

    # The robot

    @property
    def hand(self) -> Frame:
        """Where the fingers' pads are, in the world."""
        data = self.data
        return Frame(data.site_xpos[self.hand_site].copy(), data.site_xmat[self.hand_site].reshape(3, 3).copy())

    @property
    def arm(self) -> Float64Array:
        """Joint angles in rad, shape (7,)."""
        angles: Float64Array = self.data.qpos[self.arm_qpos].copy()
        return angles

    @property
    def opening(self) -> float:
        """Between the fingers, in m."""
        left, right = self.data.qpos[self.finger_qpos]
        return float(left - right)

    @property
    def base(self) -> Float64Array:
        """The arm's foot, shape (3,)."""
        position: Float64Array = self.data.body("robot0_base").xpos.copy()
        return position

    # Objects, fixtures and their regions

    @property
    def objects(self) -> tuple[str, ...]:
        """What can be carried."""
        return tuple(self.problem.objects_dict)

    def is_region(self, name: str) -> bool:
        return name in self.problem.object_sites_dict

    def owner(self, region: str) -> str:
        """The object or fixture that a region belongs to; empty for one of the table."""
        return getattr(self.problem.object_sites_dict[region], "parent_name", None) or ""

    def body(self, name: str) -> int:
        """Of an object or fixture."""
        return int(self.problem.obj_body_id[name])

    def frame(self, name: str) -> Frame:
        """Of an object or fixture, in the world."""
        body = self.body(name)
        return Frame(self.data.xpos[body].copy(), self.data.xmat[body].reshape(3, 3).copy())

    def region(self, name: str) -> tuple[Frame, Any]:
        """Where a region is, and the benchmark's object that says what is in it or on it."""
        site = int(self.model.site(name).id)
        frame = Frame(self.data.site_xpos[site].copy(), self.data.site_xmat[site].reshape(3, 3).copy())
        return frame, self.problem.object_sites_dict[name]

    def joints(self, name: str) -> list[Joint]:
        """The slides and hinges of a fixture, or of the part of it that a region moves with."""
        kinds = (self._mujoco.mjtJoint.mjJNT_SLIDE, self._mujoco.mjtJoint.mjJNT_HINGE)
        names = self.problem.get_object(name).joints or []
        return [self._joint(joint) for joint in names if self.model.jnt_type[self.model.joint(joint).id] in kinds]

    def _joint(self, name: str) -> Joint:
        model, data = self.model, self.data
        index = int(model.joint(name).id)
        return Joint(
            name,
            index,
            int(model.jnt_bodyid[index]),
            bool(model.jnt_type[index] == self._mujoco.mjtJoint.mjJNT_SLIDE),
            float(data.qpos[model.jnt_qposadr[index]]),
            data.xaxis[index].copy(),
            data.xanchor[index].copy(),
        )

    def satisfied(self, goal: Goal) -> bool:
        """Whether a predicate holds now, as the benchmark reads it."""
        return bool(self.problem._eval_predicate(list(goal)))

    # Shapes

    def geoms(self, body: int) -> list[int]:
        """Collision shapes of a body and of all that hangs on it."""
        if body not in self._geoms:
            self._geoms[body] = self._find_geoms(body)
        return self._geoms[body]

    def _find_geoms(self, body: int) -> list[int]:
        parents = self.model.body_parentid

        def below(other: int) -> bool:
            while other > 0 and other != body:
                other = int(parents[other])
            return other == body

        return [g for g in self._points if below(int(self.model.geom_bodyid[g]))]

    def others(self, body: int) -> list[int]:
        """Collision shapes of all that is neither the robot nor this body."""
        mine = set(self.geoms(body))
        return [g for g in self._points if g not in mine and not self.robot_geoms[g]]

    def cloud(self, geoms: Iterable[int]) -> Float64Array:
        """Points on the surfaces of some shapes as they stand now, shape (N, 3)."""
        data = self.data
        clouds = [self._points[g] @ data.geom_xmat[g].reshape(3, 3).T + data.geom_xpos[g] for g in geoms]
        return np.concatenate(clouds) if clouds else np.empty((0, 3))

    def object_cloud(self, name: str) -> Float64Array:
        """Points on an object's surface, shape (N, 3)."""
        return self.cloud(self.geoms(self.body(name)))

    def lowest(self, name: str) -> float:
        """Height of an object's lowest point."""
        return float(self.object_cloud(name)[:, 2].min())

    # Touch

    def touching(self, first: Sequence[int], second: Sequence[int]) -> bool:
        """Whether any shape of the one list touches any of the other."""
        pairs = self.data.contact.geom
        a, b = np.isin(pairs, list(first)), np.isin(pairs, list(second))
        return bool(((a[:, 0] & b[:, 1]) | (a[:, 1] & b[:, 0])).any())

    def held(self, name: str) -> bool:
        """Whether both pads press on an object."""
        geoms = self.geoms(self.body(name))
        return all(self.touching([pad], geoms) for pad in self._pads)

    def in_hand(self) -> str:
        """The object that both pads press on; empty for none."""
        return next((name for name in self.objects if self.held(name)), "")


def _shape(mujoco: Any, model: Any, geom: int) -> Shape | None:
    """A geom's collision shape; None where it has none, or is a plane."""
    if not (model.geom_contype[geom] or model.geom_conaffinity[geom]):
        return None
    kinds: dict[int, Kind] = {
        int(mujoco.mjtGeom.mjGEOM_BOX): "box",
        int(mujoco.mjtGeom.mjGEOM_CYLINDER): "cylinder",
        int(mujoco.mjtGeom.mjGEOM_CAPSULE): "capsule",
        int(mujoco.mjtGeom.mjGEOM_SPHERE): "sphere",
        int(mujoco.mjtGeom.mjGEOM_ELLIPSOID): "ellipsoid",
        int(mujoco.mjtGeom.mjGEOM_MESH): "mesh",
    }
    kind = kinds.get(int(model.geom_type[geom]))
    if kind is None:
        return None
    size = model.geom_size[geom].copy()
    if kind != "mesh":
        return Shape(kind, size)
    mesh = int(model.geom_dataid[geom])
    first, count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
    first_face, faces = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
    return Shape(
        "mesh",
        size,
        np.asarray(model.mesh_vert[first : first + count], np.float64),
        np.asarray(model.mesh_face[first_face : first_face + faces], np.int32),
    )

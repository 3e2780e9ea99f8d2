"""An arm's model as MuJoCo reads it, from MJCF or URDF, and what such a file says of its joints' limits."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from vla_policy_node.exceptions import SpecError
from vla_policy_node.locations import find_preset

MOVABLE = {"revolute", "continuous", "prismatic"}
"""Types of a URDF's joints that have one degree of freedom."""


def import_mujoco() -> Any:
    """The module `mujoco`. Raises: SpecError: it, or the OpenGL library that MUJOCO_GL names, cannot be loaded."""
    try:
        import mujoco
    # Without the system's library PyOpenGL fails with an AttributeError on None.
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        raise SpecError(f"MuJoCo, which computes where the hand is, cannot be loaded: {error}") from error
    return mujoco


def find_arm(model: str) -> Path:
    """The file of a model: the one at a path, or called so in `config/arms/`. Raises: SpecError: there is none."""
    return find_preset("arm's model", model, "arms", SpecError, ".xml")


def load_arm(model: str) -> Any:
    """The `mujoco.MjModel` of an MJCF or URDF file. Raises: SpecError: there is none, or MuJoCo cannot read it.

    Of a URDF the meshes are left out: their `package://` addresses say nothing without ROS, and kinematics needs none.
    Links that are fixed to each other stay links of their own, so that a tool's frame keeps its name.
    """
    mujoco, path = import_mujoco(), find_arm(model)
    try:
        root = _parsed(path)
        if root.tag != "robot":
            return mujoco.MjModel.from_xml_path(str(path))
        spec = mujoco.MjSpec.from_string(_without_meshes(root))
        spec.compiler.fusestatic = False
        # Of links without mass MuJoCo says that they cannot be moved; nothing is moved by forces here.
        spec.compiler.boundmass = spec.compiler.boundinertia = 1e-6
        return spec.compile()
    except ValueError as error:
        # MuJoCo's messages have several lines.
        raise SpecError(f"arm's model '{path}': {' '.join(str(error).split())}") from error


@dataclass(frozen=True)
class JointLimits:
    """What a model says of a joint, in rad or m; not a number where it says nothing."""

    name: str
    unit: str
    low: float
    high: float
    velocity: float
    """The unit a second."""
    effort: float
    """Nm or N."""


def joint_limits(model: str) -> list[JointLimits]:
    """The limits of every joint that moves, in the model's order.

    An MJCF says nothing of speeds: the joint's first `user` value is taken for it, as in `config/arms/`.

    Raises:
        SpecError: no such model, no joints, or joints without limits of position: all of them are named.
    """
    path = find_arm(model)
    root = _parsed(path)
    found = _of_urdf(root) if root.tag == "robot" else _of_mjcf(load_arm(model))
    if not found:
        raise SpecError(f"arm's model '{path}': it has no joints that move")
    if without := [j.name for j in found if not j.low < j.high]:
        raise SpecError(f"arm's model '{path}': no limits of position for {', '.join(without)}; write them into it")
    return found


def _parsed(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise SpecError(f"arm's model '{path}': no XML: {error}") from error


def _without_meshes(root: ElementTree.Element) -> str:
    for link in root.iter("link"):
        for part in [*link.findall("visual"), *link.findall("collision")]:
            if part.tag == "visual" or part.find("geometry/mesh") is not None:
                link.remove(part)
    return ElementTree.tostring(root, "unicode")


def _of_urdf(root: ElementTree.Element) -> list[JointLimits]:
    # A mimic joint follows another one: nobody commands it.
    joints = [j for j in root.findall("joint") if j.get("type") in MOVABLE and j.find("mimic") is None]
    found = []
    for joint in joints:
        limit = joint.find("limit")
        given: Mapping[str, str] = limit.attrib if limit is not None else {}
        sides = [float(given.get(side, "nan")) for side in ("lower", "upper")]
        if joint.get("type") == "continuous":
            sides = [math.nan, math.nan]
        most = [float(given.get(what, "nan")) for what in ("velocity", "effort")]
        unit = "m" if joint.get("type") == "prismatic" else "rad"
        found.append(JointLimits(joint.get("name", ""), unit, *sides, *most))
    return found


def _of_mjcf(model: Any) -> list[JointLimits]:
    mujoco = import_mujoco()
    units = {int(mujoco.mjtJoint.mjJNT_HINGE): "rad", int(mujoco.mjtJoint.mjJNT_SLIDE): "m"}
    found = []
    for i in range(model.njnt):
        if model.jnt_type[i] in units:
            low, high = model.jnt_range[i] if model.jnt_limited[i] else (math.nan, math.nan)
            unit, speed = units[int(model.jnt_type[i])], speed_of(model, i)
            found.append(JointLimits(model.joint(i).name, unit, float(low), float(high), speed, _effort(model, i)))
    return found


def speed_of(model: Any, joint: int) -> float:
    """How fast a joint of an MJCF can go, its unit a second: its first `user` value; not a number where it has none."""
    said = float(model.jnt_user[joint][0]) if model.nuser_jnt else 0.0
    return said if said > 0 else math.nan


def _effort(model: Any, joint: int) -> float:
    """What the joint, or else its actuator, is limited to."""
    if model.jnt_actfrclimited[joint]:
        return float(model.jnt_actfrcrange[joint][1])
    for i in range(model.nu):
        if model.actuator_trnid[i][0] == joint and model.actuator_forcelimited[i]:
            return float(model.actuator_forcerange[i][1] * abs(model.actuator_gear[i][0]))
    return math.nan

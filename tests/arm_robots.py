"""Robots whose hand is known: what they see of themselves, and where their hand is sent."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from vla_policy_node.kinematics import ArmModel
from vla_policy_node.kinematics_spec import WorkspaceSpec
from vla_policy_node.safety import SafeCommand
from vla_policy_node.spec import RobotSpec, load_spec

Floats = npt.NDArray[np.float64]

PANDA, PANDA_EE, UR5E = load_spec("panda"), load_spec("panda_ee"), load_spec("ur5e")
HOME = np.array([0.0, -0.4, 0.0, -2.2, 0.0, 1.8, 0.785])
"""The Panda's joints at its model's home pose."""
FINGER = 0.02


def model_of(spec: RobotSpec) -> ArmModel:
    """The arm's model with the joints that the robot's commands move."""
    assert spec.kinematics is not None
    return ArmModel(spec.kinematics, spec.kinematics.joints or spec.action)


def seen(spec: RobotSpec, joints: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Proprioception with the arm's joints there, its hand at 0, its gripper half open."""
    dimensions = [d for d in spec.commanded if d.joint]
    found = np.zeros(len(spec.proprioception), np.float32)
    for dimension, value in zip([d for d in dimensions if "finger" not in d.name], np.asarray(joints), strict=True):
        found[[f.key for f in spec.proprioception].index(dimension.joint)] = value
    found[-1] = FINGER
    return found


def arm_joints(spec: RobotSpec, command: SafeCommand) -> Floats:
    """Where the joints of the arm, without its gripper, are sent."""
    found = command.joints if len(command.joints) else command.action[:-1]
    return found.astype(np.float64)


def boxed(spec: RobotSpec, low: tuple[float, float, float], high: tuple[float, float, float]) -> RobotSpec:
    return replace(spec, workspace=WorkspaceSpec(low, high))

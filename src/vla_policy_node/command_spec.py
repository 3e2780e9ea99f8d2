"""How a robot takes its commands: messages of ros2_control's controllers and of MoveIt Servo, beside Encore's own."""

from dataclasses import dataclass
from typing import Literal, get_args

from vla_policy_node.exceptions import SpecError

CommandKind = Literal["joint_trajectory", "forward", "twist"]
"""`joint_trajectory`: trajectory_msgs/JointTrajectory of one point, for the joint trajectory controller. `forward`:
std_msgs/Float64MultiArray, for the forward command controllers of positions or velocities. `twist`:
geometry_msgs/TwistStamped, for MoveIt Servo."""

TWIST = 6
"""Dimensions of a twist: linear x, y, z in m/s, angular x, y, z in rad/s."""


@dataclass(frozen=True)
class CommandSpec:
    """One controller of the robot and what of the action it is sent, each tick that a command is."""

    kind: CommandKind
    topic: str
    dimensions: tuple[str, ...]
    """Names of the action's dimensions, in the order in which they are sent; one may be there twice."""
    joints: tuple[str, ...] = ()
    """The controller's joints, in the order of the dimensions; empty: those that the dimensions command."""
    reach_s: float = 0.0
    """Of a joint trajectory: when its point is to be reached, in seconds from now; 0: a period of the robot."""
    scale: float = 1.0
    """What is sent for 1 of a dimension's unit, such as the arm's m/s for a displacement a tick."""

    def __post_init__(self) -> None:
        where = f"command on '{self.topic}'"
        object.__setattr__(self, "dimensions", tuple(self.dimensions))
        object.__setattr__(self, "joints", tuple(self.joints))
        if self.kind not in get_args(CommandKind):
            raise SpecError(f"{where}: kind '{self.kind}' is not one of {', '.join(get_args(CommandKind))}")
        if not self.topic or not self.dimensions:
            raise SpecError(f"{where}: it needs a topic and at least one dimension")
        if self.kind == "twist" and len(self.dimensions) != TWIST:
            raise SpecError(f"{where}: a twist has {TWIST} dimensions, not {len(self.dimensions)}")
        if self.joints and len(self.joints) != len(self.dimensions):
            raise SpecError(f"{where}: {len(self.joints)} joints for {len(self.dimensions)} dimensions")
        if not self.reach_s >= 0 or self.scale == 0 or self.scale != self.scale:
            raise SpecError(f"{where}: reach_s {self.reach_s} is negative, or scale {self.scale} says nothing")

"""An action as the messages that a robot's own controllers take."""

from typing import Any

import numpy as np

from vla_policy_node.command_spec import CommandSpec
from vla_policy_node.commands import trajectory_point
from vla_policy_node.messages import MessageMaker, make_header, vector_to_message
from vla_policy_node.observation import Float32Array, Float64Array
from vla_policy_node.spec import NANOSECONDS, RobotSpec

COMMAND_TYPES = {
    "joint_trajectory": "trajectory_msgs/msg/JointTrajectory",
    "forward": "std_msgs/msg/Float64MultiArray",
    "twist": "geometry_msgs/msg/TwistStamped",
}
"""Message type of each kind of command."""


def command_message(
    make: MessageMaker, spec: RobotSpec, command: CommandSpec, now_ns: int, commanded: Float32Array
) -> Any:
    """The message of one tick for one controller.

    Args:
        now_ns: stamp of a twist, which Servo refuses when it is old.
        commanded: what is sent, in the spec's units, ordered as `RobotSpec.commanded`.
    """
    order = [spec.commanded_names.index(name) for name in command.dimensions]
    values = np.asarray(commanded, np.float64)[order] * command.scale
    if command.kind == "joint_trajectory":
        return _trajectory(make, spec, command, values)
    if command.kind == "twist":
        return _twist(make, spec, now_ns, values)
    return vector_to_message(make, values)


def _trajectory(make: MessageMaker, spec: RobotSpec, command: CommandSpec, values: Float64Array) -> Any:
    # A stamp of 0 says: from now on. With one of its own a late message would be refused as over.
    reach_ns = round(command.reach_s * NANOSECONDS) or spec.period_ns
    names = list(command.joints or spec.joints_of(command.dimensions))
    header = make_header(make, 0, spec.frame)
    return make(
        COMMAND_TYPES["joint_trajectory"],
        header=header,
        joint_names=names,
        points=[trajectory_point(make, values, reach_ns)],
    )


def _twist(make: MessageMaker, spec: RobotSpec, now_ns: int, values: Float64Array) -> Any:
    linear, angular = (
        make("geometry_msgs/msg/Vector3", **dict(zip("xyz", map(float, part), strict=True)))
        for part in (values[:3], values[3:])
    )
    twist = make("geometry_msgs/msg/Twist", linear=linear, angular=angular)
    return make(COMMAND_TYPES["twist"], header=make_header(make, now_ns, spec.frame), twist=twist)

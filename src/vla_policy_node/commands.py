"""Actions to the robot's command messages and back.

A command is a trajectory_msgs/JointTrajectory whose joint_names are the action's dimensions and whose stamp is
that of the observation it answers. Float32 values pass through its float64 fields exactly.
"""

from typing import Any

import numpy as np

from vla_policy_node.exceptions import MessageError
from vla_policy_node.messages import MessageMaker, make_header, stamp_of
from vla_policy_node.observation import Float32Array
from vla_policy_node.policy import ActionChunk
from vla_policy_node.spec import NANOSECONDS, RobotSpec


def action_to_message(make: MessageMaker, spec: RobotSpec, stamp_ns: int, action: Float32Array) -> Any:
    """The command of one tick, action of shape (A,). Raises: MessageError: another shape, or a value not finite."""
    return chunk_to_message(make, spec, ActionChunk(stamp_ns, np.asarray(action)[None]))


def action_from_message(spec: RobotSpec, msg: Any) -> tuple[int, Float32Array]:
    """Stamp in ns and action (A,) of a command of one tick.

    Raises:
        MessageError: as `chunk_from_message`, or it holds more than one point.
    """
    chunk = chunk_from_message(spec, msg)
    if len(chunk.actions) != 1:
        raise MessageError(f"command with {len(chunk.actions)} points; an action has exactly 1")
    return chunk.stamp_ns, chunk.actions[0]


def chunk_to_message(make: MessageMaker, spec: RobotSpec, chunk: ActionChunk) -> Any:
    """A chunk as a trajectory, point i at i periods of the spec after the observation's stamp.

    Raises:
        MessageError: actions are not of shape (H, A) with H >= 1, or a value is not finite.
    """
    actions = np.asarray(chunk.actions)
    if actions.ndim != 2 or actions.shape[1] != len(spec.action) or len(actions) < 1:
        raise MessageError(f"actions of shape {actions.shape}, but robot '{spec.name}' has (H, {len(spec.action)})")
    _check_finite(spec, actions)
    return make(
        "trajectory_msgs/msg/JointTrajectory",
        header=make_header(make, chunk.stamp_ns, spec.frame),
        joint_names=list(spec.action_names),
        points=[trajectory_point(make, row, i * spec.period_ns) for i, row in enumerate(actions.astype(np.float64))],
    )


def chunk_from_message(spec: RobotSpec, msg: Any) -> ActionChunk:
    """The chunk of a trajectory; its dimensions may come in any order and are mapped by name.

    Raises:
        MessageError: a dimension is missing, unknown or named twice, there is no point, a point has another
            number of values, or a value is not finite.
    """
    order = _order(spec, tuple(msg.joint_names))
    if not len(msg.points):
        raise MessageError("trajectory without points")
    width = len(spec.action)
    for i, point in enumerate(msg.points):
        if len(point.positions) != width:
            raise MessageError(f"trajectory point {i} has {len(point.positions)} positions for {width} dimensions")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused below
        actions = np.array([point.positions for point in msg.points], np.float64)[:, order].astype(np.float32)
    _check_finite(spec, actions)
    return ActionChunk(stamp_of(msg), actions)


def trajectory_point(make: MessageMaker, positions: Any, after_ns: int) -> Any:
    """A trajectory_msgs/JointTrajectoryPoint of positions (J,) alone, due so long after the trajectory's start."""
    seconds, rest = divmod(after_ns, NANOSECONDS)
    return make(
        "trajectory_msgs/msg/JointTrajectoryPoint",
        positions=positions,
        velocities=np.empty(0),
        accelerations=np.empty(0),
        effort=np.empty(0),
        time_from_start=make("builtin_interfaces/msg/Duration", sec=seconds, nanosec=rest),
    )


def _order(spec: RobotSpec, names: tuple[str, ...]) -> list[int]:
    """For each dimension of the spec, its index among `names`."""
    wanted = spec.action_names
    problems = [f"'{n}' is missing" for n in wanted if n not in names]
    problems += [f"'{n}' is unknown" for n in dict.fromkeys(names) if n not in wanted]
    problems += [f"'{n}' appears {names.count(n)} times" for n in dict.fromkeys(names) if names.count(n) > 1]
    if problems:
        raise MessageError(f"trajectory's joint_names: {', '.join(problems)}; valid are {', '.join(wanted)}")
    return [names.index(n) for n in wanted]


def _check_finite(spec: RobotSpec, actions: Any) -> None:
    rows, columns = np.nonzero(~np.isfinite(actions))
    if len(rows):
        name, value = spec.action_names[columns[0]], actions[rows[0], columns[0]]
        raise MessageError(f"action '{name}' is {value} at point {rows[0]}; it must be finite")

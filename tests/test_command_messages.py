"""An action as ros2_control's controllers and MoveIt Servo take it, and the files that ask for it."""

from dataclasses import replace

import numpy as np
import pytest
from episodes import MAKE
from small_robot import ROBOT

from rollout_manager.arms.controllers import JointTrajectoryController
from vla_policy_node.action_spec import ActionDimension
from vla_policy_node.command_messages import command_message
from vla_policy_node.command_spec import CommandSpec
from vla_policy_node.exceptions import SpecError
from vla_policy_node.messages import duration_ns
from vla_policy_node.spec import RobotSpec, load_spec

ACTION = np.array([0.25, -1.5, 1.0], np.float32)


def robot(*commands: CommandSpec) -> RobotSpec:
    elbow = ActionDimension("turn", "rad", -2, 4, "last", joint="elbow")
    return replace(ROBOT, action=(ROBOT.action[0], elbow, ROBOT.action[2]), commands=commands)


def test_a_trajectory_of_one_point_that_is_due_in_a_period() -> None:
    command = CommandSpec("joint_trajectory", "/jtc/joint_trajectory", ("turn",))
    message = command_message(MAKE, robot(command), command, 5, ACTION)
    assert message.joint_names == ["elbow"]
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (0, 0), "from now on, however late it arrives"
    [point] = message.points
    assert point.positions.tolist() == [-1.5]
    assert duration_ns(point.time_from_start) == robot().period_ns
    controller = JointTrajectoryController(["elbow"], np.zeros(1))
    controller.command(message, 0, np.zeros((2, 1)))
    assert controller.target(robot().period_ns).tolist() == [-1.5]
    later = replace(command, reach_s=1.25, joints=("forearm",))
    message = command_message(MAKE, robot(later), later, 5, ACTION)
    assert message.joint_names == ["forearm"]
    assert duration_ns(message.points[0].time_from_start) == 1_250_000_000


def test_numbers_for_a_forward_controller() -> None:
    command = CommandSpec("forward", "/gripper/commands", ("grip", "grip"), scale=0.04)
    assert command_message(MAKE, robot(command), command, 5, ACTION).data.tolist() == pytest.approx([0.04, 0.04])


def test_a_twist_for_servo() -> None:
    command = CommandSpec(
        "twist", "/servo_node/delta_twist_cmds", ("up", "turn", "grip", "grip", "up", "up"), scale=2.0
    )
    message = command_message(MAKE, robot(command), command, 3_000_000_005, ACTION)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (3, 5)
    assert message.header.frame_id == "world"
    linear, angular = message.twist.linear, message.twist.angular
    assert [linear.x, linear.y, linear.z, angular.x, angular.y, angular.z] == [0.5, -3.0, 2.0, 2.0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (lambda: CommandSpec("servo", "/x", ("up",)), "kind 'servo' is not one of joint_trajectory, forward, twist"),  # type: ignore[arg-type]
        (lambda: CommandSpec("forward", "/x", ()), "needs a topic and at least one dimension"),
        (lambda: CommandSpec("twist", "/x", ("up",)), "a twist has 6 dimensions, not 1"),
        (lambda: CommandSpec("forward", "/x", ("up",), ("a", "b")), "2 joints for 1 dimensions"),
        (lambda: CommandSpec("joint_trajectory", "/x", ("turn",), reach_s=-1.0), "reach_s -1.0 is negative"),
        (lambda: CommandSpec("forward", "/x", ("up",), scale=float("nan")), "scale nan says nothing"),
        (lambda: robot(CommandSpec("forward", "/x", ("down",))), "dimension 'down' is not one of up, turn, grip"),
        (lambda: robot(CommandSpec("joint_trajectory", "/x", ("up",))), "command on '/x' names no joints"),
    ],
)
def test_a_wrong_command_is_refused(command: object, why: str) -> None:
    with pytest.raises(SpecError, match=why):
        command()  # type: ignore[operator]


def test_commands_survive_a_file_and_make_no_other_robot() -> None:
    panda = load_spec("panda")
    assert RobotSpec.from_dict(panda.to_dict()) == panda
    assert replace(panda, commands=()).digest == panda.digest

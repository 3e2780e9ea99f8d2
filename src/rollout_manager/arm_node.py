"""A simulated arm behind the topics of ros2_control, in real time: what a policy meets on a real one.

It takes trajectories as the joint trajectory controller does, or positions as a forward command controller does, tells
of its joints as the joint state broadcaster does, and publishes its cameras late. Whatever it refuses, it says why.
Given a task, it sets it up and judges it as `sim_node` does.
"""

import sys
import threading
from functools import partial
from typing import Any

from rclpy.node import Node
from std_srvs.srv import Trigger

from rollout_manager.arm_tries_node import ArmTries
from rollout_manager.arms.arm import Sight
from rollout_manager.arms.cameras import CameraFaults, Cameras
from rollout_manager.arms.controlled_arm import ControlledArm
from rollout_manager.exceptions import CommandRefusedError, SimulatorError
from rollout_manager.simulation import TRY_PARAMETERS
from vla_policy_node.command_messages import COMMAND_TYPES
from vla_policy_node.diagnostics import ERROR, OK, WARN, Status, diagnostics_message
from vla_policy_node.exceptions import PolicyNodeError
from vla_policy_node.messages import camera_message, joints_to_message, pose_to_message
from vla_policy_node.observation import ImageArray
from vla_policy_node.ros_node import (
    ParameterError,
    declare,
    exit_process,
    message_class,
    rclpy_maker,
    result,
    run_node,
    topic_qos,
)
from vla_policy_node.spec import NANOSECONDS, load_spec
from vla_policy_node.topics import CAMERA_TYPES, DIAGNOSTICS, EE_POSE, JOINT_STATES, MESSAGE_TYPES

PARAMETERS: dict[str, tuple[Any, str]] = {
    "robot": ("panda", "name in config/robots/, or the path of a robot's YAML file: its cameras and command topics"),
    "model": ("panda", "file of config/arms/, or the path of a MuJoCo model"),
    "update_rate_hz": (100.0, "of the controllers and of /joint_states"),
    "camera_rate_hz": (30.0, "of every camera"),
    "camera_delay_s": (0.03, "from the moment that a picture shows to its publication"),
    "camera_jitter_s": (0.005, "standard deviation of that delay"),
    "camera_dropout": (0.0, "share of the pictures that are never published"),
    "camera_frozen": (False, "the last picture again and again"),
    "camera_unplugged": (False, "no pictures"),
    "joints_silent": (False, "no joint states"),
    "open_loop_control": (True, "a trajectory begins at what was commanded last, not at where the joints are measured"),
    "command_latency_s": (0.0, "from a command's arrival to its effect"),
    **TRY_PARAMETERS,
}
CAMERA_FAULTS = ("delay_s", "jitter_s", "dropout", "frozen", "unplugged")


class ArmNode:
    """The arm, its controllers and its cameras as one node."""

    def __init__(self) -> None:
        self.node = Node("arm_node")
        declare(self.node, PARAMETERS)
        self._spec = load_spec(self._get("robot"))
        self._make = rclpy_maker()
        self._lock = threading.Lock()
        self._moved = ControlledArm(self._spec, self._get("model"), self._get("open_loop_control"))
        self._moved.restart(self._now())
        self._arm = self._moved.arm
        self._waiting: list[tuple[int, str, Any]] = []
        self._refused: dict[str, tuple[int, str]] = {}
        self._listen()
        self._publishers = {
            topic: self._publisher(topic, MESSAGE_TYPES[topic]) for topic in (JOINT_STATES, EE_POSE, DIAGNOSTICS)
        }
        self._cameras = self._open_cameras()
        self._tries = ArmTries(self.node, self._spec, self._moved, self._lock, self._make, self._waiting.clear)
        self.node.add_on_set_parameters_callback(self._on_parameters)
        self.node.create_service(Trigger, "~/clear_fault", self._on_clear_fault)
        self.node.create_timer(1 / self._get("update_rate_hz"), self._update)
        self.node.create_timer(1.0, self._tell)

    def close(self) -> None:
        """Stop the cameras."""
        self._cameras.close()

    def _get(self, name: str) -> Any:
        return self.node.get_parameter(name).value

    def _publisher(self, topic: str, kind: str) -> Any:
        return self.node.create_publisher(message_class(kind), topic, topic_qos(topic, lockstep=True))

    def _listen(self) -> None:
        """To every command that the robot's file names."""
        for command in self._spec.commands:
            self.node.create_subscription(
                message_class(COMMAND_TYPES[command.kind]), command.topic, partial(self._on_command, command.topic), 10
            )

    def _open_cameras(self) -> Cameras:
        publishers = {c.name: self._publisher(c.topic, CAMERA_TYPES[c.transport]) for c in self._spec.cameras}

        def publish(name: str, stamp_ns: int, image: ImageArray) -> None:
            publishers[name].publish(camera_message(self._make, self._spec.camera(name), image, stamp_ns))

        self._faults = CameraFaults()
        rate = self._get("camera_rate_hz")
        return Cameras(self._get("model"), self._spec.cameras, rate, self._sight, self._now, publish, self._faults)

    def _sight(self) -> Sight:
        with self._lock:
            return self._arm.sight()

    def _on_parameters(self, changes: list[Any]) -> Any:
        reasons = (
            self._tries.refusal(change.name, change.value) for change in changes if change.name in TRY_PARAMETERS
        )
        return result(next(filter(None, reasons), ""))

    def _on_command(self, topic: str, message: Any) -> None:
        now_ns = self._now()
        self._tries.commanded(now_ns)
        self._waiting.append((now_ns + round(NANOSECONDS * self._get("command_latency_s")), topic, message))

    def _update(self) -> None:
        """Catch up with the clock: commands that are due, physics, joint states."""
        now_ns = self._now()
        for fault in CAMERA_FAULTS:
            setattr(self._faults, fault, self._get(f"camera_{fault}"))
        with self._lock:
            self._moved.advance(now_ns)
        self._take_commands(now_ns)  # Behind the physics: what a command begins with is the state of now.
        if not self._get("joints_silent"):
            self._publish_joints(now_ns)
        self._tries.update(now_ns)

    def _take_commands(self, now_ns: int) -> None:
        due = [one for one in self._waiting if one[0] <= now_ns]
        self._waiting[:] = [one for one in self._waiting if one[0] > now_ns]
        for _, topic, message in due:
            try:
                self._moved.command(topic, message, now_ns)
            except CommandRefusedError as error:
                self._refused[topic] = self._refused.get(topic, (0, ""))[0] + 1, str(error)
                self.node.get_logger().error(f"{topic}: {error}", throttle_duration_sec=1.0)

    def _publish_joints(self, now_ns: int) -> None:
        joints, hand = self._arm.joint_state(), self._arm.hand()
        self._publishers[JOINT_STATES].publish(joints_to_message(self._make, joints, now_ns))
        self._publishers[EE_POSE].publish(pose_to_message(self._make, hand, now_ns, self._spec.frame))

    def _on_clear_fault(self, request: Any, response: Any) -> Any:
        with self._lock:
            self._arm.clear_fault()
            self._moved.open_loop = self._get("open_loop_control")
            self._moved.restart(self._now())
        response.success, response.message = True, "the arm obeys again, from where it is"
        return response

    def _tell(self) -> None:
        statuses = [
            Status(topic, WARN if count else OK, reason or "obeys", {"refused": str(count)})
            for topic, (count, reason) in ((t, self._refused.get(t, (0, ""))) for t in self._moved.topics)
        ]
        fault = self._arm.fault
        statuses.append(Status("hardware", ERROR if fault else OK, fault or "obeys"))
        statuses.append(Status("cameras", ERROR if self._cameras.failure else OK, self._cameras.failure or "publish"))
        message = diagnostics_message(self._make, "arm_node", self._now(), statuses)
        self._publishers[DIAGNOSTICS].publish(message)

    def _now(self) -> int:
        return int(self.node.get_clock().now().nanoseconds)


def main() -> int:
    """Run the node until it is stopped; returns the exit status."""
    return run_node(ArmNode, (SimulatorError, PolicyNodeError, ParameterError))


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    exit_process(main())

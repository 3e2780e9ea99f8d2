"""An arm and the controllers that a robot's file names, moved on together: the same in real time and in lockstep.

Pure: times are integer ns of whoever's clock, and messages come from ROS or from rosbags.
"""

from typing import Any

from rollout_manager.arms.arm import Arm
from rollout_manager.arms.controllers import Controller, ForwardCommandController, JointTrajectoryController
from rollout_manager.exceptions import SimulatorError
from vla_policy_node.observation import Float64Array
from vla_policy_node.spec import NANOSECONDS, RobotSpec


class ControlledArm:
    """An `Arm` that obeys messages on its controllers' topics."""

    def __init__(self, spec: RobotSpec, model: str = "panda", open_loop: bool = True) -> None:
        """
        Args:
            spec: its `commands` say which controllers there are.
            model: as for `Arm`.
            open_loop: as for `JointTrajectoryController`.

        Raises:
            SimulatorError: the robot names a joint that the model lacks, a kind of command that no controller here
                takes, or no command at all.
        """
        self.arm = Arm(model)
        self.open_loop = open_loop
        self._spec = spec
        self._period_ns = round(NANOSECONDS * self.arm.period_s)
        self._places = self._find_joints()
        self._stepped_ns = 0
        self._controllers: dict[str, Controller] = {}
        self.restart(0)

    @property
    def topics(self) -> tuple[str, ...]:
        """Of its controllers."""
        return tuple(self._places)

    def restart(self, now_ns: int) -> None:
        """New controllers, each with its joints where they are now: whatever was commanded is forgotten."""
        measured = self.arm.measured()[0]
        self._stepped_ns = now_ns
        for command in self._spec.commands:
            places = self._places[command.topic]
            names, at = [self.arm.joints[place] for place in places], measured[places]
            self._controllers[command.topic] = (
                JointTrajectoryController(names, at, self.open_loop)
                if command.kind == "joint_trajectory"
                else ForwardCommandController(names, at)
            )

    def command(self, topic: str, message: Any, now_ns: int) -> None:
        """Take a controller's message. Raises: CommandRefusedError: as the controller."""
        self._controllers[topic].command(message, now_ns, self.arm.measured()[:, self._places[topic]])

    def target(self, now_ns: int) -> Float64Array:
        """Where the controllers want the joints now, (J,), ordered as `Arm.joints`."""
        target: Float64Array = self.arm.measured()[0]
        for topic, controller in self._controllers.items():
            target[self._places[topic]] = controller.target(now_ns)
        return target

    def advance(self, now_ns: int) -> None:
        """Physics up to now. Where the clock jumped by more than a second, or back, nothing is made up for."""
        if now_ns - self._stepped_ns > NANOSECONDS or now_ns < self._stepped_ns:
            self._stepped_ns = now_ns - self._period_ns
        while self._stepped_ns + self._period_ns <= now_ns:
            self._stepped_ns += self._period_ns
            self.arm.step(self.target(self._stepped_ns))

    def _find_joints(self) -> dict[str, list[int]]:
        """By topic, the places of its joints among the arm's."""
        known, found = self.arm.joints, dict[str, list[int]]()
        for command in self._spec.commands:
            names = command.joints or self._spec.joints_of(command.dimensions)
            if command.kind == "twist":
                raise SimulatorError(f"arm: '{command.topic}' takes twists, for which there is no controller here")
            if unknown := [name for name in names if name not in known]:
                raise SimulatorError(f"arm: joint '{unknown[0]}' is not one of {', '.join(known)}")
            found[command.topic] = [known.index(name) for name in names]
        if not found:
            raise SimulatorError(f"robot '{self._spec.name}' has no commands: it names no controllers to stand in for")
        return found

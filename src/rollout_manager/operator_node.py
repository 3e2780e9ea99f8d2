"""The operator's terminal: keys to the services of the operator's station, and its prompts to the screen.

With a teleoperation's mapping its keys stand for a gamepad as well, on `/joy`.
"""

import contextlib
import json
import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Any

import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from rollout_manager.exceptions import RolloutError
from rollout_manager.operator_keys import HELP, TEXTS, Keyboard, Said, VirtualJoy, running_line, status_line
from rollout_manager.station import StationState
from rollout_manager.teleop import load_mapping
from vla_policy_node.exceptions import PolicyNodeError
from vla_policy_node.ros_node import declare, exit_process, message_class, rclpy_maker, run_node, topic_qos
from vla_policy_node.topics import JOY, MESSAGE_TYPES, STATION_STATE

PARAMETERS: dict[str, tuple[Any, str]] = {
    "station": ("station_node", "the operator's station"),
    "teleop": ("", "name in config/teleop/, or the path of a YAML file, whose keys stand for a gamepad; empty: none"),
}
LOOK_S = 0.02
JOY_EVERY = 2
"""Looks between two messages on /joy."""


class OperatorNode:
    """Reads keys, and calls the station; never waits for it."""

    def __init__(self) -> None:
        """Raises: TeleopError: no such mapping, or one whose keys are taken."""
        self.node: Node = rclpy.create_node("operator_node")
        declare(self.node, PARAMETERS)
        self._keyboard = Keyboard()
        self._make = rclpy_maker()
        self._looks = 0
        self._said = ""
        self._open_line = False
        self._joy: VirtualJoy | None = None
        if mapping := self._get("teleop"):
            self._joy = VirtualJoy(load_mapping(mapping))
            self._joy_publisher = self.node.create_publisher(
                message_class(MESSAGE_TYPES[JOY]), JOY, topic_qos(JOY, True)
            )
        station = self._get("station")
        self._setter = self.node.create_client(SetParameters, f"{station}/set_parameters")
        words = ("home", "start", "success", "failure", "discard", "stop")
        self._words = {word: self.node.create_client(Trigger, f"{station}/{word}") for word in words}
        kind = message_class(MESSAGE_TYPES[STATION_STATE])
        self.node.create_subscription(kind, STATION_STATE, self._on_state, topic_qos(STATION_STATE, True))
        self.node.create_timer(LOOK_S, self._look)
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(single_keys())
        self._print(HELP)

    def close(self) -> None:
        """Give the terminal back as it was."""
        self._stack.close()

    def _get(self, name: str) -> Any:
        return self.node.get_parameter(name).value

    def _look(self) -> None:
        """Take the keys that have come; tell of the gamepad that they stand for."""
        while select.select([sys.stdin], [], [], 0.0)[0]:
            read = os.read(sys.stdin.fileno(), 64)
            if not read:
                raise ExternalShutdownException  # Nobody is there any more.
            for key in read.decode(errors="ignore"):
                self._press(key)
        self._looks += 1
        if self._joy is not None and self._looks % JOY_EVERY == 0:
            axes, buttons = self._joy.state(self._now())
            self._joy_publisher.publish(message_class(MESSAGE_TYPES[JOY])(axes=axes, buttons=buttons))

    def _press(self, key: str) -> None:
        typing = self._keyboard.typing
        if not typing and self._joy is not None and self._joy.press(key, self._now()):
            return
        said = self._keyboard.press(key)
        if said is not None:
            self._say(said)
        elif self._keyboard.typing:
            self._show(f"{self._keyboard.typing}: {self._keyboard.typed}")
        elif typing:
            self._print(f"{typing}: not changed")

    def _say(self, said: Said) -> None:
        if said.what in TEXTS.values():
            client: Any = self._setter
            parameter = Parameter(said.what, value=said.text).to_parameter_msg()
            request: Any = SetParameters.Request(parameters=[parameter])
            self._print(f"{said.what}: {said.text}")
        else:
            client, request = self._words[said.what], Trigger.Request()
        if not client.service_is_ready():
            self._print(f"{said.what}: the operator's station '{self._get('station')}' is not there")
            return
        client.call_async(request).add_done_callback(lambda future: self._answered(said.what, future.result()))

    def _answered(self, what: str, answer: Any) -> None:
        refused = [r.reason for r in answer.results if not r.successful] if hasattr(answer, "results") else []
        if refused or not getattr(answer, "success", True):
            self._print(f"{what}: {'; '.join(refused) or answer.message}")

    def _on_state(self, message: Any) -> None:
        state = StationState.from_dict(json.loads(message.data))
        if (line := status_line(state)) != self._said:
            self._said = line
            self._print(line)
        elif state.phase == "running" and not self._keyboard.typing:
            self._show(running_line(state))

    def _print(self, line: str) -> None:
        """A line of its own."""
        sys.stdout.write(f"{chr(10) if self._open_line else ''}{line}\n")
        sys.stdout.flush()
        self._open_line = False

    def _show(self, line: str) -> None:
        """A line that the next one is written over, where this is a terminal."""
        if sys.stdout.isatty():
            sys.stdout.write(f"\r\x1b[K{line}")
            sys.stdout.flush()
            self._open_line = True

    def _now(self) -> int:
        return int(self.node.get_clock().now().nanoseconds)


@contextlib.contextmanager
def single_keys() -> Iterator[None]:
    """Keys arrive one by one, and are not echoed; Ctrl-C still interrupts. Of no effect where stdin is no terminal."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def main() -> int:
    """Run the node until it is stopped; returns the exit status."""
    return run_node(OperatorNode, (RolloutError, PolicyNodeError))


if __name__ == "__main__":
    exit_process(main())

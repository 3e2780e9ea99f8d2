"""How soon an arm is told to hold: from a fault to the first holding command, the arm and the policy as processes.

    python benchmarks/bench_stops_node.py --trials 20

The stand-in arm publishes joints at 100 Hz and two cameras at 30 Hz, 30 ms late; a policy with random weights drives it
at 30 Hz. Then the emergency stop is pressed, the cameras are unplugged, or the joints fall silent, until a command
arrives that is held for it: /policy/events says so, with the command's stamp. Or the policy begins to answer NaN, as a
network does once one of its numbers is; then the time is from its first such answer.

Where a stream falls silent, two more times to the holding command are told: from the arm's answer that it has the
fault, which is a little after it has it, and from the stream's last message. Before, while the policy drove, the
intervals of each stream are measured, and how often it began to hold is counted: a limit of silence that is too short
for a stream shows there.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import yaml
from _operator_node import Operator
from _random_policy import save_policy
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter

from rollout_manager.graph import Graph, GraphConfig, NodeConfig, ros_environment
from vla_policy_node.diagnostics import ERROR
from vla_policy_node.messages import stamp_of
from vla_policy_node.ros_node import message_class, topic_qos
from vla_policy_node.spec import RobotSpec, load_spec
from vla_policy_node.topics import ACTION, CAMERA_TYPES, EVENTS, JOINT_STATES, MESSAGE_TYPES, camera_topic

DOMAIN = 92
TASK, BROKEN = "move", "divide zero by zero"
"""Instructions: the features behind the second are not numbers."""
GIVE_UP_S = 2.0
PERIODS = {"emergency stop": 1, "cameras unplugged": 2, "joints silent": 2, "policy answers NaN": 2}
"""Goals, in periods of the robot."""
FAULTS = {"cameras unplugged": "camera_unplugged", "joints silent": "joints_silent"}
"""The arm's parameter behind a fault."""
STREAMS = {"cameras unplugged": camera_topic("wrist", "raw"), "joints silent": JOINT_STATES}
"""What falls silent with it."""
REASONS = {"emergency stop": "e-stop", **{fault: f"{topic}: silent" for fault, topic in STREAMS.items()}}
"""What a command says that is held for a fault."""


class Timer(Operator):
    """Enables the policy, breaks something, and notes when the first holding command arrives."""

    def __init__(self, notes: Path) -> None:
        """Args: notes: file that the policy's process notes chunks that are not finite in."""
        super().__init__(TASK)
        self._notes = notes
        self._commands = 0
        self._arrived: dict[int, float] = {}
        """When the command of each stamp came."""
        self._reason, self._held_ns = "", 0
        self._driving = False
        self.driven = self.holds = 0
        """Commands that came while the policy drove and nothing was broken, and how often it began to hold then."""
        self.intervals: dict[str, list[float]] = {topic: [] for topic in STREAMS.values()}
        """Seconds between a stream's messages meanwhile."""
        self.quiet: dict[str, list[float]] = {fault: [] for fault in STREAMS}
        """Seconds from a stream's last message to the first holding command."""
        self.had: dict[str, list[float]] = {fault: [] for fault in STREAMS}
        """Seconds from the arm's answer that it has a fault to the first holding command."""
        self._had_at = 0.0
        self._last = dict.fromkeys(STREAMS.values(), 0.0)
        # Found before it is needed: to find a service takes longer than what is measured.
        self._faults = self.node.create_client(SetParameters, "arm_node/set_parameters")
        self.until(self._faults.service_is_ready)
        self._listen(ACTION, MESSAGE_TYPES[ACTION], self._on_action, True)
        self._listen(EVENTS, MESSAGE_TYPES[EVENTS], self._on_event, True)
        self._listen(STREAMS["joints silent"], MESSAGE_TYPES[JOINT_STATES], partial(self._on_sample, JOINT_STATES))
        wrist = STREAMS["cameras unplugged"]
        self._listen(wrist, CAMERA_TYPES["raw"], partial(self._on_sample, wrist))

    def _listen(self, topic: str, kind: str, callback: Callable[[Any], None], reliable: bool = False) -> None:
        self.node.create_subscription(message_class(kind), topic, callback, topic_qos(topic, reliable))

    def drive(self) -> None:
        """Clear a stop, enable the policy, and let it drive for a second."""
        self.enable()
        self._commands = 0
        self.until(lambda: self._commands > 10)  # It knows where the arm is, and all streams have come.
        self._commands, self._driving = 0, True
        self._last = dict.fromkeys(self._last, 0.0)
        self.until(lambda: self._commands > 20)
        self._driving = False
        self.driven += self._commands

    def held_after(self, fault: str, act: Callable[[], None]) -> float:
        """Seconds from what is done to the arrival of the first command that is held for it; not a number where none
        comes."""
        self._reason, self._held_ns = REASONS[fault], 0
        begun = time.time()
        act()
        return self._held_at() - begun if self.until(self._held_at, GIVE_UP_S) else float("nan")

    def silence(self, fault: str) -> float:
        """As `held_after`, of a stream that falls silent; what of it is after the arm's answer, and after the last
        message, is kept."""
        after = self.held_after(fault, partial(self._break, FAULTS[fault]))
        for kept, since in ((self.had, self._had_at), (self.quiet, self._last[STREAMS[fault]])):
            kept[fault].append(self._held_at() - since if after == after else after)
        self.set(**{FAULTS[fault]: False})
        return after

    def _break(self, parameter: str) -> None:
        broken = Parameter(parameter, value=True).to_parameter_msg()
        answer = self._faults.call_async(SetParameters.Request(parameters=[broken]))
        answer.add_done_callback(lambda _: setattr(self, "_had_at", time.time()))

    def held_after_nan(self) -> float:
        """Seconds from the first chunk of NaN to the first holding command, both in the policy's process."""
        before = len(self._noted())
        self.instruct(BROKEN)
        came = self.until(lambda: len(self._noted()) > before, GIVE_UP_S)
        self.instruct(TASK)
        if not came:
            return float("nan")
        note = json.loads(self._noted()[-1])
        return float(note["held_ns"] - note["chunk_ns"]) / 1e9

    def _noted(self) -> list[str]:
        return self._notes.read_text().splitlines() if self._notes.exists() else []

    def _held_at(self) -> float:
        """When the first held command came; 0 where none did."""
        return self._arrived.get(self._held_ns, 0.0)

    def _on_action(self, message: Any) -> None:
        self._commands += 1
        self._arrived.setdefault(stamp_of(message), time.time())

    def _on_event(self, message: Any) -> None:
        [told] = message.status
        if told.level != bytes([ERROR]):
            return
        self.holds += self._driving
        if not self._held_ns and self._reason and self._reason in told.message:
            self._held_ns = stamp_of(message)

    def _on_sample(self, topic: str, message: Any) -> None:
        last, self._last[topic] = self._last[topic], time.time()
        if self._driving and last:
            self.intervals[topic].append(self._last[topic] - last)


def measure(operator: Timer, trials: int) -> dict[str, list[float]]:
    """Seconds to the first holding command, by fault."""
    found: dict[str, list[float]] = {name: [] for name in PERIODS}
    for _ in range(trials):
        operator.drive()
        found["emergency stop"].append(operator.held_after("emergency stop", partial(operator.press, True)))
        operator.press(False)
        for name in FAULTS:
            operator.drive()
            found[name].append(operator.silence(name))
        operator.drive()
        found["policy answers NaN"].append(operator.held_after_nan())
    return found


def with_limits(spec: RobotSpec, camera_s: float | None, joints_s: float | None) -> RobotSpec:
    """A robot with other limits of silence, in seconds, where they are given."""
    if camera_s is not None:
        spec = replace(spec, cameras=tuple(replace(camera, max_silence_s=camera_s) for camera in spec.cameras))
    return spec if joints_s is None else replace(spec, max_proprioception_silence_s=joints_s)


def start_policy(notes: Path, parameters: Mapping[str, Any]) -> "subprocess.Popen[bytes]":
    """The policy node's process, which notes what only it can know."""
    arguments = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    script = Path(__file__).with_name("_noting_policy_node.py")
    return subprocess.Popen([sys.executable, str(script), str(notes), "--ros-args", *arguments])


def main() -> int:
    """Print a line a fault; returns 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--camera-silence", type=float, help="max_silence_s of both cameras; left out: the robot's")
    parser.add_argument("--joint-silence", type=float, help="max_proprioception_silence_s; left out: the robot's")
    parser.add_argument("--camera-jitter", type=float, default=0.005, help="the arm's camera_jitter_s")
    given = parser.parse_args()
    os.environ.update(ros_environment(DOMAIN))
    spec, missed = with_limits(load_spec("panda"), given.camera_silence, given.joint_silence), False
    with tempfile.TemporaryDirectory() as folder:
        robot = Path(folder) / "panda.yaml"
        robot.write_text(yaml.safe_dump(spec.to_dict()))
        save_policy(Path(folder) / "checkpoint", spec, 30, {TASK: 1.0, BROKEN: float("nan")})
        notes = Path(folder) / "notes.jsonl"
        parameters = {
            "robot": str(robot),
            "mode": "real_time",
            "checkpoint": f"{folder}/checkpoint",
            "execute_every": 10,
        }
        with Graph(
            GraphConfig((NodeConfig("arm", {"camera_jitter_s": given.camera_jitter}),), DOMAIN, Path(folder) / "logs")
        ):
            policy = start_policy(notes, parameters)
            try:
                rclpy.init()
                operator = Timer(notes)
                found = measure(operator, given.trials)
                rclpy.shutdown()
            finally:
                policy.terminate()
                policy.wait(20.0)
    print(f"a period is {spec.period_ns / 1e6:.1f} ms; load {os.getloadavg()[0]:.1f}")
    print(f"driving: {operator.driven} commands, it began to hold {operator.holds} times")
    for topic, intervals in operator.intervals.items():
        p50, p99, most = 1e3 * np.quantile(intervals, [0.5, 0.99, 1.0])
        limit = f"may be silent for {1e3 * spec.silence_limit_s(topic):g} ms"
        print(f"{topic}: {limit}; intervals p50 {p50:.1f}, p99 {p99:.1f}, max {most:.1f} ms of {len(intervals)}")
    for name, seconds in found.items():
        ms = 1e3 * np.array(seconds)
        goal = PERIODS[name] * spec.period_ns / 1e6
        within = int((ms <= goal).sum())
        missed |= within < len(ms)
        never = int(np.isnan(ms).sum())
        print(f"{name}: p50 {np.nanmedian(ms):.1f}, max {np.nanmax(ms):.1f} ms; {never} never")
        print(f"    {within} of {len(ms)} within {goal:.0f} ms")
        if name in STREAMS:
            for since, kept in (("the arm has it", operator.had), ("the last message", operator.quiet)):
                part = 1e3 * np.array(kept[name])
                p50, most, kept_ms = np.nanmedian(part), np.nanmax(part), int((part <= goal).sum())
                print(f"    of it since {since}: p50 {p50:.1f}, max {most:.1f} ms; {kept_ms} within {goal:.0f} ms")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())

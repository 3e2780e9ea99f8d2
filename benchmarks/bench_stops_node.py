"""How soon an arm is told to hold: from a fault to the first holding command, the arm and the policy as processes.

    python benchmarks/bench_stops_node.py --trials 20

The stand-in arm publishes joints at 100 Hz and two cameras at 30 Hz, 30 ms late; a policy with random weights drives it
at 30 Hz. Then the emergency stop is pressed, the cameras are unplugged, or the joints fall silent. A holding command is
known by its stamp: the moment that it was sent, while others bear the stamp of the picture that they answer. Or the
policy begins to answer NaN, as a network does once one of its numbers is; then the time is from its first such answer.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from _operator_node import Operator
from _random_policy import save_policy

from rollout_manager.graph import Graph, GraphConfig, NodeConfig, ros_environment
from vla_policy_node.messages import stamp_of
from vla_policy_node.ros_node import message_class, topic_qos
from vla_policy_node.spec import load_spec
from vla_policy_node.topics import ACTION, MESSAGE_TYPES

DOMAIN = 92
TASK, BROKEN = "move", "divide zero by zero"
"""Instructions: the features behind the second are not numbers."""
FRESH_S = 0.015
"""Age of a stamp on arrival below which the command is a hold: pictures are 30 ms late."""
GIVE_UP_S = 2.0
PERIODS = {"emergency stop": 1, "cameras unplugged": 2, "joints silent": 2, "policy answers NaN": 2}
"""Goals, in periods of the robot."""
FAULTS = {"cameras unplugged": "camera_unplugged", "joints silent": "joints_silent"}
"""The arm's parameter behind a fault."""


class Timer(Operator):
    """Enables the policy, breaks something, and notes when the first holding command arrives."""

    def __init__(self, notes: Path) -> None:
        """Args: notes: file that the policy's process notes chunks that are not finite in."""
        super().__init__(TASK)
        self._notes = notes
        self._held: float | None = None
        self._commands = 0
        self.node.create_subscription(
            message_class(MESSAGE_TYPES[ACTION]), ACTION, self._on_action, topic_qos(ACTION, True)
        )

    def drive(self) -> None:
        """Clear a stop, enable the policy, and let it drive for a second."""
        self.enable()
        self._commands = 0
        self.until(lambda: self._commands > 30)

    def held_after(self, act: Callable[[], None]) -> float:
        """Seconds from what is done to the first holding command's arrival; not a number where none comes."""
        self._held = None
        begun = time.time()
        act()
        return self._held - begun if self.until(lambda: self._held, GIVE_UP_S) and self._held else float("nan")

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

    def _on_action(self, message: Any) -> None:
        now = time.time()
        self._commands += 1
        if now - stamp_of(message) / 1e9 < FRESH_S and self._held is None:
            self._held = now


def measure(operator: Timer, trials: int) -> dict[str, list[float]]:
    """Seconds to the first holding command, by fault."""
    found: dict[str, list[float]] = {name: [] for name in PERIODS}
    for _ in range(trials):
        operator.drive()
        found["emergency stop"].append(operator.held_after(partial(operator.press, True)))
        operator.press(False)
        for name, fault in FAULTS.items():
            operator.drive()
            found[name].append(operator.held_after(partial(operator.set, **{fault: True})))
            operator.set(**{fault: False})
        operator.drive()
        found["policy answers NaN"].append(operator.held_after_nan())
    return found


def start_policy(notes: Path, parameters: Mapping[str, Any]) -> "subprocess.Popen[bytes]":
    """The policy node's process, which notes what only it can know."""
    arguments = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    script = Path(__file__).with_name("_noting_policy_node.py")
    return subprocess.Popen([sys.executable, str(script), str(notes), "--ros-args", *arguments])


def main() -> int:
    """Print a line a fault; returns 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    given = parser.parse_args()
    os.environ.update(ros_environment(DOMAIN))
    spec, missed = load_spec("panda"), False
    with tempfile.TemporaryDirectory() as folder:
        save_policy(Path(folder) / "checkpoint", spec, 30, {TASK: 1.0, BROKEN: float("nan")})
        notes = Path(folder) / "notes.jsonl"
        parameters = {"robot": "panda", "mode": "real_time", "checkpoint": f"{folder}/checkpoint", "execute_every": 10}
        with Graph(GraphConfig((NodeConfig("arm", {}),), DOMAIN, Path(folder) / "logs")):
            policy = start_policy(notes, parameters)
            try:
                rclpy.init()
                found = measure(Timer(notes), given.trials)
                rclpy.shutdown()
            finally:
                policy.terminate()
                policy.wait(20.0)
    print(f"a period is {spec.period_ns / 1e6:.1f} ms, max_skew_s {spec.max_skew_s:g}; load {os.getloadavg()[0]:.1f}")
    for name, seconds in found.items():
        ms = 1e3 * np.array(seconds)
        goal = PERIODS[name] * spec.period_ns / 1e6
        within = int((ms <= goal).sum())
        missed |= within < len(ms)
        never = int(np.isnan(ms).sum())
        print(f"{name}: p50 {np.nanmedian(ms):.1f}, max {np.nanmax(ms):.1f} ms; {never} never")
        print(f"    {within} of {len(ms)} within {goal:.0f} ms")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())

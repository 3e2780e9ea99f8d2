"""How soon an arm is told to hold: from a fault to the first holding command, the arm and the policy as processes.

    python benchmarks/bench_stops_node.py --trials 20

The stand-in arm publishes joints at 100 Hz and two cameras at 30 Hz, 30 ms late; a policy with random weights drives it
at 30 Hz. Then the emergency stop is pressed, the cameras are unplugged, or the joints fall silent. A holding command is
known by its stamp: the moment that it was sent, while others bear the stamp of the picture that they answer.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import torch
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from rollout_manager.graph import Graph, GraphConfig, NodeConfig, ros_environment
from vla_policy_node.checkpoint import Lineage, save_checkpoint
from vla_policy_node.messages import stamp_of, text_to_message
from vla_policy_node.network.config import load_network_config
from vla_policy_node.network.vla import VLANetwork
from vla_policy_node.normalization import Statistics
from vla_policy_node.ros_node import message_class, rclpy_maker, topic_qos
from vla_policy_node.spec import RobotSpec, load_spec
from vla_policy_node.topics import ACTION, ESTOP, INSTRUCTION, MESSAGE_TYPES

DOMAIN = 92
TASK = "move"
FRESH_S = 0.015
"""Age of a stamp on arrival below which the command is a hold: pictures are 30 ms late."""
GIVE_UP_S = 2.0
PERIODS = {"emergency stop": 1, "cameras unplugged": 2, "joints silent": 2}
"""Goals, in periods of the robot."""
FAULTS = {"cameras unplugged": "camera_unplugged", "joints silent": "joints_silent"}
"""The arm's parameter behind a fault."""


def save_policy(folder: Path, spec: RobotSpec) -> None:
    """A network of the default size with random weights."""
    torch.manual_seed(0)
    width, actions = len(spec.proprioception), len(spec.action)
    statistics = Statistics((0.0,) * width, (1.0,) * width, (0.0,) * actions, (1.0,) * actions)
    config = replace(load_network_config("small"), horizon=30)
    network = VLANetwork(config, spec, statistics, encoder_digests={"language": "0" * 16})
    network.language.remember({TASK: torch.randn(1, network.language.dimension)})
    save_checkpoint(folder, network, Lineage("", {}, 0, {}, {}))


class Operator:
    """Enables the policy, breaks something, and notes when the first holding command arrives."""

    def __init__(self) -> None:
        self.node: Any = rclpy.create_node("bench_operator")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._make = rclpy_maker()
        self._held: float | None = None
        self._commands = 0
        self._estop = self._publisher(ESTOP)
        self._instruction = self._publisher(INSTRUCTION)
        self.node.create_subscription(
            message_class(MESSAGE_TYPES[ACTION]), ACTION, self._on_action, topic_qos(ACTION, True)
        )
        self.until(lambda: self.node.count_publishers(ACTION) and self.node.count_subscribers(INSTRUCTION) >= 1)
        self._instruction.publish(text_to_message(self._make, TASK))

    def until(self, what: Callable[[], Any], seconds: float = 60.0) -> bool:
        """Spin until something is so; False where it is not within the time."""
        end = time.monotonic() + seconds
        while not what():
            if time.monotonic() > end:
                return False
            self._executor.spin_once(timeout_sec=0.05)
        return True

    def press(self, pressed: bool) -> None:
        """The emergency stop."""
        self._estop.publish(self._make(MESSAGE_TYPES[ESTOP], data=pressed))

    def set(self, **values: Any) -> None:
        """Parameters of the arm."""
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        self._call(SetParameters, "arm_node/set_parameters", SetParameters.Request(parameters=parameters))

    def drive(self) -> None:
        """Clear a stop, enable the policy, and let it drive for a second."""
        self._call(Trigger, "policy_node/clear_stop", Trigger.Request())
        enable = SetBool.Request(data=True)
        self.until(lambda: self._call(SetBool, "policy_node/enable", enable).success)
        self._commands = 0
        self.until(lambda: self._commands > 30)

    def held_after(self, act: Callable[[], None]) -> float:
        """Seconds from what is done to the first holding command's arrival; not a number where none comes."""
        self._held = None
        begun = time.time()
        act()
        return self._held - begun if self.until(lambda: self._held, GIVE_UP_S) and self._held else float("nan")

    def _on_action(self, message: Any) -> None:
        now = time.time()
        self._commands += 1
        if now - stamp_of(message) / 1e9 < FRESH_S and self._held is None:
            self._held = now

    def _publisher(self, topic: str) -> Any:
        return self.node.create_publisher(message_class(MESSAGE_TYPES[topic]), topic, topic_qos(topic, True))

    def _call(self, kind: Any, service: str, request: Any) -> Any:
        client = self.node.create_client(kind, service)
        self.until(client.service_is_ready)
        future = client.call_async(request)
        self.until(future.done)
        self.node.destroy_client(client)
        return future.result()


def measure(operator: Operator, trials: int) -> dict[str, list[float]]:
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
    return found


def main() -> int:
    """Print a line a fault; returns 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    given = parser.parse_args()
    os.environ.update(ros_environment(DOMAIN))
    spec, missed = load_spec("panda"), False
    with tempfile.TemporaryDirectory() as folder:
        save_policy(Path(folder) / "checkpoint", spec)
        policy = {"robot": "panda", "mode": "real_time", "checkpoint": f"{folder}/checkpoint", "execute_every": 10}
        nodes = (NodeConfig("arm", {}), NodeConfig("policy", policy))
        with Graph(GraphConfig(nodes, DOMAIN, Path(folder) / "logs")):
            rclpy.init()
            found = measure(Operator(), given.trials)
            rclpy.shutdown()
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

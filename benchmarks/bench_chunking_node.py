"""Slow networks and ways of executing their chunks: the stand-in arm reaches past an obstacle, over DDS, at 30 Hz.

    python benchmarks/bench_chunking_node.py --trials 5 --json chunking.json --plot chunking.svg
    python benchmarks/bench_chunking_node.py --trials 10 --clock simulated

The arm (`arm_node`: MuJoCo, ros2_control's topics, a camera 30 ms late) and the policy node are processes of their own.
With `--clock simulated` the same arm, controller, control loop and policy are in one process, whose time is counted:
what else the machine does is of no effect then, nor is what the policy itself computes. The policy, which is that of
`_chunking_task.py`, is scripted, answers with one of two ways past the obstacle, and is slowed to what a network would
take. Chunks have 32 actions, and 16 of them are executed before the next one is asked for:

    synchronous         the arm holds while the network thinks, then executes 16 actions from the chunk's first one on
    replan              the old chunk goes on while the network thinks; the new one is gone over to at once
    ensemble            a chunk every tick that the network is free, all of them averaged
    guided, blended     real-time chunking of a flow head, and as of a head that makes its chunk in one step

A try succeeds if the hand comes within 2 cm of its target in 5 s, and has stayed out of the obstacle. Each way has the
same targets and the same seeds. A tick is missed if no command is sent in it; jerk is the root mean square of the third
difference of what is sent to the joints from the second chunk on, over the period cubed; off is that of the hand's
distance from the nearer of the two ways.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import yaml
from _chunking_policy_node import RECORD
from _chunking_simulation import simulated
from _chunking_task import HOME, JOINTS, hands, make_task
from _chunking_tries import (
    DELAYS_MS,
    EVERY,
    STAYS_S,
    TIME_S,
    WAYS,
    Case,
    Sent,
    Try,
    arrived,
    judged,
    plot,
    table,
)
from _operator_node import Caller
from std_srvs.srv import SetBool, Trigger

from rollout_manager.graph import PARENT_VARIABLE, Graph, GraphConfig, NodeConfig, ros_environment
from vla_policy_node.command_messages import COMMAND_TYPES
from vla_policy_node.commands import trajectory_point
from vla_policy_node.messages import make_header, text_to_message
from vla_policy_node.observation import Float64Array
from vla_policy_node.ros_node import message_class, rclpy_maker, topic_qos
from vla_policy_node.spec import CameraSpec, RobotSpec, load_spec
from vla_policy_node.topics import DIAGNOSTICS, EE_POSE, INSTRUCTION, JOINT_STATES, MESSAGE_TYPES

DOMAIN = 93
HOME_S, QUIET_S, AGAIN = 1.5, 0.3, 5
"""What the way home takes and how long nothing is sent before it begins, in s; how often it is begun at most: on a
machine that does other things the arm's hardware may stop it."""


class Operator(Caller):
    """Brings the arm home, has the policy try, and looks on."""

    def __init__(self, spec: RobotSpec, record: Path) -> None:
        super().__init__()
        self._spec, self._record, self._make = spec, record, rclpy_maker()
        self._command = spec.commands[0]
        self._trajectory = self.publisher(self._command.topic, COMMAND_TYPES[self._command.kind])
        self._instruction = self.publisher(INSTRUCTION, MESSAGE_TYPES[INSTRUCTION])
        self.hand: list[tuple[float, Float64Array]] = []
        self._joints: Float64Array = np.full(JOINTS, np.nan)
        self._delay_ticks = 0
        for topic, take in ((EE_POSE, self._on_pose), (JOINT_STATES, self._on_joints), (DIAGNOSTICS, self._on_told)):
            self.node.create_subscription(message_class(MESSAGE_TYPES[topic]), topic, take, topic_qos(topic, True))
        self.until(lambda: self.node.count_subscribers(INSTRUCTION) >= 1 and np.isfinite(self._joints).all())

    def go_home(self) -> None:
        """By a trajectory of one point; past the policy, which is disabled, once it has braked."""
        for _ in range(AGAIN):
            self.until(lambda: time.time() - self._record.stat().st_mtime > QUIET_S)
            self.call(Trigger, "arm_node/clear_fault", Trigger.Request())
            header = make_header(self._make, 0, self._spec.frame)
            names = list(self._spec.joints_of(self._command.dimensions))
            points = [trajectory_point(self._make, HOME, round(HOME_S * 1e9))]
            kind = COMMAND_TYPES[self._command.kind]
            self._trajectory.publish(self._make(kind, header=header, joint_names=names, points=points))
            if self.until(lambda: np.abs(self._joints - HOME).max() < 0.01, 2 * HOME_S):
                return
        raise RuntimeError(f"the arm did not come home: joints at {self._joints.round(3).tolist()}")

    def attempt(self, case: Case) -> Try:
        """One try from home."""
        execute, head = WAYS[case.way]
        task = make_task(case.seed, case.delay_ms / 1e3, head)
        self.go_home()
        self._instruction.publish(text_to_message(self._make, task.text()))
        self.set_parameters("policy_node", {"execute": execute, "execute_every": EVERY, "episode_seed": case.seed})
        goal = hands(np.array([task.goal]))[0]
        self.hand.clear()
        self._record.write_text("")
        enable = SetBool.Request(data=True)
        if not self.until(lambda: self.call(SetBool, "policy_node/enable", enable).success):
            raise RuntimeError("the policy is not enabled")
        begun = time.time()
        self.until(lambda: arrived(self.hand, goal) is not None, TIME_S + STAYS_S)
        ended = time.time()
        self.call(SetBool, "policy_node/enable", SetBool.Request(data=False))
        lines = [json.loads(line) for line in self._record.read_text().splitlines()]
        sent = [Sent(at, held, np.array(action)) for at, held, action in lines if at <= ended]
        hand = [one for one in self.hand if begun <= one[0] <= ended]
        return judged(case, task, begun, hand, sent, self._delay_ticks, self._spec.period_ns)

    def _on_pose(self, message: Any) -> None:
        position = message.pose.position
        self.hand.append((time.time(), np.array([position.x, position.y, position.z])))

    def _on_joints(self, message: Any) -> None:
        self._joints = np.array(message.position[:JOINTS])

    def _on_told(self, message: Any) -> None:
        for status in message.status:
            values = {value.key: value.value for value in status.values}
            self._delay_ticks = int(values.get("chunk_delay_ticks", self._delay_ticks))


def cases(trials: int) -> list[Case]:
    """Every way with every delay, turn by turn, so that what else the machine does meets all of them."""
    return [Case(way, ms, seed) for seed in range(trials) for ms in DELAYS_MS for way in WAYS]


def compare(spec: RobotSpec, folder: Path, trials: int) -> list[Try]:
    """All cases over DDS."""
    robot, record = folder / "robot.yaml", folder / "sent.jsonl"
    robot.write_text(yaml.safe_dump(spec.to_dict()))
    record.touch()
    environment = {**os.environ, RECORD: str(record), PARENT_VARIABLE: str(os.getpid())}
    parameters = {"robot": robot, "checkpoint": "scripted", "mode": "real_time"}
    command = [sys.executable, str(Path(__file__).with_name("_chunking_policy_node.py")), "--ros-args"]
    command += [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    with Graph(GraphConfig((NodeConfig("arm", {"robot": robot}),), DOMAIN, folder / "logs")):
        with (folder / "policy.log").open("w") as log:
            policy = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            rclpy.init()
            operator = Operator(spec, record)
            tries = [operator.attempt(case) for case in cases(trials)]
            rclpy.shutdown()
        finally:
            policy.send_signal(signal.SIGINT)
            policy.wait(10.0)
    return tries


def main() -> int:
    """Print the table; returns 1 where a tick was missed by anything but the synchronous way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5, help="tries of each way with each network")
    parser.add_argument("--clock", choices=("real", "simulated"), default="real", help="simulated: in one process")
    parser.add_argument("--json", type=Path, help="where to write all tries")
    parser.add_argument("--plot", type=Path, help="where to draw them, as SVG")
    given = parser.parse_args()
    os.environ.update(ros_environment(DOMAIN))
    # One small camera paces it: what two large ones cost is another benchmark's. Nor is it about late cameras.
    cameras = (CameraSpec("front", 48, 64),)
    spec = replace(load_spec("panda"), cameras=cameras, max_skew_s=0.25)
    spec = replace(spec, max_silence_s=np.inf, max_proprioception_silence_s=None)
    began, load = time.monotonic(), os.getloadavg()[0]
    if given.clock == "simulated":
        tries = [simulated(spec, case) for case in cases(given.trials)]
    else:
        with tempfile.TemporaryDirectory() as folder:
            tries = compare(spec, Path(folder), given.trials)
    print(f"{len(tries)} tries in {time.monotonic() - began:.0f} s; load {load:.1f}, then {os.getloadavg()[0]:.1f}")
    print(table(tries))
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in tries], indent=1) + "\n")
    if given.plot:
        given.plot.write_text(plot(tries))
    return int(any(one.missed for one in tries if one.case.way != "synchronous"))


if __name__ == "__main__":
    sys.exit(main())

"""A stand-in arm, a policy and an operator's station as real processes, and an operator with a gamepad to work them."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from client_node import Client
from graph_helpers import INSTRUCTION_TEXT, make_graph, save_random_policy

from rollout_manager.graph import Graph, NodeConfig
from rollout_manager.schedule import ROBOT, Schedule, ScheduleDriver, ScheduleEntry, save_schedule
from rollout_manager.station import StationState
from vla_policy_node.ros_node import message_class
from vla_policy_node.spec import load_spec
from vla_policy_node.topics import DIAGNOSTICS, JOINT_STATES, JOY, MESSAGE_TYPES, STATION_STATE

STOCK = load_spec("panda")
# Other processes may have the cores. An arm that gets none for 150 ms takes several commands at once, and would be told
# to make up for them within a period: faster than it can go, so that its hardware stops it. Within 0.15 s it can.
PANDA = replace(
    STOCK,
    max_skew_s=0.4,
    max_silence_s=np.inf,
    max_proprioception_silence_s=None,
    commands=(replace(STOCK.commands[0], reach_s=0.15), *STOCK.commands[1:]),
)
TAKE_OVER, HAND_BACK = 4, 5
HOME = np.array([0.0, -0.4, 0.0, -2.2, 0.0, 1.8, 0.785])


class Operator:
    """Says the station's words, looks at its state, and holds a gamepad."""

    def __init__(self, client: Client) -> None:
        self.client = client
        client.listen(STATION_STATE, MESSAGE_TYPES[STATION_STATE])
        client.listen(JOINT_STATES, MESSAGE_TYPES[JOINT_STATES])
        client.listen(DIAGNOSTICS, MESSAGE_TYPES[DIAGNOSTICS])
        self._joy = client.publisher(JOY, MESSAGE_TYPES[JOY])

    @property
    def state(self) -> StationState:
        """The newest."""
        self.client.until(lambda: bool(self.client.received[STATION_STATE]))
        return StationState.from_dict(json.loads(self.client.received[STATION_STATE][-1].data))

    def until(self, phase: str, timeout_s: float = 60.0) -> StationState:
        self.client.until(lambda: self.state.phase == phase, timeout_s)
        return self.state

    def say(self, word: str) -> None:
        answer = self.client.trigger(f"station_node/{word}")
        assert answer.success, f"{word}: {answer.message}"

    def refused(self, word: str) -> str:
        answer = self.client.trigger(f"station_node/{word}")
        assert not answer.success
        return str(answer.message)

    def scene(self) -> None:
        """Wait until the arm is home. Where its hardware has stopped it all the same, clear that and send it again."""
        while True:
            self.client.until(lambda: self.state.phase in ("away", "scene"), 60.0)
            if self.state.phase == "scene":
                return
            if "not home" in self.state.prompt:
                print(f"{self.state.prompt}: {self.hardware()}")
            assert self.client.trigger("arm_node/clear_fault").success
            self.say("home")
            self.client.until(lambda: self.state.phase != "away")

    def hardware(self) -> str:
        """What the stand-in says of its hardware."""
        found: list[str] = []

        def look() -> bool:
            statuses = [s for m in self.client.received[DIAGNOSTICS] for s in m.status]
            found[:] = [s.message for s in statuses if s.name == "arm_node: hardware"]
            return bool(found)

        self.client.received[DIAGNOSTICS].clear()
        self.client.until(look)
        return found[-1]

    def begin(self, home: bool = False) -> None:
        """Start the next try, as soon as the arm is home. Args: home: it waits for somebody to say so."""
        if home:
            self.until("away")
        self.scene()
        self.say("start")
        self.until("running")

    def hold(self, seconds: float, axes: Sequence[float] = (), buttons: Sequence[int] = ()) -> None:
        """Hold the gamepad so for a while, 30 messages a second."""
        pressed = [int(i in buttons) for i in range(10)]
        for _ in range(max(1, round(30 * seconds))):
            self._joy.publish(
                message_class(MESSAGE_TYPES[JOY])(axes=[*axes, *[0.0] * (8 - len(axes))], buttons=pressed)
            )
            self.client.spin(1 / 30)

    def turn(self, far: float) -> None:
        """Take over and turn joint 1 at 0.5 rad/s, until it is so far from home, rad."""
        deadline = time.monotonic() + 40.0
        while self.joints()[0] < far:
            assert time.monotonic() < deadline, "it does not turn"
            self.hold(0.3, (1.0,), [TAKE_OVER])

    def rest(self) -> Any:
        """Wait until the arm has come to rest, and see that it stays there; where it is, (7,), rad."""
        deadline, still = time.monotonic() + 20.0, 0
        at = self.joints()
        while still < 3:
            assert time.monotonic() < deadline, "it does not come to rest"
            self.client.spin(0.5)
            now = self.joints()
            still = still + 1 if np.abs(now - at).max() < 1e-3 else 0
            at = now
        return at

    def joints(self) -> Any:
        """Where the arm's joints are measured, (7,), rad."""
        self.client.received[JOINT_STATES].clear()
        self.client.until(lambda: bool(self.client.received[JOINT_STATES]))
        return np.array(self.client.received[JOINT_STATES][-1].position[:7])


@contextmanager
def bench(folder: Path, domain: int, teleop: bool = False, **station: Any) -> Iterator[tuple[Graph, Operator]]:
    """Everything but the rollout manager; the checkpoint is of random weights, in `folder`/c."""
    save_random_policy(folder / "c", [INSTRUCTION_TEXT], spec=PANDA, horizon=30)
    robot = folder / "robot.yaml"
    robot.write_text(yaml.safe_dump(PANDA.to_dict()))
    nodes: dict[str, dict[str, Any]] = {
        "arm": {"robot": str(robot)},
        "policy": {"robot": str(robot), "mode": "real_time"},
        "station": {"robot": str(robot), "time_limit_s": 300.0, **station},
    }
    if teleop:
        nodes["teleop"] = {"robot": str(robot), "mapping": "panda"}
    with make_graph(folder, domain, nodes) as graph, Client(domain) as client:
        yield graph, Operator(client)


def start_manager(
    graph: Graph, folder: Path, seeds: Sequence[int], driver: ScheduleDriver = "policy", **entry: Any
) -> None:
    """A rollout manager with a schedule of these seeds; its bags go to `folder`/bags."""
    entries = tuple(ScheduleEntry("cube", seed, instruction=INSTRUCTION_TEXT, **entry) for seed in seeds)
    checkpoint = str(folder / "c") if driver == "policy" else ""
    every = (10,)
    save_schedule(folder / "s.yaml", Schedule(ROBOT, driver, entries, checkpoint, every))
    parameters = {
        "schedule": folder / "s.yaml", "robot": folder / "robot.yaml", "mode": "real_time", "output": folder / "bags",
    }  # fmt: skip
    graph.start_node(NodeConfig("manager", parameters))

"""Encore's nodes as child processes: started from the YAML of `config/nodes/`, watched, restarted, stopped. No ROS."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from rollout_manager.exceptions import GraphError
from rollout_manager.shared_memory import sweep
from vla_policy_node.locations import config_dir

PARENT_VARIABLE = "ENCORE_PARENT_PID"
"""Tells a node whose child it is; it ends when that process does (see `ros_node.end_with_parent`)."""

NODES: dict[str, tuple[str, str]] = {
    "sim": ("rollout_manager.sim_node", "sim_node"),
    "policy": ("vla_policy_node.policy_node", "policy_node"),
    "expert": ("rollout_manager.expert_node", "expert_node"),
    "manager": ("rollout_manager.rollout_manager_node", "rollout_manager"),
    "replay": ("rollout_manager.replay_node", "replay_node"),
    "arm": ("rollout_manager.arm_node", "arm_node"),
    "station": ("rollout_manager.station_node", "station_node"),
    "teleop": ("rollout_manager.teleop_node", "teleop_node"),
}
"""What a graph may be made of: the module that is run, and the node's name in its YAML file."""

YAML_FILES = {"manager": "rollout_manager_node"}
STOP_S = 5.0


@dataclass(frozen=True)
class NodeConfig:
    """One node to start."""

    kind: str
    """`sim`, `policy`, `expert`, `manager`, `replay`, `arm`, `station` or `teleop`."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Override the YAML file's."""

    def __post_init__(self) -> None:
        if self.kind not in NODES:
            raise GraphError(f"node '{self.kind}' is not one of {', '.join(NODES)}")


@dataclass(frozen=True)
class GraphConfig:
    """Nodes that run together on one ROS domain."""

    nodes: tuple[NodeConfig, ...]
    domain_id: int
    logs: Path
    """Folder of the nodes' logs and of the parameters they were started with."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Further environment variables."""

    def __post_init__(self) -> None:
        # Above 101 the ports of a domain reach into those that Linux gives to any process.
        if not 0 <= self.domain_id <= 101:
            raise GraphError(f"ROS domain id {self.domain_id} is not in [0, 101]")
        kinds = [node.kind for node in self.nodes]
        if repeated := {kind for kind in kinds if kinds.count(kind) > 1}:
            raise GraphError(f"node named twice: {', '.join(sorted(repeated))}")


def ros_environment(domain_id: int, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of Encore's processes on a ROS domain: this machine only, shared memory for whole images."""
    env = dict(os.environ if base is None else base)
    profile = str(config_dir() / "fastdds_shm.xml")
    env |= {
        "ROS_DOMAIN_ID": str(domain_id),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTRTPS_DEFAULT_PROFILES_FILE": profile,  # read by Jazzy
        "FASTDDS_DEFAULT_PROFILES_FILE": profile,  # read by Kilted
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join([_source_root(), env.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }
    env.setdefault("MUJOCO_GL", "osmesa")
    # The network and the simulator are fastest on one core each; idle OpenMP threads would take the other's.
    env.setdefault("OMP_NUM_THREADS", "1")
    return env


def is_quiet(domain: int) -> bool:
    """Whether no participant of this machine is on the domain; its first one holds this port (RTPS 2.5, 9.6.2.3)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", 7400 + 250 * domain + 10))
        except OSError:
            return False
    return True


class Graph:
    """Starts the nodes, and stops every one of them whatever happens."""

    def __init__(self, config: GraphConfig) -> None:
        self._config = config
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._restarts: dict[str, int] = {}

    def start(self) -> None:
        """Start all nodes. Raises: GraphError: one cannot be started."""
        for node in self._config.nodes:
            self.start_node(node)

    def start_node(self, node: NodeConfig) -> None:
        """Start one node, configured or not. Raises: GraphError: it runs already, or cannot be started."""
        if node.kind in self._processes and self._processes[node.kind].poll() is None:
            raise GraphError(f"node '{node.kind}' runs already")
        sweep()  # A node that dies again and again leaves 64 MB each time.
        command = [sys.executable, "-m", NODES[node.kind][0], "--ros-args", "--params-file", str(self._write(node))]
        env = {**ros_environment(self._config.domain_id), **self._config.environment, PARENT_VARIABLE: str(os.getpid())}
        with self.log(node.kind).open("ab") as log:
            # A session of its own: a Ctrl-C in the terminal reaches the parent alone, which stops them in order.
            self._processes[node.kind] = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env, start_new_session=True
            )

    def log(self, kind: str) -> Path:
        """The file that holds what a node says."""
        return self._config.logs / f"{kind}.log"

    def status(self) -> dict[str, int | None]:
        """Exit status of every node started so far; None where it runs."""
        return {kind: process.poll() for kind, process in self._processes.items()}

    def alive(self) -> bool:
        """Whether every node started so far runs."""
        return all(status is None for status in self.status().values())

    def pid(self, kind: str) -> int:
        """Raises: GraphError: no such node was started."""
        return self._process(kind).pid

    def check(self) -> None:
        """Raises: GraphError: a node has ended, with the last lines it said."""
        for kind, status in self.status().items():
            if status is not None:
                raise GraphError(f"{kind} node ended with status {status}; it said:\n{self.tail(kind)}")

    def supervise(self, max_restarts: int = 3) -> list[str]:
        """Start nodes that died again; the names of those. Call it now and then while the graph works.

        Raises:
            GraphError: a node died more often than `max_restarts` times.
        """
        again = []
        for node in self._config.nodes:
            if self.status().get(node.kind) is None:
                continue
            self._restarts[node.kind] = self._restarts.get(node.kind, 0) + 1
            if self._restarts[node.kind] > max_restarts:
                raise GraphError(
                    f"{node.kind} node died {self._restarts[node.kind]} times; it said:\n{self.tail(node.kind)}"
                )
            self.start_node(node)
            again.append(node.kind)
        return again

    def wait(self, kind: str, timeout_s: float | None = None) -> int | None:
        """Wait for a node's end; its exit status, None where it runs on after the time given."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process(kind).wait(timeout_s)
        return None

    def tail(self, kind: str, lines: int = 15) -> str:
        """The last lines that a node said."""
        path = self.log(kind)
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.is_file() else ""

    def stop(self) -> None:
        """Stop all nodes, the last started first: asked to, then told to, then killed."""
        running = [p for p in reversed(self._processes.values()) if p.poll() is None]
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            _signal(running, number)
            running = _wait_all(running, STOP_S)
            if not running:
                break
        self._processes.clear()
        sweep()

    def __enter__(self) -> "Graph":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _process(self, kind: str) -> "subprocess.Popen[bytes]":
        if kind not in self._processes:
            raise GraphError(f"node '{kind}' was not started; started are {', '.join(self._processes) or 'none'}")
        return self._processes[kind]

    def _write(self, node: NodeConfig) -> Path:
        """The node's parameters as one file: those of `config/nodes/`, overridden by the graph's."""
        name = NODES[node.kind][1]
        source = config_dir() / "nodes" / f"{YAML_FILES.get(node.kind, name)}.yaml"
        try:
            content = yaml.safe_load(source.read_text())[name]["ros__parameters"]
        except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
            raise GraphError(f"{source}: expected {name}: ros__parameters: ...: {error!r}") from error
        self._config.logs.mkdir(parents=True, exist_ok=True)
        path = self._config.logs / f"{node.kind}.yaml"
        plain = {key: str(value) if isinstance(value, Path) else value for key, value in node.parameters.items()}
        path.write_text(yaml.safe_dump({name: {"ros__parameters": {**content, **plain}}}, sort_keys=False))
        return path


def _signal(processes: Sequence["subprocess.Popen[bytes]"], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)


def _wait_all(processes: Sequence["subprocess.Popen[bytes]"], timeout_s: float) -> list["subprocess.Popen[bytes]"]:
    """Those that run on after the time given to all of them together."""
    deadline = time.monotonic() + timeout_s
    while (running := [p for p in processes if p.poll() is None]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return running


def _source_root() -> str:
    """Where the packages are imported from, so that children import the same ones."""
    return str(Path(__file__).resolve().parents[1])

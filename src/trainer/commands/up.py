"""`encore up`: the nodes of the graph as supervised processes of this command, where no `ros2 launch` is installed."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from trainer.commands.arguments import parse
from trainer.exceptions import ConfigError

if TYPE_CHECKING:
    from rollout_manager.graph import Graph, NodeConfig

LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class UpCommand:
    """Start simulator, driver and rollout manager with the parameters of config/nodes/; Ctrl-C stops them.

    Without a task or schedule there is no rollout manager: the nodes wait for one, or for your own.
    """

    checkpoint: Path | None = None
    """Folder of the checkpoint that drives; without it the scripted expert does."""
    task: str = ""
    """The task to try: its name, a part of it that no other task has, or suite/index."""
    schedule: Path | None = None
    """A YAML file of tries, instead of a task."""
    episodes: int = 10
    """Initial states of the task."""
    first_seed: int = 0
    """Seeds are this one and those that follow."""
    output: Path = Path("runs/up")
    """Folder that gets the bags, the results and the nodes' logs."""
    mode: Literal["lockstep", "real_time"] = "lockstep"
    """`lockstep`: the simulator waits for each action. `real_time`: nobody waits for anybody."""
    environment: Annotated[str, tyro.conf.arg(aliases=["--env"])] = "metaworld"
    """Which simulator."""
    suite: str = ""
    """The suite that the task is of, where its name alone does not say."""
    robot: str = ""
    """A robot of config/robots/, or the path of such a file; empty: the environment's own."""
    rules: str = ""
    """YAML file of success rules; empty: the simulator's own."""
    domain: int = int(os.environ.get("ROS_DOMAIN_ID", "0"))
    """ROS domain that the nodes meet on; as with every ROS tool the one in ROS_DOMAIN_ID, else 0."""


def main(arguments: Sequence[str]) -> int:
    """Run the command until its schedule is done, or Ctrl-C. Returns the rollout manager's exit code.

    Raises:
        GraphError: a node died again and again; the message holds the last that it said.
    """
    options = parse(UpCommand, arguments, "up")
    if options.task and options.schedule:
        raise ConfigError("up: give --task or --schedule, not both")

    from rollout_manager.graph import Graph, GraphConfig

    nodes, manager = _nodes(options), _manager(options)
    with Graph(GraphConfig(nodes, options.domain, options.output / "logs")) as graph:
        if manager:
            # Not one of the graph's own: a node that ends is started again, a manager that is done is done.
            graph.start_node(manager)
        for node in (*nodes, manager) if manager else nodes:
            print(f"{node.kind} node: process {graph.pid(node.kind)}, log {graph.log(node.kind)}", flush=True)
        print(
            f"on ROS domain {options.domain}, bags in {options.output / 'bags'}; Ctrl-C stops all of them", flush=True
        )
        return _watch(graph)


def _watch(graph: "Graph") -> int:
    told = 0
    while True:
        if graph.log("manager").is_file():
            lines = graph.log("manager").read_text(errors="replace").splitlines()
            for line in lines[told:]:
                print(line, flush=True)
            told = len(lines)
        if (status := graph.status().get("manager")) is not None:
            return status
        for kind in graph.supervise():
            print(f"{kind} node died and was started again", flush=True)
        time.sleep(LOOK_EVERY_S)


def _nodes(options: UpCommand) -> "tuple[NodeConfig, ...]":
    from rollout_manager.graph import NodeConfig

    robot = options.robot or options.environment
    both = {"environment": options.environment, "robot": robot}
    driver = {"robot": robot, "mode": options.mode, "checkpoint": str(options.checkpoint)}
    drives = NodeConfig("policy", driver) if options.checkpoint else NodeConfig("expert", both)
    return NodeConfig("sim", {**both, "mode": options.mode, "rules": options.rules}), drives


def _manager(options: UpCommand) -> "NodeConfig | None":
    from rollout_manager.graph import NodeConfig

    if not options.task and not options.schedule:
        return None
    parameters = {
        "schedule": str(options.schedule or ""),
        "task": options.task,
        "suite": options.suite,
        "episodes": options.episodes,
        "first_seed": options.first_seed,
        "environment": options.environment,
        "robot": options.robot,
        "driver": "policy" if options.checkpoint else "expert",
        "mode": options.mode,
        "output": str(options.output / "bags"),
        "results": str(options.output / "results.csv"),
    }
    return NodeConfig("manager", parameters)

"""Collection over ROS: simulator, driver and rollout manager are processes of their own, joined by topics.

The simulator and the policy node stay between plans; a new checkpoint reaches the running policy node as a
parameter. Each plan has a rollout manager of its own, which ends when the plan is done. No ROS is imported here.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rollout_manager.graph import Graph, GraphConfig, NodeConfig, is_quiet
from rollout_manager.schedule import Schedule, ScheduleEntry, save_schedule
from trainer.collection import CollectionPlan, done_tries, rows_so_far
from trainer.exceptions import TrainerError
from trainer.progress import ProgressBar

LOOK_EVERY_S = 0.5
DOMAINS = range(20, 100)
"""ROS domains that graphs are given, unless ROS_DOMAIN_ID says otherwise."""


@dataclass
class RosCollector:
    """`trainer.collection.Collector` on ROS graphs of this machine."""

    environment: str
    robot: str
    graphs: int
    logs: Path
    say: Callable[[str], None] = print
    """Is told which nodes run."""
    rules: str = ""
    """YAML file of success rules; empty: the simulator's own."""
    _running: list[Graph] = field(default_factory=list, init=False)
    _driver: str = field(default="", init=False)

    def collect(self, plan: CollectionPlan) -> None:
        """Try what is left of the plan, on all graphs at once.

        Raises:
            TrainerError: a rollout manager gave up; the message holds the last it said.
            GraphError: a node died again and again.
        """
        left = {(task, seed) for task, seed, _ in plan.unsolved(done_tries(plan))}
        if not left:
            return
        graphs = self._graphs(plan.driver)
        # Every state is listed, done or not: the manager passes over what is done, by the bags it finds.
        shares = [plan.states[k :: len(graphs)] for k in range(len(graphs))]
        for k, (graph, states) in enumerate(zip(graphs, shares, strict=True)):
            if states:
                graph.start_node(NodeConfig("manager", self._manager(plan, k, states)))
        pids = ", ".join(f"{kind} node {graph.pid(kind)}" for graph in graphs for kind in ("sim", plan.driver))
        self.say(f"over ROS: process ids of the {pids}")
        with ProgressBar(plan.name, len(plan.states), len(plan.states) - len(left)) as bar:
            self._watch(plan, graphs, len(left), bar)

    def close(self) -> None:
        """Stop all nodes."""
        for graph in self._running:
            graph.stop()
        self._running, self._driver = [], ""

    def _watch(self, plan: CollectionPlan, graphs: Sequence[Graph], left: int, bar: ProgressBar) -> None:
        working = [graph for graph in graphs if "manager" in graph.status()]
        while working:
            working = [graph for graph in working if graph.wait("manager", LOOK_EVERY_S) is None]
            rows = rows_so_far(plan)
            now_left = len(plan.unsolved(rows))
            for _ in range(left - now_left):
                bar.advance(f"{rows[-1].task} {rows[-1].ending}")
            left = now_left
            for graph in graphs:
                for kind in graph.supervise():
                    self.say(f"the {kind} node died and was started again")
        for graph in graphs:
            if graph.status().get("manager"):
                raise TrainerError(f"{plan.name}: the rollout manager gave up; it said: {graph.tail('manager')}")

    def _graphs(self, driver: str) -> list[Graph]:
        """The running graphs, with the driver that is asked for."""
        if self._driver != driver:
            self.close()
            self._driver = driver
            for k, domain in enumerate(choose_domains(self.graphs)):
                graph = Graph(GraphConfig(self._nodes(driver), domain, self.logs / f"graph_{k}"))
                self._running.append(graph)
                graph.start()
        return self._running

    def _nodes(self, driver: str) -> tuple[NodeConfig, ...]:
        both = {"environment": self.environment, "robot": self.robot}
        sim = NodeConfig("sim", {**both, "rules": self.rules})
        if driver == "expert":
            return sim, NodeConfig("expert", both)
        return sim, NodeConfig("policy", {"robot": self.robot})

    def _manager(self, plan: CollectionPlan, graph: int, states: Sequence[tuple[str, int]]) -> dict[str, str]:
        """The rollout manager's parameters. Several managers write into folders of their own, and one table."""
        bags = plan.bags / f"graph_{graph}" if self.graphs > 1 else plan.bags
        tries = plan.attempts, plan.time_limit, plan.first_attempt
        entries = tuple(ScheduleEntry(task, seed, *tries) for task, seed in states)
        schedule = Schedule(
            environment=self.environment,
            driver=plan.driver,
            entries=entries,
            checkpoint=str(plan.checkpoint) if plan.checkpoint else "",
            execute_every=plan.execute_every,
            noise_correlation=plan.noise_correlation,
            slips=plan.slips,
            pushes=plan.pushes,
        )
        path = self.logs / f"graph_{graph}" / "schedule.yaml"
        save_schedule(path, schedule)
        return {
            "schedule": str(path),
            "output": str(bags),
            "results": str(plan.results),
            "robot": self.robot,
            "environment": self.environment,
        }


def choose_domains(count: int) -> list[int]:
    """ROS domains that nobody on this machine is on; with ROS_DOMAIN_ID set, that one and those that follow it.

    Raises:
        TrainerError: ROS_DOMAIN_ID is no number, or too few domains are free.
    """
    if given := os.environ.get("ROS_DOMAIN_ID"):
        if not given.isdecimal():
            raise TrainerError(f"ROS_DOMAIN_ID '{given}' is not a number from 0 to 101")
        return [int(given) + k for k in range(count)]
    # Each process begins elsewhere, so that two runs that start together do not choose the same one.
    start = os.getpid() % len(DOMAINS)
    free = [domain for domain in [*DOMAINS[start:], *DOMAINS[:start]] if is_quiet(domain)]
    if len(free) < count:
        raise TrainerError(f"{count} ROS domains are needed, {len(free)} are free of {DOMAINS.start} to {DOMAINS[-1]}")
    return free[:count]

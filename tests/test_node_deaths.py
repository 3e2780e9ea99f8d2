"""Nodes killed in the middle of an episode: nothing hangs, nothing is lost but that one try."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from client_node import Client
from graph_helpers import INSTRUCTION_TEXT, make_graph, run_manager, save_random_policy, sent_actions, write_schedule

from rollout_manager.bag import EpisodeReader
from rollout_manager.graph import Graph, NodeConfig
from rollout_manager.labels import current, read_labels
from rollout_manager.results import read_results

pytestmark = [pytest.mark.ros, pytest.mark.slow]

LIMIT = 120
PATIENCE = {"stall_timeout_s": 3.0, "start_timeout_s": 60.0, "service_timeout_s": 10.0}


def until(what: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def in_mid_episode(bags: Path) -> None:
    """Wait until an episode has been recorded for a second: its first chunk is on disk by then."""
    until(lambda: any(file.stat().st_size > 20_000 for file in bags.glob("*.partial/*.mcap")))


@pytest.fixture
def policy_graph(ros_domain: int, tmp_path: Path) -> tuple[Graph, dict[str, Any]]:
    """Simulator and policy (not started), and the parameters of a manager that makes two long tries."""
    save_random_policy(tmp_path / "checkpoint", [INSTRUCTION_TEXT])
    schedule = write_schedule(tmp_path / "s.yaml", "policy", range(2), time_limit=LIMIT)
    parameters = {"schedule": schedule, "checkpoint": tmp_path / "checkpoint", "output": tmp_path / "bags", **PATIENCE}
    return make_graph(tmp_path, ros_domain, {"sim": {}, "policy": {}}), parameters


@pytest.mark.parametrize(("victim", "name"), [("sim", "sim_node"), ("policy", "policy_node")])
def test_a_killed_node_costs_one_try_and_the_manager_goes_on(
    policy_graph: tuple[Graph, dict[str, Any]], tmp_path: Path, victim: str, name: str
) -> None:
    graph, parameters = policy_graph
    with graph:
        graph.start_node(NodeConfig("manager", parameters))
        in_mid_episode(tmp_path / "bags")
        os.kill(graph.pid(victim), signal.SIGKILL)
        until(lambda: graph.status()[victim] is not None)
        assert graph.supervise() == [victim]
        status = graph.wait("manager", 150)
        said = graph.log("manager").read_text()
    assert status == 0, said
    aborted, *others = read_results(tmp_path / "bags" / "results.csv")
    assert aborted.ending == "aborted"
    # Which of them depends on how soon the restarted node answers.
    reasons = ("died or hangs", "did not answer", "died and was started again")
    assert any(f"{name} {reason}" in aborted.reason for reason in reasons), aborted.reason
    assert [(row.seed, row.ending, row.steps) for row in others] == [(0, "truncated", LIMIT), (1, "truncated", LIMIT)]
    [bag] = (tmp_path / "bags").glob("*.aborted")
    reader = EpisodeReader(bag)
    assert reader.outcome.ending == "aborted"
    assert reader.outcome.reason == aborted.reason
    label = current(read_labels(bag))
    assert label is not None
    assert label.outcome == "aborted"
    assert 0 < len(sent_actions(bag)[0]) <= LIMIT


def test_a_node_that_stays_dead_ends_the_manager_with_a_clear_error(
    policy_graph: tuple[Graph, dict[str, Any]], tmp_path: Path
) -> None:
    graph, parameters = policy_graph
    with graph:
        graph.start_node(NodeConfig("manager", {**parameters, "start_timeout_s": 20.0}))
        in_mid_episode(tmp_path / "bags")
        os.kill(graph.pid("sim"), signal.SIGKILL)
        assert graph.wait("manager", 90) == 1
        said = graph.log("manager").read_text()
    assert "error: sim_node did not answer within 20 s on ROS_DOMAIN_ID=" in said
    [row] = read_results(tmp_path / "bags" / "results.csv")
    assert row.ending == "aborted"


def test_in_real_time_a_dead_policy_is_noticed_though_the_arm_senses_on(ros_domain: int, tmp_path: Path) -> None:
    save_random_policy(tmp_path / "checkpoint", [INSTRUCTION_TEXT])
    schedule = write_schedule(tmp_path / "s.yaml", "policy", [0], time_limit=4000)
    parameters = {"schedule": schedule, "checkpoint": tmp_path / "checkpoint", "output": tmp_path / "bags"}
    real_time = {"mode": "real_time"}
    with make_graph(tmp_path, ros_domain, {"sim": real_time, "policy": real_time}) as graph:
        graph.start_node(NodeConfig("manager", {**parameters, **real_time, **PATIENCE, "start_timeout_s": 20.0}))
        in_mid_episode(tmp_path / "bags")
        os.kill(graph.pid("policy"), signal.SIGKILL)
        assert graph.wait("manager", 90) == 1
    [row] = read_results(tmp_path / "bags" / "results.csv")
    assert row.ending == "aborted"
    assert "nothing happened for 3 s: policy_node died or hangs" in row.reason


def test_a_killed_manager_and_recorder_lose_nothing_that_was_flushed(
    policy_graph: tuple[Graph, dict[str, Any]], tmp_path: Path
) -> None:
    graph, parameters = policy_graph
    with graph:
        graph.start_node(NodeConfig("manager", parameters))
        in_mid_episode(tmp_path / "bags")
        os.kill(graph.pid("manager"), signal.SIGKILL)
        assert graph.wait("manager", 10) == -signal.SIGKILL
        assert len(list((tmp_path / "bags").glob("*.partial"))) == 1
        graph.start_node(NodeConfig("manager", parameters))
        status = graph.wait("manager", 150)
        said = graph.log("manager").read_text()
    assert status == 0, said
    assert "recovered an interrupted recording" in said
    [recovered] = (tmp_path / "bags").glob("*.aborted")
    assert len(sent_actions(recovered)[0]) > 0
    rows = read_results(tmp_path / "bags" / "results.csv")
    assert [(row.seed, row.ending) for row in rows] == [(0, "truncated"), (1, "truncated")]
    assert all((tmp_path / "bags" / row.episode_id).is_dir() for row in rows)


def test_nodes_end_when_their_parent_is_killed(ros_domain: int, tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from rollout_manager.graph import Graph, GraphConfig, NodeConfig\n"
        f"graph = Graph(GraphConfig((NodeConfig('expert'),), {ros_domain}, Path({str(tmp_path)!r})))\n"
        "graph.start()\n"
        "print(graph.pid('expert'), flush=True)\n"
        "time.sleep(600)\n"
    )
    env = {**os.environ, "PYTHONPATH": "src"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(2.0)
        parent.kill()
        parent.wait()
    try:
        until(lambda: not Path(f"/proc/{child}").exists() or _is_zombie(child), 20.0)
    finally:
        if Path(f"/proc/{child}").exists() and not _is_zombie(child):
            os.kill(child, signal.SIGKILL)


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_manager_that_is_told_to_stop_lets_go_of_the_robot_and_closes_the_bag(
    policy_graph: tuple[Graph, dict[str, Any]], tmp_path: Path, number: signal.Signals
) -> None:
    graph, parameters = policy_graph
    with graph:
        graph.start_node(NodeConfig("manager", parameters))
        in_mid_episode(tmp_path / "bags")
        os.kill(graph.pid("manager"), number)
        assert graph.wait("manager", 20) == 130, graph.log("manager").read_text()
        [bag] = (tmp_path / "bags").glob("*.aborted")
        assert EpisodeReader(bag).outcome.reason == "interrupted"
        assert not list((tmp_path / "bags").glob("*.partial"))
        status, said = run_manager(graph, **parameters)
    assert status == 0, said
    assert [(row.seed, row.ending) for row in read_results(tmp_path / "bags" / "results.csv")] == [
        (0, "truncated"),
        (1, "truncated"),
    ]


def test_a_node_that_crashes_says_where_python_was(ros_domain: int, tmp_path: Path) -> None:
    with Client(ros_domain) as client, make_graph(tmp_path, ros_domain, {"sim": {}}) as graph:
        client.set("sim_node", seed=0)  # It answers, so it spins.
        os.kill(graph.pid("sim"), signal.SIGSEGV)
        until(lambda: graph.status()["sim"] is not None)
        said = graph.log("sim").read_text()
    assert "Fatal Python error: Segmentation fault" in said
    assert " in spin" in said

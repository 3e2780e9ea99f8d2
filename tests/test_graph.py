"""Nodes as child processes: started from their YAML, watched, restarted, stopped."""

import os
import signal
import time
from pathlib import Path

import pytest
import yaml
from graph_helpers import make_graph

from rollout_manager.exceptions import GraphError
from rollout_manager.graph import NODES, YAML_FILES, Graph, GraphConfig, NodeConfig, ros_environment
from vla_policy_node.locations import config_dir


def test_configurations_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="node 'camera' is not one of sim, policy, expert, manager"):
        NodeConfig("camera")
    with pytest.raises(GraphError, match=r"domain id 102 is not in \[0, 101\]"):
        GraphConfig((), 102, tmp_path)
    with pytest.raises(GraphError, match="node named twice: sim"):
        GraphConfig((NodeConfig("sim"), NodeConfig("sim")), 0, tmp_path)
    with pytest.raises(GraphError, match="node 'sim' was not started; started are none"):
        Graph(GraphConfig((), 0, tmp_path)).pid("sim")


def test_every_node_has_its_yaml() -> None:
    for kind, (_, name) in NODES.items():
        path = config_dir() / "nodes" / f"{YAML_FILES.get(kind, name)}.yaml"
        assert "ros__parameters" in yaml.safe_load(path.read_text())[name]


def test_nodes_stay_on_this_machine() -> None:
    env = ros_environment(7, {"PYTHONPATH": "/mine"})
    assert (env["ROS_DOMAIN_ID"], env["ROS_AUTOMATIC_DISCOVERY_RANGE"]) == ("7", "LOCALHOST")
    assert Path(env["FASTRTPS_DEFAULT_PROFILES_FILE"]).is_file()
    assert env["PYTHONPATH"].endswith(f"{os.pathsep}/mine")


@pytest.mark.ros
def test_parameters_override_the_yaml_and_a_dead_node_is_started_again(ros_domain: int, tmp_path: Path) -> None:
    with make_graph(tmp_path, ros_domain, {"expert": {"noise_correlation": 0.25, "task": "x"}}) as graph:
        written = yaml.safe_load((tmp_path / "logs" / "expert.yaml").read_text())["expert_node"]["ros__parameters"]
        assert (written["noise_correlation"], written["task"], written["environment"]) == (0.25, "x", "metaworld")
        assert graph.alive()
        assert graph.supervise() == []
        first = graph.pid("expert")
        os.kill(first, signal.SIGKILL)
        assert graph.wait("expert", 5) == -signal.SIGKILL
        with pytest.raises(GraphError, match="expert node ended with status -9"):
            graph.check()
        assert graph.supervise() == ["expert"]
        assert graph.pid("expert") != first
        with pytest.raises(GraphError, match="runs already"):
            graph.start_node(NodeConfig("expert"))
        os.kill(graph.pid("expert"), signal.SIGKILL)
        graph.wait("expert", 5)
        with pytest.raises(GraphError, match="expert node died 2 times"):
            graph.supervise(max_restarts=1)


@pytest.mark.ros
def test_a_node_that_cannot_start_is_told_with_its_words(ros_domain: int, tmp_path: Path) -> None:
    with make_graph(tmp_path, ros_domain, {"expert": {"environment": "nowhere"}}) as graph:
        assert graph.wait("expert", 40) == 1
        with pytest.raises(GraphError, match="environment 'nowhere' is not one of metaworld"):
            graph.check()


@pytest.mark.ros
def test_stopping_ends_every_node(ros_domain: int, tmp_path: Path) -> None:
    graph = make_graph(tmp_path, ros_domain, {"expert": {}, "sim": {}})
    graph.start()
    pids = [graph.pid("expert"), graph.pid("sim")]
    time.sleep(1.0)
    graph.stop()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)

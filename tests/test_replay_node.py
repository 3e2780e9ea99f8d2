"""A recorded try as topics: the node as a process, what others get of it, and a policy that is shown it."""

import os
import signal
from pathlib import Path

import pytest
from client_node import Client
from graph_helpers import INSTRUCTION_TEXT, METAWORLD, make_graph, save_random_policy

from rollout_manager.bag import EpisodeReader
from rollout_manager.drivers import NoDriver
from rollout_manager.envs.metaworld import MetaWorldEnv
from rollout_manager.recorder import BagObserver
from rollout_manager.rollout import START_NS, new_header, run_episode
from vla_policy_node.messages import stamp_of
from vla_policy_node.safety import SafetyFilter
from vla_policy_node.spec import NANOSECONDS
from vla_policy_node.topics import ACTION, ACTION_CHUNK, CLOCK, EE_POSE, INSTRUCTION, MESSAGE_TYPES

STEPS = 60


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three quarters of a second of an arm that holds still."""
    env, observer = MetaWorldEnv(), BagObserver(tmp_path_factory.mktemp("bags"), METAWORLD)
    header = new_header(env, "drawer-open-v3", 3, driver="none")
    run_episode(env, NoDriver(SafetyFilter(METAWORLD)), header, STEPS, [observer])
    env.close()
    assert observer.path is not None
    return observer.path


def stamps(client: Client, topic: str) -> list[int]:
    return [stamp_of(message) for message in client.received[topic]]


@pytest.mark.slow
def test_others_get_every_message_and_the_time(ros_domain: int, bag: Path, tmp_path: Path) -> None:
    with Client(ros_domain) as client:
        for topic in (EE_POSE, INSTRUCTION, ACTION):
            client.listen(topic, MESSAGE_TYPES[topic])
        client.listen("/recorded" + ACTION, MESSAGE_TYPES[ACTION])
        client.listen(CLOCK, "rosgraph_msgs/msg/Clock")
        with make_graph(tmp_path, ros_domain, {"replay": {"bag": str(bag), "rate": 0.5}}) as graph:
            client.until(lambda: graph.status()["replay"] is not None)
            assert graph.wait("replay") == 0, graph.tail("replay")
        client.spin(0.2)
    assert len(client.received[EE_POSE]) == STEPS + 1
    recorded = [m.log_time_ns for m in EpisodeReader(bag).raw_messages([ACTION])]
    assert stamps(client, "/recorded" + ACTION) == recorded
    assert client.received[ACTION] == [], "a recording moves no arm"
    assert [m.data for m in client.received[INSTRUCTION]] == [EpisodeReader(bag).header.instruction]
    times = [m.clock.sec * NANOSECONDS + m.clock.nanosec for m in client.received[CLOCK]]
    assert times == sorted(times)
    assert times[-1] == START_NS + STEPS * METAWORLD.period_ns


@pytest.mark.slow
def test_it_pauses_and_goes_on(ros_domain: int, bag: Path, tmp_path: Path) -> None:
    with Client(ros_domain) as client:
        client.listen(EE_POSE, MESSAGE_TYPES[EE_POSE])
        with make_graph(tmp_path, ros_domain, {"replay": {"bag": str(bag), "rate": 0.1, "loop": True}}) as graph:
            client.until(lambda: len(client.received[EE_POSE]) > 3)
            assert client.switch("/replay_node/pause", True).message == "paused"
            client.spin(0.3)
            seen = len(client.received[EE_POSE])
            client.spin(0.5)
            assert len(client.received[EE_POSE]) == seen
            assert client.switch("/replay_node/pause", False).message == "playing"
            client.until(lambda: len(client.received[EE_POSE]) > seen + 3)
            os.kill(graph.pid("replay"), signal.SIGINT)
            assert graph.wait("replay", 10.0) == 0


@pytest.mark.slow
def test_a_policy_sees_what_was_recorded(ros_domain: int, bag: Path, tmp_path: Path) -> None:
    save_random_policy(tmp_path / "checkpoint", [EpisodeReader(bag).header.instruction, INSTRUCTION_TEXT])
    policy = {"checkpoint": str(tmp_path / "checkpoint"), "mode": "real_time", "use_sim_time": True}
    replay = {"bag": str(bag), "rate": 0.2, "enable": "policy_node"}
    with Client(ros_domain) as client:
        client.listen(ACTION_CHUNK, MESSAGE_TYPES[ACTION_CHUNK])
        with make_graph(tmp_path, ros_domain, {"policy": policy, "replay": replay}) as graph:
            client.until(lambda: len(client.received[ACTION_CHUNK]) > 2)
            assert graph.wait("replay", 20.0) == 0, graph.tail("replay")
    observed = {m.log_time_ns for m in EpisodeReader(bag).raw_messages([EE_POSE])}
    assert set(stamps(client, ACTION_CHUNK)) <= observed


def test_a_bag_that_is_not_there_is_an_error(ros_domain: int, tmp_path: Path) -> None:
    with make_graph(tmp_path, ros_domain, {"replay": {"bag": str(tmp_path / "none")}}) as graph:
        assert graph.wait("replay", 20.0) == 1
        assert "no such bag folder" in graph.tail("replay")

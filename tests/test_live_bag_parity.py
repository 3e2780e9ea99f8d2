"""The observations that a live node makes, and those that its bag gives back, are the same to the bit."""

from pathlib import Path

import numpy as np
import pytest
from client_node import Client
from graph_helpers import METAWORLD, TASK, bag_observations, make_graph, write_schedule

from rollout_manager.graph import NodeConfig
from vla_policy_node.messages import add_to_buffer, observation_topics
from vla_policy_node.observation import Observation, ObservationBuffer
from vla_policy_node.topics import INSTRUCTION

pytestmark = pytest.mark.ros


STEPS = 40


def test_live_and_recorded_observations_are_the_same(ros_domain: int, tmp_path: Path) -> None:
    # More tries than are looked at: the latched instruction stays there to be read however slow discovery is.
    schedule = write_schedule(tmp_path / "s.yaml", "expert", range(5, 100), attempts=(0.1,), time_limit=STEPS)
    bag = tmp_path / "bags" / f"metaworld_{TASK}_s5_a0"
    topics = observation_topics(METAWORLD)
    inputs = [topic for topic in topics if topic != INSTRUCTION]
    with make_graph(tmp_path, ros_domain, {"sim": {}, "expert": {}}) as graph, Client(ros_domain) as client:
        for topic, kind in topics.items():
            client.listen(topic, kind)
        client.until(lambda: all(client.node.count_publishers(topic) == 1 for topic in inputs))
        graph.start_node(NodeConfig("manager", {"schedule": schedule, "output": bag.parent}))
        client.until(lambda: bag.exists() and bool(client.received[INSTRUCTION]), 90.0)
        client.until(lambda: all(len(client.received[topic]) > STEPS for topic in inputs))
    buffer = ObservationBuffer(METAWORLD)
    live: list[Observation] = []
    assert add_to_buffer(buffer, METAWORLD, INSTRUCTION, client.received[INSTRUCTION][-1])
    for k in range(STEPS + 1):
        for topic in inputs:
            add_to_buffer(buffer, METAWORLD, topic, client.received[topic][k])
        observation = buffer.assemble()
        assert isinstance(observation, Observation), f"a stream lost a message: {observation}"
        live.append(observation)
    recorded = bag_observations(bag)
    assert [o.stamp_ns for o in live] == [o.stamp_ns for o in recorded]
    assert len(live) == STEPS + 1
    for one, other in zip(live, recorded, strict=True):
        assert one.instruction == other.instruction == "open the drawer"
        assert one.proprioception.tobytes() == other.proprioception.tobytes()
        assert all(np.array_equal(one.images[name], other.images[name]) for name in METAWORLD.camera_names)

"""What stopped a robot stands in the bag: emergency stop, joystick, and the policy node's events. Real processes."""

from pathlib import Path

import pytest
from client_node import Client
from graph_helpers import INSTRUCTION_TEXT, make_graph, save_random_policy, sent_actions, write_schedule
from test_node_deaths import in_mid_episode

from rollout_manager.bag import EpisodeReader, verify
from rollout_manager.graph import NodeConfig
from vla_policy_node.messages import stamp_of
from vla_policy_node.ros_node import rclpy_maker
from vla_policy_node.topics import ESTOP, EVENTS, JOY, MESSAGE_TYPES

pytestmark = [pytest.mark.ros, pytest.mark.slow]


def test_an_emergency_stop_in_mid_try_is_in_the_bag(ros_domain: int, tmp_path: Path) -> None:
    save_random_policy(tmp_path / "c", [INSTRUCTION_TEXT])
    schedule = write_schedule(tmp_path / "s.yaml", "policy", [0], time_limit=200, checkpoint=str(tmp_path / "c"))
    with make_graph(tmp_path, ros_domain, {"sim": {}, "policy": {}}) as graph, Client(ros_domain) as client:
        estop, joy = (client.publisher(topic, MESSAGE_TYPES[topic]) for topic in (ESTOP, JOY))
        graph.start_node(NodeConfig("manager", {"schedule": schedule, "output": tmp_path / "bags"}))
        client.until(lambda: estop.get_subscription_count() == 2 and joy.get_subscription_count() == 1)
        in_mid_episode(tmp_path / "bags")
        joy.publish(rclpy_maker()(MESSAGE_TYPES[JOY], axes=[0.5], buttons=[1]))
        estop.publish(rclpy_maker()(MESSAGE_TYPES[ESTOP], data=True))
        assert graph.wait("manager", 90) == 0, graph.log("manager").read_text()
    [bag] = [path for path in (tmp_path / "bags").iterdir() if path.is_dir()]
    assert verify(bag) == []
    reader = EpisodeReader(bag)
    [pressed] = [m.message for m in reader.messages([ESTOP])]
    [moved] = [m.message for m in reader.messages([JOY])]
    assert pressed.data
    assert (list(moved.axes), list(moved.buttons)) == ([0.5], [1])
    events = [m.message for m in reader.messages([EVENTS])]
    held = [e for e in events if "e-stop: pressed" in e.status[0].message]
    assert len(held) == 1
    stamps, actions = sent_actions(bag)
    stopped = stamps.index(stamp_of(held[0]))
    assert 0 < stopped < len(stamps) - 1
    assert not actions[stopped:, :3].any(), "from the event on the hand held, with displacements of 0"
    assert actions[:stopped, :3].any()

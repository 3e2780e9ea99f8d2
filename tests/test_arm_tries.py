"""Tries on the stand-in arm in real time: a manager sets them up, a policy drives, the arm judges. Real processes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from client_node import Client
from graph_helpers import header_of, make_graph, run_manager, save_random_policy, sent_actions
from test_arm_node import PANDA

from rollout_manager.bag import EpisodeReader
from rollout_manager.envs.panda_tasks import TASKS
from rollout_manager.results import read_results
from vla_policy_node.commands import action_to_message
from vla_policy_node.messages import joints_from_message, text_from_message
from vla_policy_node.ros_node import rclpy_maker
from vla_policy_node.topics import ACTION, HUMAN_ACTION, JOINT_STATES, MESSAGE_TYPES, OUTCOME

pytestmark = [pytest.mark.ros, pytest.mark.slow]

LIMIT = 20


def test_a_manager_has_a_policy_try_tasks_on_the_arm(ros_domain: int, tmp_path: Path) -> None:
    save_random_policy(tmp_path / "c", [task.instruction for task in TASKS.values()], spec=PANDA, horizon=30)
    robot = tmp_path / "robot.yaml"
    robot.write_text(yaml.safe_dump(PANDA.to_dict()))
    policy = {"robot": str(robot), "mode": "real_time"}
    schedule = tmp_path / "schedule.yaml"
    entries = [{"task": "lift_cube", "seed": seed, "time_limit": LIMIT} for seed in (3, 4)]
    content = {"environment": "panda", "driver": "policy", "checkpoint": str(tmp_path / "c"), "execute_every": 10}
    schedule.write_text(yaml.safe_dump({**content, "entries": entries}))
    asked: dict[str, Any] = {"schedule": str(schedule), "robot": str(robot), "output": str(tmp_path / "bags")}
    with make_graph(tmp_path, ros_domain, {"arm": {"robot": str(robot)}, "policy": policy}) as graph:
        status, said = run_manager(graph, **asked, mode="real_time", simulator="arm_node")
    assert status == 0, said
    rows = read_results(tmp_path / "bags" / "results.csv")
    assert [(row.seed, row.ending, row.steps) for row in rows] == [(3, "truncated", LIMIT), (4, "truncated", LIMIT)]
    for row in rows:
        check_bag(tmp_path / "bags" / row.episode_id)


def check_bag(bag: Path) -> None:
    """It begins with the arm at rest where the seed puts it, holds what drove it, and says what became of it."""
    header = header_of(bag)
    assert (header.environment, header.control_mode, header.instruction) == ("panda", "real_time", "lift the cube")
    assert "panda_model" in header.versions
    reader = EpisodeReader(bag)
    joints = [joints_from_message(m.message) for m in reader.messages([JOINT_STATES])]
    assert np.abs(joints[0].velocity).max() < 0.01, "the arm begins at rest"
    _, actions = sent_actions(bag, PANDA)
    assert len(actions) > LIMIT / 2, "two busy cores may miss ticks, but not most of them"
    np.testing.assert_allclose(actions[0][:7], joints[0].position[:7], atol=0.05)
    (outcome,) = [json.loads(text_from_message(m.message)) for m in reader.messages([OUTCOME])]
    assert outcome["seed"] == header.seed
    assert 0 < outcome["commands"] <= len(actions)


def test_the_arm_is_set_up_only_when_nothing_commands_it(ros_domain: int, tmp_path: Path) -> None:
    with make_graph(tmp_path, ros_domain, {"arm": {}}), Client(ros_domain) as client:
        assert "no try is set up" in client.switch("arm_node/run", True).message
        assert client.set("arm_node", task="stand on the head") == [
            "task 'stand on the head' is not one of panda's: reach_cube, push_cube, lift_cube"
        ]
        assert client.set("arm_node", task="push_cube", seed=7) == []
        client.listen(OUTCOME, MESSAGE_TYPES[OUTCOME])
        publisher = client.publisher(PANDA.commands[1].topic, "std_msgs/msg/Float64MultiArray")
        client.until(lambda: publisher.get_subscription_count() == 1)
        make = rclpy_maker()

        def hold() -> None:
            layout = make("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
            message = make("std_msgs/msg/Float64MultiArray", layout=layout, data=np.array([0.04, 0.04]))
            publisher.publish(message)

        timer = client.node.create_timer(0.02, hold)
        client.spin(0.3)
        refused = client.trigger("arm_node/reset")
        assert not refused.success
        assert "still commanded after 5 s" in refused.message
        client.node.destroy_timer(timer)
        info: dict[str, Any] = json.loads(client.trigger("arm_node/reset").message)
        assert info["instruction"] == "push the cube beyond the white line"
        assert info["seed"] == 7
        assert "test_client" not in info["listeners"][JOINT_STATES]
        client.set("arm_node", time_limit_steps=15)
        assert client.trigger("arm_node/reset").success
        human = client.publisher(HUMAN_ACTION, MESSAGE_TYPES[HUMAN_ACTION])
        client.until(lambda: human.get_subscription_count() == 1)
        assert client.switch("arm_node/run", True).success
        for _ in range(2):
            human.publish(action_to_message(make, PANDA, 1, np.zeros(8, np.float32)))
        client.until(lambda: bool(client.received[OUTCOME]))
        outcome = json.loads(client.received[OUTCOME][0].data)
        assert (outcome["ending"], outcome["steps"], outcome["commands"]) == ("truncated", 15, 0)
        assert outcome["human_steps"] == 2
        assert ACTION not in client.received

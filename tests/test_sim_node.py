"""The simulated arm over real DDS: lockstep, real time, refusals, and no second one on a domain."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client_node import Client
from graph_helpers import METAWORLD, TASK, make_graph

from rollout_manager.envs.registry import make_env
from rollout_manager.exceptions import SimulatorError
from rollout_manager.simulation import Simulation, state_stamp, state_to_message
from vla_policy_node.commands import action_to_message
from vla_policy_node.messages import observation_topics, rosbags_maker, stamp_of
from vla_policy_node.ros_node import rclpy_maker
from vla_policy_node.spec import NANOSECONDS
from vla_policy_node.topics import ACTION, INSTRUCTION, JOINT_STATES, MESSAGE_TYPES, OUTCOME, PRIVILEGED_STATE

ros = pytest.mark.ros
INPUTS = {topic: kind for topic, kind in observation_topics(METAWORLD).items() if topic != INSTRUCTION}
ACTION_UP = np.array([0.0, 0.0, 1.0, -1.0], np.float32)


def connected(client: Client) -> Any:
    """Listen to everything; the publisher of commands, once the simulator listens to it."""
    for topic, kind in {**INPUTS, PRIVILEGED_STATE: MESSAGE_TYPES[PRIVILEGED_STATE]}.items():
        client.listen(topic, kind)
    client.listen(OUTCOME, MESSAGE_TYPES[OUTCOME])
    action = client.publisher(ACTION, MESSAGE_TYPES[ACTION])
    client.until(lambda: action.get_subscription_count() == 1 and client.node.count_publishers(JOINT_STATES) == 1)
    return action


def reset(client: Client) -> dict[str, Any]:
    """Reset until the simulator knows that this client listens."""
    while True:
        answer = client.trigger("sim_node/reset")
        assert answer.success, answer.message
        content: dict[str, Any] = json.loads(answer.message)
        if all("test_client" in content["listeners"][topic] for topic in INPUTS):
            return content


@ros
def test_lockstep_steps_once_for_every_command_with_its_stamp(ros_domain: int, tmp_path: Path) -> None:
    make = rclpy_maker()
    with make_graph(tmp_path, ros_domain, {"sim": {}}), Client(ros_domain) as client:
        action = connected(client)
        assert client.set("sim_node", task=TASK, seed=3, time_limit_steps=3, episode_id="try", attempt=2) == []
        info = reset(client)
        assert (info["instruction"], info["time_limit_steps"]) == ("open the drawer", 3)
        client.switch("sim_node/run", True)
        first = info["first_stamp_ns"]
        for k in range(3):
            client.until(lambda k=k: all(len(client.received[t]) == k + 1 for t in [*INPUTS, PRIVILEGED_STATE]))  # type: ignore[misc]
            stamps = {stamp_of(client.received[t][-1]) for t in INPUTS}
            assert stamps == {first + k * METAWORLD.period_ns} == {state_stamp(client.received[PRIVILEGED_STATE][-1])}
            action.publish(action_to_message(make, METAWORLD, first - 1, ACTION_UP))  # answers another observation
            action.publish(action_to_message(make, METAWORLD, first + k * METAWORLD.period_ns, ACTION_UP))
        client.until(lambda: bool(client.received[OUTCOME]))
        outcome = json.loads(client.received[OUTCOME][0].data)
        assert (outcome["ending"], outcome["steps"], outcome["episode_id"]) == ("truncated", 3, "try")
        assert (outcome["task"], outcome["seed"], outcome["attempt"]) == (TASK, 3, 2)
        stopped = json.loads(client.switch("sim_node/run", False).message)
        assert stopped["stamp_ns"] == first + 3 * METAWORLD.period_ns
        client.until(lambda: all(stamp_of(client.received[t][-1]) == stopped["stamp_ns"] for t in INPUTS))
        again = reset(client)
        assert again["first_stamp_ns"] > stopped["stamp_ns"]


@ros
def test_real_time_steps_without_commands_until_time_is_up(ros_domain: int, tmp_path: Path) -> None:
    with make_graph(tmp_path, ros_domain, {"sim": {"mode": "real_time"}}), Client(ros_domain) as client:
        connected(client)
        client.set("sim_node", task=TASK, seed=0, time_limit_steps=20)
        reset(client)
        client.switch("sim_node/run", True)
        client.until(lambda: bool(client.received[OUTCOME]))
        assert json.loads(client.received[OUTCOME][0].data)["steps"] == 20
        stamps = [stamp_of(m) for m in client.received[JOINT_STATES]]
        assert stamps == sorted(set(stamps))


@ros
def test_in_real_time_a_try_that_follows_at_once_begins_at_once(ros_domain: int, tmp_path: Path) -> None:
    """Whoever passes over what is stamped before the try's first stamp passes over none of its observations."""
    with make_graph(tmp_path, ros_domain, {"sim": {"mode": "real_time"}}), Client(ros_domain) as client:
        connected(client)
        client.set("sim_node", task=TASK, seed=0, time_limit_steps=2)
        for number in (1, 2, 3):
            before = len(client.received[JOINT_STATES])
            first = reset(client)["first_stamp_ns"]
            client.switch("sim_node/run", True)
            client.until(lambda: len(client.received[JOINT_STATES]) == before + 2)  # noqa: B023 - called in this turn
            stamps = [stamp_of(message) for message in client.received[JOINT_STATES]]
            assert all(stamp < first for stamp in stamps[:before])
            assert all(stamp >= first for stamp in stamps[before:])
            client.until(lambda: len(client.received[OUTCOME]) == number)  # noqa: B023 - stopped before it is cut short
            client.switch("sim_node/run", False)
            client.until(lambda: len(client.received[JOINT_STATES]) == before + 3)  # noqa: B023 - the last observation


@ros
def test_what_it_refuses(ros_domain: int, tmp_path: Path) -> None:
    with make_graph(tmp_path, ros_domain, {"sim": {}}) as graph, Client(ros_domain) as client:
        action = connected(client)
        assert "no try is set up" in client.switch("sim_node/run", True).message
        assert "task '' is not one of" in client.trigger("sim_node/reset").message
        [reason] = client.set("sim_node", task="drawer-opn-v3")
        assert "task 'drawer-opn-v3' is not one of MetaWorld's 50" in reason
        assert "drawer-open-v3" in reason
        assert client.set("sim_node", seed=-1) == ["seed -1 is negative"]
        assert client.set("sim_node", mode="real_time") == ["mode is fixed when the node starts (now 'lockstep')"]
        client.set("sim_node", task=TASK)
        info = reset(client)
        client.switch("sim_node/run", True)
        bad = action_to_message(rclpy_maker(), METAWORLD, info["first_stamp_ns"], ACTION_UP)
        bad.joint_names = ["a", "b", "c", "d"]
        action.publish(bad)
        client.until(lambda: bool(client.received[OUTCOME]))
        outcome = json.loads(client.received[OUTCOME][0].data)
        assert outcome["ending"] == "aborted"
        assert "hand_dx" in outcome["reason"]
        assert graph.alive()


@ros
def test_a_second_simulator_refuses_to_start(ros_domain: int, tmp_path: Path) -> None:
    with make_graph(tmp_path / "1", ros_domain, {"sim": {}}) as first, Client(ros_domain) as client:
        client.until(lambda: client.node.count_publishers(JOINT_STATES) == 1)
        with make_graph(tmp_path / "2", ros_domain, {"sim": {}}) as second:
            assert second.wait("sim", 40) == 1
            assert "error: '/joint_states' is published already, by sim_node" in second.log("sim").read_text()
        assert first.alive()


def test_a_simulation_counts_its_own_time() -> None:
    env = make_env("metaworld")
    try:
        simulation = Simulation(env)
        assert not simulation.running
        with pytest.raises(SimulatorError, match="reset first"):
            simulation.apply(ACTION_UP)
        first = simulation.reset(TASK, 0, 2, now_ns=5 * NANOSECONDS)
        assert first.first_stamp_ns == 5 * NANOSECONDS
        assert simulation.apply(ACTION_UP) is None
        outcome = simulation.apply(ACTION_UP)
        assert outcome is not None
        assert (outcome.ending, outcome.steps) == ("truncated", 2)
        ended = simulation.stamp_ns
        assert ended == 5 * NANOSECONDS + 2 * METAWORLD.period_ns
        # The next try never goes back in time, whatever the clock says.
        assert simulation.reset(TASK, 0, 0, now_ns=0).first_stamp_ns == ended + NANOSECONDS
        assert simulation.info is not None
        assert simulation.info.time_limit_steps == env.default_time_limit(TASK)
        with pytest.raises(SimulatorError, match="time_limit_steps -1 is negative"):
            simulation.reset(TASK, 0, -1, 0)
    finally:
        env.close()


def test_a_privileged_state_carries_its_stamp() -> None:
    message = state_to_message(rosbags_maker(), 1234567890123456789, np.arange(3.0))
    assert state_stamp(message) == 1234567890123456789
    message.layout.dim[0].label = "stamp"
    with pytest.raises(SimulatorError, match="label 'stamp'"):
        state_stamp(message)

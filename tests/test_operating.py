"""Rollouts on an arm with an operator, all of it as real processes over DDS; the arm is the stand-in."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from graph_helpers import INSTRUCTION_TEXT, header_of, sent_actions
from operator_bench import HOME, PANDA, Operator, bench, start_manager

from rollout_manager.bag import EpisodeReader, verify
from rollout_manager.graph import NodeConfig
from rollout_manager.labels import Label, current, read_labels
from rollout_manager.results import read_results
from vla_policy_node.messages import text_from_message
from vla_policy_node.ros_node import message_class
from vla_policy_node.topics import ESTOP, INSTRUCTION, MESSAGE_TYPES

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timeout(400)]


def label_of(bag: Path) -> Label:
    label = current(read_labels(bag))
    assert label is not None
    return label


def test_success_failure_and_a_try_made_again(ros_domain: int, tmp_path: Path) -> None:
    with bench(tmp_path, ros_domain) as (graph, operator):
        assert "is the rollout manager running?" in operator.refused("start")
        start_manager(graph, tmp_path, range(2))
        assert operator.until("away").prompt == "home: bring the arm home", "nothing moves before somebody is there"
        assert "home: bring the arm home" in operator.refused("start")
        operator.begin(home=True)
        operator.client.spin(2.0)
        away = np.abs(operator.joints() - HOME).max()
        assert away > 0.05, "the policy moves the arm"
        operator.client.set("station_node", note="cube slipped")
        operator.say("discard")
        operator.until("homing")  # by itself: the operator is there
        operator.scene()
        assert np.abs(operator.joints() - HOME).max() < 0.02
        assert "no try is running" in operator.refused("success")
        operator.begin()
        operator.client.spin(1.5)
        operator.say("success")
        operator.begin()
        operator.client.spin(1.0)
        operator.say("failure")
        assert graph.wait("manager", 60) == 0, graph.tail("manager")
        assert "done: 1 of 2 initial states solved" in graph.log("manager").read_text()
    bags = tmp_path / "bags"
    rows = [(r.episode_id, r.ending, r.reason) for r in read_results(bags / "results.csv")]
    assert rows == [
        ("robot_cube_s0_a0", "aborted", "discarded by operator: cube slipped"),
        ("robot_cube_s0_a0", "success", ""),
        ("robot_cube_s1_a0", "failure", ""),
    ]
    for name, outcome in (
        ("robot_cube_s0_a0.aborted", "discard"), ("robot_cube_s0_a0", "success"), ("robot_cube_s1_a0", "failure")
    ):  # fmt: skip
        assert verify(bags / name) == []
        label = label_of(bags / name)
        assert (label.outcome, label.author, label.rule) == (outcome, "operator", "human")
        assert len(sent_actions(bags / name, PANDA)[0]) >= 5
        header = header_of(bags / name)
        assert (header.environment, header.driver, header.control_mode) == ("robot", "policy", "real_time")
        assert header.checkpoint_digest
        told = [text_from_message(m.message) for m in EpisodeReader(bags / name).messages([INSTRUCTION])]
        assert told == [INSTRUCTION_TEXT]


def test_time_is_up_with_nobody_there_and_the_arm_waits(ros_domain: int, tmp_path: Path) -> None:
    with bench(tmp_path, ros_domain) as (graph, operator):
        start_manager(graph, tmp_path, range(2), time_limit=60)
        operator.begin(home=True)
        state = operator.until("away")
        assert state.prompt == "truncated: time was up; home: bring the arm home"
        operator.rest()
        assert operator.state.phase == "away"
        assert graph.status()["manager"] is None
        _press_the_emergency_stop(operator)
        operator.begin(home=True)
        operator.say("stop")
        assert operator.until("away").prompt == "aborted: stopped by operator; home: bring the arm home"
        operator.begin(home=True)
        operator.say("success")
        assert graph.wait("manager", 60) == 0, graph.tail("manager")
    rows = read_results(tmp_path / "bags" / "results.csv")
    told = [(r.seed, r.ending, r.reason) for r in rows]
    assert told == [
        (0, "truncated", "time was up"),
        (1, "aborted", "policy_node/enable: the robot is stopped: e-stop: pressed"),
        (1, "aborted", "stopped by operator"),
        (1, "success", ""),
    ]
    assert 20 <= rows[0].steps <= 66, "two seconds of it"
    timed_out = label_of(tmp_path / "bags" / rows[0].episode_id)
    assert (timed_out.outcome, timed_out.author, timed_out.rule) == ("failure", "robot", "time_limit")


def _press_the_emergency_stop(operator: Operator) -> None:
    """It stops the way home, and a try that is started while it is pressed does not begin."""
    client = operator.client
    estop = client.publisher(ESTOP, MESSAGE_TYPES[ESTOP])
    client.until(lambda: estop.get_subscription_count() == 2)  # the policy node, and the manager that records it
    press, release = (message_class(MESSAGE_TYPES[ESTOP])(data=pressed) for pressed in (True, False))
    estop.publish(press)
    client.spin(0.5)
    operator.say("home")
    client.until(lambda: operator.state.prompt.startswith("not home: the robot is stopped: e-stop: pressed"))
    estop.publish(release)
    client.spin(0.5)
    assert client.trigger("policy_node/clear_stop").success
    operator.say("home")
    operator.scene()
    estop.publish(press)
    client.spin(0.5)
    operator.say("start")
    assert operator.until("away").prompt == "the try was cut short; home: bring the arm home"
    estop.publish(release)
    client.spin(0.5)
    assert client.trigger("policy_node/clear_stop").success


def test_whoever_dies_the_arm_comes_to_rest_and_the_schedule_goes_on(ros_domain: int, tmp_path: Path) -> None:
    with bench(tmp_path, ros_domain) as (graph, operator):
        start_manager(graph, tmp_path, [0])
        operator.begin(home=True)
        operator.client.spin(2.0)
        os.kill(graph.pid("manager"), signal.SIGKILL)
        assert graph.wait("manager", 10) == -signal.SIGKILL
        assert "the rollout manager is gone" in operator.until("idle", 10.0).prompt
        operator.rest()  # Nobody records, so the policy does not drive on.
        start_manager(graph, tmp_path, [0])
        operator.begin(home=True)
        operator.client.spin(1.0)
        os.kill(graph.pid("station"), signal.SIGKILL)  # nobody could end the try any more
        assert graph.wait("station", 10) == -signal.SIGKILL
        graph.start_node(NodeConfig("station", {"robot": tmp_path / "robot.yaml"}))
        operator.client.received.clear()
        operator.begin(home=True)
        operator.say("success")
        assert graph.wait("manager", 60) == 0, graph.tail("manager")
        assert "recovered an interrupted recording" in graph.log("manager").read_text()
    rows = read_results(tmp_path / "bags" / "results.csv")
    assert [(r.ending, r.success) for r in rows] == [("aborted", False), ("success", True)]
    # Whichever is noticed first: that it is silent, or that it is another one.
    assert rows[0].reason.startswith("station_node died"), rows[0].reason
    cut_short = [path for path in (tmp_path / "bags").glob("*.aborted*") if path.is_dir()]
    assert len(cut_short) == 2, "one without a manager, one without a station"

"""The rollout manager over real nodes: schedules, retries, reruns, refusals, and graphs that are not there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_helpers import (
    INSTRUCTION_TEXT,
    METAWORLD,
    TASK,
    header_of,
    make_graph,
    run_manager,
    save_random_policy,
    write_schedule,
)

from rollout_manager.bag import verify
from rollout_manager.cdr import stamp_of_cdr
from rollout_manager.exceptions import BagError
from rollout_manager.labels import current, read_labels
from rollout_manager.results import read_results
from vla_policy_node.messages import joints_to_message, rosbags_maker, typestore
from vla_policy_node.observation import Joints

ros = pytest.mark.ros


@ros
def test_a_schedule_is_run_once_and_a_rerun_goes_on(ros_domain: int, tmp_path: Path) -> None:
    bags = tmp_path / "bags"
    write_schedule(tmp_path / "1.yaml", "expert", [0], attempts=(0.0, 0.1))
    write_schedule(tmp_path / "2.yaml", "expert", [0, 1], attempts=(0.0, 0.1))
    with make_graph(tmp_path, ros_domain, {"sim": {}, "expert": {}}) as graph:
        status, said = run_manager(graph, schedule=tmp_path / "1.yaml", output=bags)
        assert status == 0, said
        # As if the manager had been killed between the bag and its label, which comes before its row.
        (bags / "results.csv").unlink()
        [labels] = bags.glob("*.labels.jsonl")
        labels.unlink()
        status, said = run_manager(graph, schedule=tmp_path / "2.yaml", output=bags)
        assert status == 0, said
        assert "1 of 2 initial states to try" in said
        assert "done: 2 of 2 initial states solved" in said
        status, said = run_manager(graph, schedule=tmp_path / "2.yaml", output=bags, record="none")
        assert status == 0, said
        assert "0 of 2 initial states to try" in said
    rows = read_results(bags / "results.csv")
    assert [(row.seed, row.attempt, row.success) for row in rows] == [(0, 0, True), (1, 0, True)]
    for row in rows:
        bag = bags / row.episode_id
        assert verify(bag) == []
        label = current(read_labels(bag))
        assert label is not None
        assert (label.outcome, label.rule) == ("success", "simulator")
        header = header_of(bag)
        assert (header.driver, header.control_mode, header.label_source) == ("expert", "lockstep", "proposed")
        assert header.spec_digest == METAWORLD.digest
        assert "mujoco" in header.versions


@ros
def test_what_a_node_refuses_ends_the_manager_with_its_reason(ros_domain: int, tmp_path: Path) -> None:
    save_random_policy(tmp_path / "c", [INSTRUCTION_TEXT])
    with make_graph(tmp_path, ros_domain, {"sim": {}, "policy": {}}) as graph:
        cases: list[tuple[dict[str, Any], str]] = [
            ({"task": "drawer-opn-v3", "checkpoint": tmp_path / "c"}, "task 'drawer-opn-v3' is not one of the 50"),
            ({"task": TASK, "checkpoint": tmp_path / "none"}, "none' does not exist"),
            ({}, "nothing to try: give the parameter schedule"),
            ({"task": TASK, "mode": "turbo"}, "parameter mode 'turbo' is not one of lockstep, real_time"),
            ({"schedule": tmp_path / "none.yaml"}, "none.yaml' does not exist"),
        ]
        for k, (parameters, says) in enumerate(cases):
            graph.log("manager").unlink(missing_ok=True)
            status, said = run_manager(graph, output=tmp_path / f"bags{k}", **parameters)
            assert status == 1, said
            assert says in said
            assert "Traceback" not in said
        assert not list(tmp_path.glob("bags*/*.partial"))


@ros
def test_a_graph_that_is_not_there_is_named(ros_domain: int, tmp_path: Path) -> None:
    with make_graph(tmp_path, ros_domain, {}) as graph:
        status, said = run_manager(graph, task=TASK, output=tmp_path / "bags", start_timeout_s=3.0)
    assert status == 1
    assert f"error: sim_node did not answer within 3 s on ROS_DOMAIN_ID={ros_domain}" in said


def test_the_stamp_of_a_serialised_message() -> None:
    message = joints_to_message(rosbags_maker(), Joints(("a",), np.array([0.5])), 1_234_567_890_123_456_789)
    cdr = bytes(typestore().serialize_cdr(message, "sensor_msgs/msg/JointState"))
    assert stamp_of_cdr(cdr) == 1_234_567_890_123_456_789
    with pytest.raises(BagError, match="message of 4 bytes has no header"):
        stamp_of_cdr(cdr[:4])

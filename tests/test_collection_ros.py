"""Collection over ROS: graphs keep off domains that others are on, and share the work."""

import os
import time
from pathlib import Path

import pytest

from rollout_manager.graph import Graph, GraphConfig, NodeConfig, is_quiet
from trainer.collection import CollectionPlan, done_tries
from trainer.collection_ros import DOMAINS, RosCollector, choose_domains
from trainer.exceptions import TrainerError

pytestmark = [pytest.mark.ros, pytest.mark.timeout(300)]


def test_a_domain_that_is_taken_is_not_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
    first = choose_domains(1)[0]
    with Graph(GraphConfig((NodeConfig("sim"),), first, tmp_path)) as graph:
        deadline = time.monotonic() + 60
        while is_quiet(first) and time.monotonic() < deadline:
            graph.check()
            time.sleep(0.1)
        assert first not in choose_domains(5)


def test_a_domain_that_was_asked_for_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    assert choose_domains(2) == [7, 8]
    monkeypatch.setenv("ROS_DOMAIN_ID", "seven")
    with pytest.raises(TrainerError, match="ROS_DOMAIN_ID 'seven' is not a number"):
        choose_domains(1)


def test_more_domains_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
    with pytest.raises(TrainerError, match="ROS domains are needed"):
        choose_domains(len(DOMAINS) + 1)


def test_two_graphs_share_a_plan(tmp_path: Path, ros_domain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROS_DOMAIN_ID")
    plan = CollectionPlan("tries", "expert", ("reach-v3",), range(4), tmp_path / "bags", tmp_path / "tries.csv")
    said: list[str] = []
    collector = RosCollector("metaworld", "metaworld", 2, tmp_path / "logs", said.append)
    try:
        collector.collect(plan)
        collector.collect(plan)
    finally:
        collector.close()
    rows = done_tries(plan)
    assert sorted(row.seed for row in rows) == [0, 1, 2, 3]
    assert all(row.success for row in rows)
    assert [len(list((tmp_path / "bags" / f"graph_{k}").glob("*/*.mcap"))) for k in range(2)] == [2, 2]
    assert len(said) == 1, "the second time there is nothing left to do"
    assert "ROS_DOMAIN_ID" not in os.environ

"""LIBERO through every door that MetaWorld has: demonstrated, learned, tried over ROS and in process, filtered."""

import os
from pathlib import Path

import pytest
from graph_helpers import assert_same_episode, make_graph, run_manager, save_random_policy

from rollout_manager.catalog import Catalog
from rollout_manager.drivers import PolicyDriver
from rollout_manager.envs.registry import make_env
from rollout_manager.recorder import BagObserver
from rollout_manager.results import read_results
from rollout_manager.rollout import new_header, run_episode
from rollout_manager.schedule import Schedule, ScheduleEntry, save_schedule
from trainer import cli
from trainer.config import FilterConfig
from trainer.filter import select
from vla_policy_node.chunking import make_executor
from vla_policy_node.network_policy import NetworkPolicy
from vla_policy_node.safety import SafetyFilter
from vla_policy_node.spec import load_spec

pytestmark = [
    pytest.mark.ros,
    pytest.mark.slow,
    pytest.mark.skipif("ENCORE_LIBERO_ASSETS" not in os.environ, reason="ENCORE_LIBERO_ASSETS names no asset folder"),
]

LIBERO = load_spec("libero")
STOVE = "KITCHEN_SCENE3_turn_on_the_stove"


def test_a_network_acts_alike_over_ros_and_in_process(ros_domain: int, tmp_path: Path) -> None:
    checkpoint, steps = tmp_path / "checkpoint", 12
    save_random_policy(checkpoint, ["turn on the stove"], spec=LIBERO)
    save_schedule(tmp_path / "s.yaml", Schedule("libero", "policy", (ScheduleEntry(STOVE, 30, time_limit=steps),)))
    with make_graph(tmp_path, ros_domain, {"sim": {"environment": "libero"}, "policy": {"robot": "libero"}}) as graph:
        status, said = run_manager(
            graph, schedule=tmp_path / "s.yaml", checkpoint=checkpoint, output=tmp_path / "live", service_timeout_s=60.0
        )
    assert status == 0, said
    env = make_env("libero")
    driver = PolicyDriver(
        NetworkPolicy.load(checkpoint, LIBERO), make_executor("replan", LIBERO.period_ns, 100), SafetyFilter(LIBERO)
    )
    header = new_header(env, STOVE, 30, driver="policy")
    run_episode(env, driver, header, steps, [BagObserver(tmp_path / "local", LIBERO)])
    env.close()
    assert_same_episode(tmp_path / "live" / header.episode_id, tmp_path / "local" / header.episode_id, LIBERO)


def test_the_loop_of_a_task(ros_domain: int, tmp_path: Path) -> None:
    """Demonstrate over ROS, with a miss, train, try over ROS, keep what succeeded."""
    place = ["--env", "libero", "--suite", "libero_90", "--tasks", "scene3 turn on the stove"]
    demonstrated, tried = tmp_path / "demonstrated", tmp_path / "tried"
    demonstration = ["--output", str(demonstrated), "--per-task", "2", "--slips", "1", "--via", "ros"]
    assert cli.main(["demonstrate", *place, *demonstration]) == 0
    rows = read_results(demonstrated / "tries.csv")
    assert sorted((row.task, row.seed, row.success) for row in rows) == [(STOVE, 0, True), (STOVE, 1, True)]
    run = tmp_path / "run"
    training = ["--training.steps", "2", "--training.batch-size", "8", "--network", "two_cameras"]
    bags = str(demonstrated / "bags")
    assert cli.main(["train", "--bags", bags, "--robot", "libero", "--output", str(run), *training]) == 0
    (checkpoint,) = (run / "checkpoints").iterdir()
    rollout = ["--per-task", "1", "--first-seed", "10", "--time-limit", "15", "--checkpoint", str(checkpoint)]
    assert cli.main(["rollout", *place, *rollout, "--output", str(tried), "--via", "ros"]) == 1, (
        "two steps teach nothing"
    )
    with Catalog.rebuild([demonstrated / "bags", tried / "bags"], tmp_path / "catalog.sqlite") as catalog:
        chosen = select(catalog.rows(), FilterConfig(), LIBERO.digest)
    assert {row.header.seed for row in chosen.rows} == {0, 1}
    assert [dropped.row.header.seed for dropped in chosen.dropped] == [10]

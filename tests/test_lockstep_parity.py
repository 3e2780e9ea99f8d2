"""A rollout over ROS and the same rollout in process send the same actions, to the bit."""

from pathlib import Path

import numpy as np
import pytest
from graph_helpers import (
    INSTRUCTION_TEXT,
    METAWORLD,
    TASK,
    assert_same_episode,
    make_graph,
    run_manager,
    save_random_policy,
    sent_actions,
    write_schedule,
)

from rollout_manager.bag import EpisodeReader
from rollout_manager.drivers import ExpertDriver, PolicyDriver
from rollout_manager.envs.registry import make_env
from rollout_manager.episode import Driver as DriverName
from rollout_manager.experts.demonstrator import Demonstrator
from rollout_manager.experts.expert import ActionNoise, make_expert
from rollout_manager.recorder import BagObserver
from rollout_manager.results import read_results
from rollout_manager.rollout import Driver, EpisodeResult, new_header, run_episode
from rollout_manager.schedule import in_turn
from vla_policy_node.chunking import make_executor
from vla_policy_node.exploration import Explore
from vla_policy_node.network_policy import NetworkPolicy
from vla_policy_node.safety import SafetyFilter
from vla_policy_node.spec import load_spec
from vla_policy_node.topics import EVENTS

pytestmark = pytest.mark.ros


def in_process(driver: Driver, name: DriverName, folder: Path, limit: int, attempt: int, scale: float) -> EpisodeResult:
    env = make_env("metaworld")
    try:
        header = new_header(env, TASK, 3, driver=name, attempt=attempt, exploration=scale)
        return run_episode(env, driver, header, limit, [BagObserver(folder, METAWORLD)])
    finally:
        env.close()


@pytest.mark.parametrize(("scale", "mishaps"), [(0.0, 0.0), (0.2, 1.0)])
def test_the_expert_acts_alike(ros_domain: int, tmp_path: Path, scale: float, mishaps: float) -> None:
    schedule = write_schedule(
        tmp_path / "s.yaml", "expert", [3], attempts=(scale,), noise_correlation=0.5, slips=mishaps, pushes=mishaps / 20
    )
    with make_graph(tmp_path, ros_domain, {"sim": {}, "expert": {}}) as graph:
        status, said = run_manager(graph, schedule=schedule, output=tmp_path / "live")
    assert status == 0, said
    noise = ActionNoise(METAWORLD, scale, 0.5)
    driver = ExpertDriver(Demonstrator(make_expert("metaworld"), METAWORLD, noise, mishaps, mishaps / 20))
    local = in_process(driver, "expert", tmp_path / "local", 200, 0, scale)
    [row] = read_results(tmp_path / "live" / "results.csv")
    assert (row.steps, row.ending) == (local.outcome.steps, local.outcome.ending)
    if scale == 0.0:
        assert row.success
    name = local.header.episode_id
    assert_same_episode(tmp_path / "live" / name, tmp_path / "local" / name)


def test_an_expert_that_commands_positions_acts_alike(ros_domain: int, tmp_path: Path) -> None:
    panda, task = {"environment": "panda"}, "reach_cube"
    with make_graph(tmp_path, ros_domain, {"sim": panda, "expert": panda}) as graph:
        asked = {"driver": "expert", "task": task, "first_seed": 3, "episodes": 1, "output": tmp_path / "live"}
        status, said = run_manager(graph, 90.0, **panda, **asked)
    assert status == 0, said
    env, spec = make_env("panda"), load_spec("panda")
    driver = ExpertDriver(Demonstrator(make_expert("panda"), spec, ActionNoise(spec, 0.0)))
    header = new_header(env, task, 3, driver="expert")
    outcome = run_episode(env, driver, header, 150, [BagObserver(tmp_path / "local", spec)]).outcome
    env.close()
    assert outcome.success
    assert_same_episode(tmp_path / "live" / header.episode_id, tmp_path / "local" / header.episode_id, spec)


@pytest.mark.parametrize(
    ("execute", "every"), [("replan", (0,)), ("replan", (3, 5)), ("ensemble", (0,)), ("real_time_chunking", (0, 2))]
)
def test_a_network_acts_alike_without_and_with_exploration(
    ros_domain: int, tmp_path: Path, execute: str, every: tuple[int, ...]
) -> None:
    checkpoint = tmp_path / "checkpoint"
    digest = save_random_policy(checkpoint, [INSTRUCTION_TEXT])
    schedule = write_schedule(
        tmp_path / "s.yaml", "policy", [3], attempts=(0.0, 0.3), time_limit=25, execute_every=every
    )
    with make_graph(tmp_path, ros_domain, {"sim": {}, "policy": {"execute": execute}}) as graph:
        status, said = run_manager(graph, schedule=schedule, checkpoint=checkpoint, output=tmp_path / "live")
    assert status == 0, said
    for attempt, scale in enumerate((0.0, 0.3)):
        executor = make_executor(execute, METAWORLD.period_ns, in_turn(every, attempt))
        policy = Explore(NetworkPolicy.load(checkpoint, METAWORLD), scale)
        driver = PolicyDriver(policy, executor, SafetyFilter(METAWORLD))
        local = in_process(driver, "policy", tmp_path / "local", 25, attempt, scale)
        name = local.header.episode_id
        assert_same_episode(tmp_path / "live" / name, tmp_path / "local" / name)
        header = EpisodeReader(tmp_path / "live" / name).header
        assert (header.checkpoint_digest, header.exploration) == (digest, scale)
        assert next(EpisodeReader(tmp_path / "local" / name).messages([EVENTS])).topic == EVENTS
        assert header.label_source == ("proposed" if scale else "sent")
    first, second = (sent_actions(tmp_path / "live" / f"metaworld_{TASK}_s3_a{k}")[1] for k in (0, 1))
    assert not np.array_equal(first, second)

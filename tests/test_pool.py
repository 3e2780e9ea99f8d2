"""The pool: real worker processes, real kills, and the episodes that one process would have given."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rollout_manager.bag import EpisodeReader, verify
from rollout_manager.decisions import DecisionLog
from rollout_manager.drivers import ExpertDriver, PolicyDriver
from rollout_manager.envs.metaworld import MetaWorldEnv
from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.exceptions import RolloutError, ScheduleError
from rollout_manager.experts.demonstrator import Demonstrator
from rollout_manager.experts.expert import ActionNoise, make_expert
from rollout_manager.labels import current, read_labels
from rollout_manager.pool import WorkerPool, run_pool
from rollout_manager.pool_request import EpisodeRequest
from rollout_manager.rollout import START_NS, new_header, run_episode
from trainer.dataset import load_episode
from trainer.episode_cache import EpisodeCache
from vla_policy_node.checkpoint import Lineage, save_checkpoint
from vla_policy_node.chunking import make_executor
from vla_policy_node.commands import action_from_message
from vla_policy_node.exploration import Explore
from vla_policy_node.network.config import NetworkConfig
from vla_policy_node.network.vla import VLANetwork
from vla_policy_node.network_policy import NetworkPolicy
from vla_policy_node.normalization import Statistics
from vla_policy_node.observation import Float32Array
from vla_policy_node.safety import SafetyFilter
from vla_policy_node.spec import load_spec
from vla_policy_node.topics import ACTION

SPEC = load_spec("metaworld")
SOURCE = str(Path(__file__).resolve().parents[1] / "src")


def expert(task: str, seed: int = 0, **options: object) -> EpisodeRequest:
    return EpisodeRequest("metaworld", task, seed, driver="expert", **options)  # type: ignore[arg-type]


def save_untrained(checkpoint: Path) -> str:
    """A policy that knows nothing; gives its digest."""
    statistics = Statistics((0.0, 0.6, 0.2, 0.5), (0.1, 0.1, 0.1, 0.3), (0.0,) * 4, (1.0,) * 4)
    return save_checkpoint(checkpoint, VLANetwork(NetworkConfig(), SPEC, statistics), Lineage())


def endless(bags: Path, seed: int = 0) -> EpisodeRequest:
    """A try that takes minutes and is recorded from its first step on."""
    return EpisodeRequest(
        "metaworld", "reach-v3", seed, driver="none", time_limit=100_000, bag_root=str(bags), record="all"
    )


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as made:
        yield made


@pytest.fixture(autouse=True)
def no_process_left_behind() -> None:
    """Instead of the one of all tests: the workers here live as long as the module. `stopped` looks after the rest."""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(path: Path, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def wait_for_steps(partial: Path, timeout_s: float = 60.0) -> None:
    """Wait until an episode has been recorded for a second: its first chunk is on disk by then."""
    deadline = time.monotonic() + timeout_s
    while not any(file.stat().st_size > 20_000 for file in partial.glob("*.mcap")):
        assert time.monotonic() < deadline, f"nothing was recorded in {partial}"
        time.sleep(0.02)


def recorded_actions(bag: Path) -> Float32Array:
    return np.array([action_from_message(SPEC, m.message)[1] for m in EpisodeReader(bag).messages([ACTION])])


def in_process(request: EpisodeRequest) -> tuple[EpisodeHeader, Outcome, Float32Array]:
    env, log = MetaWorldEnv(), DecisionLog()
    header = new_header(
        env,
        request.task,
        request.seed,
        driver="expert",
        attempt=request.attempt,
        exploration=request.exploration,
        time_limit=request.time_limit,
    )
    driver = ExpertDriver(
        Demonstrator(make_expert("metaworld"), SPEC, ActionNoise(SPEC, request.exploration, request.noise_correlation))
    )
    result = run_episode(env, driver, header, header.time_limit_steps, [log])
    env.close()
    return result.header, result.outcome, np.array([d.action for d in log.decisions])


def test_every_request_is_answered_once_and_as_one_process_would(pool: WorkerPool) -> None:
    requests = [
        expert(task, seed, exploration=0.2, noise_correlation=0.5)
        for task in ("reach-v3", "push-v3")
        for seed in range(3)
    ]
    results = {result.header.episode_id: result for result in pool.run(requests)}
    assert len(results) == 6
    for request in requests:
        header, outcome, _ = in_process(request)
        assert results[request.episode_id].header == header
        assert results[request.episode_id].outcome == outcome
    assert len(pool.pids) == 2


def test_an_episode_that_cannot_be_is_aborted_and_the_others_go_on(pool: WorkerPool) -> None:
    before = set(pool.pids)
    wrong = [expert("juggle-v3"), EpisodeRequest("metaworld", "reach-v3", 0, checkpoint="/nowhere/at/all")]
    results = {r.header.episode_id + r.header.driver: r for r in pool.run([*wrong, expert("reach-v3")])}
    assert [r.outcome.ending for r in results.values()].count("aborted") == 2
    assert "'juggle-v3' is not one of MetaWorld's 50" in results["metaworld_juggle-v3_s0_a0expert"].outcome.reason
    assert "/nowhere/at/all" in results["metaworld_reach-v3_s0_a0policy"].outcome.reason
    assert results["metaworld_reach-v3_s0_a0expert"].outcome.success
    assert before <= set(pool.pids)  # No process was lost over it.


def test_bags_of_all_and_of_successes_only_are_the_same(pool: WorkerPool, tmp_path: Path) -> None:
    every, kept = tmp_path / "all", tmp_path / "successes"
    requests = [expert("reach-v3", 1, exploration=0.2), expert("push-v3", 1, exploration=0.2, time_limit=20)]
    for root, record in ((every, "all"), (kept, "successes")):
        list(pool.run([EpisodeRequest(**{**vars(r), "bag_root": str(root), "record": record}) for r in requests]))
    reach, push = (request.episode_id for request in requests)
    assert sorted(p.name for p in every.iterdir() if p.is_dir()) == sorted([push, reach])
    assert [p.name for p in kept.iterdir() if p.is_dir()] == [reach]
    assert verify(kept / reach) == []
    bags = [EpisodeReader(root / reach) for root in (kept, every)]
    assert list(bags[0].raw_messages()) == list(bags[1].raw_messages())
    _, outcome, actions = in_process(requests[0])
    assert EpisodeReader(kept / reach).outcome == outcome
    assert np.array_equal(recorded_actions(kept / reach), actions)
    labels = [current(read_labels(every / name)) for name in (reach, push)]
    assert [label.outcome for label in labels if label] == ["success", "failure"]


@pytest.mark.parametrize("exploration", [0.0, 0.3])
def test_a_policy_acts_in_the_pool_as_in_process(pool: WorkerPool, tmp_path: Path, exploration: float) -> None:
    checkpoint = tmp_path / "checkpoint"
    digest = save_untrained(checkpoint)
    requests = [
        EpisodeRequest(
            "metaworld",
            "push-v3",
            seed,
            attempt=1,
            checkpoint=str(checkpoint),
            exploration=exploration,
            time_limit=30,
            bag_root=str(tmp_path / "bags"),
            record="all",
        )
        for seed in range(2)
    ]
    results = list(pool.run(requests))
    assert {r.header.checkpoint_digest for r in results} == {digest}
    env, log = MetaWorldEnv(), DecisionLog()
    policy = Explore(NetworkPolicy.load(checkpoint, SPEC), exploration)
    driver = PolicyDriver(policy, make_executor("replan", SPEC.period_ns, 8), SafetyFilter(SPEC))
    for result in results:
        assert result.outcome.ending == "truncated"
        run_episode(env, driver, result.header, 30, [log])
        recorded = recorded_actions(tmp_path / "bags" / result.header.episode_id)
        assert np.array_equal(recorded, np.array([d.action for d in log.decisions]))
    env.close()


def test_an_expert_takes_over_from_where_a_policy_got_to(pool: WorkerPool, tmp_path: Path) -> None:
    checkpoint, bags = tmp_path / "checkpoint", tmp_path / "bags"
    digest = save_untrained(checkpoint)
    options = {"checkpoint": str(checkpoint), "bag_root": str(bags), "record": "all"}
    requests = [expert("reach-v3", seed, takeover=(10, 30), **options) for seed in range(3)]
    begun = []
    for result in pool.run(requests):
        header = result.header
        assert (header.driver, header.label_source, header.checkpoint_digest) == ("expert", "proposed", digest)
        assert result.outcome.success, result.outcome
        episode = load_episode(bags / header.episode_id, SPEC, (84, 84), EpisodeCache(tmp_path / "cache"))
        first = result.outcome.steps - len(episode)
        assert episode.stamps[0] == START_NS + first * SPEC.period_ns, "all that is learned comes after the takeover"
        sent = recorded_actions(bags / header.episode_id)
        env, log = MetaWorldEnv(), DecisionLog()
        policy = NetworkPolicy.load(checkpoint, SPEC)
        driver = PolicyDriver(policy, make_executor("replan", SPEC.period_ns, 8), SafetyFilter(SPEC))
        run_episode(env, driver, header, first, [log])
        env.close()
        np.testing.assert_array_equal(sent[:first], [d.action for d in log.decisions])
        begun.append(first)
    assert all(10 <= first <= 30 for first in begun)
    assert len(set(begun)) > 1


def test_a_bag_that_is_there_is_not_overwritten(pool: WorkerPool, tmp_path: Path) -> None:
    request = expert("reach-v3", 2, bag_root=str(tmp_path), record="all")
    (first,) = pool.run([request])
    digest = EpisodeReader(tmp_path / request.episode_id).digest
    (second,) = pool.run([request])
    assert first.outcome.success
    assert second.outcome.ending == "aborted"
    assert "exists already" in second.outcome.reason
    assert EpisodeReader(tmp_path / request.episode_id).digest == digest


def test_a_killed_worker_costs_its_episode_and_no_other(tmp_path: Path) -> None:
    lost = endless(tmp_path)

    def kill() -> None:
        partial = tmp_path / f"{lost.episode_id}.partial"
        wait_for(partial)
        while sum(file.stat().st_size for file in partial.iterdir()) < 50_000:  # Some seconds have been flushed.
            time.sleep(0.05)
        os.kill(first, signal.SIGKILL)

    with WorkerPool(1) as pool:
        list(pool.run([expert("reach-v3", 5)]))
        (first,) = pool.pids
        killer = threading.Thread(target=kill)
        killer.start()
        results = list(pool.run([lost, expert("reach-v3", 0), expert("reach-v3", 1)]))
        killer.join()
        assert first not in pool.pids
        last = pool.pids
    assert [r.outcome.ending for r in results] == ["aborted", "success", "success"]
    assert results[0].outcome.reason == "worker process died (killed by SIGKILL)"
    assert not any(alive(pid) for pid in (first, *last))
    (bag,) = (p for p in tmp_path.iterdir() if p.is_dir())
    assert bag.name.startswith(f"{lost.episode_id}.aborted")
    assert EpisodeReader(bag).outcome.ending == "aborted"
    assert len(recorded_actions(bag)) > 10


def test_a_worker_that_dies_idle_costs_nothing() -> None:
    with WorkerPool(1) as pool:
        list(pool.run([expert("reach-v3")]))
        (idle,) = pool.pids
        os.kill(idle, signal.SIGKILL)
        while Path(f"/proc/{idle}/stat").read_text().split()[2] != "Z":
            time.sleep(0.01)
        (result,) = pool.run([expert("reach-v3", 1)])
        assert result.outcome.success
        assert pool.pids != (idle,)


def test_an_episode_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    with WorkerPool(1, timeout_s=4.0) as pool:
        results = list(pool.run([endless(tmp_path), expert("reach-v3")]))
    assert [r.outcome.ending for r in results] == ["aborted", "success"]
    assert "no result within 4 s" in results[0].outcome.reason


def test_stopping_early_ends_the_workers_that_are_busy(tmp_path: Path) -> None:
    requests = [expert("reach-v3"), endless(tmp_path)]
    with WorkerPool(2) as pool:
        results = pool.run(requests)
        assert next(results).outcome.success
        wait_for(tmp_path / f"{requests[1].episode_id}.partial")
        busy = set(pool.pids)
        results.close()  # type: ignore[attr-defined]
        assert len(pool.pids) == 1
        (gone,) = busy - set(pool.pids)
        assert not alive(gone)
    (bag,) = (p for p in tmp_path.iterdir() if p.is_dir())  # It closed its bag on the way out.
    assert EpisodeReader(bag).outcome.reason == "interrupted"


def test_ctrl_c_ends_everything_within_seconds(tmp_path: Path) -> None:
    script = f"""
        from rollout_manager.pool import run_pool
        from rollout_manager.pool_request import EpisodeRequest
        requests = [
            EpisodeRequest("metaworld", "reach-v3", seed, driver="none", time_limit=100_000,
                           bag_root={str(tmp_path)!r}, record="all")
            for seed in range(4)
        ]
        list(run_pool(requests, 2))
    """
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], env=environment, stderr=subprocess.PIPE, text=True
    )
    for seed in range(2):
        wait_for_steps(tmp_path / f"{endless(tmp_path, seed).episode_id}.partial")
    workers = children(process.pid)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in said
    assert len(workers) == 2
    assert not any(alive(pid) for pid in workers)
    bags = [p for p in tmp_path.iterdir() if p.is_dir()]
    assert {EpisodeReader(bag).outcome.reason for bag in bags} == {"interrupted"}


def test_workers_end_when_their_pool_was_killed(tmp_path: Path) -> None:
    script = """
        from rollout_manager.pool import WorkerPool
        from rollout_manager.pool_request import EpisodeRequest
        pool = WorkerPool(1)
        print(len(list(pool.run([EpisodeRequest("metaworld", "reach-v3", 0, driver="expert")]))), flush=True)
        input()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": SOURCE},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    (worker,) = children(process.pid)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(worker)


def test_workers_that_cannot_start_are_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RolloutError, match=r"worker process died \(exit code 1\), before its first episode"):
        list(run_pool([expert("reach-v3")], 1))


def test_nothing_asked_for_starts_nothing() -> None:
    with WorkerPool(2) as pool:
        assert list(pool.run([])) == []
        assert pool.pids == ()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"driver": "autopilot"}, "driver 'autopilot' is not one of"),
        ({"driver": "human"}, "'human' cannot drive in a pool"),
        ({"driver": "policy"}, "needs a checkpoint"),
        ({"driver": "expert", "record": "some"}, "record 'some' is not one of"),
        ({"driver": "expert", "record": "all"}, "a bag_root is needed"),
    ],
)
def test_requests_that_make_no_sense_are_refused(options: dict[str, str], said: str) -> None:
    with pytest.raises(ScheduleError, match=said):
        EpisodeRequest("metaworld", "reach-v3", 0, **options)  # type: ignore[arg-type]
    with pytest.raises(ScheduleError, match="0 workers"):
        WorkerPool(0)

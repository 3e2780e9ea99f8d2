"""How fast is the simulator with a camera, how well does a second worker pay, does memory stay flat?

Goals: with a camera at least 3 times gymnasium's own renderer; a pool of 2 at least 1.8 times a pool of 1; memory flat
in the number of episodes. Run: `python benchmarks/bench_simulator.py [result.json]`. Contenders take turns, several
times, so that a load that comes and goes meets both. The exit status is 1 where a goal is missed.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from rollout_manager.envs.metaworld import MetaWorldEnv
from rollout_manager.pool import WorkerPool
from rollout_manager.pool_request import EpisodeRequest
from rollout_manager.pool_worker import Termination, Worker
from vla_policy_node.spec import CameraSpec, load_spec

SPEC = load_spec("metaworld")
TASK = "drawer-open-v3"
SIZES = (64, 128, 224)
TRIALS = 5
STEPS = 40
TASKS = ("reach-v3", "push-v3", "drawer-open-v3", "window-open-v3")

Figures = dict[str, Any]


def actions() -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).uniform(-1, 1, (STEPS, 4)).astype(np.float32)


def ours(size: int) -> Callable[[], float]:
    """A trial of our environment: steps/s with one camera rendered every step."""
    env = MetaWorldEnv(replace(SPEC, cameras=(CameraSpec("front", size, size),)))

    def trial() -> float:
        env.reset(TASK, 0)
        env.read()
        began = time.perf_counter()
        for action in actions():
            env.step(action)
            assert env.read().images["front"].shape == (size, size, 3)
        return STEPS / (time.perf_counter() - began)

    return trial


def gymnasium(size: int) -> Callable[[], float]:
    """A trial of MetaWorld as it comes: `render()`, which is gymnasium's MujocoRenderer, every step."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    env = ALL_V3_ENVIRONMENTS[TASK](render_mode="rgb_array", camera_name="corner2", width=size, height=size)
    env._freeze_rand_vec = False
    env._set_task_called = True

    def trial() -> float:
        env.reset()
        env.render()
        began = time.perf_counter()
        for action in actions():
            env.step(action)
            image = env.render()
        assert image.ndim == 3
        return STEPS / (time.perf_counter() - began)

    return trial


def take_turns(contenders: dict[str, Callable[[], float]], trials: int = TRIALS) -> dict[str, Figures]:
    """Each contender's figures: least, median and most of its trials."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(trials):
        for name, trial in contenders.items():
            rates[name].append(trial())
    return {name: {"min": min(r), "median": median(r), "max": max(r), "trials": r} for name, r in rates.items()}


def show(title: str, figures: dict[str, Figures], ratio: float, goal: float) -> bool:
    for name, f in figures.items():
        print(f"{title:<24}{name:<12}{f['min']:>9.1f}{f['median']:>9.1f}{f['max']:>9.1f}")
    met = ratio >= goal
    print(f"{title:<24}{'ratio of medians':<18}{ratio:.2f}  (goal {goal}: {'met' if met else 'MISSED'})")
    return met


def measure_camera() -> dict[str, Any]:
    results: dict[str, Any] = {}
    for size in SIZES:
        figures = take_turns({"encore": ours(size), "gymnasium": gymnasium(size)})
        ratio = figures["encore"]["median"] / figures["gymnasium"]["median"]
        met = show(f"camera {size} px, steps/s", figures, ratio, 3.0)
        results[str(size)] = {"figures": figures, "ratio": ratio, "met": met}
    return results


def make_checkpoint(folder: Path) -> str:
    """A checkpoint of the demo's network, untrained: it costs what a trained one costs."""
    from vla_policy_node.checkpoint import Lineage, save_checkpoint
    from vla_policy_node.network.config import NetworkConfig
    from vla_policy_node.network.vla import VLANetwork
    from vla_policy_node.normalization import Statistics

    statistics = Statistics((0.0, 0.6, 0.2, 0.5), (0.1, 0.1, 0.1, 0.3), (0.0,) * 4, (1.0,) * 4)
    save_checkpoint(folder / "checkpoint", VLANetwork(NetworkConfig(), SPEC, statistics), Lineage())
    return str(folder / "checkpoint")


def pool_trial(pool: WorkerPool, requests: list[EpisodeRequest]) -> Callable[[], float]:
    """A trial of a pool whose workers run already: steps/s over all requests."""

    def trial() -> float:
        began = time.perf_counter()
        results = list(pool.run(requests))
        if aborted := [r.outcome.reason for r in results if r.outcome.ending == "aborted"]:
            raise RuntimeError(aborted[0])
        return sum(r.outcome.steps for r in results) / (time.perf_counter() - began)

    return trial


def measure_pool(checkpoint: str) -> dict[str, Any]:
    """One worker against two, with the expert and with a policy (which renders at every chunk) in the loop."""
    results: dict[str, Any] = {}
    kinds: dict[str, dict[str, Any]] = {
        "expert": {"driver": "expert", "exploration": 0.1},
        "policy": {"driver": "policy", "checkpoint": checkpoint, "time_limit": 100},
    }
    with WorkerPool(1) as one, WorkerPool(2) as two:
        for kind, options in kinds.items():
            requests = [EpisodeRequest("metaworld", task, seed, **options) for task in TASKS for seed in range(10)]
            trials = {"1 worker": pool_trial(one, requests), "2 workers": pool_trial(two, requests)}
            for trial in trials.values():
                trial()  # Build the scenes, load the policy.
            figures = take_turns(trials)
            ratio = figures["2 workers"]["median"] / figures["1 worker"]["median"]
            met = show(f"pool, {kind}, steps/s", figures, ratio, 1.8)
            results[kind] = {"figures": figures, "ratio": ratio, "met": met}
    return results


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure_memory(folder: Path, episodes: int = 200, every: int = 25) -> dict[str, Any]:
    """Resident memory of a worker that renders and records one episode after the other."""
    worker, samples = Worker(Termination()), []
    for k in range(episodes + 1):
        if k % every == 0:
            samples.append(resident_mb())
        options: dict[str, Any] = {"time_limit": 12, "bag_root": str(folder), "record": "all"}
        worker.run(EpisodeRequest("metaworld", TASKS[k % len(TASKS)], k, driver="expert", **options))
    # The first quarter warms up: scenes, renderers, message types.
    settled = samples[len(samples) // 4 :]
    growth = (settled[-1] - settled[0]) / (every * (len(settled) - 1))
    met = growth < 0.02
    print("memory, MB after " + ", ".join(f"{k * every}: {mb:.0f}" for k, mb in enumerate(samples)))
    print(f"{'memory':<24}{'MB an episode':<18}{growth:.4f}  (goal < 0.02: {'met' if met else 'MISSED'})")
    return {"samples_mb": samples, "every": every, "mb_an_episode": growth, "met": met}


def main() -> int:
    print(f"{'':<36}{'min':>9}{'median':>9}{'max':>9}")
    results: dict[str, Any] = {"cores": os.cpu_count(), "camera": measure_camera()}
    with tempfile.TemporaryDirectory() as folder:
        results["pool"] = measure_pool(make_checkpoint(Path(folder)))
        results["memory"] = measure_memory(Path(folder) / "bags")
    met = [part["met"] for part in (*results["camera"].values(), *results["pool"].values(), results["memory"])]
    results["met"] = all(met)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    return 0 if results["met"] else 1


if __name__ == "__main__":
    raise SystemExit(main())

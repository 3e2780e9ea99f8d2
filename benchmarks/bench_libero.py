"""LIBERO against its own wrapper: the same physics, how much faster, how fast to reset, how large, how well in a pool.

Goals: joint positions equal to the bit over 200 random steps; at least 5 times the control steps/s at 2 cameras of
128 px; a reset in at most 0.05 s; a pool of 2 with the policy in the loop at least 1.8 times one. Both contenders use
the same assets and take turns, so that a load that comes and goes meets both. The exit status is 1 where a goal is
missed.

Run: python benchmarks/bench_libero.py [--parts physics speed reset memory pool] [--tasks 10] [--json result.json]
With ENCORE_LIBERO_ASSETS it takes 15 minutes on two cores; `--tasks 2` takes 4.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from libero_stock import StockLibero

from rollout_manager.envs.libero.env import LiberoEnv
from rollout_manager.envs.libero.package import find_assets
from rollout_manager.envs.libero.scene import LiberoScene
from rollout_manager.envs.libero.suites import LiberoTask, find_task
from rollout_manager.pool import WorkerPool
from rollout_manager.pool_request import EpisodeRequest
from vla_policy_node.observation import Float64Array
from vla_policy_node.spec import RobotSpec, load_spec

ROOT = Path(__file__).resolve().parents[1]
SPEC = load_spec("libero")
TASKS = (
    "libero_spatial/0",
    "libero_90/20",
    "libero_object/3",
    "libero_10/2",
    "libero_goal/0",
    "libero_90/3",
    "libero_spatial/7",
    "libero_90/50",
    "libero_90/85",
    "libero_goal/4",
)
"""Of all five suites, kitchens, living rooms and studies."""
SIZES = (64, 128, 224)
GOAL_SPEED, GOAL_RESET_S, GOAL_POOL = 5.0, 0.05, 1.8
PHYSICS_STEPS = 200

Figures = dict[str, Any]


def random_actions(steps: int) -> Float64Array:
    return np.random.default_rng(0).uniform(-1, 1, (steps, 7))


def verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def measure_physics(tasks: Sequence[LiberoTask]) -> Figures:
    """In how many tasks positions, velocities and success are the stock's, and up to which step elsewhere."""
    equal_until: dict[str, int] = {}
    for task in tasks:
        ours, stock = LiberoScene(task, find_assets()), StockLibero(task)
        ours.reset(7)
        stock.reset(7)
        equal_until[f"{task.suite}/{task.index}"] = until = _equal_until(ours, stock)
        ours.close()
        stock.close()
        print(f"physics  {task.suite}/{task.index:<4}{task.name[:60]:<62}equal for {until} of {PHYSICS_STEPS} steps")
    met = all(until == PHYSICS_STEPS for until in equal_until.values())
    print(f"physics  joint positions equal to the bit in {len(tasks)} tasks: {verdict(met)}")
    return {"equal_steps": equal_until, "met": met}


def _equal_until(ours: LiberoScene, stock: StockLibero) -> int:
    for k, action in enumerate(random_actions(PHYSICS_STEPS)):
        same = np.array_equal(ours.data.qpos, stock.data.qpos) and np.array_equal(ours.data.qvel, stock.data.qvel)
        ours.step(action)
        if stock.step(action)[1] != all(ours.satisfied()) or not same:
            return k
    return PHYSICS_STEPS


def spec_with(cameras: int, size: int) -> RobotSpec:
    return replace(SPEC, cameras=tuple(replace(c, height=size, width=size) for c in SPEC.cameras[:cameras]))


Trial = Callable[[], tuple[float, float]]
"""Steps/s by the clock, and CPU milliseconds a step."""


def timed(step: Callable[[Float64Array], object], steps: int) -> tuple[float, float]:
    began, cpu = time.perf_counter(), time.process_time()
    for action in random_actions(steps):
        step(action)
    return steps / (time.perf_counter() - began), (time.process_time() - cpu) / steps * 1e3


def measure_speed(tasks: Sequence[LiberoTask], steps: int, rounds: int) -> Figures:
    """Every step with all cameras rendered, ours and the stock's in turn."""
    results: Figures = {}
    print(
        f"{'steps/s, median of tasks':<34}{'stock':>9}{'ours':>9}{'ratio':>9}{'least':>9}{'most':>9}{'CPU ratio':>11}"
    )
    for cameras in (1, 2):
        for size in SIZES:
            rows = [_compare(task, cameras, size, steps, rounds) for task in tasks]
            ratios = [row["ours"] / row["stock"] for row in rows]
            cpu = median(row["stock_cpu_ms"] / row["ours_cpu_ms"] for row in rows)
            stock, ours = (median(row[who] for row in rows) for who in ("stock", "ours"))
            goal = (cameras, size) == (2, 128)
            met = not goal or median(ratios) >= GOAL_SPEED
            line = f"speed  {cameras} camera(s), {size} px"
            print(f"{line:<34}{stock:>9.1f}{ours:>9.1f}{median(ratios):>9.2f}{min(ratios):>9.2f}", end="")
            print(f"{max(ratios):>9.2f}{cpu:>11.2f}" + (f"  (goal {GOAL_SPEED}: {verdict(met)})" if goal else ""))
            results[f"{cameras}x{size}"] = {"tasks": rows, "ratio": median(ratios), "cpu_ratio": cpu, "met": met}
    return results


def _compare(task: LiberoTask, cameras: int, size: int, steps: int, rounds: int) -> Figures:
    env = LiberoEnv(spec_with(cameras, size))
    env.reset(task.name, 0)
    env.read()
    stock = StockLibero(task, size=size, cameras=cameras)
    stock.reset(0)

    def step(action: Float64Array) -> None:
        env.step(action.astype(np.float32))
        env.read()

    trials: dict[str, Trial] = {"ours": lambda: timed(step, steps), "stock": lambda: timed(stock.step, steps)}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in trials}
    for _ in range(rounds):
        for name, trial in trials.items():
            found[name].append(trial())
    env.close()
    stock.close()
    figures: Figures = {"task": f"{task.suite}/{task.index}"}
    for name, measured in found.items():
        figures[name] = median(rate for rate, _ in measured)
        figures[f"{name}_cpu_ms"] = median(cpu for _, cpu in measured)
    return figures


def measure_reset(tasks: Sequence[LiberoTask], seeds: int = 8) -> Figures:
    """To an initial state for the first time and again, and to a placement that is sampled; settling included."""
    kinds: dict[str, list[float]] = {"first": [], "again": [], "sampled": []}
    for task in tasks:
        env = LiberoEnv(spec_with(2, 128))
        env.reset(task.name, 49)
        for kind, first in (("first", 0), ("again", 0), ("sampled", 1000)):
            kinds[kind].append(median(_reset_time(env, task.name, first + k) for k in range(seeds)))
        env.close()
    results: Figures = {}
    for kind, times in kinds.items():
        met = median(times) <= GOAL_RESET_S
        print(f"reset  {kind:<27}median {median(times):.4f} s, slowest task {max(times):.4f} s", end="")
        print(f"  (goal {GOAL_RESET_S}: {verdict(met)})")
        results[kind] = {"median_s": median(times), "slowest_s": max(times), "met": met}
    return results


def _reset_time(env: LiberoEnv, task: str, seed: int) -> float:
    began = time.perf_counter()
    env.reset(task, seed)
    return time.perf_counter() - began


MEMORY = """
import sys
from pathlib import Path
from libero_stock import StockLibero
from rollout_manager.envs.libero.env import LiberoEnv
from rollout_manager.envs.libero.suites import find_task
from rollout_manager.envs.libero.package import load_package
def resident(): return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
load_package()
sizes, kept = [resident()], []
env = LiberoEnv()
for name in sys.argv[2:]:
    task = find_task(name)
    if sys.argv[1] == "ours":
        env.reset(task.name, 0)
        env.read()
    else:
        kept.append(StockLibero(task, size=128))
        kept[-1].reset(0)
    sizes.append(resident())
print(*sizes)
"""


def measure_memory(tasks: Sequence[LiberoTask]) -> Figures:
    """Resident memory of a process with LIBERO imported, and what each scene with its renderer adds."""
    results: Figures = {}
    names = [f"{task.suite}/{task.index}" for task in tasks[:4]]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    for who in ("ours", "stock"):
        command = [sys.executable, "-c", MEMORY, who, *names]
        said = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
        )
        sizes = [float(word) for word in said.stdout.split()[-len(names) - 1 :]]
        added = [after - before for before, after in pairwise(sizes)]
        print(f"memory  {who:<10}imported {sizes[0]:.0f} MB; with one scene {sizes[1]:.0f} MB; ", end="")
        print(f"each further scene {median(added[1:]):.0f} MB" if added[1:] else "")
        results[who] = {"imported_mb": sizes[0], "one_scene_mb": sizes[1], "added_mb": added}
    return results


def make_checkpoint(folder: Path) -> str:
    """A checkpoint of the network for two cameras, untrained: it costs what a trained one costs."""
    from vla_policy_node.checkpoint import Lineage, save_checkpoint
    from vla_policy_node.network.config import load_network_config
    from vla_policy_node.network.vla import VLANetwork
    from vla_policy_node.normalization import Statistics

    inputs, outputs = len(SPEC.proprioception), len(SPEC.action)
    statistics = Statistics((0.0,) * inputs, (1.0,) * inputs, (0.0,) * outputs, (1.0,) * outputs)
    network = VLANetwork(load_network_config("two_cameras"), SPEC, statistics)
    save_checkpoint(folder / "checkpoint", network, Lineage())
    return str(folder / "checkpoint")


def measure_pool(tasks: Sequence[LiberoTask], rounds: int) -> Figures:
    """Steps/s of one worker and of two, the policy in the loop: it renders both cameras at every eighth step."""
    with tempfile.TemporaryDirectory() as folder, WorkerPool(1) as one, WorkerPool(2) as two:
        checkpoint = make_checkpoint(Path(folder))
        names = [task.name for task in tasks[:2]]
        # One task after the other, as the product's own schedules go, so that scenes are built once.
        requests = [
            EpisodeRequest("libero", name, seed, checkpoint=checkpoint, time_limit=80)
            for name in names
            for seed in range(8)
        ]
        pools = {"1 worker": one, "2 workers": two}
        for pool in pools.values():
            list(pool.run(requests))  # Builds the scenes, loads the policy.
        rates: dict[str, list[float]] = {name: [] for name in pools}
        for _ in range(rounds):
            for name, pool in pools.items():
                rates[name].append(_pool_rate(pool, requests))
    slow, fast = (median(rates[name]) for name in pools)
    met = fast / slow >= GOAL_POOL
    print(f"pool  steps/s with the policy: 1 worker {slow:.0f}, 2 workers {fast:.0f}, ", end="")
    print(f"ratio {fast / slow:.2f}  (goal {GOAL_POOL}: {verdict(met)})")
    return {"rates": rates, "ratio": fast / slow, "met": met}


def _pool_rate(pool: WorkerPool, requests: list[EpisodeRequest]) -> float:
    began = time.perf_counter()
    results = list(pool.run(requests))
    if aborted := [r.outcome.reason for r in results if r.outcome.ending == "aborted"]:
        raise RuntimeError(aborted[0])
    return sum(r.outcome.steps for r in results) / (time.perf_counter() - began)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("physics", "speed", "reset", "memory", "pool")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--tasks", type=int, default=len(TASKS), help="how many of the tasks to look at")
    parser.add_argument("--steps", type=int, default=20, help="control steps a trial of the speed")
    parser.add_argument("--rounds", type=int, default=2, help="trials of each contender")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    given = parser.parse_args()
    tasks = [find_task(name) for name in TASKS[: given.tasks]]
    measure: dict[str, Callable[[], Figures]] = {
        "physics": lambda: measure_physics(tasks),
        "speed": lambda: measure_speed(tasks, given.steps, given.rounds),
        "reset": lambda: measure_reset(tasks),
        "memory": lambda: measure_memory(tasks),
        "pool": lambda: measure_pool(tasks, max(given.rounds, 5)),
    }
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    results: Figures = {"cores": os.cpu_count(), "load": os.getloadavg(), "versions": LiberoEnv().versions()}
    for part in given.parts:
        results[part] = measure[part]()
    print(f"load {os.getloadavg()[0]:.1f} at the end")
    results["met"] = all(_all_met(results[part]) for part in given.parts)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    return 0 if results["met"] else 1


def _all_met(part: Figures) -> bool:
    inner = [value for value in part.values() if isinstance(value, dict)]
    return part.get("met", True) is True and all(value.get("met", True) is True for value in inner)


if __name__ == "__main__":
    raise SystemExit(main())

"""Does a policy succeed as often on an arm that waits for nobody as in lockstep? The same initial states both ways.

    python benchmarks/bench_real_time_success.py --output runs/real_time --tries 40

The scripted expert shows a task of the stand-in arm, a network of two cameras is trained on it, and then drives: in
lockstep in process, and in real time over DDS, with arm, policy and rollout manager as processes of their own. On a
machine that is busy with other things, `--speed 0.2` has the graph's clock run at a fifth of the time. Prints
both success rates, their difference with its interval, the exact McNemar test and the ticks that got no command; the
same goes to a JSON file. The same command again goes on where it was.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rollout_manager.bag import EpisodeReader
from rollout_manager.exceptions import RolloutError
from rollout_manager.graph import PARENT_VARIABLE, Graph, GraphConfig, NodeConfig, ros_environment
from rollout_manager.pool import WorkerPool
from rollout_manager.results import EpisodeResultRow, read_results
from rollout_manager.schedule import Schedule, ScheduleEntry, save_schedule
from trainer.bc import BehaviourCloningConfig, run_behaviour_cloning
from trainer.collection import CollectionPlan
from trainer.collectors import make_collector
from trainer.commands.arguments import find_config
from trainer.config import load_config
from trainer.evaluate import EvaluationPlan, evaluate
from trainer.statistics import Summary, compare_paired, success_by_state
from vla_policy_node.checkpoint import load_checkpoint
from vla_policy_node.messages import text_from_message
from vla_policy_node.spec import load_spec
from vla_policy_node.topics import OUTCOME

ENVIRONMENT = "panda"
DOMAIN = 91
EXECUTE_EVERY = 8
"""Of a chunk's 16 actions, both ways: the rest are there while the network thinks."""
CAMERA_HZ, JITTER_S = 30.0, 0.005
"""Of the arm's pictures, in the graph's time."""
HELD = 20_000
"""First seed of the initial states that choose the checkpoint."""
EVALUATED = 30_000
"""First seed of those that are compared."""


@dataclass(frozen=True)
class Options:
    """What is measured."""

    output: Path
    task: str
    demonstrations: int
    steps: int
    tries: int
    workers: int
    camera_delay_s: float
    speed: float
    checkpoint: str


def options() -> Options:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of everything that is made")
    parser.add_argument("--task", default="reach_cube")
    parser.add_argument("--demonstrations", type=int, default=40)
    parser.add_argument("--steps", type=int, default=3000, help="of training")
    parser.add_argument("--tries", type=int, default=40, help="initial states, each tried both ways")
    parser.add_argument("--workers", type=int, default=2, help="processes, where there is no real time")
    parser.add_argument("--camera-delay-s", type=float, default=0.03, help="of the arm's pictures in real time")
    parser.add_argument("--speed", type=float, default=1.0, help="of the graph's clock, as a share of the time")
    parser.add_argument("--checkpoint", default="", help="folder of one that is there already: nothing is trained")
    return Options(**vars(parser.parse_args()))


def train(given: Options) -> Path:
    """Demonstrations and a policy, where they are not there yet; the checkpoint's folder."""
    plan = CollectionPlan(
        name="demonstrations",
        driver="expert",
        tasks=(given.task,),
        seeds=range(given.demonstrations),
        bags=given.output / "demonstrations",
        results=given.output / "demonstrations.csv",
    )
    with WorkerPool(given.workers) as pool:
        make_collector("pool", ENVIRONMENT, ENVIRONMENT, pool, given.workers, given.output / "logs").collect(plan)
    config = load_config(BehaviourCloningConfig, find_config(ENVIRONMENT, "train"))
    validation = replace(config.validation, tasks=(given.task,), first_seed=HELD, workers=given.workers)
    training = replace(config.training, steps=given.steps)
    config = replace(config, bags=(str(plan.bags),), validation=validation, training=training)
    return run_behaviour_cloning(config, given.output / "training").checkpoint


def in_lockstep(given: Options, checkpoint: Path, digest: str) -> list[EpisodeResultRow]:
    """Each initial state once in process."""
    seeds = tuple(range(EVALUATED, EVALUATED + given.tries))
    plan = EvaluationPlan(
        tasks=(given.task,),
        seeds=seeds,
        checkpoint=str(checkpoint),
        environment=ENVIRONMENT,
        execute_every=EXECUTE_EVERY,
        workers=given.workers,
    )
    return evaluate(plan, given.output / "lockstep.csv", digest)


def in_real_time(given: Options, checkpoint: Path) -> Path:
    """Each initial state once over DDS; the folder of the bags.

    Raises:
        RolloutError: the manager did not come to its end.
    """
    folder = given.output / name_of(given)
    entries = tuple(ScheduleEntry(given.task, EVALUATED + k) for k in range(given.tries))
    schedule = Schedule(ENVIRONMENT, "policy", entries, str(checkpoint.resolve()), execute_every=(EXECUTE_EVERY,))
    save_schedule(folder / "schedule.yaml", schedule)
    real_time = {"robot": ENVIRONMENT, "mode": "real_time"}
    asked = {"schedule": folder / "schedule.yaml", "output": folder, "simulator": "arm_node"}
    clock = {"use_sim_time": given.speed != 1.0}
    # The cameras' thread keeps to the time itself.
    seen = {"camera_delay_s": given.camera_delay_s / given.speed, "camera_jitter_s": JITTER_S / given.speed}
    nodes = (
        NodeConfig("arm", seen | {"camera_rate_hz": CAMERA_HZ * given.speed} | clock),
        NodeConfig("policy", real_time | clock),
        NodeConfig("manager", real_time | asked),
    )
    with slow_clock(given.speed), Graph(GraphConfig(nodes, DOMAIN, folder / "logs")) as graph:
        if graph.wait("manager"):
            raise RolloutError(f"the manager failed; it said:\n{graph.tail('manager')}")
    return folder


def name_of(given: Options) -> str:
    """Of the folder that holds what was made in real time."""
    slowed = f"_speed_{given.speed:g}" if given.speed != 1.0 else ""
    return f"real_time_{given.camera_delay_s:g}s{slowed}"


@contextmanager
def slow_clock(speed: float) -> Iterator[None]:
    """The graph's clock, where it is not the time itself."""
    if speed == 1.0:
        yield
        return
    node = Path(__file__).with_name("_slow_clock_node.py")
    environment = ros_environment(DOMAIN) | {PARENT_VARIABLE: str(os.getpid())}
    process = subprocess.Popen([sys.executable, str(node), str(speed)], env=environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10.0)


def missed_ticks(bags: Path, rows: list[EpisodeResultRow]) -> tuple[int, int]:
    """Periods of the tries in which no command came, and all of them, as the arm counted."""
    missed = total = 0
    for row in rows:
        reader = EpisodeReader(bags / row.episode_id)
        (outcome,) = [json.loads(text_from_message(m.message)) for m in reader.messages([OUTCOME])]
        missed += max(0, outcome["steps"] - outcome["commands"])
        total += outcome["steps"]
    return missed, total


def main() -> int:
    """Measure, print and write. Returns 0, or 1 where nothing succeeds in lockstep and so nothing is compared."""
    given = options()
    given.output.mkdir(parents=True, exist_ok=True)
    checkpoint = Path(given.checkpoint) if given.checkpoint else train(given)
    digest = load_checkpoint(checkpoint, load_spec(ENVIRONMENT)).digest
    locked = in_lockstep(given, checkpoint, digest)
    bags = in_real_time(given, checkpoint)
    live = [r for r in read_results(bags / "results.csv") if r.checkpoint_digest == digest and r.ending != "aborted"]
    compared = compare_paired(success_by_state(locked), success_by_state(live))
    missed, ticks = missed_ticks(bags, live)
    load = os.getloadavg()[0]
    for name, rows in (("lockstep", locked), ("real time", live)):
        summary = Summary.of(rows)
        print(f"{name:<10} {summary.rate!s:<38} {summary.steps.mean:.1f} steps to success")
    print(f"difference {compared}")
    print(f"ticks without a command: {missed} of {ticks} ({missed / max(1, ticks):.1%}); load {load:.1f}")
    content = {
        "task": given.task,
        "checkpoint_digest": digest,
        "camera_delay_s": given.camera_delay_s,
        "speed": given.speed,
        "lockstep": asdict(Summary.of(locked)),
        "real_time": asdict(Summary.of(live)),
        "comparison": asdict(compared),
        "missed_ticks": missed,
        "ticks": ticks,
        "load": load,
    }
    path = given.output / f"{name_of(given)}.json"
    path.write_text(json.dumps(content, indent=2, default=float) + "\n")
    print(f"written to {path}")
    return 0 if any(row.success for row in locked) else 1


if __name__ == "__main__":
    sys.exit(main())

"""How fast do bags become training windows, decoded for the first time and from the cache? One core.

Real bags: 2 cameras of 96 x 96 pixels, joints, pose, chunk 8; zstd-compressed as recorded. Images are half noise,
half smooth, since neither alone is what a camera gives. Goals: 2,000 windows/s first time, from opening the bag to
the batch; 20,000 windows/s from the cache, in the sampler's random order, batches of 128.

Time is the process's own CPU time, so that other work on the machine does not count; wall time stands beside it.
Run: `python benchmarks/bench_dataset.py [trials] [result.json]`. The exit status is 1 where a goal is missed.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from rollout_manager.bag import EpisodeWriter  # noqa: E402
from rollout_manager.episode import EpisodeHeader, Outcome  # noqa: E402
from trainer.dataset import WindowDataset, load_episodes  # noqa: E402
from trainer.episode_cache import EpisodeCache  # noqa: E402
from trainer.sampler import WindowSampler  # noqa: E402
from vla_policy_node.action_spec import ActionDimension  # noqa: E402
from vla_policy_node.commands import action_to_message, chunk_to_message  # noqa: E402
from vla_policy_node.messages import (  # noqa: E402
    readings_to_messages,
    rosbags_maker,
    text_to_message,
    typestore,
)
from vla_policy_node.observation import ImageArray, Joints, Pose, Readings  # noqa: E402
from vla_policy_node.policy import ActionChunk  # noqa: E402
from vla_policy_node.spec import CameraSpec, ProprioceptionField, RobotSpec  # noqa: E402
from vla_policy_node.topics import ACTION, ACTION_CHUNK, INSTRUCTION, MESSAGE_TYPES  # noqa: E402

EPISODES, STEPS, SIDE, CHUNK, BATCH = 20, 100, 96, 8, 128
FIRST_GOAL, CACHE_GOAL = 2_000, 20_000

SPEC = RobotSpec(
    name="bench",
    rate_hz=30.0,
    cameras=(CameraSpec("front", SIDE, SIDE), CameraSpec("wrist", SIDE, SIDE)),
    proprioception=tuple(
        [ProprioceptionField(f"j{i}", "joint_position", f"j{i}", "rad") for i in range(7)]
        + [ProprioceptionField(f"hand_{key}", "ee_pose", key, "m") for key in "xyz"]
    ),
    action=tuple(ActionDimension(f"a{i}", "1", -1.0, 1.0) for i in range(7)),
)


def image(rng: np.random.Generator) -> ImageArray:
    """A frame whose upper half is noise and whose lower half is smooth."""
    small = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    frame = np.asarray(cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), np.uint8)
    frame[: SIDE // 2] = rng.integers(0, 256, (SIDE // 2, SIDE, 3), dtype=np.uint8)
    return frame


def write_bag(root: Path, number: int, steps: int = STEPS) -> Path:
    """One episode; every second one by a policy, which proposes a chunk at every step."""
    rng, make = np.random.default_rng(number), rosbags_maker()
    header = EpisodeHeader(
        episode_id=f"episode_{number}",
        environment="bench",
        task=f"task_{number % 4}",
        instruction=f"do task {number % 4}",
        seed=number,
        robot=SPEC.name,
        spec_digest=SPEC.digest,
        driver="policy" if number % 2 else "expert",
        control_mode="in_process",
        label_source="proposed" if number % 2 else "sent",
    )
    writer = EpisodeWriter(root, header)

    def write(topic: str, type_name: str, stamp: int, message: object) -> None:
        writer.write(topic, type_name, stamp, bytes(typestore().serialize_cdr(message, type_name)))

    write(INSTRUCTION, MESSAGE_TYPES[INSTRUCTION], 0, text_to_message(make, header.instruction))
    for step in range(steps):
        stamp = (step + 1) * SPEC.period_ns
        joints = Joints(tuple(f"j{i}" for i in range(7)), rng.standard_normal(7))
        pose = Pose(rng.standard_normal(3), np.array([0.0, 0.0, 0.0, 1.0]))
        readings = Readings({name: image(rng) for name in SPEC.camera_names}, joints, pose)
        for topic, type_name, message in readings_to_messages(make, SPEC, readings, stamp):
            write(topic, type_name, stamp, message)
        chunk = ActionChunk(stamp, rng.uniform(-1, 1, (CHUNK, 7)).astype(np.float32))
        write(ACTION_CHUNK, MESSAGE_TYPES[ACTION_CHUNK], stamp, chunk_to_message(make, SPEC, chunk))
        write(ACTION, MESSAGE_TYPES[ACTION], stamp, action_to_message(make, SPEC, stamp, chunk.actions[0]))
    return writer.close(Outcome("success", steps, 1.0))


def trial(bags: list[Path], cache: Path) -> dict[str, float]:
    """Windows a second, first time and from the cache, by CPU and by wall time."""
    result: dict[str, float] = {}
    for name, windows in (("first", EPISODES * STEPS), ("cached", 40 * BATCH)):
        if name == "cached":
            sampler = WindowSampler(load(bags, cache), BATCH)
            sampler.batch(0)
        cpu, wall = time.process_time(), time.perf_counter()
        if name == "first":
            dataset = load(bags, cache)
            for start in range(0, len(dataset), BATCH):
                dataset.gather(np.arange(start, min(len(dataset), start + BATCH)))
        else:
            for step in range(1, 41):
                sampler.batch(step)
        result[f"{name}_per_cpu_s"] = windows / (time.process_time() - cpu)
        result[f"{name}_per_wall_s"] = windows / (time.perf_counter() - wall)
    return result


def load(bags: list[Path], cache: Path) -> WindowDataset:
    return WindowDataset(load_episodes(bags, SPEC, (SIDE, SIDE), EpisodeCache(cache)).episodes, SPEC, CHUNK)


def write_result(content: Mapping[str, Any]) -> None:
    """As JSON, to the file that the command's second argument names, else to the terminal."""
    text = json.dumps(content)
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(text + "\n")
    else:
        print(text)


def main() -> int:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        bags = [write_bag(root / "bags", number) for number in range(EPISODES)]
        size = sum(f.stat().st_size for bag in bags for f in bag.iterdir())
        results = [trial(bags, root / f"cache_{number}") for number in range(trials)]
    medians = {name: float(np.median([r[name] for r in results])) for name in results[0]}
    print(f"{EPISODES} bags of {STEPS} steps, 2 cameras {SIDE}x{SIDE}, chunk {CHUNK}, {size / 1e6:.0f} MB on disk")
    print(f"{'windows per second':<22}{'median':>10}{'least':>10}{'most':>10}")
    for name, median in medians.items():
        values = [r[name] for r in results]
        print(f"{name:<22}{median:>10,.0f}{min(values):>10,.0f}{max(values):>10,.0f}")
    met = medians["first_per_cpu_s"] >= FIRST_GOAL and medians["cached_per_cpu_s"] >= CACHE_GOAL
    print(f"goal ({FIRST_GOAL:,} first, {CACHE_GOAL:,} from cache, CPU time): {'met' if met else 'MISSED'}")
    write_result({"trials": results, "median": medians, "bags": EPISODES, "steps": STEPS, "met": met})
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

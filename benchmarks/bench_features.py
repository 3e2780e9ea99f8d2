"""How much faster is training when a frozen vision encoder reads each frame once? And what does that cost on disk?

The network of config/network/clip_t5.yaml (224 px, decoder of 6 layers, 512 wide) with a vision encoder of the size of
CLIP ViT-B/32: transformers' own defaults with random weights, made here, since speed does not depend on the weights.
Instructions are features at random, as the language encoder reads each of them once anyway. Two cameras, batch 16.

Time is the process's own CPU time on one thread, so that other work on the machine does not count; wall time stands
beside it. What float16 loses is given as a share of the features' standard deviation, and as what it changes in a chunk
of normalised actions.

Run: `python benchmarks/bench_features.py [steps] [result.json]`.
"""

import os
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from bench_dataset import CHUNK, SPEC, write_bag, write_result  # noqa: E402

from trainer.config import AugmentationConfig, TrainingConfig  # noqa: E402
from trainer.dataset import Batch, WindowDataset, load_episodes  # noqa: E402
from trainer.episode_arrays import EpisodeArrays  # noqa: E402
from trainer.episode_cache import EpisodeCache  # noqa: E402
from trainer.features import FeatureCache  # noqa: E402
from trainer.loop import train  # noqa: E402
from trainer.sampler import WindowSampler  # noqa: E402
from vla_policy_node.checkpoint import Lineage  # noqa: E402
from vla_policy_node.network.config import load_network_config  # noqa: E402
from vla_policy_node.network.encoders import VisionFeatures  # noqa: E402
from vla_policy_node.network.vla import VLANetwork  # noqa: E402
from vla_policy_node.normalization import compute_statistics  # noqa: E402

BATCH, EPISODE_STEPS = 16, 40
TOKENS = 8
"""Of an instruction."""
Episodes = tuple[EpisodeArrays, ...]


def make_network(root: Path, episodes: Episodes) -> VLANetwork:
    """`clip_t5` with a vision encoder of random weights."""
    torch.manual_seed(0)
    folder = root / "encoder"
    if not folder.exists():
        transformers.CLIPVisionModel(transformers.CLIPVisionConfig()).save_pretrained(folder)
    config = load_network_config("clip_t5")
    config = replace(config, horizon=CHUNK, vision=replace(config.vision, name=str(folder)))
    data = WindowDataset(episodes, SPEC, CHUNK)
    statistics = compute_statistics(SPEC, data.proprioception, data.actions)
    network = VLANetwork(config, SPEC, statistics, encoder_digests={"language": "0" * 16})
    for text in data.instructions:
        network.language.remember({text: torch.randn(TOKENS, config.language.dimension)})
    return network


@dataclass(frozen=True)
class TimedSampler(WindowSampler):
    """A sampler that notes when each batch is asked for: from one to the next is a gradient step."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def batch(self, step: int) -> Batch:
        self.cpu.append(time.process_time())
        self.wall.append(time.perf_counter())
        return super().batch(step)


def steps_per_second(root: Path, name: str, episodes: Episodes, steps: int) -> dict[str, float]:
    """Of a training run, by CPU and by wall time: the median step's; the first, which allocates memory, is left out."""
    config = TrainingConfig(
        steps=steps + 2,
        batch_size=BATCH,
        threads=1,
        device="cpu",
        save_every=0,
        validate_every=0,
        augmentation=AugmentationConfig(shift_px=0, gain=0.0, offset=0.0),
    )
    sampler = TimedSampler(WindowDataset(episodes, SPEC, CHUNK), BATCH)
    train(make_network(root, episodes), sampler, config, root / name, Lineage(), visible=False)
    seconds = {kind: np.median(np.diff(getattr(sampler, kind))[1:]) for kind in ("cpu", "wall")}
    return {f"{name}_steps_per_{kind}_s": float(1 / value) for kind, value in seconds.items()}


def encode(root: Path, network: VLANetwork, episodes: Episodes) -> tuple[Episodes, float]:
    """The episodes with float16 features, and the seconds of CPU time that it took."""
    started = time.process_time()
    found = FeatureCache(EpisodeCache(root / "cache"), network, "float16").add_to(episodes, False)
    return found, time.process_time() - started


def rounding(network: VLANetwork, episodes: Episodes, kept: Episodes) -> dict[str, float]:
    """What float16 changes: in the features, and in the normalised actions of a network with new weights."""
    language = network.encode_instructions([episodes[0].instructions[0]] * BATCH)
    posture = torch.from_numpy(np.array(episodes[0].proprioception[:BATCH]))
    with torch.inference_mode():
        exact = network.encode_images(torch.from_numpy(np.array(episodes[0].images[:BATCH])))
        short = VisionFeatures(torch.from_numpy(np.array(kept[0].seen[:BATCH])))
        chunks = [network(seen, posture, *language) for seen in (exact, short)]
    difference, spread = (short.hidden - exact.hidden).abs(), exact.hidden.std()
    return {
        "feature_error_max_of_std": float(difference.max() / spread),
        "feature_error_mean_of_std": float(difference.mean() / spread),
        "action_error_max": float((chunks[1] - chunks[0]).abs().max()),
    }


def measure(root: Path, steps: int) -> dict[str, float]:
    """All figures by name."""
    side = load_network_config("clip_t5").vision.image_size
    bags = [write_bag(root / "bags", 0, EPISODE_STEPS)]
    episodes = load_episodes(bags, SPEC, (side, side), EpisodeCache(root / "cache")).episodes
    torch.set_num_threads(1)
    network = make_network(root, episodes).eval()
    (kept, encoding), (_, reading) = encode(root, network, episodes), encode(root, network, episodes)
    frames = sum(len(episode) for episode in episodes) * len(SPEC.cameras)
    result = {
        "encode_frame_cpu_s": encoding / frames,
        "read_frame_cpu_s": reading / frames,
        "frame_float16_bytes": kept[0].seen.nbytes / frames,
        "frame_image_bytes": episodes[0].images.nbytes / frames,
        **rounding(network, episodes, kept),
        **steps_per_second(root, "images", episodes, steps),
        **steps_per_second(root, "features", kept, steps),
    }
    return {**result, "speed_up": result["features_steps_per_cpu_s"] / result["images_steps_per_cpu_s"]}


def main() -> int:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), steps)
    print(f"CLIP ViT-B/32 at random, 2 cameras, batch {BATCH}, {steps} steps, one thread")
    for name, value in result.items():
        print(f"{name:<32}{value:>14,.6g}")
    write_result({**result, "steps": steps, "batch": BATCH})
    return 0


if __name__ == "__main__":
    sys.exit(main())

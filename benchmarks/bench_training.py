"""How long is a gradient step on a CPU core, by preset of the network and by precision?

Two cameras of 96 px, batch 64, augmented as in `config/fbc/libero_10tasks.yaml`, windows from the cache on disk. The
instructions' features are random, as a frozen language encoder reads each of them once anyway. Of each step the
process's own CPU time on one thread, and wall time, which other work on the machine makes longer: medians, with the
interval that holds half of the steps.

Run: `python benchmarks/bench_training.py [steps] [result.json]`.
"""

import sys
import tempfile
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from bench_dataset import SPEC, write_bag, write_result  # noqa: E402
from bench_features import TimedSampler  # noqa: E402

from trainer.config import AugmentationConfig, Precision, TrainingConfig  # noqa: E402
from trainer.dataset import WindowDataset, load_episodes  # noqa: E402
from trainer.episode_cache import EpisodeCache  # noqa: E402
from trainer.loop import train  # noqa: E402
from vla_policy_node.checkpoint import Lineage  # noqa: E402
from vla_policy_node.network.config import load_network_config  # noqa: E402
from vla_policy_node.network.vla import VLANetwork  # noqa: E402
from vla_policy_node.normalization import compute_statistics  # noqa: E402

BATCH, EPISODES = 64, 8
PRESETS = ("small", "two_cameras", "two_cameras_flow")
PRECISIONS: tuple[Precision, ...] = ("no", "bf16")
AUGMENTATION = AugmentationConfig(shift_px=4, gain=0.1, offset=0.1)


def step_times(root: Path, preset: str, precision: Precision, steps: int) -> dict[str, list[float]]:
    """Quartiles of the seconds that a gradient step takes, by `cpu` and `wall`; the first step is left out."""
    config = load_network_config(preset)
    side = config.vision.image_size or SPEC.cameras[0].height
    bags = sorted((root / "bags").iterdir())
    episodes = load_episodes(bags, SPEC, (side, side), EpisodeCache(root / "cache")).episodes
    data = WindowDataset(episodes, SPEC, config.horizon)
    torch.manual_seed(0)
    statistics = compute_statistics(SPEC, data.proprioception, data.actions)
    network = VLANetwork(config, SPEC, statistics, encoder_digests={"language": "0" * 16})
    network.language.remember({text: torch.randn(1, network.language.dimension) for text in data.instructions})
    training = TrainingConfig(
        steps=steps + 2,
        batch_size=BATCH,
        threads=1,
        device="cpu",
        mixed_precision=precision,
        save_every=0,
        validate_every=0,
        augmentation=AUGMENTATION,
    )
    sampler = TimedSampler(data, BATCH)
    train(network, sampler, training, root / f"{preset}_{precision}", Lineage(), visible=False)
    times = {"cpu": sampler.cpu, "wall": sampler.wall}
    return {kind: np.percentile(np.diff(stamps)[1:], (25, 50, 75)).tolist() for kind, stamps in times.items()}


def main() -> int:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    result: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number in range(EPISODES):
            write_bag(root / "bags", number)
        print(f"2 cameras, batch {BATCH}, one thread, {steps} steps: ms a step, median [half of the steps]")
        for preset, precision in product(PRESETS, PRECISIONS):
            times = result[f"{preset} {precision}"] = step_times(root, preset, precision, steps)
            shown = (
                f"{kind} {1e3 * middle:6.0f} [{1e3 * low:.0f}, {1e3 * high:.0f}]"
                for kind, (low, middle, high) in times.items()
            )
            print(f"{preset:<18}{'f32' if precision == 'no' else precision:<6}{'   '.join(shown)}", flush=True)
    write_result({"steps": steps, "batch": BATCH, "seconds": result})
    return 0


if __name__ == "__main__":
    sys.exit(main())

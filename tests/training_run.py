"""A real but tiny training run: as a helper of tests, and as a process that can be killed (see `main`)."""

import sys
from pathlib import Path

import torch
from episodes import SPEC, make_header, write_bag

from rollout_manager.episode import Driver
from trainer.config import AugmentationConfig, OptimizerConfig, TrainingConfig
from trainer.dataset import WindowDataset, load_episodes
from trainer.episode_cache import EpisodeCache
from trainer.loop import TrainResult, Validate, train
from trainer.sampler import WindowSampler
from vla_policy_node.checkpoint import Lineage
from vla_policy_node.network.config import LanguageConfig, NetworkConfig, VisionConfig
from vla_policy_node.network.vla import VLANetwork
from vla_policy_node.normalization import compute_statistics

NETWORK = NetworkConfig(
    vision=VisionConfig(channels=(8, 8), keypoints=4),
    language=LanguageConfig(dimension=12),
    horizon=4,
    d_model=16,
    heads=2,
    layers=1,
    feedforward=16,
    dropout=0.1,
)
SIZE = (16, 20)


def small_training(steps: int = 6, save_every: int = 2, **changes: object) -> TrainingConfig:
    settings: dict[str, object] = {
        "steps": steps,
        "batch_size": 8,
        "save_every": save_every,
        "validate_every": 0,
        "log_every": 1,
        "threads": 1,
        "device": "cpu",
        "optimizer": OptimizerConfig(learning_rate=1e-2, warmup_steps=2, weight_decay=0.1),
        "augmentation": AugmentationConfig(shift_px=1, scale=0.1),
    }
    return TrainingConfig(**{**settings, **changes})  # type: ignore[arg-type]


def write_bags(root: Path) -> list[Path]:
    """Three episodes by an expert and one by a policy, of two tasks."""
    episodes: list[tuple[str, str, Driver, int]] = [
        ("a", "push", "expert", 12),
        ("b", "open", "expert", 8),
        ("c", "push", "expert", 10),
        ("d", "open", "policy", 9),
    ]
    return [write_bag(root, make_header(n, task, by), k, seed=i) for i, (n, task, by, k) in enumerate(episodes)]


def make_sampler(bags: list[Path], cache: Path, config: TrainingConfig) -> WindowSampler:
    episodes = load_episodes(bags, SPEC, SIZE, EpisodeCache(cache)).episodes
    dataset = WindowDataset(episodes, SPEC, NETWORK.horizon)
    return WindowSampler(dataset, config.batch_size, config.expert_share, config.seed)


def make_network(sampler: WindowSampler, seed: int = 0, config: NetworkConfig = NETWORK) -> VLANetwork:
    """New weights; the language encoder already knows the instructions, so that it is never loaded."""
    torch.manual_seed(seed)
    data = sampler.dataset
    statistics = compute_statistics(SPEC, data.proprioception, data.actions)
    network = VLANetwork(config, SPEC, statistics, encoder_digests={"language": "0" * 16})
    for i, text in enumerate(data.instructions):
        generator = torch.Generator().manual_seed(i)
        network.language.remember({text: torch.randn(1, 12, generator=generator)})
    return network


def run_training(
    root: Path, name: str, config: TrainingConfig, validate: Validate | None = None, seed: int = 0
) -> TrainResult:
    """Train in `root/name` on the bags in `root/bags`, which are made where they are missing."""
    bags = sorted(p for p in (root / "bags").glob("?") if p.is_dir()) or write_bags(root / "bags")
    sampler = make_sampler(bags, root / "cache", config)
    return train(make_network(sampler, seed), sampler, config, root / name, Lineage(), validate, visible=False)


def main() -> None:
    """Arguments: root folder, name of the run, steps. Saves after every step."""
    root, name, steps = sys.argv[1:]
    run_training(Path(root), name, small_training(int(steps), save_every=1))


if __name__ == "__main__":
    main()

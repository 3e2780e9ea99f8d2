"""Behaviour cloning: learn to do what was done in recorded episodes.

    minimise over the network   E[ sum_h | a(o_t)_h - a*_{t+h} | ]      (L1 over a chunk of H actions)

The checkpoint that counts is not the last one but the one that does best when it is tried, on initial states of
its own (`validation`): held-out loss says little about success.
"""

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from accelerate import PartialState

from rollout_manager.catalog import Catalog
from trainer.config import FilterConfig, TrainingConfig, require
from trainer.dataset import WindowDataset, load_episodes
from trainer.episode_arrays import EpisodeArrays
from trainer.episode_cache import EpisodeCache
from trainer.evaluate import EvaluationPlan, rollout_score
from trainer.features import FeatureCache, cached_precision
from trainer.filter import select
from trainer.loop import TrainResult, Validate, derived_seed, train
from trainer.sampler import WindowSampler
from vla_policy_node.checkpoint import Lineage, load_checkpoint, load_network
from vla_policy_node.familiarity import typical_views
from vla_policy_node.network.config import NetworkConfig, load_network_config
from vla_policy_node.network.vla import VLANetwork
from vla_policy_node.normalization import Statistics, compute_statistics
from vla_policy_node.spec import RobotSpec, load_spec


@dataclass(frozen=True)
class ValidationConfig:
    """How checkpoints are chosen: by rollouts on initial states of their own."""

    environment: str = "metaworld"
    """Where tasks are tried."""
    tasks: tuple[str, ...] = ()
    """Tasks tried; empty: none, and the last checkpoint counts."""
    first_seed: int = 20_000
    """First initial state; keep them apart from those trained and evaluated on."""
    seeds: int = 5
    """Initial states a task."""
    time_limit: int = 0
    """Steps after which a try is given up; 0: the environment's own limit."""
    workers: int = 2
    """Processes that try tasks at once."""

    def __post_init__(self) -> None:
        require(self.seeds >= 1, f"validation: seeds {self.seeds} is not at least 1")
        require(self.workers >= 1, f"validation: workers {self.workers} is not at least 1")

    def plan(self, checkpoint: Path, horizon: int) -> EvaluationPlan:
        """What a checkpoint is tried on; chunks of `horizon` actions are carried out whole."""
        seeds = tuple(range(self.first_seed, self.first_seed + self.seeds))
        return EvaluationPlan(
            tasks=self.tasks,
            seeds=seeds,
            checkpoint=str(checkpoint),
            environment=self.environment,
            time_limit=self.time_limit,
            execute_every=horizon,
            workers=self.workers,
        )


@dataclass(frozen=True)
class BehaviourCloningConfig:
    """A run of `encore train`."""

    bags: tuple[str, ...] = ()
    """Folders that are searched for bags."""
    robot: str = "metaworld"
    """A robot of `config/robots/`, or the path of such a file."""
    network: str = "small"
    """A network of `config/network/`, or the path of such a file; not looked at where `start` is given."""
    start: str = ""
    """Folder of a checkpoint to go on from; its statistics are kept. Empty: new weights."""
    cache: str = ""
    """Folder of decoded episodes; empty: `cache/` in the run's folder."""
    filter: FilterConfig = field(default_factory=FilterConfig)
    """Which episodes are trained on."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """How checkpoints are chosen."""


def run_behaviour_cloning(config: BehaviourCloningConfig, folder: Path) -> TrainResult:
    """Bags to the best checkpoint: catalogue, filter, decode, train, choose. Goes on where it was stopped.

    Raises:
        DatasetError, ConfigError, TrainingError, BagError, CheckpointError: with what is wrong and what is valid.
    """
    require(len(config.bags) > 0, "bags: none given; name at least one folder of bags")
    spec = load_spec(config.robot)
    network = load_network_config(config.network)
    start = Path(config.start) if config.start else None
    folder.mkdir(parents=True, exist_ok=True)
    with Catalog.rebuild(config.bags, folder / "catalog.sqlite") as catalog:
        chosen = select(catalog.rows(), config.filter, spec.digest)
    print(f"{len(chosen.kept)} episodes kept, {len(chosen.dropped)} dropped {chosen.reasons() or ''}".rstrip())
    taken = load_checkpoint(start, spec).config if start else network
    cached_precision(config.training, taken.vision)  # refuses before anything is decoded
    size = image_size(taken, spec)
    cache = EpisodeCache(Path(config.cache) if config.cache else folder / "cache")
    loaded = load_episodes(list(chosen.steps), spec, size, cache, progress=True, steps=chosen.steps)
    for path, problem in loaded.problems.items():
        print(f"not used: {path}: {problem}")
    validate = None
    if config.validation.tasks:
        validate = rollout_score(lambda c: config.validation.plan(c, taken.horizon), folder / "validation.csv")
    return behaviour_cloning(loaded.episodes, spec, network, config.training, folder, cache, validate, start)


def behaviour_cloning(
    episodes: Sequence[EpisodeArrays],
    spec: RobotSpec,
    network: NetworkConfig,
    training: TrainingConfig,
    folder: Path,
    cache: EpisodeCache,
    validate: Validate | None = None,
    start: Path | None = None,
    visible: bool = True,
    statistics: Statistics | None = None,
) -> TrainResult:
    """Clone episodes, from new weights or from a checkpoint, whose statistics are then kept.

    Args:
        network: of new weights; a checkpoint has its own.
        statistics: of new weights, where an earlier training fixed them; else they are computed from the episodes.
        folder: gets everything that is written; an interrupted call is gone on with by the same call.
        cache: where the episodes are from; gets what a frozen vision encoder makes of them.
        validate: scores checkpoints; see `trainer.loop.train`.
    """
    model, before = _begin(episodes, spec, network, training, start, statistics)
    seen = _with_features(episodes, model, training, cache, visible)
    dataset = WindowDataset(seen, spec, model.config.horizon, training.learn_from == "human")
    sampler = WindowSampler(dataset, training.batch_size, training.expert_share, training.seed)
    lineage = Lineage(
        parent=load_checkpoint(start).digest if start else "",
        episodes={**before.episodes, **{e.header.episode_id: e.bag_digest for e in episodes}},
        gradient_steps=before.gradient_steps,
        versions={name: importlib.metadata.version(name) for name in ("torch", "transformers", "numpy")},
    )
    return train(model, sampler, training, folder, lineage, validate, visible)


def image_size(network: NetworkConfig, spec: RobotSpec) -> tuple[int, int]:
    """Height and width of the images that the network takes."""
    side = network.vision.image_size
    return (side, side) if side else (spec.cameras[0].height, spec.cameras[0].width)


def _with_features(
    episodes: Sequence[EpisodeArrays], model: VLANetwork, training: TrainingConfig, cache: EpisodeCache, visible: bool
) -> Sequence[EpisodeArrays]:
    """The episodes with what the vision encoder makes of them, where the configuration wants it kept on disk."""
    precision = cached_precision(training, model.config.vision)
    if precision is None:
        if visible and model.config.vision.stays and training.cache_features == "auto":
            print("each frame is encoded at every step, since training.augmentation changes it")
        return episodes
    torch.set_num_threads(training.threads)
    model.to(PartialState(cpu=training.device == "cpu").device)
    return FeatureCache(cache, model, precision).add_to(episodes, visible)


def _begin(
    episodes: Sequence[EpisodeArrays],
    spec: RobotSpec,
    config: NetworkConfig,
    training: TrainingConfig,
    start: Path | None,
    statistics: Statistics | None,
) -> tuple[VLANetwork, Lineage]:
    """The network to begin with, and what it was trained on before."""
    if start is not None:
        checkpoint = load_checkpoint(start, spec)
        return load_network(checkpoint), checkpoint.lineage
    torch.manual_seed(derived_seed(training.seed, 0, 1_000))
    if statistics is None:
        data = WindowDataset(episodes, spec, config.horizon)
        scales = compute_statistics(spec, data.proprioception, data.actions)
        statistics = replace(scales, views=_views(episodes, spec))
    return VLANetwork(config, spec, statistics), Lineage()


def _views(episodes: Sequence[EpisodeArrays], spec: RobotSpec) -> tuple[tuple[tuple[float, ...], ...], ...]:
    """What each camera typically showed, by the first, the middle and the last frame of each episode."""
    frames = [e.images[k] for e in episodes for k in sorted({0, len(e) // 2, len(e) - 1})]
    return tuple(typical_views([frame[camera] for frame in frames]) for camera in range(len(spec.cameras)))

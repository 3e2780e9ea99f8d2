"""What makes a training run the one that it is: a state of another one is not gone on with."""

import hashlib
import json

from trainer.config import TrainingConfig, to_plain
from trainer.sampler import WindowSampler
from vla_policy_node.checkpoint import Lineage
from vla_policy_node.network.vla import VLANetwork

WHEN_NOT_WHAT = ("threads", "log_every", "save_every", "cache_features")
"""Settings that a resumed run may have otherwise; of cached features, what came of the setting counts."""


def digest_of(content: object) -> str:
    """SHA-256 (first 16 hex digits) of JSON values."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def run_identity(
    network: VLANetwork, sampler: WindowSampler, config: TrainingConfig, lineage: Lineage
) -> dict[str, object]:
    """What its numbers depend on, as JSON values by name."""
    training = {f"training.{k}": v for k, v in to_plain(config).items() if k not in WHEN_NOT_WHAT}
    if config.learn_from == "all":
        del training["training.learn_from"]  # As in the states of runs from before it could be otherwise.
    episodes = [
        (e.header.episode_id, e.bag_digest) if e.whole else (e.header.episode_id, e.bag_digest, len(e))
        for e in sampler.dataset.episodes
    ]
    features = sampler.dataset.episodes[0].features
    return {
        **training,
        "vision_features": None if features is None else f"{features.dtype} {network.features_digest}",
        "spec": network.spec.digest,
        "network": network.config.to_dict(),
        "statistics": network.statistics.to_dict(),
        "parent": lineage.parent,
        "episodes": digest_of(episodes),
    }

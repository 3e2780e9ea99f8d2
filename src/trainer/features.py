"""What a frozen vision encoder makes of recorded frames, worked out once and kept beside the decoded episodes.

Such an encoder gives the same for the same frame at every gradient step, so a run that changes no image reads it from
disk instead. An entry's name holds what decides its content: the decoded episode's key, a digest of the encoder and the
precision. Episodes are encoded one by one, so that what was interrupted goes on with the next one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from trainer.cache_entry import map_arrays, read_arrays, write_arrays
from trainer.config import TrainingConfig, require
from trainer.episode_arrays import EpisodeArrays, FeatureArray
from trainer.episode_cache import EpisodeCache, cache_key
from trainer.exceptions import DatasetError
from trainer.progress import ProgressBar
from vla_policy_node.network.config import VisionConfig
from vla_policy_node.network.vla import VLANetwork

Precision = Literal["float16", "float32"]

FRAMES_AT_ONCE = 32
"""Frames of all cameras that are encoded together, but at least those of one step."""


def cached_precision(training: TrainingConfig, vision: VisionConfig) -> Precision | None:
    """How exactly a run keeps vision features on disk; None: its network sees the images themselves.

    Raises:
        ConfigError: features are asked for, but the vision encoder is trained.
    """
    wanted = training.cache_features
    if wanted == "never":
        return None
    if wanted == "auto":
        return "float16" if vision.stays and training.augmentation.is_none else None
    require(
        vision.stays,
        f"training: cache_features {wanted} needs an encoder that is not trained, but the network has vision.kind "
        f"{vision.kind} and vision.frozen {vision.frozen}; valid are cache_features auto or never, or vision.kind "
        "pretrained and vision.frozen true",
    )
    return wanted


@dataclass(frozen=True)
class FeatureCache:
    """Features of one network's frozen vision encoder, in the folder of the episodes; processes may share it."""

    episodes: EpisodeCache
    network: VLANetwork
    """On the device that is to encode."""
    precision: Precision = "float16"

    def add_to(self, episodes: Sequence[EpisodeArrays], visible: bool = True) -> tuple[EpisodeArrays, ...]:
        """The same episodes with `features`, encoded first where they are not there or damaged.

        Args:
            episodes: decoded from bags, at the network's `image_size`.
            visible: show the progress.

        Raises:
            DatasetError: the cache cannot be written, an episode has no bag digest, or a feature is not finite in
                this precision.
            NetworkError: the vision encoder is not a frozen one.
        """
        found = []
        with ProgressBar("encoding frames", len(episodes), visible=visible) as bar:
            for episode in episodes:
                found.append(replace(episode, features=self._features(episode)))
                bar.advance()
        return tuple(found)

    def key(self, episode: EpisodeArrays) -> str:
        """Name of an episode's entry. Raises: DatasetError: it does not say which bag it is from."""
        if not episode.bag_digest:
            name = episode.header.episode_id
            raise DatasetError(f"episode '{name}' has no bag digest, so nothing can be kept for it")
        height, width = episode.images.shape[2:4]
        decoded = cache_key(episode.bag_digest, self.network.spec, (height, width))
        part = "" if episode.whole else f".first_{len(episode)}"
        return f"{decoded}.{self.network.features_digest}.{self.precision}{part}"

    def _features(self, episode: EpisodeArrays) -> FeatureArray:
        folder = self.episodes.root / self.key(episode)
        entry = read_arrays(folder)
        if entry is None or "features" not in entry.arrays:
            write_arrays(folder, {"features": self._encode(episode)}, {"bag_digest": episode.bag_digest})
            entry = map_arrays(folder)
        return entry.arrays["features"]

    def _encode(self, episode: EpisodeArrays) -> FeatureArray:
        steps = max(1, FRAMES_AT_ONCE // episode.images.shape[1])
        device = self.network.queries.device
        parts: list[Any] = []
        with np.errstate(over="ignore"):
            for start in range(0, len(episode), steps):
                images = torch.from_numpy(np.array(episode.images[start : start + steps])).to(device)
                parts.append(self.network.encode_images(images).hidden.cpu().numpy().astype(self.precision))
        features: FeatureArray = np.concatenate(parts)
        if not np.isfinite(features).all():
            raise DatasetError(
                f"episode '{episode.header.episode_id}': a feature is not finite as {self.precision}; valid for "
                "training.cache_features are float16, float32 (where float16 is too narrow) and never"
            )
        return features

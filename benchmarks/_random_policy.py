"""A policy for benchmarks: a network of the default size with random weights, which knows a few instructions."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from vla_policy_node.checkpoint import Lineage, save_checkpoint
from vla_policy_node.network.config import load_network_config
from vla_policy_node.network.vla import VLANetwork
from vla_policy_node.normalization import Statistics
from vla_policy_node.spec import RobotSpec


def save_policy(folder: Path, spec: RobotSpec, horizon: int, instructions: Mapping[str, float]) -> None:
    """Write its checkpoint.

    Args:
        horizon: actions in a chunk.
        instructions: text -> scale of the features that stand for it; not a number makes a policy that answers NaN.
    """
    torch.manual_seed(0)
    width, actions = len(spec.proprioception), len(spec.action)
    statistics = Statistics((0.0,) * width, (1.0,) * width, (0.0,) * actions, (1.0,) * actions)
    config = replace(load_network_config("small"), horizon=horizon)
    network = VLANetwork(config, spec, statistics, encoder_digests={"language": "0" * 16})
    for text, scale in instructions.items():
        network.language.remember({text: scale * torch.randn(1, network.language.dimension)})
    save_checkpoint(folder, network, Lineage("", {}, 0, {}, {}))

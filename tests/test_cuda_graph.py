"""The network's passes as CUDA graphs: which networks' can be, and that they learn what launched kernels learn."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_robot import SMALL, small_network
from training_run import NETWORK, make_network, make_sampler, small_training, write_bags

from trainer import loop
from trainer.config import AugmentationConfig
from trainer.cuda_graph import can_be_graphed
from vla_policy_node.checkpoint import Lineage
from vla_policy_node.network.config import LanguageConfig

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def test_only_passes_that_stay_the_same_become_graphs() -> None:
    plain = small_network()
    assert can_be_graphed(plain, CUDA, 1)
    assert not can_be_graphed(plain, CPU, 1)
    assert not can_be_graphed(plain, CUDA, 2)
    assert not can_be_graphed(small_network(config=replace(SMALL, head="flow")), CUDA, 1)
    tokens = replace(SMALL, language=LanguageConfig(pooling="tokens", dimension=384))
    assert not can_be_graphed(small_network(config=tokens), CUDA, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU on this machine")
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_graphs_learn_what_launched_kernels_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    config = small_training(
        60, device="auto", mixed_precision=precision, augmentation=AugmentationConfig(shift_px=2), validate_every=20
    )
    sampler = make_sampler(write_bags(tmp_path / "bags"), tmp_path / "cache", config)
    network = replace(NETWORK, dropout=0.0)
    losses = []
    for name in ("graphs", "launched"):
        loop.train(make_network(sampler, 0, network), sampler, config, tmp_path / name, Lineage(), visible=False)
        lines = (tmp_path / name / "history.jsonl").read_text().splitlines()
        losses.append([entry["loss"] for entry in map(json.loads, lines) if "loss" in entry])
        monkeypatch.setattr(loop, "can_be_graphed", lambda *_: False)
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert sum(losses[0][-5:]) < sum(losses[0][:5])

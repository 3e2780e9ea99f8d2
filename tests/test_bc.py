"""Behaviour cloning from bags to checkpoint, twice: from new weights, then on from the first checkpoint."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from episodes import SPEC, make_header, write_bag
from training_run import NETWORK, small_training, write_bags

from rollout_manager.episode import Outcome
from trainer.bc import BehaviourCloningConfig, run_behaviour_cloning
from trainer.config import AugmentationConfig, load_config, save_config
from trainer.exceptions import ConfigError, DatasetError
from vla_policy_node.checkpoint import load_checkpoint
from vla_policy_node.exceptions import CheckpointError


def _config(folder: Path) -> BehaviourCloningConfig:
    """Of a run on the bags in `folder/bags`, for the robot and network written beside them."""
    (folder / "robot.yaml").write_text(yaml.safe_dump(SPEC.to_dict()))
    language = replace(NETWORK.language, dimension=384)
    (folder / "network.yaml").write_text(yaml.safe_dump(replace(NETWORK, language=language).to_dict()))
    return BehaviourCloningConfig(
        bags=(str(folder / "bags"),),
        robot=str(folder / "robot.yaml"),
        network=str(folder / "network.yaml"),
        cache=str(folder / "cache"),
        training=small_training(3),
    )


def test_from_bags_to_a_checkpoint_and_on_from_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bags(tmp_path / "bags")
    write_bag(tmp_path / "bags", make_header("failed"), 4, outcome=Outcome("truncated", 4, 0.5))
    config = _config(tmp_path)
    first = load_checkpoint(run_behaviour_cloning(config, tmp_path / "first").checkpoint)
    assert "4 episodes kept, 1 dropped {'no success': 1}" in capsys.readouterr().out
    assert sorted(first.lineage.episodes) == ["a", "b", "c", "d"]
    assert (first.lineage.parent, first.lineage.gradient_steps) == ("", 3)
    assert first.lineage.versions["torch"]

    # Later data would have other statistics; the first ones are kept.
    write_bag(tmp_path / "bags", make_header("later"), 30, seed=9)
    onwards = replace(config, start=str(first.folder), training=small_training(2))
    second = load_checkpoint(run_behaviour_cloning(onwards, tmp_path / "second").checkpoint)
    assert second.statistics == first.statistics
    assert (second.lineage.parent, second.lineage.gradient_steps) == (first.digest, 5)
    assert sorted(second.lineage.episodes) == ["a", "b", "c", "d", "later"]
    fresh = load_checkpoint(run_behaviour_cloning(config, tmp_path / "fresh").checkpoint)
    assert fresh.statistics != first.statistics


def test_bad_input_is_named(tmp_path: Path) -> None:
    write_bags(tmp_path / "bags")
    config = _config(tmp_path)
    with pytest.raises(ConfigError, match="bags: none given"):
        run_behaviour_cloning(replace(config, bags=()), tmp_path / "run")
    kept = replace(config.training, augmentation=AugmentationConfig(0, 0.0, 0.0, 0.0), cache_features="float16")
    with pytest.raises(ConfigError, match=r"vision.kind convolution .*; valid are cache_features auto or never"):
        run_behaviour_cloning(replace(config, training=kept), tmp_path / "run")
    with pytest.raises(DatasetError, match="no bag was given"):
        run_behaviour_cloning(replace(config, filter=replace(config.filter, tasks=("fly",))), tmp_path / "run")
    with pytest.raises(CheckpointError, match="does not exist"):
        run_behaviour_cloning(replace(config, start=str(tmp_path / "nowhere")), tmp_path / "run")


def test_the_resolved_configuration_reads_back(tmp_path: Path) -> None:
    config = _config(tmp_path)
    save_config(config, tmp_path / "run" / "config.yaml")
    assert load_config(BehaviourCloningConfig, tmp_path / "run" / "config.yaml") == config

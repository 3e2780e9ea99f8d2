"""Configurations: YAML, command line, round trips, and what is refused."""

from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainer.bc import BehaviourCloningConfig
from trainer.config import (
    AugmentationConfig,
    FilterConfig,
    OptimizerConfig,
    TrainingConfig,
    from_mapping,
    load_config,
    save_config,
)
from trainer.exceptions import ConfigError
from vla_policy_node.locations import config_dir
from vla_policy_node.network.config import load_network_config
from vla_policy_node.spec import load_spec


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    count: int = 3
    mode: Literal["fast", "slow"] = "fast"
    where: Path | None = None
    pair: tuple[int, float] = (1, 2.0)
    weights: dict[str, float] = field(default_factory=dict)
    verbose: bool = False


def _write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_yaml_then_command_line(tmp_path: Path) -> None:
    path = _write(tmp_path, "count: 7\nwhere: /bags\ninner: {rate: 1e-3, names: [a, b]}\nweights: {a: 1}\n")
    config = load_config(Outer, path)
    assert config == Outer(Inner(0.001, ("a", "b")), 7, "fast", Path("/bags"), (1, 2.0), {"a": 1.0})
    config = load_config(Outer, path, ["--inner.rate", "0.25", "--mode", "slow", "--verbose"])
    assert (config.inner, config.mode, config.count, config.verbose) == (Inner(0.25, ("a", "b")), "slow", 7, True)


def test_defaults_without_a_file_and_from_an_empty_one(tmp_path: Path) -> None:
    assert load_config(Outer) == Outer() == load_config(Outer, _write(tmp_path, ""))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cuont: 7", "unknown key cuont; valid are inner, count, mode"),
        ("inner: {rte: 1}", "inner: unknown key rte; valid are rate, names"),
        ("count: many", "count: expected int, not 'many'"),
        ("count: true", "count: expected int, not True"),
        ("count: 1.5", "count: expected int, not 1.5"),
        ("verbose: 1", "verbose: expected bool, not 1"),
        ("mode: quick", "mode: 'quick' is not one of fast, slow"),
        ("inner: {rate: fast}", "inner: rate: expected float, not 'fast'"),
        ("inner: {names: a}", "names: expected a list, not 'a'"),
        ("inner: {names: [1]}", r"names\[0\]: expected str, not 1"),
        ("pair: [1]", "pair: expected 2 values, not 1"),
        ("inner: 3", "inner: expected keys with values, not 3"),
        ("where: 3", "where: expected Path, not 3"),
        ("weights: {a: b}", "weights: a: expected float"),
        ("[1, 2]", "expected keys with values"),
        ("a: [", "not readable as YAML"),
    ],
)
def test_bad_yaml_names_key_value_and_choices(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(Outer, _write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml' does not exist"):
        load_config(Outer, tmp_path / "none.yaml")


def test_an_unknown_option_lists_and_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        load_config(Outer, None, ["--inner.rat", "2"])
    assert left.value.code == 2
    assert "--inner.rate" in capsys.readouterr().err


def test_values_out_of_range_are_refused_by_file_and_by_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size 10 is not a multiple of accumulation 3"):
        load_config(TrainingConfig, _write(tmp_path, "{batch_size: 10, accumulation: 3}"))
    with pytest.raises(ConfigError, match="steps -1 is not at least 1"):
        load_config(TrainingConfig, None, ["--steps", "-1"])
    with pytest.raises(ConfigError, match=r"min_progress 1\.5"):
        FilterConfig(min_progress=1.5)
    with pytest.raises(ConfigError, match=r"scale 1\.0"):
        AugmentationConfig(scale=1.0)
    with pytest.raises(ConfigError, match=r"beta1 1\.0"):
        OptimizerConfig(beta1=1.0)


@given(
    steps=st.integers(1, 10**9),
    rate=st.floats(1e-12, 10.0),
    tasks=st.lists(st.text(max_size=8), max_size=3),
    progress=st.floats(0, 1),
)
@example(steps=1, rate=1.0, tasks=["\x85"], progress=0.0)  # A line break to YAML, unless it is escaped.
def test_a_saved_configuration_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, steps: int, rate: float, tasks: list[str], progress: float
) -> None:
    path = tmp_path_factory.mktemp("config") / "new" / "config.yaml"
    training = TrainingConfig(steps=steps, optimizer=OptimizerConfig(learning_rate=rate))
    save_config(training, path)
    assert load_config(TrainingConfig, path) == training
    chosen = FilterConfig(tasks=tuple(tasks), min_progress=progress)
    save_config(chosen, path)
    assert load_config(FilterConfig, path) == chosen
    assert [p.name for p in path.parent.iterdir()] == ["config.yaml"]


def test_every_field_has_a_docstring_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for kind in (TrainingConfig, FilterConfig):
        with pytest.raises(SystemExit):
            load_config(kind, None, ["--help"])
    text = capsys.readouterr().out.replace("\n", " ")
    for wanted in ("Highest learning rate", "Only these tasks", "Largest shift in pixels"):
        assert wanted in " ".join(text.replace("│", " ").split())
    nested = [f.name for f in fields(TrainingConfig) if is_dataclass(f.default)]
    assert nested == ["optimizer", "augmentation"]


def test_none_and_any_reach_their_fields() -> None:
    assert from_mapping(Outer, {"where": None, "inner": None}, "here") == Outer()


@pytest.mark.parametrize("path", sorted((config_dir() / "train").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_that_is_shipped_loads(path: Path) -> None:
    config = load_config(BehaviourCloningConfig, path, ["--training.steps", "7"])
    assert config.training.steps == 7
    assert load_spec(config.robot).name
    assert load_network_config(config.network).horizon >= 1


def test_features_and_augmentation_together_are_refused() -> None:
    content = {"cache_features": "float16", "augmentation": {"shift_px": 4}}
    with pytest.raises(ConfigError, match=r"cache_features float16 .*shift_px=4.*; valid are cache_features auto or"):
        from_mapping(TrainingConfig, content, "test")
    with pytest.raises(ConfigError, match="'half' is not one of auto, float16, float32, never"):
        from_mapping(TrainingConfig, {"cache_features": "half"}, "test")

"""Configurations: YAML over frozen dataclasses, overridden on the command line, saved with the run.

`load_config` serves every command: it takes any frozen dataclass, refuses unknown keys with the valid ones, and
hands what is left over to tyro, so every field is also an option (`--training.steps 500`).
"""

import dataclasses
import os
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import tyro
import yaml

from trainer.exceptions import ConfigError
from vla_policy_node.locations import read_yaml

Precision = Literal["no", "bf16"]
"""Of the numbers that are multiplied in training; `no`: float32."""

T = TypeVar("T")


def load_config(kind: type[T], path: Path | str | None = None, overrides: Sequence[str] = ()) -> T:
    """The configuration of a YAML file, or the defaults, with command-line overrides on top.

    Args:
        kind: a frozen dataclass, nested at will.
        path: a YAML file holding some of its keys.
        overrides: command-line arguments as tyro takes them, `--data.chunk 8`. As on any command line, `--help`
            and a wrong option print and leave by SystemExit.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown, or a value is of the wrong kind or range.
    """
    config = from_mapping(kind, _read_yaml(Path(path)) if path else {}, str(path or kind.__name__))
    if not overrides:
        return config
    return tyro.cli(kind, args=list(overrides), default=config)


def save_config(config: object, path: Path) -> None:
    """Write the resolved configuration as YAML that `load_config` reads back equal; atomic."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(yaml.safe_dump(to_plain(config), sort_keys=False))
    temporary.replace(path)


def to_plain(value: Any) -> Any:
    """A configuration as mappings, lists, numbers and strings."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def from_mapping(kind: type[T], content: object, origin: str) -> T:
    """Build `kind` from parsed YAML.

    Raises:
        ConfigError: as `load_config`; `origin` says where.
    """
    if content is None:
        content = {}
    if not isinstance(content, Mapping):
        raise ConfigError(f"{origin}: expected keys with values, not {content!r}")
    hints = typing.get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind) if f.init]  # type: ignore[arg-type]
    if unknown := [str(key) for key in content if key not in known]:
        raise ConfigError(f"{origin}: unknown key {', '.join(unknown)}; valid are {', '.join(known)}")
    values = {str(k): _convert(hints[k], v, f"{origin}: {k}") for k, v in content.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{origin}: {error}") from error


def require(condition: bool, message: str) -> None:
    """For `__post_init__`: raise ConfigError with `message` unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def _read_yaml(path: Path) -> object:
    if not path.is_file():
        raise ConfigError(f"configuration file '{path}' does not exist")
    return read_yaml(path, ConfigError)


def _convert(hint: Any, value: Any, origin: str) -> Any:
    """`value` as the annotation `hint` wants it; ConfigError where it is of another kind."""
    origin_type = get_origin(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        return from_mapping(hint, value, origin)
    if origin_type in (Union, types.UnionType):
        return _convert_union(hint, value, origin)
    if origin_type is Literal:
        require(value in get_args(hint), f"{origin}: {value!r} is not one of {', '.join(map(str, get_args(hint)))}")
        return value
    if origin_type is tuple:
        return _convert_tuple(hint, value, origin)
    if origin_type in (dict, Mapping):
        require(isinstance(value, Mapping), f"{origin}: expected keys with values, not {value!r}")
        return {str(k): _convert(get_args(hint)[1], v, f"{origin}: {k}") for k, v in value.items()}
    return _convert_scalar(hint, value, origin)


def _convert_union(hint: Any, value: Any, origin: str) -> Any:
    choices = get_args(hint)
    if value is None and type(None) in choices:
        return None
    problems = []
    for choice in choices:
        if choice is type(None):
            continue
        try:
            return _convert(choice, value, origin)
        except ConfigError as error:
            problems.append(str(error))
    raise ConfigError("; or ".join(problems))


def _convert_tuple(hint: Any, value: Any, origin: str) -> tuple[Any, ...]:
    require(isinstance(value, (list, tuple)), f"{origin}: expected a list, not {value!r}")
    items = get_args(hint)
    if len(items) == 2 and items[1] is Ellipsis:
        items = (items[0],) * len(value)
    require(len(items) == len(value), f"{origin}: expected {len(items)} values, not {len(value)}")
    return tuple(_convert(h, v, f"{origin}[{i}]") for i, (h, v) in enumerate(zip(items, value, strict=True)))


def _convert_scalar(hint: Any, value: Any, origin: str) -> Any:
    if hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        # YAML 1.1 reads 1e-3, without a dot, as text.
        try:
            return float(value)
        except ValueError:
            value = str(value)
    right = hint is Any or (isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool))
    require(right, f"{origin}: expected {getattr(hint, '__name__', hint)}, not {value!r}")
    return value


@dataclass(frozen=True)
class FilterConfig:
    """Which episodes are trained on."""

    tasks: tuple[str, ...] = ()
    """Only these tasks; empty: all."""
    drivers: tuple[Literal["policy", "expert", "human", "none"], ...] = ("policy", "expert", "human")
    """Only what these drove."""
    min_progress: float = 1.0
    """Below 1, an episode without success is kept as well if its best partial credit reaches this share."""
    min_steps: int = 1
    """Shorter episodes are dropped."""
    max_steps: int = 0
    """Longer episodes are dropped; 0: no limit."""
    demonstrations_per_task: int = 0
    """At most so many episodes by expert or human a task; 0: no limit."""
    rollouts_per_task: int = 0
    """At most so many episodes by a policy a task, so that easy tasks cannot take over; 0: no limit."""

    def __post_init__(self) -> None:
        require(0.0 <= self.min_progress <= 1.0, f"filter: min_progress {self.min_progress} is not in [0, 1]")
        for name in ("min_steps", "max_steps", "demonstrations_per_task", "rollouts_per_task"):
            require(getattr(self, name) >= 0, f"filter: {name} {getattr(self, name)} is negative")


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes to a training image that leave the right action as it is."""

    shift_px: int = 2
    """Largest shift in pixels, each way and axis."""
    scale: float = 0.0
    """Largest change of size, as a share: 0.1 zooms between 0.9 and 1.1."""
    gain: float = 0.1
    """Standard deviation of each colour channel's factor around 1."""
    offset: float = 0.1
    """Standard deviation of what is added to each colour channel; the full range of a channel is 2."""

    def __post_init__(self) -> None:
        require(self.shift_px >= 0, f"augmentation: shift_px {self.shift_px} is negative")
        require(0.0 <= self.scale < 1.0, f"augmentation: scale {self.scale} is not in [0, 1)")
        require(self.gain >= 0 and self.offset >= 0, f"augmentation: gain {self.gain} or offset is negative")

    @property
    def is_none(self) -> bool:
        """Whether every image stays as it is."""
        return not (self.shift_px or self.scale or self.gain or self.offset)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up, cosine decay, restarts and clipping."""

    learning_rate: float = 1e-3
    """Highest learning rate, reached at the end of the warm-up."""
    warmup_steps: int = 50
    """Steps over which the learning rate rises from 0."""
    final_share: float = 0.0
    """Learning rate of the last step as a share of the highest."""
    cycles: int = 1
    """Times that warm-up and cosine are gone through, over steps of one length each."""
    restart_share: float = 0.6
    """Highest learning rate of the cycles after the first, as a share of `learning_rate`."""
    weight_decay: float = 1e-3
    """Decoupled decay of matrices and kernels; never of biases, norms and other vectors."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm; 0: never."""
    beta1: float = 0.9
    """Decay of the gradient's running mean."""
    beta2: float = 0.999
    """Decay of the squared gradient's running mean."""

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, f"optimizer: learning_rate {self.learning_rate} is not positive")
        require(0 <= self.final_share <= 1, f"optimizer: final_share {self.final_share} is not in [0, 1]")
        require(self.cycles >= 1, f"optimizer: cycles {self.cycles} is not at least 1")
        require(0 < self.restart_share <= 1, f"optimizer: restart_share {self.restart_share} is not in (0, 1]")
        for name in ("warmup_steps", "weight_decay", "clip_norm"):
            require(getattr(self, name) >= 0, f"optimizer: {name} {getattr(self, name)} is negative")
        for name in ("beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, f"optimizer: {name} {getattr(self, name)} is not in [0, 1)")


@dataclass(frozen=True)
class TrainingConfig:
    """How long, on what, and how often something is written."""

    steps: int = 2000
    """Gradient steps."""
    batch_size: int = 128
    """Windows a gradient step, over all processes and accumulation."""
    accumulation: int = 1
    """Parts that a batch is computed in, one after the other, to save memory."""
    expert_share: float = 0.5
    """Share of demonstrations in each batch where there are rollouts too."""
    learn_from: Literal["all", "human"] = "all"
    """Of tries that a policy began: every step, or only those at which a human had taken over (HG-DAgger, Kelly et al.
    2019); one without any is then not learned from."""
    seed: int = 0
    """Fixes the network's first weights and, with the step, all that is random in it."""
    threads: int = 2
    """Threads of torch. 1 where other work keeps the cores busy: more are then several times slower."""
    device: Literal["auto", "cpu"] = "auto"
    """`auto`: what accelerate finds."""
    mixed_precision: Precision = "no"
    """Arithmetic of the forward pass."""
    log_every: int = 20
    """Steps between two lines of the log."""
    save_every: int = 200
    """Steps between two saved states to resume from; 0: only at the end."""
    validate_every: int = 500
    """Steps between two validations, each with a checkpoint of its own; 0: only at the end."""
    patience: int = 0
    """Stop after so many validations without a better score; 0: never."""
    average: float = 0.0
    """Decay a step of the weights' running mean, which checkpoints then hold; 0: they hold the weights themselves."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """AdamW and its schedule."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """Changes to the images."""
    cache_features: Literal["auto", "float16", "float32", "never"] = "auto"
    """Encode each frame once, and keep what a frozen pretrained vision encoder gives on disk, as float16 or float32,
    instead of encoding at every step. Images cannot be changed then. `auto`: float16 where the encoder is one and there
    is no augmentation, else never."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation", "threads", "log_every"):
            require(getattr(self, name) >= 1, f"training: {name} {getattr(self, name)} is not at least 1")
        for name in ("save_every", "validate_every", "patience"):
            require(getattr(self, name) >= 0, f"training: {name} {getattr(self, name)} is negative")
        require(0 <= self.average < 1, f"training: average {self.average} is not in [0, 1)")
        require(0 <= self.expert_share <= 1, f"training: expert_share {self.expert_share} is not in [0, 1]")
        require(
            self.batch_size % self.accumulation == 0,
            f"training: batch_size {self.batch_size} is not a multiple of accumulation {self.accumulation}",
        )
        require(
            self.cache_features in ("auto", "never") or self.augmentation.is_none,
            f"training: cache_features {self.cache_features} keeps what an encoder gives for unchanged images, but "
            f"augmentation changes them: {self.augmentation}; valid are cache_features auto or never, or augmentation "
            "{shift_px: 0, scale: 0, gain: 0, offset: 0}",
        )

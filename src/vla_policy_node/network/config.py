"""What the network is made of. The files in `config/network/` are named presets of `NetworkConfig`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from vla_policy_node.exceptions import NetworkError
from vla_policy_node.locations import find_preset, read_yaml

VisionKind = Literal["convolution", "pretrained"]
Pooling = Literal["mean", "tokens"]
HeadKind = Literal["regression", "flow"]


@dataclass(frozen=True)
class VisionConfig:
    """How an image becomes tokens."""

    kind: VisionKind = "convolution"
    """`convolution`: small, trained from scratch, one a camera. `pretrained`: through transformers, shared."""
    name: str = ""
    """Folder or hub name of a pretrained encoder."""
    frozen: bool = True
    """A pretrained encoder is not trained and stays out of the checkpoint, which holds its name and digest."""
    image_size: int = 0
    """Pixels a side that images are resized to; 0: the first camera's own size."""
    channels: tuple[int, ...] = (32, 64, 64, 64)
    """Width of each convolution; the first has stride 4, the second stride 2, the others 1."""
    keypoints: int = 32
    """Spatial-softmax keypoints, given to the decoder as one token."""
    keypoint_temperature: float = 1.0
    """Of that softmax: the lower, the more a keypoint is from the first step on where its feature is strongest, rather
    than in the middle of the image."""
    map_tokens: bool = False
    """Also give every cell of the last feature map as a token."""

    @property
    def stays(self) -> bool:
        """Whether the encoder is one that training does not change."""
        return self.kind == "pretrained" and self.frozen

    def __post_init__(self) -> None:
        _choice("vision.kind", self.kind, get_args(VisionKind))
        object.__setattr__(self, "channels", tuple(self.channels))
        if self.kind == "pretrained" and not self.name:
            raise NetworkError("vision.name '' must be a folder or a hub name where vision.kind is pretrained")
        _at_least("vision.keypoints", self.keypoints, 1)
        _at_least("vision.image_size", self.image_size, 0)
        if not self.keypoint_temperature > 0:
            raise NetworkError(f"vision.keypoint_temperature {self.keypoint_temperature} is not above 0")
        if len(self.channels) < 2 or any(c < 8 or c % 8 for c in self.channels):
            raise NetworkError(f"vision.channels {self.channels} must be two or more multiples of 8")


@dataclass(frozen=True)
class LanguageConfig:
    """How an instruction becomes features."""

    name: str = "minilm"
    """`minilm` (the sentence encoder that is installed with Encore), or a folder or hub name."""
    frozen: bool = True
    """Not trained: each instruction is encoded once, and the checkpoint holds the encoder's name and digest."""
    pooling: Pooling = "mean"
    """`mean`: one normalised sentence embedding. `tokens`: one feature vector a token."""
    dimension: int = 384
    """Width of the encoder's features; 0: asked of the encoder when the network is first built."""
    max_tokens: int = 64
    """Longer instructions are cut."""

    def __post_init__(self) -> None:
        _choice("language.pooling", self.pooling, get_args(Pooling))
        _at_least("language.dimension", self.dimension, 0)
        _at_least("language.max_tokens", self.max_tokens, 1)
        if not self.name:
            raise NetworkError("language.name '' must be minilm, a folder or a hub name")


@dataclass(frozen=True)
class NetworkConfig:
    """The whole network."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    horizon: int = 8
    """Actions in a chunk."""
    d_model: int = 128
    """Width of the transformer decoder."""
    heads: int = 4
    """Attention heads; divides `d_model`."""
    layers: int = 2
    feedforward: int = 256
    """Width between the two linear maps of a decoder layer."""
    dropout: float = 0.0
    proprioception_octaves: int = 0
    """Sines and cosines that the network is given of each proprioception value, each of twice the frequency of the one
    before; see `with_octaves`."""
    head: HeadKind = "regression"
    """Action head: `regression` gives the chunk itself, always the same one, for an L1 loss. `flow` comes to it from
    noise, one way or another where demonstrations differ."""
    flow_steps: int = 10
    """Steps from noise to a chunk, of a `flow` head; 10 as pi0 (arXiv 2410.24164)."""

    def __post_init__(self) -> None:
        _choice("head", self.head, get_args(HeadKind))
        for name in ("horizon", "d_model", "heads", "layers", "feedforward", "flow_steps"):
            _at_least(name, getattr(self, name), 1)
        _at_least("proprioception_octaves", self.proprioception_octaves, 0)
        if self.d_model % self.heads:
            raise NetworkError(f"heads {self.heads} does not divide d_model {self.d_model}")
        if not (isinstance(self.dropout, (int, float)) and 0 <= self.dropout < 1):
            raise NetworkError(f"dropout {self.dropout} is outside [0, 1)")

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, as `from_dict` takes them."""
        content = asdict(self)
        content["vision"]["channels"] = list(self.vision.channels)
        return content

    @staticmethod
    def from_dict(content: object, origin: str = "network") -> "NetworkConfig":
        """Raises: NetworkError: a key is unknown or a value out of range; `origin` says where."""
        top = dict(_mapping(content, origin))
        parts: dict[str, type[Any]] = {"vision": VisionConfig, "language": LanguageConfig}
        for key, part in parts.items():
            top[key] = _build(part, _mapping(top.get(key, {}), f"{origin}: {key}"), f"{origin}: {key}")
        return _build(NetworkConfig, top, origin)


def load_network_config(name_or_path: str | Path) -> NetworkConfig:
    """The preset called so in `config/network/`, or the YAML file at a path.

    Raises:
        NetworkError: no such preset or file, or it does not describe a network.
    """
    path = find_preset("network", name_or_path, "network", NetworkError)
    return NetworkConfig.from_dict(read_yaml(path, NetworkError), str(path))


T = TypeVar("T")


def _build(kind: type[T], content: Mapping[str, Any], origin: str) -> T:
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key in content:
        _choice(f"{origin}: key", key, known)
    try:
        return kind(**content)
    except TypeError as error:
        raise NetworkError(f"{origin}: {error}") from error


def _mapping(content: object, origin: str) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise NetworkError(f"{origin}: expected keys with values, not {content!r}")
    return content


def _choice(what: str, value: object, valid: Any) -> None:
    if value not in valid:
        raise NetworkError(f"{what} '{value}' is not one of {', '.join(map(str, valid))}")


def _at_least(what: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise NetworkError(f"{what} {value!r} is not a whole number")
    if value < least:
        raise NetworkError(f"{what} {value} is below {least}")

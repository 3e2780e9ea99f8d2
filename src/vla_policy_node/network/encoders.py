"""Images to tokens: a small convolutional encoder trained from scratch, or a pretrained one through transformers."""

import hashlib
import json
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from vla_policy_node.network.config import VisionConfig
from vla_policy_node.network.pretrained import (
    architecture_digest,
    check_digest,
    feature_width,
    freeze,
    load_encoder,
)

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of RGB in [0, 1]; Radford et al., 2021, and the preprocessor files of OpenAI's checkpoints."""

FEATURES_VERSION = 1
"""To be raised whenever `PretrainedEncoder.hidden` gives something else of the same images."""


class VisionFeatures(NamedTuple):
    """What a frozen encoder makes of images: all that a network without training of its own can give."""

    hidden: Tensor
    """Shape (B, C, N, W), float16 or float32: the last hidden states, N a camera, W wide; not yet projected."""


class VisionEncoder(Protocol):
    """What turns one camera's images into tokens."""

    def __call__(self, images: Tensor, condition: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] and what is wanted of them (B, E) to tokens (B, N, D)."""
        ...


class ConvolutionEncoder(nn.Module):
    """Convolutions modulated by the instruction (FiLM, arXiv 1709.07871), then spatial-softmax keypoints
    (arXiv 1504.00702): where each of K learned features is, as one token; on request, each cell of the map as well.

    The first convolution is 8x8 with stride 4 and has no normalisation: on a CPU core that is 2.4 times as fast as two
    small normalised ones of stride 2 that give the same map.
    """

    grid: Tensor

    def __init__(self, config: VisionConfig, height: int, width: int, condition: int, d_model: int) -> None:
        super().__init__()
        widths = config.channels
        self.stem = nn.Conv2d(3, widths[0], 8, stride=4, padding=2)
        strides = [2] + [1] * (len(widths) - 2)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=s, padding=1) for a, b, s in zip(widths, widths[1:], strides, strict=False)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, c) for c in widths[1:])
        self.films = nn.ModuleList(nn.Linear(condition, 2 * c) for c in widths[1:])
        self.keypoints = nn.Conv2d(widths[-1], config.keypoints, 1)
        self.temperature = config.keypoint_temperature
        self.keypoint_token = nn.Linear(2 * config.keypoints, d_model)
        rows, columns = (map_size(map_size(side, 8, 4, 2), 3, 2, 1) for side in (height, width))
        y, x = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns), indexing="ij")
        self.register_buffer("grid", torch.stack([x.reshape(-1), y.reshape(-1)], -1), persistent=False)
        self.cell_token: nn.Linear | None = None
        if config.map_tokens:
            self.cell_token = nn.Linear(widths[-1], d_model)
            self.cell_position = nn.Parameter(0.02 * torch.randn(rows * columns, d_model))

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """See `VisionEncoder`; N is 1, or 1 + rows * columns with map tokens."""
        features = self.features(images, condition)
        tokens = self.keypoint_token(self.locate(features).flatten(1))[:, None]
        if self.cell_token is None:
            return torch.as_tensor(tokens)
        cells = self.cell_token(features.flatten(2).transpose(1, 2)) + self.cell_position
        return torch.cat([tokens, cells], 1)

    def features(self, images: Tensor, condition: Tensor) -> Tensor:
        """The last feature map (B, C, rows, columns)."""
        x = F.relu(self.stem(images))
        for convolution, norm, film in zip(self.convolutions, self.norms, self.films, strict=True):
            gain, bias = film(condition)[:, :, None, None].chunk(2, 1)
            x = F.gelu(norm(convolution(x).float()) * (1 + gain) + bias)
        return x

    def locate(self, features: Tensor) -> Tensor:
        """Expected position of each keypoint (B, K, 2) as x, y in [-1, 1]; -1 is left and top."""
        weights = (self.keypoints(features).flatten(2) / self.temperature).softmax(-1)
        return torch.as_tensor(weights @ self.grid)


class PretrainedEncoder(nn.Module):
    """A pretrained vision transformer: its last hidden states, brought to the decoder's width."""

    gain: Tensor
    bias: Tensor

    def __init__(
        self, config: VisionConfig, d_model: int, folders: Mapping[str, str] | None = None, expected_digest: str = ""
    ) -> None:
        """Raises: NetworkError: the encoder cannot be loaded, or it is frozen and has other weights than expected."""
        super().__init__()
        model = load_encoder("vision", config.name, folders)
        self._frozen: list[nn.Module] = []
        self.digest = self.features_digest = ""
        if config.frozen:
            self.digest = check_digest("vision", config.name, model, expected_digest)
            self.features_digest = _features_digest(self.digest, model)
            # In a list, nn.Module does not see it: neither trained nor saved.
            self._frozen.append(freeze(model))
        else:
            self.model = model.train()
        self.project = nn.Linear(feature_width(model), d_model)
        # From [-1, 1] to the encoder's scale in one step: (x / 2 + 1/2 - mean) / std.
        mean, std = torch.tensor(CLIP_MEAN).view(3, 1, 1), torch.tensor(CLIP_STD).view(3, 1, 1)
        self.register_buffer("gain", 0.5 / std, persistent=False)
        self.register_buffer("bias", (0.5 - mean) / std, persistent=False)

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """See `VisionEncoder`; the condition is not used. N is what the encoder gives for the images' size."""
        return torch.as_tensor(self.project(self.hidden(images)))

    def hidden(self, images: Tensor) -> Tensor:
        """Last hidden states (B, N, W) of images (B, 3, H, W) in [-1, 1]; without gradients where it is frozen."""
        pixels = images * self.gain + self.bias
        if not self._frozen:
            return torch.as_tensor(self.model(pixel_values=pixels).last_hidden_state)
        with torch.no_grad():
            return torch.as_tensor(self._frozen[0].to(images.device)(pixel_values=pixels).last_hidden_state)


def _features_digest(weights: str, model: nn.Module) -> str:
    """16 hex digits over all that decides what `hidden` gives of the same images."""
    content = [FEATURES_VERSION, weights, architecture_digest(model), CLIP_MEAN, CLIP_STD]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def map_size(side: int, kernel: int, stride: int, padding: int) -> int:
    """Side of a convolution's output for a side of its input."""
    return (side + 2 * padding - kernel) // stride + 1

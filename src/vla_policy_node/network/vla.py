"""The vision-language-action network: what the cameras show, where the robot is and what is asked, to a chunk."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vla_policy_node.exceptions import NetworkError
from vla_policy_node.network.config import NetworkConfig
from vla_policy_node.network.decoder import Decoder
from vla_policy_node.network.encoders import ConvolutionEncoder, PretrainedEncoder, VisionFeatures
from vla_policy_node.network.flow_head import Course, FlowHead
from vla_policy_node.network.guidance import Guidance, follow
from vla_policy_node.network.heads import HEADS
from vla_policy_node.network.images import to_network
from vla_policy_node.network.language import LanguageEncoder, LanguageFeatures, masked_mean
from vla_policy_node.normalization import Statistics
from vla_policy_node.spec import RobotSpec

CONDITION = 128
"""Width of the instruction's embedding that modulates the convolutional encoder."""


class _Memory(NamedTuple):
    tokens: Tensor
    """Shape (B, N, D)."""
    present: Tensor | None
    """Shape (B, N), True where there is a token; None where all are."""


class VLANetwork(nn.Module):
    """A transformer decoder over vision, proprioception and language tokens, with one learned query an action.

    Sizes in what follows: B observations, C cameras, P proprioception values, L language tokens, H actions a chunk,
    A action dimensions.
    """

    proprioception_mean: Tensor
    proprioception_std: Tensor
    action_center: Tensor
    action_scale: Tensor

    def __init__(
        self,
        config: NetworkConfig,
        spec: RobotSpec,
        statistics: Statistics,
        folders: Mapping[str, str] | None = None,
        encoder_digests: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            folders: where pretrained encoders are on this machine, by the name in `config`.
            encoder_digests: what frozen encoders must have as digest, by `vision` and `language`.

        Raises:
            NetworkError: an encoder cannot be loaded or is not the expected one, or the robot has no camera.
            SpecError: the statistics are not of the robot's size.
        """
        super().__init__()
        if not spec.cameras:
            raise NetworkError(f"robot '{spec.name}' has no camera, the network needs at least one")
        statistics.check(spec)
        self.config, self.spec, self.statistics = config, spec, statistics
        side = config.vision.image_size
        self.image_size = (side, side) if side else (spec.cameras[0].height, spec.cameras[0].width)
        """Height and width that `forward` takes, in pixels."""
        digests = encoder_digests or {}
        self.language = LanguageEncoder(config.language, folders, digests.get("language", ""))
        self.vision = self._vision_encoders(folders, digests.get("vision", ""))
        self.vision.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        d_model = config.d_model
        self.camera_embedding = nn.Parameter(0.02 * torch.randn(len(spec.cameras), 1, d_model))
        self.condition = nn.Sequential(nn.Linear(self.language.dimension, CONDITION), nn.GELU())
        self.language_token = nn.Linear(self.language.dimension, d_model)
        values = max(1, len(spec.proprioception)) * (1 + 2 * config.proprioception_octaves)
        self.proprioception_token = nn.Sequential(nn.Linear(values, 64), nn.GELU(), nn.Linear(64, d_model))
        self.queries = nn.Parameter(0.02 * torch.randn(config.horizon, d_model))
        self.decoder = Decoder(d_model, config.heads, config.layers, config.feedforward, config.dropout)
        self.head = HEADS[config.head](d_model, len(spec.action))
        for name in ("proprioception_mean", "proprioception_std", "action_center", "action_scale"):
            self.register_buffer(name, torch.tensor(getattr(statistics, name)), persistent=False)

    def forward(
        self,
        seen: Tensor | VisionFeatures,
        proprioception: Tensor,
        features: Tensor,
        mask: Tensor,
        course: Course | None = None,
    ) -> Tensor:
        """What the head gives: normalised actions (B, H, A), or, for a course (B * K), their velocities (B * K, H, A).

        Args:
            seen: what the cameras showed, in the spec's order: images, float32 (B, C, 3, height, width) in [-1, 1] or
                uint8 (B, C, height, width, 3), see `to_network`, size as in `image_size`; or what `encode_images`
                gave of them.
            proprioception: (B, P), in the spec's units.
            features: encoded instructions (B, L, D), see `encode_instructions`.
            mask: (B, L), True where there is a language token.
            course: of a flow head alone: where the chunks are on their ways.
        """
        return self._decode(self._memory(seen, proprioception, features, mask), course)

    def actions(
        self,
        seen: Tensor | VisionFeatures,
        proprioception: Tensor,
        features: Tensor,
        mask: Tensor,
        generator: torch.Generator | None = None,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """Normalised actions (B, H, A); arguments as for `forward`.

        Args:
            generator: on the CPU; what a flow head begins with is drawn from it.
            guidance: of a flow head alone: what the chunks are to go on from.

        Raises:
            NetworkError: the head makes chunks in one step, which cannot be guided.
        """
        memory = self._memory(seen, proprioception, features, mask)
        if not isinstance(self.head, FlowHead):
            if guidance is not None:
                raise NetworkError(f"a {self.config.head} head cannot be guided; a flow head can")
            return self._decode(memory)
        tokens = memory.tokens
        # Drawn on the CPU, so that a seed gives the same chunk on every device.
        noise = torch.randn(len(tokens), len(self.queries), len(self.spec.action), generator=generator)

        def velocity(chunk: Tensor, time: float) -> Tensor:
            return self._decode(memory, Course(chunk, torch.full((len(chunk),), time, device=chunk.device))).float()

        return follow(velocity, noise.to(tokens.device), self.config.flow_steps, guidance)

    def _memory(
        self, seen: Tensor | VisionFeatures, proprioception: Tensor, features: Tensor, mask: Tensor
    ) -> "_Memory":
        """What the decoder reads."""
        tokens = self._see(seen, self.condition(masked_mean(features, mask)))
        values = with_octaves(self._normalized_proprioception(proprioception), self.config.proprioception_octaves)
        posture = self.proprioception_token(values)[:, None]
        asked = self.language_token(features)
        memory = torch.cat([posture, tokens, asked], 1)
        present: Tensor | None = None
        if features.shape[1] > 1:
            always = mask.new_ones(len(tokens), 1 + tokens.shape[1])
            present = torch.cat([always, mask], 1)
        return _Memory(memory, present)

    def _decode(self, memory: "_Memory", course: Course | None = None) -> Tensor:
        """What the head makes of what the decoder reads; each observation is read for as many chunks as it has."""
        tokens, present = memory
        if isinstance(self.head, FlowHead):
            if course is None:
                raise NetworkError("a flow head needs a course; for actions call `actions`")
            queries = self.head.queries(self.queries, course)
            tokens = tokens.repeat_interleave(len(queries) // len(tokens), 0)
            present = None if present is None else present.repeat_interleave(len(queries) // len(present), 0)
        else:
            queries = self.queries[None].expand(len(tokens), -1, -1)
        return torch.as_tensor(self.head(self.decoder(queries, tokens, present)))

    def encode_instructions(self, texts: Sequence[str]) -> LanguageFeatures:
        """Features of B instructions, on the network's device. Raises: NetworkError: one of them is empty."""
        features, mask = self.language(texts)
        return LanguageFeatures(features.to(self.queries.device), mask.to(self.queries.device))

    def encode_images(self, images: Tensor) -> VisionFeatures:
        """What the frozen vision encoder makes of images as `forward` takes them, float32, on their device.

        Raises:
            NetworkError: the vision encoder is not a frozen one, so what it gives changes with training.
        """
        encoder = self._frozen_vision()
        hidden = encoder.hidden(_own_strides(_scaled(images).flatten(0, 1)))
        return VisionFeatures(hidden.reshape(*images.shape[:2], *hidden.shape[1:]))

    @property
    def features_digest(self) -> str:
        """Of all that decides what `encode_images` gives of the same images. Raises: NetworkError: as there."""
        return self._frozen_vision().features_digest

    def normalize_actions(self, actions: Tensor) -> Tensor:
        """Actions in the spec's units (..., A) on the scale of `forward`."""
        return (actions - self.action_center) / self.action_scale

    def denormalize(self, actions: Tensor) -> Tensor:
        """What `forward` gives (..., A) in the spec's units; not limited."""
        return actions * self.action_scale + self.action_center

    def encoder_digests(self) -> dict[str, str]:
        """Digests of the frozen encoders, by `vision` and `language`."""
        found = {"language": self.language.digest()}
        first = self.vision[0]
        if isinstance(first, PretrainedEncoder):
            found["vision"] = first.digest
        return {role: digest for role, digest in found.items() if digest}

    def _vision_encoders(self, folders: Mapping[str, str] | None, expected_digest: str) -> nn.ModuleList:
        """One encoder a camera, or a single one that all cameras share."""
        config = self.config
        if config.vision.kind == "pretrained":
            return nn.ModuleList([PretrainedEncoder(config.vision, config.d_model, folders, expected_digest)])
        height, width = self.image_size
        return nn.ModuleList(
            ConvolutionEncoder(config.vision, height, width, CONDITION, config.d_model) for _ in self.spec.cameras
        )

    def _frozen_vision(self) -> PretrainedEncoder:
        first, vision = self.vision[0], self.config.vision
        if isinstance(first, PretrainedEncoder) and vision.frozen:
            return first
        raise NetworkError(
            f"vision.kind {vision.kind} with vision.frozen {vision.frozen} gives no features that stay as they are; "
            "kind pretrained with frozen true does"
        )

    def _see(self, seen: Tensor | VisionFeatures, condition: Tensor) -> Tensor:
        """Vision tokens of all cameras, one camera after the other: (B, C * N, D)."""
        if isinstance(seen, VisionFeatures):
            project = self._frozen_vision().project
            views = [project(hidden) for hidden in seen.hidden.to(torch.float32).unbind(1)]
        else:
            views = [self._look(camera, images, condition) for camera, images in enumerate(_scaled(seen).unbind(1))]
        return torch.cat([view + self.camera_embedding[camera] for camera, view in enumerate(views)], 1)

    def _look(self, camera: int, images: Tensor, condition: Tensor) -> Tensor:
        encoder = self.vision[min(camera, len(self.vision) - 1)]
        return torch.as_tensor(encoder(_own_strides(images), condition))

    def _normalized_proprioception(self, values: Tensor) -> Tensor:
        if not values.shape[1]:
            return values.new_zeros(len(values), 1)
        return (values - self.proprioception_mean) / self.proprioception_std


def _scaled(images: Tensor) -> Tensor:
    """Images in [-1, 1] as they are, and uint8 ones brought there."""
    return to_network(images) if images.dtype == torch.uint8 else images


def _own_strides(images: Tensor) -> Tensor:
    """A float32 copy of (B, 3, H, W) with strides of its own: from those of a single image torch may guess another
    layout, take another kernel, and give other last digits."""
    return images.to(torch.float32, memory_format=torch.channels_last, copy=True)


def with_octaves(values: Tensor, octaves: int) -> Tensor:
    """Values (B, P) with sine and cosine of pi/2 2^k times each, k = 0 to `octaves` - 1: (B, P (1 + 2 octaves)).

    A network learns smooth functions first; where half a centimetre decides between hit and miss, this makes small
    differences large (Tancik et al., 2020, Fourier Features Let Networks Learn High Frequency Functions).
    """
    waves = [values * (math.pi / 2 * 2**k) for k in range(octaves)]
    return torch.cat([values, *(wave.sin() for wave in waves), *(wave.cos() for wave in waves)], -1)

"""Instructions to features. A frozen encoder reads each instruction once, and is only loaded for a new one."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vla_policy_node.exceptions import NetworkError
from vla_policy_node.network.config import LanguageConfig
from vla_policy_node.network.pretrained import check_digest, feature_width, freeze, load_encoder, load_tokenizer

CACHE_SIZE = 1024
"""Instructions whose features a frozen encoder keeps; the one not used for longest makes room."""


class LanguageFeatures(NamedTuple):
    """Encoded instructions, padded to the longest."""

    features: Tensor
    """Shape (B, L, D), float32."""
    mask: Tensor
    """Shape (B, L), True where there is a token."""


class LanguageEncoder(nn.Module):
    """A pretrained text encoder. Frozen, it stays out of `state_dict()` and of gradients."""

    def __init__(
        self, config: LanguageConfig, folders: Mapping[str, str] | None = None, expected_digest: str = ""
    ) -> None:
        """Args: folders: where encoders are on this machine, by name; expected_digest: of a frozen one's weights."""
        super().__init__()
        self.config = config
        self._folders = folders
        self._digest = expected_digest
        self._tokenizer: Any = None
        # A frozen encoder hides in a list: what nn.Module does not see is neither trained nor saved.
        self._frozen: list[nn.Module] = []
        self._cache: OrderedDict[str, Tensor] = OrderedDict()
        if not config.frozen:
            self.model = load_encoder("language", config.name, folders)
        self.dimension = config.dimension or feature_width(self._loaded())

    @property
    def cached(self) -> dict[str, Tensor]:
        """Features by instruction, each (L, D); what a checkpoint keeps so that known instructions need no encoder."""
        return dict(self._cache)

    def remember(self, features: Mapping[str, Tensor]) -> None:
        """Take features that this very encoder gave, each (L, D). Nothing is kept by an encoder that is trained."""
        if self.config.frozen:
            for text, value in features.items():
                self._store(text, value)

    def digest(self) -> str:
        """Digest of a frozen encoder's weights; empty where they are trained and thus part of the checkpoint."""
        if self.config.frozen and not self._digest:
            self._loaded()
        return self._digest

    def forward(self, texts: Sequence[str]) -> LanguageFeatures:
        """Encode instructions, B of them; differentiable where the encoder is not frozen.

        Raises:
            NetworkError: an instruction is empty, or the encoder cannot be loaded or has other weights or width.
        """
        if empty := [i for i, text in enumerate(texts) if not text.strip()]:
            raise NetworkError(f"instruction {empty[0]} of {len(texts)} is empty")
        if not self.config.frozen:
            return self._encode(texts)
        for text in dict.fromkeys(texts):
            if text in self._cache:
                self._cache.move_to_end(text)
            else:
                with torch.no_grad():
                    self._store(text, self._encode([text]).features[0])
        return pad([self._cache[text] for text in texts])

    def _store(self, text: str, features: Tensor) -> None:
        # A tensor made in inference mode could never take part in training; its clone made outside can.
        with torch.inference_mode(False):
            self._cache[text] = features.detach().cpu().clone()
        while len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)

    def _encode(self, texts: Sequence[str]) -> LanguageFeatures:
        model = self._loaded()
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.config.name, self._folders)
        tokens = self._tokenizer(
            list(texts), return_tensors="pt", padding=True, truncation=True, max_length=self.config.max_tokens
        ).to(next(model.parameters()).device)
        hidden: Tensor = model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        mask = tokens.attention_mask.bool()
        if hidden.shape[-1] != self.dimension:
            raise NetworkError(
                f"language encoder '{self.config.name}': features are {hidden.shape[-1]} wide, "
                f"but language.dimension is {self.dimension}"
            )
        if self.config.pooling == "tokens":
            return LanguageFeatures(hidden, mask)
        pooled = nn.functional.normalize(masked_mean(hidden, mask), dim=-1)
        return LanguageFeatures(pooled[:, None], mask.new_ones(len(texts), 1))

    def _loaded(self) -> nn.Module:
        if not self.config.frozen:
            return self.model
        if not self._frozen:
            model = freeze(load_encoder("language", self.config.name, self._folders))
            self._digest = check_digest("language", self.config.name, model, self._digest)
            self._frozen.append(model)
        return self._frozen[0]


def masked_mean(features: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens there are: features (B, L, D), mask (B, L) -> (B, D)."""
    weights = mask.to(features.dtype)[..., None]
    return (features * weights).sum(1) / weights.sum(1).clamp(min=1)


def pad(features: Sequence[Tensor]) -> LanguageFeatures:
    """Features of B instructions, each (L_i, D), as one batch with zeros behind the shorter ones."""
    lengths = torch.tensor([len(f) for f in features])
    padded = nn.utils.rnn.pad_sequence(list(features), batch_first=True)
    return LanguageFeatures(padded, torch.arange(padded.shape[1])[None] < lengths[:, None])

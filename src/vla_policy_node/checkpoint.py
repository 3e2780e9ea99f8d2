"""A policy on disk: one folder, written whole or not at all, and no file of it trusted without its hash.

The folder holds `model.safetensors`, `network.json`, `spec.json`, `statistics.json`, `lineage.json`,
`instructions.safetensors` (features of the instructions that a frozen language encoder has read) and `manifest.json`
with a SHA-256 a file. The checkpoint's digest is taken over the manifest. Frozen encoders are not copied into it: it
holds their name and the digest of their weights. Encoders that were trained are in `model.safetensors`; their
architecture and tokenizer are still read from the folder or hub name.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from vla_policy_node.exceptions import CheckpointError, NetworkError, SpecError
from vla_policy_node.network.config import NetworkConfig
from vla_policy_node.network.devices import check_device
from vla_policy_node.network.vla import VLANetwork
from vla_policy_node.normalization import Statistics
from vla_policy_node.spec import RobotSpec

FORMAT = 1
MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
INSTRUCTIONS = "instructions.safetensors"
FILES = (WEIGHTS, INSTRUCTIONS, "network.json", "spec.json", "statistics.json", "lineage.json")


@dataclass(frozen=True)
class Lineage:
    """Where a checkpoint comes from."""

    parent: str = ""
    """Digest of the checkpoint that training started from; empty where it started from nothing."""
    episodes: Mapping[str, str] = field(default_factory=dict)
    """Every episode it was trained on: id -> digest of its bag."""
    gradient_steps: int = 0
    """Since the first checkpoint of the line."""
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> "Lineage":
        """Raises: CheckpointError: a key is unknown."""
        known = [f.name for f in fields(Lineage)]
        if unknown := sorted(set(content) - set(known)):
            raise CheckpointError(f"lineage: unknown {', '.join(unknown)}; valid are {', '.join(known)}")
        return Lineage(**content)


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds, its hashes checked; `load_network` makes the network of it."""

    folder: Path
    digest: str
    """16 hex digits; the same for the same content, wherever it lies."""
    config: NetworkConfig
    spec: RobotSpec
    statistics: Statistics
    lineage: Lineage
    encoder_digests: Mapping[str, str]
    """Of the frozen encoders' weights, by `vision` and `language`."""

    @property
    def weights_path(self) -> Path:
        return self.folder / WEIGHTS


def save_checkpoint(folder: Path, network: VLANetwork, lineage: Lineage) -> str:
    """Write a checkpoint, replacing one that is there, and give its digest.

    All is written beside `folder` first and renamed into place, so a reader sees the old checkpoint or the new one.
    """
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        _write_content(partial, network, lineage)
        content = {"format": FORMAT, "files": {name: sha256(partial / name) for name in FILES}}
        _write_json(partial / MANIFEST, content)
        digest = _digest(partial)
        _put_in_place(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return digest


def load_checkpoint(folder: Path | str, spec: RobotSpec | None = None) -> Checkpoint:
    """Check and read a checkpoint.

    Args:
        spec: the robot it is to drive.

    Raises:
        CheckpointError: it is missing, damaged, changed, of another format, or made for another robot than `spec`.
    """
    folder = Path(folder)
    _verify(folder)
    try:
        network = _read_json(folder / "network.json")
        checkpoint = Checkpoint(
            folder,
            _digest(folder),
            NetworkConfig.from_dict(network["config"], "network.json"),
            RobotSpec.from_dict(_read_json(folder / "spec.json"), "spec.json"),
            Statistics.from_dict(_read_json(folder / "statistics.json")),
            Lineage.from_dict(_read_json(folder / "lineage.json")),
            dict(network["encoder_digests"]),
        )
    except (KeyError, NetworkError, SpecError) as error:
        raise CheckpointError(f"checkpoint '{folder}': {error}") from error
    if spec is not None and spec.digest != checkpoint.spec.digest:
        raise CheckpointError(
            f"checkpoint '{folder}' was made for robot '{checkpoint.spec.name}', which differs from robot "
            f"'{spec.name}' in {'; '.join(differences(checkpoint.spec, spec))}"
        )
    return checkpoint


def load_network(checkpoint: Checkpoint, device: str = "cpu", folders: Mapping[str, str] | None = None) -> VLANetwork:
    """The network of a checkpoint, in eval mode.

    Args:
        folders: where its pretrained encoders are on this machine, by the name in its config.

    Raises:
        CheckpointError: an encoder is not to be had or is another one, or the weights do not fit the config.
        NetworkError: no such device here.
    """
    check_device(device)
    config = checkpoint.config
    try:
        network = VLANetwork(config, checkpoint.spec, checkpoint.statistics, folders, checkpoint.encoder_digests)
        network.load_state_dict(load_file(checkpoint.weights_path))
        network.language.remember(_read_instructions(checkpoint.folder / INSTRUCTIONS))
    except (NetworkError, SpecError, SafetensorError, RuntimeError, OSError) as error:
        raise CheckpointError(f"checkpoint '{checkpoint.folder}': {error}") from error
    return network.to(device).eval()


def differences(a: RobotSpec, b: RobotSpec) -> list[str]:
    """What two specs disagree on, one phrase each, as far as it matters to a policy."""
    found: list[str] = []
    _compare("", _essential(a), _essential(b), found)
    return found


def _essential(spec: RobotSpec) -> dict[str, Any]:
    content = asdict(spec)
    for camera in content["cameras"]:
        del camera["topic"], camera["transport"]
    return content


def _compare(path: str, a: Any, b: Any, found: list[str]) -> None:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in a:
            _compare(f"{path}.{key}" if path else str(key), a[key], b[key], found)
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            _compare(f"{path}[{i}]", x, y, found)
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        names = [", ".join(str(item["name"]) for item in items) or "none" for items in (a, b)]
        found.append(f"{path}: {names[0]} / {names[1]}")
    elif a != b:
        found.append(f"{path}: {a} / {b}")


def _write_content(folder: Path, network: VLANetwork, lineage: Lineage) -> None:
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    # Keyed by number, for instructions may hold any character; sorted, so that the digest depends on content alone.
    known = sorted(network.language.cached.items())
    names = {"instructions": json.dumps([text for text, _ in known])}
    save_file({str(i): features.contiguous() for i, (_, features) in enumerate(known)}, folder / INSTRUCTIONS, names)
    config = {"config": network.config.to_dict(), "encoder_digests": network.encoder_digests()}
    _write_json(folder / "network.json", config)
    _write_json(folder / "spec.json", network.spec.to_dict())
    _write_json(folder / "statistics.json", network.statistics.to_dict())
    _write_json(folder / "lineage.json", asdict(lineage))


def _read_instructions(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        texts: list[str] = json.loads((file.metadata() or {}).get("instructions", "[]"))
        return {text: file.get_tensor(str(i)) for i, text in enumerate(texts)}


def _put_in_place(partial: Path, folder: Path) -> None:
    for path in (*partial.iterdir(), partial):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _verify(folder: Path) -> None:
    if not (folder / MANIFEST).is_file():
        what = "has no manifest.json" if folder.is_dir() else "does not exist"
        raise CheckpointError(f"checkpoint '{folder}' {what}; a checkpoint is a folder with {', '.join(FILES)}")
    manifest = _read_json(folder / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"checkpoint '{folder}': format {manifest.get('format')!r}, this version reads {FORMAT}")
    hashes = manifest.get("files")
    if not isinstance(hashes, Mapping) or set(hashes) != set(FILES):
        raise CheckpointError(f"checkpoint '{folder}': its manifest does not list exactly {', '.join(FILES)}")
    for name, expected in hashes.items():
        if not (folder / name).is_file():
            raise CheckpointError(f"checkpoint '{folder}': {name} is missing")
        if sha256(folder / name) != expected:
            raise CheckpointError(f"checkpoint '{folder}': {name} is not what was saved (its SHA-256 differs)")


def _digest(folder: Path) -> str:
    return sha256(folder / MANIFEST)[:16]


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected an object, not {content!r:.80}")
    return content

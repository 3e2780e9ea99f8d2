"""A training run on disk: all that is needed to go on exactly where it stopped, without pickle.

A state is a folder that appears whole, by renaming. What is random is not in it: every step's randomness is a
function of the seed and the step.
"""

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainer.exceptions import TrainingError
from vla_policy_node.checkpoint import sha256

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
KEPT = 2
"""States that are kept; the older one serves where the newer one is damaged."""


@dataclass(frozen=True)
class Candidate:
    """A checkpoint made during training, and how it did."""

    step: int
    """Gradient steps of this run."""
    checkpoint: str
    """Name of its folder under `checkpoints/`."""
    digest: str
    score: float | None
    """Higher is better; None where nothing validated it."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    step: int = 0
    """Gradient steps done."""
    candidates: tuple[Candidate, ...] = ()
    finished: bool = False

    @property
    def best(self) -> Candidate | None:
        """The candidate with the highest score; of equals, and without scores, the last one: its learning rate has come
        down the farthest."""
        return max(reversed(self.candidates), key=_score, default=None)

    def without_improvement(self) -> int:
        """Validations since the best score was first reached."""
        scores = [_score(c) for c in self.candidates]
        return len(scores) - 1 - scores.index(max(scores)) if scores else 0


def _score(candidate: Candidate) -> float:
    return -math.inf if candidate.score is None else candidate.score


@dataclass(frozen=True)
class RunIdentity:
    """What a run trains; a state of another run is not gone on with."""

    content: Mapping[str, Any] = field(default_factory=dict)

    def check(self, saved: Mapping[str, Any], folder: Path) -> None:
        """Raises: TrainingError: the saved state is of another run; the message says what differs."""
        mine = json.loads(json.dumps(dict(self.content)))
        if changed := sorted(k for k in set(mine) | set(saved) if mine.get(k) != saved.get(k)):
            details = "; ".join(f"{k}: {saved.get(k)} there, {mine.get(k)} now" for k in changed)
            raise TrainingError(
                f"'{folder}' holds the state of another training run ({details}): choose another folder or remove it"
            )


def save_state(
    folder: Path, identity: RunIdentity, progress: Progress, network: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Write the state of a run after `progress.step` steps, and remove all but the last ones.

    Raises:
        TrainingError: the disk is full or not writable; earlier states stay.
    """
    target = folder / f"step_{progress.step:08d}"
    temporary = folder / f".{target.name}.{os.getpid()}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_file(_owned(network.state_dict()), temporary / WEIGHTS)
        save_file(_owned(optimizer_tensors(network, optimizer)), temporary / OPTIMIZER)
        hashes = {name: sha256(temporary / name) for name in (WEIGHTS, OPTIMIZER)}
        content = {"identity": dict(identity.content), "progress": asdict(progress), "files": hashes}
        (temporary / STATE).write_text(json.dumps(content, indent=1))
        _sync(temporary)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise TrainingError(f"state '{target}' cannot be written: {error}") from error
    for old in [*_states(folder)[KEPT:], *folder.glob(".step_*")]:
        shutil.rmtree(old, ignore_errors=True)


def load_state(folder: Path, identity: RunIdentity, network: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Put the newest whole state into network and optimizer; a fresh `Progress` where there is none.

    Raises:
        TrainingError: the state is of another run, or does not fit the network.
    """
    for path in _states(folder):
        if (content := _read(path)) is None:
            continue
        identity.check(content["identity"], path)
        try:
            network.load_state_dict(load_file(path / WEIGHTS))
            load_optimizer_tensors(network, optimizer, load_file(path / OPTIMIZER))
        except (RuntimeError, KeyError, SafetensorError) as error:
            raise TrainingError(f"state '{path}' does not fit this network: {error}") from error
        return _progress(content["progress"])
    return Progress()


def optimizer_tensors(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors as `<parameter>|<what>`."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in network.named_parameters()}
    return {
        f"{names[parameter]}|{what}": tensor
        for parameter, state in optimizer.state.items()
        for what, tensor in state.items()
    }


def load_optimizer_tensors(network: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The mirror of `optimizer_tensors`. Raises: KeyError: a parameter is unknown."""
    parameters = dict(network.named_parameters())
    optimizer.state.clear()
    for key, tensor in tensors.items():
        name, what = key.rsplit("|", 1)
        # AdamW counts its steps on the CPU, wherever the parameter is.
        place = "cpu" if what == "step" else parameters[name].device
        optimizer.state[parameters[name]][what] = tensor.to(place).clone()


def _states(folder: Path) -> list[Path]:
    """The states there are, newest first."""
    return sorted(folder.glob("step_*"), reverse=True)


def _read(path: Path) -> dict[str, Any] | None:
    """What a state says of itself; None where it is not whole."""
    try:
        content: dict[str, Any] = json.loads((path / STATE).read_text())
        whole = all(sha256(path / name) == content["files"][name] for name in (WEIGHTS, OPTIMIZER))
        _progress(content["progress"])
        return content if whole and isinstance(content["identity"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _progress(content: Mapping[str, Any]) -> Progress:
    candidates = tuple(Candidate(**c) for c in content["candidates"])
    return Progress(content["step"], candidates, content["finished"])


def _owned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that share no memory, as safetensors wants them."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _sync(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

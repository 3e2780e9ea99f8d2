"""Which devices a network can run on here."""

import torch

from vla_policy_node.exceptions import NetworkError


def devices() -> list[str]:
    """Names of this machine's devices, as torch takes them; `cuda` is the first GPU."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return ["cpu", *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count))]


def check_device(name: str) -> None:
    """Raises: NetworkError: this machine has no such device."""
    if name not in devices():
        raise NetworkError(f"device '{name}' is not one of {', '.join(devices())}")

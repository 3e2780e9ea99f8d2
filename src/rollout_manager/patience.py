"""How long a rollout manager waits for the nodes of its graph."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """How long the manager waits, in seconds, before it takes a node for lost."""

    service_s: float
    """For a service's answer; loading a checkpoint is the longest of them."""
    stall_s: float
    """For the next message of a running try."""
    start_s: float
    """For nodes to appear at all."""
    try_s: float
    """For one try, whatever happens in it."""

"""The one interface between what decides and what executes."""

from dataclasses import dataclass
from typing import Protocol

from vla_policy_node.committed import Committed
from vla_policy_node.observation import Float32Array, Observation
from vla_policy_node.spec import RobotSpec


@dataclass(frozen=True)
class ActionChunk:
    """The next actions, one a tick, the first for the tick of the observation they answer."""

    stamp_ns: int
    """Stamp of the observation that the chunk answers."""
    actions: Float32Array
    """Shape (H, A), in the spec's units; not yet limited."""

    def last_ns(self, period_ns: int) -> int:
        """The tick of the last action."""
        return self.stamp_ns + (len(self.actions) - 1) * period_ns


class Policy(Protocol):
    """Anything that turns an observation into a chunk of actions."""

    @property
    def spec(self) -> RobotSpec:
        """The robot it was made for."""
        ...

    def reset(self, seed: int) -> None:
        """Start a new episode; `seed` fixes all that is random in it."""
        ...

    def act(self, observation: Observation, committed: Committed | None = None) -> ActionChunk:
        """The actions from the observation's tick on.

        Args:
            committed: what is carried out meanwhile, which the chunk is to go on from; None: it is free. A policy that
                cannot take it into account while it makes up its mind answers with `committed.blended`.
        """
        ...

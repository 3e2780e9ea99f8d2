"""The policy a node runs, and the one it runs next: checkpoints are swapped between episodes, never in one."""

from vla_policy_node.exceptions import CheckpointError
from vla_policy_node.exploration import exploring
from vla_policy_node.familiarity import unfamiliar
from vla_policy_node.network_policy import NetworkPolicy
from vla_policy_node.observation import Observation
from vla_policy_node.policy import Policy
from vla_policy_node.spec import RobotSpec


class PolicySlot:
    """Holds the policy of the running episode and the newest one loaded. For one thread, the one that infers."""

    def __init__(self, spec: RobotSpec, device: str) -> None:
        """Args: spec: the robot that every checkpoint must be made for; device: where networks run."""
        self._spec = spec
        self._device = device
        self._loaded: NetworkPolicy | None = None
        self._running: Policy | None = None

    @property
    def digest(self) -> str:
        """Of the newest checkpoint loaded; empty where there is none."""
        return self._loaded.checkpoint_digest if self._loaded is not None else ""

    @property
    def policy(self) -> Policy:
        """What drives the running episode. Raises: CheckpointError: no episode was started."""
        if self._running is None:
            raise CheckpointError("no checkpoint is loaded; set the parameter checkpoint")
        return self._running

    def unfamiliar(self, observation: Observation) -> tuple[str, ...]:
        """What of an observation is unlike the data that the newest checkpoint was trained on."""
        return () if self._loaded is None else unfamiliar(self._spec, self._loaded.network.statistics, observation)

    def load(self, path: str) -> str:
        """Load a checkpoint for the next episode; returns its digest.

        Raises:
            CheckpointError: there is none, it is damaged, or made for another robot; the one loaded before stays.
        """
        if not path:
            raise CheckpointError("checkpoint '': give the path of a checkpoint's folder")
        loaded = NetworkPolicy.load(path, self._spec, self._device)
        loaded.warm_up()
        self._loaded = loaded
        return self.digest

    def start_episode(self, seed: int, exploration: float) -> str:
        """Take up the newest checkpoint and reset it; returns its digest.

        Args:
            seed: fixes all that is random in the episode.
            exploration: how far it tries something else, as `exploring` takes it; 0: not at all.

        Raises:
            CheckpointError: none is loaded.
        """
        if self._loaded is None:
            raise CheckpointError("no checkpoint is loaded; set the parameter checkpoint")
        self._running = exploring(self._loaded, exploration)
        self._running.reset(seed)
        return self.digest

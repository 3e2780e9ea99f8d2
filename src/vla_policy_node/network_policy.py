"""The network as a policy: an observation to a chunk of actions."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from vla_policy_node.checkpoint import load_checkpoint, load_network
from vla_policy_node.committed import Committed
from vla_policy_node.exceptions import NetworkError
from vla_policy_node.network.flow_head import FlowHead
from vla_policy_node.network.guidance import Guidance
from vla_policy_node.network.images import stack_images
from vla_policy_node.network.vla import VLANetwork
from vla_policy_node.observation import Float32Array, Observation
from vla_policy_node.policy import ActionChunk
from vla_policy_node.spec import RobotSpec


class NetworkPolicy:
    """Runs a network on one observation at a time. Of a flow head, the noise that it begins with is random."""

    def __init__(self, network: VLANetwork, checkpoint_digest: str = "", spec: RobotSpec | None = None) -> None:
        """
        Args:
            network: put into eval mode.
            checkpoint_digest: of the checkpoint it comes from, if any.
            spec: the robot it drives, as its file has it now; None: as it was when the network was made.
        """
        self.network = network.eval()
        self.spec = spec or network.spec
        self.checkpoint_digest = checkpoint_digest
        self._random = torch.Generator()

    @staticmethod
    def load(
        folder: Path | str,
        spec: RobotSpec | None = None,
        device: str = "cpu",
        folders: Mapping[str, str] | None = None,
    ) -> "NetworkPolicy":
        """The policy of a checkpoint folder.

        Args:
            spec: the robot it is to drive; None: the one it was made for.
            folders: where pretrained encoders are on this machine, by name.

        Raises:
            CheckpointError: it is missing, damaged or for another robot, or an encoder is not to be had.
            NetworkError: no such device here.
        """
        checkpoint = load_checkpoint(folder, spec)
        return NetworkPolicy(load_network(checkpoint, device, folders), checkpoint.digest, spec)

    def reset(self, seed: int) -> None:
        """Start a new episode; `seed` fixes all that is random in it."""
        self._random.manual_seed(seed)

    def warm_up(self) -> None:
        """Run the network once on nothing, of a flow head also guided: its first run allocates memory and takes many
        times as long as the next."""
        network = self.network
        height, width = network.image_size
        images = torch.zeros(1, len(self.spec.cameras), height, width, 3, dtype=torch.uint8)
        proprioception = torch.zeros(1, len(self.spec.proprioception))
        features, mask = torch.zeros(1, 1, network.language.dimension), torch.ones(1, 1, dtype=torch.bool)
        device = network.queries.device
        nothing = Committed(np.zeros((1, len(self.spec.action)), np.float32), 0)
        with torch.no_grad():
            for committed in (None, nothing):
                guidance = self._guidance(committed)
                network.actions(
                    images.to(device), proprioception.to(device), features.to(device), mask.to(device), None, guidance
                )

    def act(self, observation: Observation, committed: Committed | None = None) -> ActionChunk:
        """The next H actions, in the spec's units, on its levels, not limited.

        A flow head is guided to go on from what is committed; a chunk that is made in one step is blended with it.

        Raises:
            NetworkError: the instruction is empty, or the committed actions are another robot's.
        """
        network = self.network
        if committed is not None and committed.actions.shape[1] != len(self.spec.action):
            raise NetworkError(
                f"committed: actions of shape {committed.actions.shape}, robot '{self.spec.name}' has "
                f"{len(self.spec.action)} dimensions"
            )
        with torch.no_grad():  # Not inference_mode: guidance goes back through what is made here.
            images = stack_images(observation.images, self.spec.camera_names, *network.image_size)
            language = network.encode_instructions([observation.instruction])
            device = language.features.device
            proprioception = torch.from_numpy(np.asarray(observation.proprioception, np.float32)[None])
            seen = torch.from_numpy(images[None]).to(device), proprioception.to(device), *language
            normalised = network.actions(*seen, self._random, self._guidance(committed))
            actions: Float32Array = network.denormalize(normalised)[0].cpu().numpy()
        if committed is not None and not self._denoises:
            actions = committed.blended(actions)
        return ActionChunk(observation.stamp_ns, self.spec.on_levels(actions))

    @property
    def _denoises(self) -> bool:
        return isinstance(self.network.head, FlowHead)

    def _guidance(self, committed: Committed | None) -> Guidance | None:
        """What a flow head is guided by, on its device; None for another, or where nothing is committed."""
        if committed is None or not self._denoises:
            return None
        network, horizon = self.network, self.network.config.horizon
        device = network.queries.device
        actions = torch.from_numpy(committed.padded(horizon)).to(device)
        weights = torch.from_numpy(committed.weights(horizon)).to(device)
        return Guidance(network.normalize_actions(actions), weights)

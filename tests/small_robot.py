"""A robot and a network small enough for a test to build in milliseconds."""

from dataclasses import replace

import numpy as np
import torch

from vla_policy_node.action_spec import ActionDimension
from vla_policy_node.network.config import LanguageConfig, NetworkConfig, VisionConfig
from vla_policy_node.network.vla import VLANetwork
from vla_policy_node.normalization import Statistics
from vla_policy_node.observation import Observation
from vla_policy_node.spec import CameraSpec, ProprioceptionField, RobotSpec

ROBOT = RobotSpec(
    name="small",
    rate_hz=10.0,
    cameras=(CameraSpec("front", 24, 32), CameraSpec("wrist", 24, 32)),
    proprioception=(
        ProprioceptionField("height", "ee_pose", "z", "m"),
        ProprioceptionField("elbow", "joint_position", "elbow", "rad"),
        ProprioceptionField("grip", "joint_position", "grip", "1"),
    ),
    action=(
        ActionDimension("up", "m/s", -0.5, 0.5),
        ActionDimension("turn", "rad/s", -2.0, 4.0),
        ActionDimension("grip", "1", 0.0, 1.0, hold="last"),
    ),
)
STATISTICS = Statistics((0.1, -1.0, 0.5), (0.2, 2.0, 0.5), (0.0, 1.0, 0.5), (0.5, 3.0, 0.5))
SMALL = NetworkConfig(
    vision=VisionConfig(channels=(8, 16, 16), keypoints=4),
    language=LanguageConfig(),
    horizon=5,
    d_model=16,
    heads=2,
    layers=2,
    feedforward=32,
)
INSTRUCTIONS = {"open the drawer": 0, "close the door": 1, "push the button": 2}


def small_network(seed: int = 0, config: NetworkConfig = SMALL, robot: RobotSpec = ROBOT) -> VLANetwork:
    """A network of random weights whose language encoder already knows `INSTRUCTIONS`, so it is never loaded."""
    torch.manual_seed(seed)
    network = VLANetwork(config, robot, STATISTICS, encoder_digests={"language": "0" * 16})
    for text, i in INSTRUCTIONS.items():
        generator = torch.Generator().manual_seed(i)
        network.language.remember({text: torch.randn(1, network.language.dimension, generator=generator)})
    return network.eval()


def other_robot(name: str = "other") -> RobotSpec:
    """As `ROBOT`, but faster, and with another limit."""
    action = (replace(ROBOT.action[0], high=0.75), *ROBOT.action[1:])
    return replace(ROBOT, name=name, rate_hz=20.0, action=action)


def observation(seed: int = 0, instruction: str = "open the drawer", stamp_ns: int = 7) -> Observation:
    random = np.random.default_rng(seed)
    images = {c.name: random.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in ROBOT.cameras}
    return Observation(stamp_ns, images, random.standard_normal(3).astype(np.float32), instruction)

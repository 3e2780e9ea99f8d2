"""A policy node that displaces a hand drives the stand-in arm by joint trajectories, as processes of their own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from arm_robots import FINGER
from client_node import Client
from graph_helpers import INSTRUCTION_TEXT, make_graph
from small_robot import SMALL
from test_arm_node import Bench

from vla_policy_node.checkpoint import Lineage, save_checkpoint
from vla_policy_node.commands import action_from_message
from vla_policy_node.kinematics_spec import WorkspaceSpec
from vla_policy_node.network.vla import VLANetwork
from vla_policy_node.normalization import Statistics
from vla_policy_node.observation import Float64Array
from vla_policy_node.spec import RobotSpec, load_spec
from vla_policy_node.topics import ACTION, EE_POSE, MESSAGE_TYPES

pytestmark = [pytest.mark.ros, pytest.mark.slow]

# Two other processes may have the cores.
PANDA = replace(load_spec("panda_ee"), max_skew_s=0.5, max_silence_s=np.inf, max_proprioception_silence_s=None)
STEP = (0.0, 0.002, -0.001, 0.0, 0.0, 0.0)
"""What the policy always says, m and rad a tick."""


def save_constant_policy(folder: Path, spec: RobotSpec) -> None:
    """A checkpoint that answers the same whatever it sees: what it says is the mean, and spreads by nothing."""
    width = len(spec.proprioception)
    action = (*STEP, FINGER)
    statistics = Statistics((0.0,) * width, (1.0,) * width, action, (1e-9,) * len(action))
    torch.manual_seed(0)
    network = VLANetwork(replace(SMALL, horizon=30), spec, statistics, encoder_digests={"language": "0" * 16})
    network.language.remember({INSTRUCTION_TEXT: torch.zeros(1, network.language.dimension)})
    save_checkpoint(folder, network, Lineage("", {}, 0, {}, {}))


class HandBench(Bench):
    """As `Bench`, and it looks where the hand is."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        client.listen(EE_POSE, MESSAGE_TYPES[EE_POSE])
        client.listen(ACTION, MESSAGE_TYPES[ACTION])

    def hand(self) -> Float64Array:
        self.client.received[EE_POSE].clear()
        self.client.until(lambda: bool(self.client.received[EE_POSE]))
        at = self.client.received[EE_POSE][-1].pose.position
        return np.array([at.x, at.y, at.z])

    def displaced(self, spec: RobotSpec) -> Float64Array:
        """The sum of all displacements that were sent, m."""
        sent = [action_from_message(spec, message)[1] for message in self.client.received[ACTION]]
        return np.asarray(np.sum([action[:3].astype(np.float64) for action in sent], axis=0), np.float64)


@contextmanager
def bench(folder: Path, domain: int, spec: RobotSpec) -> Iterator[HandBench]:
    save_constant_policy(folder / "c", spec)
    robot = folder / "robot.yaml"
    robot.write_text(yaml.safe_dump(spec.to_dict()))
    policy: dict[str, Any] = {"robot": str(robot), "mode": "real_time", "checkpoint": str(folder / "c")}
    nodes = {"arm": {"robot": str(robot)}, "policy": policy | {"execute_every": 10}}
    with make_graph(folder, domain, nodes), Client(domain) as client:
        yield HandBench(client)


def settle(arm: HandBench) -> None:
    """Until the hand rests."""
    arm.client.switch("policy_node/enable", False)
    arm.client.until(lambda: float(arm.speeds(0.3).max()) < 0.01)


def test_the_hand_goes_as_far_as_it_is_told(ros_domain: int, tmp_path: Path) -> None:
    with bench(tmp_path, ros_domain, PANDA) as arm:
        start = arm.hand()
        arm.enable()
        arm.client.until(lambda: len(arm.client.received[ACTION]) > 60)
        settle(arm)
        told, gone = arm.displaced(PANDA), arm.hand() - start
        assert told[1] > 0.05, "it was told to go by 2 mm at each of 60 ticks, less those that held"
        # Joints follow some mm behind, and then brake for some mm that nobody told.
        np.testing.assert_allclose(gone, told, atol=0.01)
        assert abs(gone[0]) < 0.005
        assert gone[1] / -gone[2] == pytest.approx(2.0, abs=0.5), "in the direction that it was told"
        assert arm.told("arm_node: hardware")[0] == "obeys"


def test_a_wall_stops_the_hand_and_diagnostics_say_so(ros_domain: int, tmp_path: Path) -> None:
    spec = replace(PANDA, workspace=WorkspaceSpec((0.25, -0.45, 0.01), (0.75, 0.06, 0.7)))
    with bench(tmp_path, ros_domain, spec) as arm:
        arm.enable()
        arm.client.until(lambda: "workspace: the hand's y" in arm.reasons())
        arm.client.spin(1.0)
        assert 0.045 < arm.hand()[1] < 0.062
        settle(arm)

"""The stand-in arm: it follows, it defends itself, and its robot's file fits its model."""

from pathlib import Path

import numpy as np
import pytest

from rollout_manager.arms.arm import Arm
from rollout_manager.exceptions import SimulatorError
from vla_policy_node.spec import CameraSpec, load_spec


def test_it_holds_its_weight_and_follows_a_slow_motion() -> None:
    arm = Arm()
    home = arm.measured()[0]
    for _ in range(500):
        arm.step(home)
    np.testing.assert_allclose(arm.measured()[0], home, atol=1e-3)
    for step in range(1000):
        wanted = home.copy()
        wanted[:7] += 0.3 * np.sin(2 * np.pi * 0.3 * step * arm.period_s)
        arm.step(wanted)
        assert np.abs(arm.measured()[0][:7] - wanted[:7]).max() < 0.05
    assert not arm.fault


@pytest.mark.parametrize("jump", [0.5, np.nan, -np.inf])
def test_a_command_that_no_joint_can_follow_stops_it_until_the_fault_is_cleared(jump: float) -> None:
    arm = Arm()
    home = arm.measured()[0]
    wild = home.copy()
    wild[2] += jump
    arm.step(wild)
    assert arm.fault.startswith("panda_joint3 was commanded")
    for _ in range(200):
        arm.step(home + 0.001)
    np.testing.assert_allclose(arm.measured()[0], home, atol=1e-3)
    assert arm.fault
    arm.clear_fault()
    arm.step(home)
    assert not arm.fault


def test_the_hand_is_where_the_arms_geometry_says() -> None:
    # All joints at 0 but elbow and wrist bent by 90 degrees, by the Panda's published lengths: along x the elbow's
    # offset .0825, forearm .384 and wrist .088; along z .333 + .316 + .0825 less hand .107 + .1034.
    arm = Arm()
    arm.data.qpos[arm._qpos] = [0, 0, 0, -np.pi / 2, 0, np.pi / 2, 0, 0.04, 0.04]
    arm.images_of(arm.sight())
    arm._mujoco.mj_forward(arm.model, arm.data)
    pose = arm.hand()
    np.testing.assert_allclose(pose.position, [0.0825 + 0.384 + 0.088, 0, 0.333 + 0.316 + 0.0825 - 0.2104], atol=1e-4)
    arm.close()


def test_its_cameras_show_the_cube() -> None:
    arm = Arm("panda", (CameraSpec("front", 96, 128), CameraSpec("wrist", 96, 128)))
    images = arm.images_of(arm.sight())
    for image in images.values():
        red = (image[..., 0] > 120) & (image[..., 1] < 90) & (image[..., 2] < 90)
        assert 4 < red.sum() < 1000
    arm.close()


def test_the_robots_file_keeps_within_the_model() -> None:
    arm, spec = Arm(), load_spec("panda")
    for dimension in spec.action:
        low, high = arm.model.joint(dimension.joint).range
        assert low - 1e-6 <= dimension.low < dimension.high <= high + 1e-6


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SimulatorError, match="arm 'panda': camera 'top' is not one of front, wrist"):
        Arm("panda", (CameraSpec("top", 8, 8),))
    with pytest.raises(SimulatorError, match=r"arm '.*none\.xml'"):
        Arm(str(tmp_path / "none.xml"))

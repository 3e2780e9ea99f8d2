"""Where a hand is for given joints: by published numbers, by finite differences, and what a model must offer for it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from arm_robots import HOME, PANDA, PANDA_EE, UR5E, model_of
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout_manager.arms.arm import Arm
from vla_policy_node.action_spec import ActionDimension
from vla_policy_node.exceptions import SpecError
from vla_policy_node.kinematics import ArmModel
from vla_policy_node.kinematics_spec import KinematicsSpec

Floats = npt.NDArray[np.float64]
PI = np.pi
DH = (  # a, d in m, alpha: Universal Robots, UR5e
    (0.0, 0.1625, PI / 2),
    (-0.425, 0.0, 0.0),
    (-0.3922, 0.0, 0.0),
    (0.0, 0.1333, PI / 2),
    (0.0, 0.0997, -PI / 2),
    (0.0, 0.0996, 0.0),
)
TOOL0 = ArmModel(KinematicsSpec("ur5e", "tool0", "base_link"), UR5E.action)
ANGLES = st.lists(st.floats(-3, 3), min_size=6, max_size=6)


def link(theta: float, a: float, d: float, alpha: float) -> Floats:
    """Turn about z, d along z, a along x, turn about x by alpha (Denavit and Hartenberg 1955)."""
    c, s, ca, sa = np.cos(theta), np.sin(theta), np.cos(alpha), np.sin(alpha)
    return np.array([[c, -s * ca, s * sa, a * c], [s, c * ca, -c * sa, a * s], [0, sa, ca, d], [0, 0, 0, 1]])


@given(ANGLES)
def test_the_ur5e_is_the_product_of_its_published_parameters(angles: list[float]) -> None:
    expected = np.diag([-1.0, -1.0, 1.0, 1.0])  # base_link is Universal Robots' base turned by half a turn
    for theta, (a, d, alpha) in zip(angles, DH, strict=True):
        expected = expected @ link(theta, a, d, alpha)
    position, rotation = TOOL0.hand(np.array([*angles, 0.0]))
    np.testing.assert_allclose(position, expected[:3, 3], atol=1e-6)
    np.testing.assert_allclose(rotation, expected[:3, :3], atol=1e-6)


def test_the_ur5e_stretched_out_by_hand() -> None:
    # All joints at 0: .425 + .3922 along x; .1333 + .0996 along y; of the height .1625 less .0997.
    np.testing.assert_allclose(TOOL0.hand(np.zeros(7))[0], [0.8172, 0.2329, 0.0628], atol=1e-6)


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=8, max_size=8))
def test_the_jacobian_is_the_slope_of_the_position(off: list[float]) -> None:
    arm, step = model_of(PANDA), 1e-6
    joints = np.append(HOME, 0.02) + 0.3 * np.array(off) * np.append(np.ones(7), 0.05)
    slopes = [
        (arm.hand(joints + step * unit)[0] - arm.hand(joints - step * unit)[0]) / (2 * step) for unit in np.eye(8)
    ]
    np.testing.assert_allclose(arm.jacobian(joints), np.transpose(slopes), atol=1e-6)


def test_the_stand_in_says_the_same_of_its_hand() -> None:
    arm, joints = Arm(), np.append(HOME, [0.04, 0.04])
    position, _ = model_of(PANDA).hand(joints[:8])
    np.testing.assert_allclose(arm.hand().position, position, atol=1e-6)


@settings(deadline=None, max_examples=10)
@given(st.permutations(range(7)))
def test_joints_may_be_named_in_any_order(order: list[int]) -> None:
    assert PANDA_EE.kinematics is not None
    joints = PANDA_EE.kinematics.joints
    arm = ArmModel(PANDA_EE.kinematics, tuple(joints[i] for i in order))
    position, rotation = arm.hand(HOME[order])
    expected = model_of(PANDA_EE).hand(HOME)
    np.testing.assert_allclose(position, expected[0], atol=1e-12)
    np.testing.assert_allclose(rotation, expected[1], atol=1e-12)


URDF = """<robot name="two">
  <link name="world"/><link name="stand"/><link name="tool"/>
  <link name="upper"><visual><geometry><mesh filename="package://two/upper.stl"/></geometry></visual>
    <collision><geometry><mesh filename="package://two/upper.stl"/></geometry></collision></link>
  <link name="rail"><inertial><mass value="1"/>
    <inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial></link>
  <joint name="up" type="fixed"><parent link="world"/><child link="stand"/>
    <origin xyz="0 0 1" rpy="0 0 1.5707963267948966"/></joint>
  <joint name="turn" type="revolute"><parent link="stand"/><child link="upper"/><axis xyz="0 0 1"/>
    <limit lower="-1.23456" upper="2" velocity="3" effort="10"/></joint>
  <joint name="slide" type="prismatic"><parent link="upper"/><child link="rail"/>
    <origin xyz="0.5 0 0"/><axis xyz="1 0 0"/>
    <limit lower="0" upper="0.4" velocity="0.2" effort="30"/></joint>
  <joint name="end" type="fixed"><parent link="rail"/><child link="tool"/><origin xyz="0.1 0 -0.2"/></joint>
</robot>"""
TWO = (
    ActionDimension("turn", "rad", -1, 2, "last", joint="turn"),
    ActionDimension("slide", "m", 0, 0.4, "last", joint="slide"),
)


@pytest.fixture
def urdf(tmp_path: Path) -> Callable[..., str]:
    def write(*changes: tuple[str, str]) -> str:
        text = URDF
        for before, after in changes:
            assert before in text
            text = text.replace(before, after)
        path = tmp_path / "two.urdf"
        path.write_text(text)
        return str(path)

    return write


def test_a_urdf_with_fixed_frames_and_meshes_that_are_not_there(urdf: Callable[..., str]) -> None:
    # Turned by half a right angle the tool is 0.5 + 0.3 + 0.1 m out in that direction, and 0.2 m below its stand.
    joints, out = np.array([PI / 4, 0.3]), 0.9 * np.sqrt(0.5)
    position, _ = ArmModel(KinematicsSpec(urdf(), "tool", "stand"), TWO).hand(joints)
    np.testing.assert_allclose(position, [out, out, -0.2], atol=1e-9)
    # The world's x is the stand's -y, and the stand is 1 m high.
    position, _ = ArmModel(KinematicsSpec(urdf(), "tool"), TWO).hand(joints)
    np.testing.assert_allclose(position, [-out, out, 0.8], atol=1e-9)


def changed(at: int, **changes: Any) -> tuple[ActionDimension, ...]:
    return tuple(replace(d, **changes) if i == at else d for i, d in enumerate(TWO))


@pytest.mark.parametrize(
    ("spec", "dimensions", "why"),
    [
        ({"hand": "wrist"}, TWO, r"hand 'wrist' is no site \(none\) and no body \(.*tool.*\) of it"),
        ({"base": "rail"}, TWO, "base 'rail' is not one of its fixed world, stand"),
        ({"base": "floor"}, TWO, "base 'floor' is not one of its fixed world, stand"),
        ({"hand": "stand"}, TWO, "no joint moves the hand 'stand'"),
        ({}, TWO[:1], "'tool' is moved by slide, which no dimension of the robot commands"),
        ({}, changed(0, joint="elbow"), "'tool' is moved by turn, which no dimension"),
        ({}, changed(0, low=-2), r"'turn': its limits \[-2, 2\] are beyond those of 'turn' in .*, \[-1.23456, 2\]"),
        ({}, (replace(TWO[0], joint="slide"), replace(TWO[1], joint="turn")), "'turn': its limits .* is it another"),
    ],
)
def test_what_does_not_fit_a_model_is_said(
    spec: dict[str, str], dimensions: tuple[ActionDimension, ...], why: str, urdf: Callable[..., str]
) -> None:
    with pytest.raises(SpecError, match=why):
        ArmModel(replace(KinematicsSpec(urdf(), "tool", "stand"), **spec), dimensions)  # type: ignore[arg-type]


def test_a_joint_that_inverse_kinematics_commands_must_be_in_the_model() -> None:
    assert PANDA_EE.kinematics is not None
    joints = PANDA_EE.kinematics.joints
    unknown = (*joints[:6], replace(joints[6], joint="panda_joint8"))
    with pytest.raises(SpecError, match=r"panda\.xml': joint 'panda_joint8' is not one of .*panda_joint7"):
        ArmModel(PANDA_EE.kinematics, unknown)


def test_a_model_that_is_not_to_be_had_or_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="arm's model 'pandas': neither a file nor one of panda, ur5e"):
        ArmModel(KinematicsSpec("pandas", "grip"), TWO)
    for text, why in (("<mujoco><body>", "no XML"), ("<mujoco><weldbody/></mujoco>", "weldbody")):
        (tmp_path / "arm.xml").write_text(text)
        with pytest.raises(SpecError, match=f"arm.xml': .*{why}"):
            ArmModel(KinematicsSpec(str(tmp_path / "arm.xml"), "grip"), TWO)

"""Every file of config/robots/: it loads, its arm's model fits it, and what is wrong with one is said."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml
from arm_robots import PANDA_EE, model_of

from rollout_manager.arms.arm import Arm
from vla_policy_node.arm_files import joint_limits
from vla_policy_node.end_effector import EndEffectorFilter, make_safety_filter
from vla_policy_node.exceptions import SpecError
from vla_policy_node.locations import config_dir
from vla_policy_node.spec import RobotSpec, load_spec

NAMES = sorted(path.stem for path in (config_dir() / "robots").glob("*.yaml"))
MODELLED = [name for name in NAMES if load_spec(name).kinematics is not None]
DIGESTS = {"libero": "cd0f986f20776c64", "metaworld": "dc63754b4f88955c", "panda": "9144b4a6d6962fdd"}
"""What bags and checkpoints of these robots say; see `RobotSpec.digest`."""


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_round_trips_and_can_be_guarded(name: str) -> None:
    spec = load_spec(name)
    assert spec.name == name
    assert RobotSpec.from_dict(yaml.safe_load(yaml.safe_dump(spec.to_dict()))) == spec
    assert spec.digest == DIGESTS.get(name, spec.digest)
    for mode in ("clamp", "reject"):
        gate = make_safety_filter(spec, mode)
        assert isinstance(gate, EndEffectorFilter) == (name == "panda_ee")
        assert gate.watches_joints == any(d.joint for d in spec.commanded)


@pytest.mark.parametrize("name", NAMES)
def test_a_joint_that_is_commanded_has_limits_of_motion_and_a_controller(name: str) -> None:
    spec = load_spec(name)
    joints = [d for d in spec.commanded if d.joint]
    sent = {n for command in spec.commands for n in command.dimensions}
    assert all(np.isfinite(d.velocity) for d in joints)
    assert {d.name for d in joints} <= sent


def test_the_known_robots_are_there() -> None:
    assert {"libero", "metaworld", "panda", "panda_ee", "so101", "ur5e"} <= set(NAMES)
    assert MODELLED == ["panda", "panda_ee", "ur5e"]


@pytest.mark.parametrize("name", MODELLED)
def test_its_hand_is_at_home_in_its_workspace_and_no_joint_faster_than_it_can(name: str) -> None:
    spec = load_spec(name)
    assert spec.kinematics is not None
    assert spec.workspace is not None
    arm = model_of(spec)
    hand = arm.hand(arm.home[arm.addresses])[0]
    assert (hand > spec.workspace.low).all()
    assert (hand < spec.workspace.high).all()
    can = {j.name: j.velocity for j in joint_limits(spec.kinematics.model)}
    assert all(not d.velocity > can[d.joint] for d in arm.dimensions)


@pytest.mark.parametrize("name", MODELLED)
def test_the_stand_in_has_its_joints_and_cameras(name: str) -> None:
    spec = load_spec(name)
    assert spec.kinematics is not None
    arm = Arm(spec.kinematics.model, spec.cameras)
    for command in spec.commands:
        assert set(command.joints or spec.joints_of(command.dimensions)) <= set(arm.joints)
    home = arm.measured()[0]
    for _ in range(500):
        arm.step(home)
    np.testing.assert_allclose(arm.measured()[0], home, atol=2e-3)
    images = arm.images_of(arm.sight())
    assert all(image.std() > 5 for image in images.values())
    red = (images["front"][..., 0] > 120) & (images["front"][..., 1] < 90) & (images["front"][..., 2] < 90)
    assert red.any(), "the cube"
    arm.close()


def plain() -> dict[str, Any]:
    return PANDA_EE.to_dict()


def put(content: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Change one thing deep inside; `kinematics.joints.0.low`. Without a value it is taken out."""
    *way, last = path.split(".")
    place: Any = content
    for step in way:
        place = place[int(step)] if isinstance(place, list) else place[step]
    key: Any = int(last) if isinstance(place, list) else last
    if value is None:
        del place[key]
    else:
        place[key] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("kinematics.model", None, "model"),
        ("kinematics.model", "", r"kinematics: it needs a model \(''\) and a hand \('grip'\)"),
        ("kinematics.arm", "panda", "kinematics: key 'arm' is not one of model, hand, base"),
        ("kinematics.joints", [], "a displacement of the hand needs joints that make it"),
        ("kinematics.displacement", [], "a displacement of the hand needs joints that make it"),
        ("kinematics.displacement.5", "hand_rx", r"displacement \(.*\) is not 6 different dimensions"),
        ("kinematics.displacement.5", None, r"displacement \(.*\) is not 6 different dimensions"),
        ("kinematics.displacement.5", "twist", "kinematics: displacement 'twist' is not one of hand_dx"),
        ("kinematics.displacement.5", "finger", "displacement 'finger' must be in rad, hold at zero"),
        ("action.0.unit", "cm", "displacement 'hand_dx' must be in m, hold at zero and have no levels; it is in 'cm'"),
        (
            "kinematics.joints.2.velocity",
            float("inf"),
            "action 'joint_3': acceleration 3.0 needs a limit of velocity too",
        ),
        ("kinematics.joints.2.low", float("-inf"), "'joint_3' has no limit of low"),
        ("kinematics.joints.2.low", 3.0, "action 'joint_3': low 3.0 is not below high 2.8973"),
        ("kinematics.joints.2.joint", "panda_joint2", "kinematics: 'panda_joint2' is named twice"),
        ("kinematics.joints.2.joint", "elbow", "kinematics: 'joint_3': joint 'elbow' is not one of panda_joint1"),
        ("kinematics.joints.2.name", "hand_dx", "kinematics: 'hand_dx' is named twice"),
        ("kinematics.joints.2.limit", 3, r"kinematics: joints\[2\]: key 'limit' is not one of"),
        ("kinematics.joints", "all", "'joints' must be a list, not 'all'"),
        ("kinematics.clearance", -0.1, "clearance -0.1 is not a distance from 0 on"),
        ("commands.0.dimensions.0", "elbow", "dimension 'elbow' is not one of hand_dx, .*joint_7"),
        ("workspace.low", [0, 0], r"low \[0, 0\] is not x, y, z in metres"),
        ("workspace.top", 1, "workspace: key 'top' is not one of low, high"),
        ("kinematics", "panda", "kinematics: expected keys with values, not 'panda'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(path: str, value: Any, why: str) -> None:
    with pytest.raises(SpecError, match=why):
        RobotSpec.from_dict(put(plain(), path, value))


def test_joints_without_acceleration_are_refused() -> None:
    content = put(put(plain(), "kinematics.joints.0.jerk", None), "kinematics.joints.0.acceleration", None)
    with pytest.raises(SpecError, match="'joint_1' has no limit of acceleration; inverse kinematics needs one"):
        RobotSpec.from_dict(content)


def test_a_permuted_joint_is_noticed_by_its_limits() -> None:
    content = put(plain(), "kinematics.joints.3.joint", "panda_joint6")
    spec = RobotSpec.from_dict(put(content, "kinematics.joints.5.joint", "panda_joint4"))
    with pytest.raises(SpecError, match=r"'joint_4': its limits .* are beyond those of 'panda_joint6'.*another joint"):
        make_safety_filter(spec)


def test_a_file_that_is_missing_is_said_when_it_is_needed_not_when_a_checkpoint_is_read() -> None:
    assert PANDA_EE.kinematics is not None
    spec = replace(PANDA_EE, kinematics=replace(PANDA_EE.kinematics, model="/elsewhere/arm.urdf"))
    assert RobotSpec.from_dict(spec.to_dict()) == spec
    with pytest.raises(SpecError, match=r"arm's model '/elsewhere/arm\.urdf': neither a file nor one of panda, ur5e"):
        make_safety_filter(spec)

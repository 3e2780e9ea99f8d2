"""Limits of joints as URDF and MJCF files give them, and the lines of a robot's file that they make."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from test_kinematics import URDF

from trainer.cli import main
from vla_policy_node.arm_files import joint_limits
from vla_policy_node.exceptions import SpecError
from vla_policy_node.spec import RobotSpec

CONTINUOUS = (
    '<joint name="spin" type="continuous"><parent link="rail"/><child link="wheel"/><axis xyz="0 0 1"/></joint>'
)
MIMIC = (
    '<joint name="copy" type="revolute"><parent link="rail"/><child link="other"/><mimic joint="turn"/>'
    '<limit lower="0" upper="1" velocity="1" effort="1"/></joint>'
)


def written(folder: Path, text: str = URDF, name: str = "two.urdf") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_urdf_says_all_of_its_joints(tmp_path: Path) -> None:
    more = URDF.replace("</robot>", f'<link name="other"/>{MIMIC}</robot>')
    turn, slide = joint_limits(written(tmp_path, more))
    assert (turn.name, turn.unit, turn.low, turn.high, turn.velocity, turn.effort) == (
        "turn",
        "rad",
        -1.23456,
        2,
        3,
        10,
    )
    assert (slide.name, slide.unit, slide.low, slide.high, slide.velocity, slide.effort) == (
        "slide",
        "m",
        0,
        0.4,
        0.2,
        30,
    )


def test_an_mjcf_says_range_and_force_and_our_own_the_speed() -> None:
    limits = {j.name: j for j in joint_limits("panda")}
    elbow, finger = limits["panda_joint4"], limits["panda_finger_joint1"]
    assert (elbow.unit, elbow.low, elbow.high, elbow.velocity, elbow.effort) == ("rad", -3.0718, -0.0698, 2.175, 87)
    assert limits["panda_joint7"].velocity == 2.61
    assert (finger.unit, finger.high, finger.effort) == ("m", 0.04, 30)
    assert math.isnan(finger.velocity)
    assert "cube" not in limits


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("</robot>", f'<link name="wheel"/>{CONTINUOUS}</robot>', "spin"),
        ('lower="-1.23456" upper="2"', 'lower="2" upper="-1.23456"', "turn"),
        ('lower="-1.23456" upper="2"', "", "turn"),
    ],
)
def test_joints_without_limits_of_position_are_refused_by_name(
    before: str, after: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, URDF.replace(before, after))
    with pytest.raises(SpecError, match=f"no limits of position for {named}; write them into it"):
        joint_limits(path)
    assert main(["robot", "limits", path]) == 2
    assert f"no limits of position for {named}" in capsys.readouterr().err


def test_an_mjcf_without_ranges_is_refused_too(tmp_path: Path) -> None:
    text = '<mujoco><worldbody><body><joint name="a"/><geom size="1"/></body></worldbody></mujoco>'
    with pytest.raises(SpecError, match="no limits of position for a;"):
        joint_limits(written(tmp_path, text, "a.xml"))
    with pytest.raises(SpecError, match="it has no joints that move"):
        joint_limits(written(tmp_path, "<mujoco/>", "b.xml"))


def test_the_printed_lines_are_a_robots_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["robot", "limits", written(tmp_path)]) == 0
    printed: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    spec = RobotSpec.from_dict({"name": "two", "rate_hz": 30.0, "cameras": [], **printed})
    turn, slide = spec.action
    assert (turn.low, turn.high, turn.velocity, turn.joint) == (-1.2345, 2, 3, "turn"), "rounded inwards"
    assert (slide.unit, slide.low, slide.high, slide.velocity) == ("m", 0, 0.4, 0.2)
    assert np.isinf(slide.acceleration)
    assert main(["robot", "limits", "panda"]) == 0
    assert len(yaml.safe_load(capsys.readouterr().out)["action"]) == 9

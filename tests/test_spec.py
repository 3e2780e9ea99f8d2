"""The robot spec: what it refuses, what its digest depends on, round trips."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from vla_policy_node.exceptions import SpecError
from vla_policy_node.spec import CameraSpec, RobotSpec, load_spec
from vla_policy_node.topics import EE_POSE, JOINT_STATES


def content() -> dict[str, Any]:
    """The plain content of the shipped MetaWorld spec, free to be changed."""
    return load_spec("metaworld").to_dict()


def test_shipped_spec_round_trips_through_plain_content() -> None:
    spec = load_spec("metaworld")
    again = RobotSpec.from_dict(yaml.safe_load(yaml.safe_dump(spec.to_dict())))
    assert again == spec
    assert again.digest == spec.digest


def test_period_is_the_rate_in_nanoseconds() -> None:
    assert load_spec("metaworld").period_ns == 12_500_000  # 1 / 80 Hz


def test_limits_are_in_the_order_of_the_action() -> None:
    spec = load_spec("metaworld")
    assert spec.action_names == ("hand_dx", "hand_dy", "hand_dz", "gripper")
    np.testing.assert_array_equal(spec.action_low, np.full(4, -1, np.float32))
    np.testing.assert_array_equal(spec.action_high, np.full(4, 1, np.float32))


def test_digest_ignores_topics_and_transports_but_not_what_a_policy_sees() -> None:
    spec = load_spec("metaworld")
    camera = spec.cameras[0]
    moved = replace(spec, cameras=(replace(camera, topic="/other", transport="compressed"),))
    larger = replace(spec, cameras=(replace(camera, height=65),))
    assert moved.digest == spec.digest
    assert larger.digest != spec.digest


def test_a_streams_own_limit_of_silence_goes_before_the_robots() -> None:
    given = content() | {"max_silence_s": 0.06}
    camera = RobotSpec.from_dict(given).cameras[0]
    assert {RobotSpec.from_dict(given).silence_limit_s(t) for t in (camera.topic, JOINT_STATES, EE_POSE)} == {0.06}
    own = given | {"max_proprioception_silence_s": 0.03, "cameras": [given["cameras"][0] | {"max_silence_s": 0.04}]}
    spec = RobotSpec.from_dict(own)
    assert [spec.silence_limit_s(t) for t in (camera.topic, JOINT_STATES, EE_POSE)] == [0.04, 0.03, 0.03]
    assert RobotSpec.from_dict(spec.to_dict()) == spec
    assert spec.digest == RobotSpec.from_dict(content()).digest
    assert RobotSpec.from_dict(content()).silence_limit_s(JOINT_STATES) == float("inf")


def test_default_topic_follows_the_transport() -> None:
    assert CameraSpec("wrist", 8, 8).topic == "/camera/wrist/image_raw"
    assert CameraSpec("wrist", 8, 8, "compressed").topic == "/camera/wrist/compressed"


def test_joint_names_once_each() -> None:
    assert load_spec("metaworld").joint_names == ("gripper",)


def broken(change: str) -> dict[str, Any]:
    spec = content()
    if change == "unknown key":
        spec["speed"] = 3
    elif change == "missing key":
        del spec["rate_hz"]
    elif change == "transport":
        spec["cameras"][0]["transport"] = "h264"
    elif change == "size":
        spec["cameras"][0]["height"] = 0
    elif change == "limits":
        spec["action"][0]["low"] = 2.0
    elif change == "pose key":
        spec["proprioception"][0]["key"] = "roll"
    elif change == "twice":
        spec["action"][1]["name"] = spec["action"][0]["name"]
    elif change == "rate":
        spec["rate_hz"] = 0
    elif change == "list":
        spec["cameras"] = "front"
    elif change == "silence":
        spec["max_proprioception_silence_s"] = 0.0
    elif change == "camera's silence":
        spec["cameras"][0]["max_silence_s"] = -0.1
    elif change == "no action":
        spec["action"] = []
    return spec


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("unknown key", "'speed' is not one of name, rate_hz"),
        ("missing key", "rate_hz"),
        ("transport", "'h264' is not one of raw, compressed"),
        ("size", "0x64"),
        ("limits", "low 2.0 is not below high 1.0"),
        ("pose key", "'roll' is not one of x, y, z"),
        ("twice", "hand_dx"),
        ("rate", "rate_hz 0"),
        ("list", "'cameras' must be a list, not 'front'"),
        ("silence", "max_proprioception_silence_s 0.0 is not positive"),
        ("camera's silence", "camera 'front': max_silence_s -0.1 is not positive"),
        ("no action", "at least one dimension"),
    ],
)
def test_a_broken_spec_is_refused_by_name_and_value(change: str, words: str) -> None:
    with pytest.raises(SpecError, match=words.replace("(", r"\(")):
        RobotSpec.from_dict(broken(change))


def test_an_unknown_robot_lists_the_known_ones() -> None:
    with pytest.raises(SpecError, match=r"'panda3000'.*metaworld"):
        load_spec("panda3000")


def test_an_unknown_camera_lists_the_known_ones() -> None:
    with pytest.raises(SpecError, match="'wrist' is not one of front"):
        load_spec("metaworld").camera("wrist")


def test_a_file_that_is_not_yaml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text("cameras: [")
    with pytest.raises(SpecError, match=r"robot\.yaml: not readable as YAML"):
        load_spec(path)
    path.write_text("just words")
    with pytest.raises(SpecError, match="expected keys with values"):
        load_spec(path)


def test_levels_take_the_nearest_and_leave_the_rest() -> None:
    plain = content()
    plain["action"][3]["levels"] = [-1, 0, 1]
    spec = RobotSpec.from_dict(plain)
    actions = np.array([[0.3, -0.7, 0.1, 0.49], [0, 0, 0, -0.51], [0, 0, 0, 0.5], [0, 0, 0, 3.0]])
    np.testing.assert_array_equal(spec.on_levels(actions)[:, 3], [0, -1, 0, 1])
    np.testing.assert_array_equal(spec.on_levels(actions)[:, :3], actions[:, :3].astype(np.float32))
    np.testing.assert_array_equal(load_spec("metaworld").on_levels(actions), actions.astype(np.float32))
    assert spec.digest == load_spec("metaworld").digest
    assert RobotSpec.from_dict(yaml.safe_load(yaml.safe_dump(spec.to_dict()))) == spec


@pytest.mark.parametrize("levels", [[0, -1], [0, 0], [-2, 1], [0, 1.5]])
def test_levels_that_make_no_sense_are_refused(levels: list[float]) -> None:
    plain = content()
    plain["action"][3]["levels"] = levels
    with pytest.raises(SpecError, match=r"action 'gripper': levels .* do not ascend from -1.0 to 1.0"):
        RobotSpec.from_dict(plain)


@pytest.mark.parametrize("noise", [-0.1, float("inf")])
def test_a_share_of_noise_is_from_0_on(noise: float) -> None:
    plain = content()
    plain["action"][0]["noise"] = noise
    with pytest.raises(SpecError, match=r"action 'hand_dx': noise .* is not a share from 0 on"):
        RobotSpec.from_dict(plain)

"""Teleoperation's arithmetic: deadzones, speeds that integrate, limits and the leash; and a terminal's keys."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from small_robot import ROBOT

from rollout_manager.operator_keys import HELD_NS, KEYS, TEXTS, Keyboard, Said, VirtualJoy
from rollout_manager.teleop import (
    LEASH_S,
    AxisMapping,
    Presses,
    TeleopDrive,
    TeleopError,
    TeleopMapping,
    load_mapping,
)
from vla_policy_node.locations import config_dir
from vla_policy_node.spec import load_spec

MAPPING = TeleopMapping(
    axes=(
        AxisMapping("up", 0.4, axis=0, deadzone=0.2),
        AxisMapping("turn", -2.0, axis=1),
        AxisMapping("grip", 0.5, plus=1, minus=2),
    ),
    takeover_button=0,
)
STILL = np.array([0.0, 0.0, 0.3])


def test_an_axis_counts_from_its_deadzone_on() -> None:
    axis = MAPPING.axes[0]
    for value, wanted in ((0.0, 0.0), (0.2, 0.0), (-0.2, 0.0), (0.6, 0.5), (-0.6, -0.5), (1.0, 1.0), (-1.0, -1.0)):
        assert axis.deflection([value], []) == pytest.approx(wanted)
    assert axis.deflection([], []) == 0.0, "a gamepad with fewer axes"
    assert axis.deflection([float("nan")], []) == 0.0
    assert MAPPING.axes[2].deflection([], [1, 1, 1]) == 0.0, "both buttons at once"


def test_a_speed_is_the_sticks_own_and_a_target_moves_at_one() -> None:
    drive = TeleopDrive(ROBOT, MAPPING)
    first = drive.step([0.6, 1.0], [1, 1, 0], STILL, 0.1)
    np.testing.assert_allclose(first, [0.2, -2.0, 0.35], rtol=1e-6)  # 0.3 + 0.5 a second for 0.1 s
    second = drive.step([0.0, 0.0], [1, 0, 0], np.array([0.0, 0.0, 0.35]), 0.1)
    np.testing.assert_allclose(second, [0.0, 0.0, 0.35], rtol=1e-6)


def test_a_target_begins_where_the_arm_is_each_time_that_a_human_takes_over() -> None:
    drive = TeleopDrive(ROBOT, MAPPING)
    drive.step([], [1, 1, 0], STILL, 0.1)
    drive.let_go()
    action = drive.step([], [1, 0, 0], np.array([0.0, 0.0, 0.9]), 0.1)
    assert action[2] == pytest.approx(0.9)


@given(st.lists(st.tuples(st.floats(-1, 1), st.integers(0, 1), st.integers(0, 1), st.floats(0, 1)), max_size=40))
def test_a_target_never_runs_ahead_of_an_arm_nor_beyond_its_limits(script: list[tuple[float, int, int, float]]) -> None:
    drive = TeleopDrive(ROBOT, MAPPING)
    for axis, plus, minus, at in script:
        action = drive.step([axis, axis], [1, plus, minus], np.array([0.0, 0.0, at]), 0.1)
        assert (action >= ROBOT.action_low).all()
        assert (action <= ROBOT.action_high).all()
        assert abs(action[2] - at) <= 0.5 * LEASH_S + 1e-6


def test_a_press_is_told_once_and_one_held_from_the_start_is_none() -> None:
    presses = Presses({"start": 1, "stop": 3, "none": -1})
    told = [presses.of(buttons) for buttons in ([0, 1], [0, 0], [0, 1, 0, 1], [0, 1, 0, 1], [])]
    assert told == [[], [], ["start", "stop"], [], []]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"axes": [{"dimension": "up", "scale": 1.0, "axis": 0}]}, "missing .*takeover_button"),
        ({"axes": [], "takeover_button": 1}, "no axes"),
        ({"axes": [{"dimension": "up", "scale": 0.0, "axis": 0}], "takeover_button": 1}, "scale 0.0 moves nothing"),
        ({"axes": [{"dimension": "up", "scale": 1.0}], "takeover_button": 1}, "no axis and no button"),
        ({"axes": [{"dimension": "up", "scale": 1.0, "stick": 1}], "takeover_button": 1}, "unknown stick; valid are"),
        ({"axes": [{"dimension": "up", "scale": "a", "axis": 0}], "takeover_button": 1}, r"axes\[0\]"),
        ({"takeover_button": 1}, "among them the list 'axes'"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(tmp_path: Path, content: object, says: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(TeleopError, match=says):
        load_mapping(path)


def test_a_mapping_of_another_robot_is_refused() -> None:
    with pytest.raises(TeleopError, match="dimension 'joint_1' is not one of up, turn, grip"):
        TeleopDrive(ROBOT, load_mapping("panda"))
    with pytest.raises(TeleopError, match="teleop mapping 'none': neither a file nor one of panda"):
        load_mapping("none")


@pytest.mark.parametrize("path", sorted((config_dir() / "teleop").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_mapping_fits_its_robot_and_no_key_is_taken(path: Path) -> None:
    mapping = load_mapping(path)
    mapping.check(load_spec(path.stem))
    joy = VirtualJoy(mapping)
    moved = set()
    for key in mapping.keys:
        joy = VirtualJoy(mapping)
        joy.press(key, 0)
        moved |= set(np.flatnonzero(mapping.deflections(load_spec(path.stem), *joy.state(0))).tolist())
    assert moved == set(range(len(load_spec(path.stem).action))), "its keys reach every dimension"


KEYED = TeleopMapping(
    (AxisMapping("up", 1.0, axis=0, minus=2),), 4, 5, {"q": "+axis 0", "a": "-axis 0", "g": "toggle 4", "b": "button 5"}
)


def test_keys_stand_for_a_gamepad() -> None:
    joy = VirtualJoy(KEYED)
    assert joy.state(0) == ([0.0], [0] * 6)
    assert joy.press("q", 0)
    assert not joy.press("s", 0), "one of the operator's words"
    assert joy.state(HELD_NS)[0] == [1.0]
    assert joy.state(HELD_NS + 1)[0] == [0.0], "a terminal tells of no key that is let go"
    joy.press("q", HELD_NS)
    joy.press("a", HELD_NS)
    assert joy.state(HELD_NS)[0] == [0.0]
    joy.press("g", HELD_NS)
    assert joy.state(100 * HELD_NS)[1] == [0, 0, 0, 0, 1, 0], "on until it comes again"
    joy.press("g", HELD_NS)
    joy.press("b", 100 * HELD_NS)
    assert joy.state(100 * HELD_NS)[1] == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    "keys", [{"s": "+axis 0"}, {"qq": "+axis 0"}, {"q": "axis"}, {"q": "stick 1"}, {"q": "+axis x"}]
)
def test_a_key_that_is_taken_or_means_nothing_is_refused(keys: dict[str, str]) -> None:
    with pytest.raises(TeleopError, match="teleop: key"):
        VirtualJoy(TeleopMapping(KEYED.axes, 4, 5, keys))


def typed(keyboard: Keyboard, text: str) -> list[Said]:
    return [said for key in text if (said := keyboard.press(key)) is not None]


def test_words_notes_and_instructions() -> None:
    keyboard = Keyboard()
    assert typed(keyboard, " hsfdx?") == [Said(KEYS[key]) for key in " hsfdx"]
    assert typed(keyboard, "nit slippes\x7fd \r") == [Said("note", "it slipped")]
    assert typed(keyboard, ":put it down\n") == [Said("instruction", "put it down")]
    assert typed(keyboard, "nnever mind\x1bs") == [Said("success")], "Escape leaves it as it was"


@given(st.text(alphabet=st.characters(exclude_characters="\r\n\x1b\x7f\b", exclude_categories=["C", "Z"])))
def test_no_text_that_is_typed_says_a_word(text: str) -> None:
    assert typed(Keyboard(), f"n{text}\n") == [Said("note", text)]


def test_help_names_every_key() -> None:
    from rollout_manager.operator_keys import HELP

    for key in [*KEYS, *TEXTS]:
        assert re.search(rf"(^| ){re.escape('space' if key == ' ' else key)} ", HELP)

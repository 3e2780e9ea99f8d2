"""What docs/operating.md shows in YAML is valid."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from rollout_manager.exceptions import ScheduleError
from rollout_manager.operator_keys import VirtualJoy
from rollout_manager.schedule import Schedule, ScheduleEntry, load_schedule
from rollout_manager.teleop import load_mapping
from vla_policy_node.spec import load_spec

PAGE = Path(__file__).resolve().parents[1] / "docs" / "operating.md"


def block(beginning: str) -> str:
    [found] = [b for b in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL) if b.startswith(beginning)]
    return str(found)


def test_home() -> None:
    panda = load_spec("panda")
    assert replace(panda, home=yaml.safe_load(block("home:"))["home"]) == panda


def test_mapping(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(block("takeover_button:"))
    mapping = load_mapping(path)
    mapping.check(load_spec("panda"))
    VirtualJoy(mapping)


def test_schedule(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(block("environment:"))
    schedule = load_schedule(path)
    assert [attempt.instruction for _, [attempt] in schedule.tries()] == [
        "put the red cube into the bowl",
        "open the drawer",
    ]


def test_an_instruction_or_an_expert_where_there_is_none_is_refused() -> None:
    entry = ScheduleEntry("cube", 0, instruction="lift it")
    with pytest.raises(ScheduleError, match="instruction 'lift it': 'metaworld' has its own"):
        Schedule("metaworld", "policy", (entry,))
    with pytest.raises(ScheduleError, match=r"no scripted expert drives .*valid are policy, human"):
        Schedule("robot", "expert", (entry,))

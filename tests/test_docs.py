"""What README and docs/ name is there: files, links, commands, targets, topics and parameters."""

import importlib
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from trainer.cli import COMMANDS
from vla_policy_node import topics

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
every_page = pytest.mark.parametrize("page", PAGES, ids=[p.relative_to(ROOT).as_posix() for p in PAGES])
NODES = {
    "policy_node": "vla_policy_node.policy_node",
    "sim_node": "rollout_manager.sim_node",
    "expert_node": "rollout_manager.expert_node",
    "rollout_manager": "rollout_manager.rollout_manager_node",
    "replay_node": "rollout_manager.replay_node",
    "arm_node": "rollout_manager.arm_node",
    "station_node": "rollout_manager.station_node",
    "operator_node": "rollout_manager.operator_node",
    "teleop_node": "rollout_manager.teleop_node",
}
FOLDERS = ("src", "config", "launch", "tests", "docs", "scripts", "benchmarks", "resource")


def code(text: str) -> str:
    """The parts of a page that are code: blocks, indented lines and `spans`."""
    blocks = re.findall(r"```.*?\n(.*?)```", text, flags=re.DOTALL)
    lines = re.findall(r"^ {4}(.*)$", text, flags=re.MULTILINE)
    spans = re.findall(r"`([^`\n]+)`", text)
    return "\n".join([*blocks, *lines, *spans])


def anchors(page: Path) -> set[str]:
    """What `#...` may follow a link to the page."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(found), f"{target}: no such heading"


@every_page
def test_files_that_are_named_exist(page: Path) -> None:
    names = re.findall(rf"(?<![\w/.~-])(?:\./)?((?:{'|'.join(FOLDERS)})/[\w./*-]+)", code(page.read_text()))
    missing = [name for name in names if not list(ROOT.glob(name.rstrip("./")))]
    assert not missing


@every_page
def test_commands_that_are_named_exist(page: Path) -> None:
    text = code(page.read_text())
    named = set(re.findall(r"(?:^|\bbin/|\n)encore ([a-z][a-z-]*)", text))
    assert named <= set(COMMANDS), f"not commands: {named - set(COMMANDS)}"
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z][a-z-]*)", text)) <= targets


@every_page
def test_launch_files_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"ros2 launch encore (\S+)", code(page.read_text())):
        assert (ROOT / "launch" / name).is_file(), name


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_there(command: str) -> None:
    assert callable(importlib.import_module(COMMANDS[command][0]).main)


@pytest.mark.parametrize("node", sorted(NODES))
def test_the_parameter_tables_are_those_of_the_nodes(node: str) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = re.search(rf"^### {node}\n(.*?)(?=^##)", page, flags=re.MULTILINE | re.DOTALL)
    assert table, f"no table for {node}"
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", table[1], flags=re.MULTILINE)
    parameters = importlib.import_module(NODES[node]).PARAMETERS
    told = [
        (name, "empty" if default == "" else f"`{default!r}`", meaning)
        for name, (default, meaning) in parameters.items()
    ]
    assert rows == told


def test_every_topic_is_told() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    for topic, type_name in topics.MESSAGE_TYPES.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{topic}` ")]
        assert type_name.replace("/msg/", "/") in row


def test_pictures_are_well_formed() -> None:
    for picture in (ROOT / "docs").rglob("*.svg"):
        assert ElementTree.parse(picture).getroot().tag.endswith("svg")


def test_no_page_asks_for_what_is_left_to_do() -> None:
    for page in PAGES:
        assert not re.search(r"\b(TODO|FIXME|TBD|XXX)\b", page.read_text()), page

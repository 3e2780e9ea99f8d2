"""The rules of the house that no type checker knows."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
PACKAGES = ("vla_policy_node", "rollout_manager", "trainer")
"""Each may import from itself and from those before it."""
CLOSED_NAMES = {"utils", "util", "helpers", "common", "base", "core", "misc"}
PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
HEAVY = {"torch", "mujoco", "matplotlib", "transformers", "rclpy", "cv2", "metaworld"}
WITHOUT_TORCH = ("bag", "catalog", "labels", "recorder", "results", "schedule")
"""Modules of rollout_manager for people who only look at recordings."""

FILES = sorted(SOURCE.rglob("*.py"))
IDS = [path.relative_to(SOURCE).as_posix() for path in FILES]
every_file = pytest.mark.parametrize("path", FILES, ids=IDS)


def imports(tree: ast.AST) -> Iterator[str]:
    """Names of all modules that are imported anywhere in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield node.module or ""


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def called(node: ast.Call) -> str:
    """`torch.load` for the call torch.load(...)."""
    return ast.unparse(node.func)


@every_file
def test_imports_point_one_way(path: Path) -> None:
    own = PACKAGES.index(path.relative_to(SOURCE).parts[0])
    wrong = {name for name in imports(parsed(path)) if name.split(".")[0] in PACKAGES[own + 1 :]}
    assert not wrong, f"{PACKAGES[own]} must not import {wrong}"


@every_file
def test_rclpy_only_in_files_named_node(path: Path) -> None:
    if not path.stem.endswith("node"):
        assert not {name for name in imports(parsed(path)) if name.split(".")[0] == "rclpy"}


@every_file
def test_no_pickle_in_any_form(path: Path) -> None:
    tree = parsed(path)
    assert not {name for name in imports(tree) if name.split(".")[0] in PICKLERS}
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert ast.unparse(node.value) == "False", f"line {node.value.lineno}"


@every_file
def test_torch_load_reads_weights_only_and_torch_save_is_not_called(path: Path) -> None:
    for node in (n for n in ast.walk(parsed(path)) if isinstance(n, ast.Call)):
        assert called(node) != "torch.save", f"line {node.lineno}: torch.save writes a pickle"
        if called(node) == "torch.load":
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert given.get("weights_only") == "True", f"line {node.lineno}"


@every_file
def test_no_room_for_everything_and_nothing(path: Path) -> None:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    assert not CLOSED_NAMES & set(parts)


@every_file
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", [p for p in FILES if p.name == "__init__.py"], ids=str)
def test_importing_a_package_costs_nothing(path: Path) -> None:
    assert not {name for name in imports(parsed(path)) if name.split(".")[0] in HEAVY}


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_looking_at_recordings_needs_neither_torch_nor_a_simulator_nor_ros(module: str) -> None:
    code = f"import sys, rollout_manager.{module}; print(sorted({{'torch', 'mujoco', 'rclpy'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=SOURCE, check=True)
    assert run.stdout.strip() == "[]"


def test_the_rules_catch_what_they_are_for() -> None:
    """A rule that cannot fail proves nothing."""
    tree = ast.parse("import torch\nfrom pickle import loads\ntorch.load('x', weights_only=False)\n")
    assert {name.split(".")[0] for name in imports(tree)} & PICKLERS == {"pickle"}
    (load,) = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    assert called(load) == "torch.load"
    assert {k.arg: ast.unparse(k.value) for k in load.keywords} == {"weights_only": "False"}

"""The installed LIBERO: found, imported without side effects, tasks in its own order, states without a pickle."""

import io
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout_manager.envs.libero import package
from rollout_manager.envs.libero.initial_states import matrix, read_initial_states
from rollout_manager.envs.libero.package import (
    ASSET_FOLDERS,
    ASSETS_VARIABLE,
    PACKAGES,
    find_assets,
    load_package,
    locate_assets,
    mujoco_effect,
    package_root,
)
from rollout_manager.envs.libero.suites import SUITES, all_tasks, find_task, suite_tasks
from rollout_manager.exceptions import SimulatorError
from vla_policy_node.observation import Float64Array

ROOT = Path(__file__).resolve().parents[1]
TASKS = all_tasks()
EVERY_ASSET = pytest.mark.skipif(
    not os.environ.get(ASSETS_VARIABLE), reason=f"{ASSETS_VARIABLE} names no folder of LIBERO's assets"
)


def in_a_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code that must succeed, without a terminal to answer questions on."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment}
    env.pop("NUMBA_CACHE_DIR", None)  # Set for this process by `load_package`.
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def stored(content: bytes, name: str = "archive/data.pkl") -> bytes:
    """A zip with one file."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr(name, content)
    return held.getvalue()


def program_of(path: Path) -> bytes:
    """The pickle in a file of initial states."""
    with zipfile.ZipFile(path) as archive:
        return archive.read("archive/data.pkl")


def saved(value: Any) -> bytes:
    """What the benchmark's authors would have got by torch.save."""
    held = io.BytesIO()
    torch.save(value, held)
    return held.getvalue()


# --- the package


def test_the_versions_are_those_that_are_pinned() -> None:
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line.count("=") == 2
    )
    assert {name: pins[name] for name in PACKAGES} == dict(PACKAGES)
    assert pins["mujoco"] == package.SCORED_MUJOCO


def test_importing_it_asks_nothing_says_nothing_and_leaves_nothing_in_site_packages(tmp_path: Path) -> None:
    """The packages as they come would wait on stdin, warn, log to /tmp and compile into site-packages."""
    site = package_root().parents[1]
    before = {p for name in ("libero", "robosuite", "bddl") for p in (site / name).rglob("*") if p.suffix != ".pyc"}
    code = (
        "import logging\n"
        "from rollout_manager.envs.libero.package import load_package\n"
        "loaded = load_package()\n"
        "assert load_package() is loaded\n"
        "handlers = logging.getLogger('robosuite_logs').handlers\n"
        "assert not [h for h in handlers if isinstance(h, logging.FileHandler)], handlers\n"
        "import libero.libero, os\n"
        "assert os.path.samefile(libero.libero.get_libero_path('bddl_files'), loaded.root / 'bddl_files')\n"
        "assert 'libero_kitchen_tabletop_manipulation' in loaded.problems, list(loaded.problems)\n"
        "import robosuite.utils.transform_utils as T, numpy as np\n"
        "T.quat2mat(np.array([0., 0., 0., 1.]))\n"  # compiled by numba
    )
    away = tmp_path / "elsewhere"
    done = in_a_process(
        code,
        HOME=str(tmp_path),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
        LIBERO_CONFIG_PATH=str(away),
    )
    assert done.stdout + done.stderr == ""
    assert not away.exists(), "another configuration neither counts nor is made"
    assert {p.name for p in tmp_path.iterdir()} <= {"cache", ".config", ".cache"}
    after = {p for name in ("libero", "robosuite", "bddl") for p in (site / name).rglob("*") if p.suffix != ".pyc"}
    assert after == before


def test_an_environment_that_robosuite_does_not_like_is_told_not_asserted() -> None:
    code = (
        "from rollout_manager.envs.libero.package import load_package\n"
        "from rollout_manager.exceptions import SimulatorError\n"
        "try: load_package()\n"
        "except SimulatorError as error: print(error)"
    )
    done = in_a_process(code, CUDA_VISIBLE_DEVICES="1", MUJOCO_EGL_DEVICE_ID="0")
    assert "LIBERO cannot be imported: MUJOCO_EGL_DEVICE_ID needs to be" in done.stdout


def test_several_processes_may_load_it_at_a_time(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "XDG_CACHE_HOME": str(tmp_path)}
    code = (
        "from rollout_manager.envs.libero import package as p\n"
        "for _ in range(300): p._answer_beforehand(p.package_root())\n"
        "import libero.libero as l\n"
        "assert l.get_libero_path('bddl_files') == str(p.package_root() / 'bddl_files')"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in running:
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
    assert [p.name for p in (tmp_path / "encore" / "libero").iterdir()] == ["config.yaml"], "no half-written file stays"


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        (dict.fromkeys(PACKAGES), "LIBERO is not installed .*hf-libero, robosuite, bddl.*make libero"),
        ({"robosuite": None}, r"LIBERO is not installed \(robosuite not found\).*make libero"),
        ({"robosuite": "1.5.1"}, r"needs robosuite 1\.4\.0, not 1\.5\.1.*make libero"),
    ],
)
def test_what_is_missing_or_of_another_version_is_named(
    versions: dict[str, str | None], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "_version", lambda name: versions.get(name, PACKAGES.get(name)))
    with pytest.raises(SimulatorError, match=message):
        package_root()


@pytest.mark.parametrize(
    ("version", "part"),
    [
        ("3.3.0", None),
        ("3.3.2", "no scores are known"),
        ("3.2.7", "no scores are known"),
        ("3.3.3", "from 3.3.3"),
        ("3.3.10", "from 3.3.3"),
        ("3.4.0", "from 98 to 12 %"),
        ("4.0", "from 98 to 12 %"),
    ],
)
def test_what_another_mujoco_does_to_scores(version: str, part: str | None) -> None:
    assert mujoco_effect(version) == "" if part is None else part in mujoco_effect(version)


def test_another_mujoco_is_warned_of_with_the_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "_version", lambda name: PACKAGES.get(name, "3.4.0"))
    with pytest.warns(UserWarning, match=r"hold for MuJoCo 3\.3\.0; this is 3\.4\.0: .*98 to 12 %"):
        load_package.__wrapped__()


# --- assets


def folder_of_assets(place: Path) -> Path:
    for name in ASSET_FOLDERS:
        (place / name).mkdir(parents=True)
    return place


def test_the_folder_given_comes_before_the_variable_and_that_before_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_, named, download = (folder_of_assets(tmp_path / name) for name in ("given", "named", "download"))
    monkeypatch.setattr(package, "downloads", lambda: (tmp_path / "none", download))
    monkeypatch.setenv(ASSETS_VARIABLE, str(named))
    assert find_assets(given_) == given_
    assert locate_assets() == package.AssetFolder(named, f"named by {ASSETS_VARIABLE}")
    monkeypatch.delenv(ASSETS_VARIABLE)
    assert locate_assets() == package.AssetFolder(download, "the package's own download")


def test_without_any_the_ways_to_get_them_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(ASSETS_VARIABLE, raising=False)
    with pytest.raises(SimulatorError, match=f"{ASSETS_VARIABLE} names no folder.*{tmp_path}.*make libero-assets"):
        find_assets()


def test_a_folder_that_lacks_something_is_refused_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = folder_of_assets(tmp_path / "whole")
    monkeypatch.setattr(package, "downloads", lambda: (whole,))
    with pytest.raises(SimulatorError, match=r"nowhere \(configuration\) is not a folder"):
        find_assets(tmp_path / "nowhere")
    part = folder_of_assets(tmp_path / "part")
    (part / "scenes").rmdir()
    monkeypatch.setenv(ASSETS_VARIABLE, str(part))
    with pytest.raises(SimulatorError, match=rf"part \({ASSETS_VARIABLE}\) lacks scenes; it must hold articulated_"):
        find_assets()
    monkeypatch.delenv(ASSETS_VARIABLE)
    torn = whole / ".cache" / "huggingface" / "download" / "scenes" / "wall.incomplete"
    torn.parent.mkdir(parents=True)
    torn.touch()
    with pytest.raises(SimulatorError, match=r"half downloaded; go on with: make libero-assets"):
        find_assets()


@EVERY_ASSET
def test_the_assets_here_are_whole() -> None:
    assert find_assets() == Path(os.environ[ASSETS_VARIABLE]).resolve()


def test_continuous_integration_finds_assets_beside_the_checkout_unless_told_otherwise(tmp_path: Path) -> None:
    place = tmp_path / "checkout" / ".ci" / "run"
    make = tmp_path / "bin" / "make"
    place.parent.mkdir(parents=True)
    make.parent.mkdir()
    shutil.copy2(ROOT / ".ci" / "run", place)
    make.write_text(f'#!/bin/sh\necho "$1 ${{{ASSETS_VARIABLE}-none}}"\n')
    make.chmod(0o755)
    env = {**os.environ, "PATH": f"{make.parent}{os.pathsep}{os.environ['PATH']}"}
    env.pop(ASSETS_VARIABLE, None)

    def run(**environment: str) -> str:
        done = subprocess.run([place], env=env | environment, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.strip()

    assert run() == "test none"
    (tmp_path / "a sibling" / "libero-assets").mkdir(parents=True)
    assert run() == f"test {tmp_path / 'a sibling' / 'libero-assets'}"
    (tmp_path / "libero-assets").mkdir()
    assert run() == f"test {tmp_path / 'libero-assets'}"
    assert run(**{ASSETS_VARIABLE: "/mine"}) == "test /mine"


# --- suites


def test_the_tasks_are_the_benchmarks_in_its_order_and_words() -> None:
    """The benchmark's own list of tasks, which needs torch and its configuration, says the same."""
    load_package()
    from libero.libero.benchmark import get_benchmark

    for suite in SUITES:
        benchmark = get_benchmark(suite)()
        told = [(task.name, task.instruction, task.index) for task in suite_tasks(suite)]
        assert told == [(task.name, task.language, i) for i, task in enumerate(benchmark.tasks)]
        for i, task in enumerate(suite_tasks(suite)):
            assert os.path.samefile(task.bddl_file, benchmark.get_task_bddl_file_path(i))
            assert task.states_file.name == benchmark.get_task(i).init_states_file
    assert [len(suite_tasks(suite)) for suite in SUITES] == [10, 10, 10, 10, 90]
    assert len({task.name for task in TASKS}) == 130, "a name alone tells the task"


def test_listing_the_tasks_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from rollout_manager.envs.libero.suites import all_tasks\n"
        "all_tasks()\n"
        "print(sorted({'torch', 'mujoco', 'libero', 'robosuite', 'bddl', 'numba'} & set(sys.modules)))"
    )
    assert in_a_process(code).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "suite", "name"),
    [
        ("libero_90/0", "", "KITCHEN_SCENE10_close_the_top_drawer_of_the_cabinet"),
        ("libero_object/0", "libero_object", "pick_up_the_alphabet_soup_and_place_it_in_the_basket"),
        ("moka pots", "", "KITCHEN_SCENE8_put_both_moka_pots_on_the_stove"),
        ("turn on the stove", "libero_goal", "turn_on_the_stove"),
        ("turn_on_the_stove", "", "turn_on_the_stove"),
    ],
)
def test_a_task_is_found_by_name_part_or_place(text: str, suite: str, name: str) -> None:
    assert find_task(text, suite).name == name


@pytest.mark.parametrize(
    ("text", "suite", "message"),
    [
        ("put both moka pots on the stone", "", "near ones.*moka_pots_on_the_stove"),
        ("moka", "", "may be any of"),
        ("libero_90/90", "", "tasks 0 to 89"),
        ("libero_90/3", "libero_10", "suite libero_90, not of libero_10"),
        ("turn_on_the_stove", "libero_spatial", "libero_goal, not of libero_spatial"),
        ("x", "libero_100", "libero_spatial, libero_object"),
    ],
)
def test_a_task_that_is_none_is_answered_with_near_ones(text: str, suite: str, message: str) -> None:
    with pytest.raises(SimulatorError, match=message):
        find_task(text, suite)


def test_a_list_of_tasks_that_is_another_program_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "benchmark").mkdir()
    (tmp_path / "benchmark" / "libero_suite_task_map.py").write_text("raise SystemExit('executed')")
    monkeypatch.setattr("rollout_manager.envs.libero.suites.package_root", lambda: tmp_path)
    suite_tasks.cache_clear()
    with pytest.raises(SimulatorError, match=r"list of tasks, .* cannot be read: it holds something else"):
        suite_tasks("libero_90")
    suite_tasks.cache_clear()


# --- initial states


def test_all_130_files_read_as_torch_reads_them() -> None:
    for task in TASKS:
        states = read_initial_states(task.states_file)
        wanted = torch.load(task.states_file, weights_only=False)  # The installed package's own files.
        assert states.dtype == np.float64
        assert states.flags.writeable
        np.testing.assert_array_equal(states, wanted)


def test_no_number_is_lost_on_the_way(tmp_path: Path) -> None:
    """Numbers whose bytes are special in text: the pickle holds bytes as text in latin-1."""
    rows = np.random.default_rng(0).integers(0, 256, (50, 24), np.uint8).view(np.float64)
    rows[~np.isfinite(rows)] = 0.0
    # NumPy 2 calls its module numpy._core; the files were written by NumPy 1.
    path = tmp_path / "states.pruned_init"
    path.write_bytes(stored(pickle.dumps(rows, 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")))
    np.testing.assert_array_equal(read_initial_states(path), rows)


RAN = Path(tempfile.gettempdir()) / f"encore-evil-pickle-ran-{os.getpid()}"


class Evil:
    """Its pickle runs a command when it is loaded."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return (os.system, (f"touch {RAN}",))


REAL = program_of(TASKS[0].states_file)
STATES = read_initial_states(TASKS[0].states_file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a zip file"),
        (stored(REAL)[:-40], "not a zip file"),
        (stored(REAL).replace(b"numpy", b"nvmpy"), "Bad CRC"),
        (stored(REAL, "archive/other.pkl"), r"0 files data\.pkl \[\]"),
        (stored(b"\0" * (2 << 20)), "not one of up to 1048576 bytes"),
        (stored(REAL[:-10]), "pickle|opcodes"),
        (stored(REAL + b"more"), "something follows the end"),
        (stored(b""), "pickle"),
        (stored(pickle.dumps(Evil(), 2)), "opcodes"),
        (stored(REAL.replace(b"c_codecs\nencode", b"cposix\nsystem")), "GLOBAL"),
        (stored(REAL.replace(b"X\x02\x00\x00\x00f8", b"X\x02\x00\x00\x00f4")), "'f4' at byte .*, not BINUNICODE f8"),
        (stored(REAL.replace(b"X\x01\x00\x00\x00<", b"X\x01\x00\x00\x00>")), "'>' at byte .*, not BINUNICODE <"),
        (stored(REAL.replace(b"K\x01K2", b"K\x01K1")), "50 states are wanted|wanted are 50 states"),
        (saved(torch.zeros(50, 7, dtype=torch.float64)), "opcodes"),
        (saved({"states": 1}), "opcodes"),
    ],
)
def test_a_file_that_is_anything_else_is_refused_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "some.pruned_init"
    path.write_bytes(content)
    with pytest.raises(SimulatorError, match=rf"some\.pruned_init: .*({message})"):
        read_initial_states(path)
    assert not RAN.exists()


def test_a_file_that_is_not_there_and_numbers_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(SimulatorError, match=r"none\.pruned_init"):
        read_initial_states(tmp_path / "none.pruned_init")
    bad = np.full((50, 3), np.nan)
    with pytest.raises(ValueError, match="not finite"):
        matrix(pickle.dumps(bad, 2).replace(b"numpy._core", b"numpy.core"))
    with pytest.raises(ValueError, match="NEWTRUE"):
        matrix(pickle.dumps(np.asfortranarray(np.ones((50, 3))), 2).replace(b"numpy._core", b"numpy.core"))


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 400), st.integers(0, 255), st.booleans())
def test_any_changed_byte_gives_states_or_a_clear_refusal(place: int, value: int, from_end: bool) -> None:
    """All that is not the numbers stands in the first 200 and the last 30 bytes."""
    changed = bytearray(REAL)
    changed[-1 - place if from_end else place] = value
    try:
        states: Float64Array = matrix(bytes(changed))
    except ValueError:
        return
    assert states.shape == STATES.shape


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_changed_byte_of_the_archive_gives_the_states_or_a_clear_refusal(data: st.DataObject) -> None:
    """Its heads stand in the first 80 bytes and behind the last file."""
    whole = TASKS[0].states_file.read_bytes()
    directory = whole.rindex(b"PK\x01\x02")
    place = data.draw(st.one_of(st.integers(0, 80), st.integers(directory, len(whole) - 1)))
    changed = bytearray(whole)
    changed[place] = data.draw(st.integers(0, 255))
    with tempfile.NamedTemporaryFile(suffix=".pruned_init") as file:
        file.write(changed)
        file.flush()
        try:
            states = read_initial_states(Path(file.name))
        except SimulatorError:
            return
    np.testing.assert_array_equal(states, STATES)

"""`encore doctor`: what it makes of what it finds, that nothing it tries can hang it, and the whole command."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rollout_manager.envs.libero.package import PACKAGES
from rollout_manager.shared_memory import Stale
from trainer import diagnosis
from trainer.cli import main
from trainer.commands import doctor
from trainer.diagnosis import GIB, Assets, Finding, State
from trainer.probes import MARK, PROBES, Probe, RunningProbe, read_result

MIB = 2**20
WHEELS = {"rclpy": "/venv/site-packages/rclpy", "rmw": "rmw_fastrtps_cpp", "domain": "7"}
CPU = {"version": "2.13.0", "cuda": "", "devices": []}
RED = {"renderer": "llvmpipe", "frame_ms": 2.5, "middle_rgb": [200, 10, 10]}
INSTALLED: Mapping[str, str | None] = {**PACKAGES, "mujoco": "3.3.0"}


def told(finding: Finding) -> tuple[State, str, str]:
    return finding.state, finding.text, finding.mend


# --- what is made of facts


@pytest.mark.parametrize(
    ("version", "state"),
    [((3, 9, 19), "missing"), ((3, 10, 0), "ok"), ((3, 12, 9), "ok"), ((3, 13, 0), "missing")],
)
def test_python(version: tuple[int, int, int], state: State) -> None:
    finding = diagnosis.python(version, "/usr/bin/python3")
    assert finding.state == state
    assert bool(finding.mend) == (state == "missing")
    assert finding.needed


@pytest.mark.parametrize(
    ("place", "environment", "state", "part"),
    [
        ("/venv/lib/rclpy", {}, "ok", "Jazzy as wheels, rmw_fastrtps_cpp, domain 7"),
        (
            "/opt/ros/jazzy/lib/python3.12/site-packages/rclpy",
            {"ROS_DISTRO": "jazzy", "AMENT_PREFIX_PATH": "/home/me/ws/install:/opt/ros/jazzy"},
            "ok",
            "jazzy as sourced",
        ),
        ("/venv/lib/rclpy", {"ROS_DISTRO": "jazzy", "AMENT_PREFIX_PATH": "/opt/ros/jazzy"}, "ok", "Jazzy as wheels"),
        ("/opt/ros/kilted/lib/rclpy", {"ROS_DISTRO": "kilted", "AMENT_PREFIX_PATH": "/opt/ros/kilted"}, "note", "kilt"),
        ("/venv/lib/rclpy", {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}, "ok", "domain 7, discovery LOCALHOST"),
    ],
)
def test_ros_is_where_rclpy_came_from(place: str, environment: dict[str, str], state: State, part: str) -> None:
    finding = diagnosis.ros(Probe({**WHEELS, "rclpy": place}), environment)
    assert finding.state == state
    assert part in finding.text


def test_without_ros_set_up_is_advised() -> None:
    finding = diagnosis.ros(Probe(error="ModuleNotFoundError: No module named 'rclpy'"), {})
    assert finding.state == "missing"
    assert "No module named 'rclpy'" in finding.text
    assert finding.mend in ("make setup", "source /opt/ros/jazzy/setup.bash")


def test_torch_and_gpu() -> None:
    assert told(diagnosis.torch(Probe(CPU))) == ("ok", "2.13.0, built without CUDA", "")
    cuda = Probe({"version": "2.13.0", "cuda": "13.0", "devices": ["NVIDIA H200 (140 GiB)"]})
    assert told(diagnosis.torch(cuda)) == ("ok", "2.13.0, built for CUDA 13.0", "")
    assert told(diagnosis.gpu(cuda, True)) == ("ok", "NVIDIA H200 (140 GiB)", "")
    assert diagnosis.gpu(Probe(CPU), False).state == "note"
    blind = diagnosis.gpu(Probe(CPU), True)
    assert told(blind) == ("note", "there is one, but 2.13.0, built without CUDA does not see it", "nvidia-smi")
    assert not blind.needed
    broken = Probe(error="it crashed (SIGSEGV)")
    assert told(diagnosis.torch(broken)) == ("missing", "it crashed (SIGSEGV)", "make setup")
    assert diagnosis.gpu(broken, True).text == "there is one, but it crashed (SIGSEGV)"


@pytest.mark.parametrize(
    ("version", "state", "part", "mend"),
    [
        ("3.3.0", "ok", "", ""),
        ("3.4.1", "note", "from 98 to 12 %", "python -m pip install mujoco==3.3.0"),
        (None, "missing", "not installed", "make setup"),
    ],
)
def test_mujoco(version: str | None, state: State, part: str, mend: str) -> None:
    finding = diagnosis.mujoco(version)
    assert (finding.state, finding.mend) == (state, mend)
    assert part in finding.text


@pytest.mark.parametrize(
    ("loader", "root", "mend"),
    [
        ("osmesa", False, "sudo apt-get update && sudo apt-get install -y libosmesa6"),
        ("osmesa", True, "apt-get update && apt-get install -y libosmesa6"),
        ("egl", True, "apt-get update && apt-get install -y libegl1"),
        ("glfw", False, "export MUJOCO_GL=osmesa"),
        ("nonsense", False, "export MUJOCO_GL=osmesa"),
    ],
)
def test_a_renderer_that_fails_is_mended_by_its_own_library(loader: str, root: bool, mend: str) -> None:
    finding = diagnosis.renderer(Probe(error="no OpenGL"), loader, False, root)
    assert told(finding) == ("missing", f"MUJOCO_GL={loader}: no OpenGL", mend)


def test_a_renderer_must_show_what_is_there() -> None:
    assert told(diagnosis.renderer(Probe(RED), "osmesa", False)) == (
        "ok",
        "MUJOCO_GL=osmesa, llvmpipe, 2.5 ms a small image of 128 px",
        "",
    )
    for black_or_grey in ([0, 0, 0], [90, 90, 90]):
        finding = diagnosis.renderer(Probe({**RED, "middle_rgb": black_or_grey}), "egl", True)
        assert finding.state == "missing"
        assert str(black_or_grey) in finding.text
    slow = diagnosis.renderer(Probe(RED), "osmesa", card=True)
    assert (slow.state, slow.mend) == ("note", "export MUJOCO_GL=egl")
    software = diagnosis.renderer(Probe(RED), "egl", card=True)
    assert software.state == "note"
    assert "the processor draws though there is a GPU" in software.text
    assert diagnosis.renderer(Probe({**RED, "renderer": "NVIDIA H200"}), "egl", card=True).state == "ok"


def test_libero_is_optional_and_has_one_command() -> None:
    missing = diagnosis.libero(dict.fromkeys(INSTALLED), None)
    assert told(missing) == ("missing", "not installed", "make libero")
    older = diagnosis.libero({**INSTALLED, "robosuite": "1.5.1"}, None)
    assert "robosuite 1.5.1" in older.text
    assert "wanted are hf-libero 0.1.4, robosuite 1.4.0, bddl 1.0.1" in older.text
    half = diagnosis.libero(INSTALLED, Probe(error="LIBERO cannot be imported: No module named 'numba'"))
    assert (half.state, half.mend) == ("missing", "make libero")
    assert "numba" in half.text
    whole = diagnosis.libero(INSTALLED, Probe({"tasks": 130}))
    assert told(whole) == ("ok", "hf-libero 0.1.4, robosuite 1.4.0, bddl 1.0.1, 130 tasks", "")
    assert not any(finding.needed for finding in (missing, older, half, whole))


def test_assets_that_are_not_the_official_ones_are_called_so() -> None:
    whole = Assets(Path("/assets"), "named by ENCORE_LIBERO_ASSETS", 422_000_000, 900)
    assert told(diagnosis.assets(whole)) == ("ok", "/assets (named by ENCORE_LIBERO_ASSETS), 900 files, 422 MB", "")
    light = diagnosis.assets(Assets(Path("/assets"), "rule", 5_000_000, 166))
    assert light.state == "note"
    assert "may differ from the official ones" in light.text
    stand_ins = diagnosis.assets(Assets(Path("/assets"), "rule", 5_000_000, 166, "- Stand-ins: 30 files"))
    assert "say so beside every figure" in stand_ins.text
    none = diagnosis.assets(None, "there are none")
    assert told(none) == ("missing", "there are none", "make libero-assets")
    assert not none.needed


@pytest.mark.parametrize(
    ("total", "free", "state"),
    [
        (8 * GIB, 8 * GIB, "ok"),
        (GIB, 4 * 64 * MIB, "ok"),
        (GIB, 4 * 64 * MIB - 1, "note"),
        (64 * MIB, 64 * MIB, "note"),
        (64 * MIB, 63 * MIB, "missing"),
        (0, 0, "missing"),
    ],
)
def test_shared_memory_holds_a_segment_a_node(total: int, free: int, state: State) -> None:
    finding = diagnosis.shared_memory(total, free)
    assert finding.state == state
    assert bool(finding.mend) == (state != "ok")


@pytest.mark.parametrize(
    ("total", "free", "state", "mend"),
    [
        (8 * GIB, 4 * GIB, "note", "fastdds shm clean"),
        (GIB, 200 * MIB, "note", "fastdds shm clean"),  # with what is left there it is enough
        (GIB, 10 * MIB, "missing", "ls -lS /dev/shm"),  # without it still too little
        (128 * MIB, 10 * MIB, "missing", "docker run --shm-size=1g ..."),
    ],
)
def test_what_killed_nodes_left_is_told(total: int, free: int, state: State, mend: str) -> None:
    finding = diagnosis.shared_memory(total, free, Stale(2, 128 * MIB))
    assert (finding.state, finding.mend) == (state, mend)
    assert "nodes that were killed left 2 segments of 0.12 GiB in all" in finding.text


@pytest.mark.parametrize(("free", "state"), [(6 * GIB, "ok"), (4 * GIB, "note"), (GIB // 4, "missing")])
def test_disk(free: int, state: State) -> None:
    assert diagnosis.disk(Path("/runs"), free).state == state


def test_pictures_language_and_metaworld() -> None:
    fine = Probe({"opencv": "5.0.0", "jpeg": True, "film_bytes": 90})
    assert diagnosis.pictures(fine).state == "ok"
    assert diagnosis.pictures(Probe({**fine.facts, "jpeg": False})).state == "missing"
    library = diagnosis.pictures(Probe(error="ImportError: libGL.so.1: cannot open shared object file"))
    assert "libgl1" in library.mend
    assert diagnosis.pictures(Probe(error="No module named 'cv2'")).mend == "make setup"
    assert "384 wide, 91 MB" in diagnosis.language(Probe({"width": 384, "megabytes": 90.9})).text
    assert diagnosis.language(Probe(error="gone")).state == "missing"
    assert diagnosis.metaworld(Probe({"tasks": 50, "metaworld": "3.1.1"})).text == "3.1.1, 50 tasks; one was stepped"
    assert diagnosis.metaworld(Probe(error="gone")).mend == "make setup"


def test_only_what_is_needed_decides() -> None:
    ok, optional = Finding("Python", "ok", "3.11"), Finding("LIBERO", "missing", "no", needed=False)
    noted, needed = Finding("MuJoCo", "note", "3.4"), Finding("ROS 2", "missing", "no")
    assert diagnosis.verdict([ok, noted]) == (True, "ready for the loop on MetaWorld")
    assert diagnosis.verdict([ok, optional]) == (
        True,
        "ready for the loop on MetaWorld; optional and missing: LIBERO",
    )
    assert diagnosis.verdict([ok, needed, optional]) == (
        False,
        "not ready: ROS 2 missing; optional and missing: LIBERO",
    )


def test_the_table_stays_in_its_columns() -> None:
    findings = [Finding("Python", "ok", "3.11 " * 30), Finding("shared memory", "missing", "none", "mount it")]
    assert diagnosis.table(findings, 60).splitlines() == [
        "Python         ok       3.11 3.11 3.11 3.11 3.11 3.11 3.11",
        *["                        3.11 3.11 3.11 3.11 3.11 3.11 3.11"] * 3,
        "                        3.11 3.11",
        "shared memory  missing  none",
        "                        mend: mount it",
    ]
    narrow = diagnosis.table(findings, 10).splitlines()
    assert max(map(len, narrow)) <= 24 + 30, "a terminal too narrow for words still gets some"


# --- processes


def python(code: str) -> list[str]:
    return ["-c", code]


def test_a_probe_that_hangs_is_given_up_and_killed() -> None:
    begun = time.monotonic()
    with RunningProbe(python("import time, sys; print('x', flush=True); time.sleep(100)"), 0.5) as probe:
        assert probe.result() == Probe(error="no answer within 0 s")
    assert time.monotonic() - begun < 10


def test_a_probe_whose_child_holds_on_to_the_output_does_not_hold_us() -> None:
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3)'])\n"
        f"print('{MARK}' + '{{}}')"
    )
    begun = time.monotonic()
    with RunningProbe(python(code), 20) as probe:
        assert probe.result() == Probe({})
    assert time.monotonic() - begun < 2.5


def test_a_probe_gets_no_terminal_to_ask_on_and_may_say_what_it_likes() -> None:
    code = f"import sys; print('noise', repr(sys.stdin.read())); print('{MARK}' + '{{\"a\": 1}}'); print('more')"
    with RunningProbe(python(code), 20) as probe:
        assert probe.result() == Probe({"a": 1})


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise RuntimeError('no display')", "RuntimeError: no display"),
        ("import os; os.abort()", "it crashed (SIGABRT)"),
        ("import sys; sys.exit(3)", "it ended with exit code 3"),
        ("pass", "it ended without a result"),
        (
            "from rollout_manager.exceptions import SimulatorError; raise SimulatorError('install libosmesa6')",
            "install libosmesa6",
        ),
    ],
)
def test_a_probe_that_fails_says_why(code: str, error: str) -> None:
    with RunningProbe(python(code), 60) as probe:
        assert probe.result() == Probe(error=error)


def test_a_result_is_the_last_one_printed() -> None:
    assert read_result(0, f'{MARK}{{"a": 1}}\n{MARK}{{"a": 2}}\nbye\n', "warning\n") == Probe({"a": 2})


# --- the command


def doctor_here(cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env: dict[str, Any] = {**os.environ, "COLUMNS": "120", **environment}
    command = [sys.executable, "-m", "trainer.cli", "doctor"]
    return subprocess.run(
        command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200, check=False
    )


@pytest.mark.slow
@pytest.mark.ros
def test_this_machine_is_ready(tmp_path: Path, ros_domain: int) -> None:
    done = doctor_here(tmp_path, ENCORE_LIBERO_ASSETS=str(tmp_path / "none"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    parts = ["Python", "ROS 2", "torch", "GPU", "MuJoCo", "renderer", "MetaWorld", "language encoder", "pictures"]
    parts += ["shared memory", "disk", "LIBERO", "LIBERO assets"]
    assert re.findall(r"^(\S+(?: \S+)?) +(?:ok|note|missing) ", done.stdout, flags=re.MULTILINE) == parts
    assert f"domain {ros_domain}" in done.stdout
    assert "none (ENCORE_LIBERO_ASSETS) is not a folder" in " ".join(done.stdout.split())
    assert "mend: make libero-assets" in done.stdout
    assert done.stdout.endswith("\nready for the loop on MetaWorld; optional and missing: LIBERO assets\n")


@pytest.mark.slow
@pytest.mark.ros
def test_a_machine_that_cannot_render_is_not_ready(tmp_path: Path, ros_domain: int) -> None:
    done = doctor_here(tmp_path, MUJOCO_GL="nonsense")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "mend: export MUJOCO_GL=osmesa" in done.stdout
    assert "not ready: renderer" in done.stdout


def test_every_probe_is_read_and_the_command_itself_imports_nothing_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Recorded(dict[str, Probe]):
        def __missing__(self, name: str) -> Probe:
            asked.append(name)
            return Probe(error="not tried")

        def get(self, name: str, default: Any = None) -> Any:
            return self[name]

    monkeypatch.setattr(doctor, "probe_all", lambda timeout_s, libero: Recorded())
    findings = doctor.examine(1.0, Path.cwd())
    assert set(asked) == {"ros", *PROBES}
    assert {finding.part for finding in findings if finding.needed and finding.state == "missing"} >= {"ROS 2", "torch"}
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from trainer.commands import doctor\n"
        "doctor.probe_all = lambda *a, **k: dict.fromkeys(('ros', *doctor.PROBES), doctor.Probe(error='no'))\n"
        "doctor.examine(1.0, Path())\n"
        "print(sorted({'torch', 'mujoco', 'rclpy', 'cv2', 'metaworld', 'robosuite', 'libero'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--timeout", "0"], "timeout 0.0 must be above 0"), (["--folder", "/nowhere"], "/nowhere is not there")],
)
def test_wrong_options_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *arguments]) == 2
    assert message in capsys.readouterr().err

"""What pip and colcon make of the checkout: one source of metadata, and every executable where ROS looks for it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ElementTree.parse(ROOT / "package.xml").getroot()
NODES = (
    "policy_node",
    "sim_node",
    "expert_node",
    "rollout_manager_node",
    "replay_node",
    "arm_node",
    "station_node",
    "operator_node",
    "teleop_node",
)
PARTS = ("src", "config", "launch", "scripts", "resource")
START_S = 60.0

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is packaged, so that no build leaves anything in the checkout."""
    copy = tmp_path_factory.mktemp("checkout")
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for part in PARTS:
        shutil.copytree(ROOT / part, copy / part, ignore=skipped)
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy2(path, copy)
    return copy


@pytest.fixture(scope="module")
def prefix(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a colcon build into an empty place puts the package."""
    place = tmp_path_factory.mktemp("colcon")
    colcon(checkout, place, "build", "--build-base", place / "build", "--install-base", place / "install")
    return place / "install" / "encore"


def colcon(checkout: Path, logs: Path, *arguments: str | Path) -> str:
    return run(sys.executable, "-m", "colcon", "--log-base", logs / "log", *arguments, cwd=checkout)


@pytest.fixture(scope="module")
def installed(prefix: Path) -> dict[str, str]:
    """The environment after `source install/setup.bash`, with nothing of the checkout in it."""
    python = Path(sys.executable).parent
    start = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "AMENT_PREFIX_PATH", "COLCON_PREFIX_PATH")}
    start["PATH"] = f"{python}{os.pathsep}{start['PATH']}"
    listing = run("bash", "-c", f". '{prefix.parent}/local_setup.bash' && env -0", cwd=prefix, env=start)
    return dict(entry.split("=", 1) for entry in listing.split("\0") if entry)


def test_colcon_takes_it_for_an_ament_python_package(checkout: Path, tmp_path: Path) -> None:
    """An invalid package.xml would silently degrade it to a plain Python package."""
    assert colcon(checkout, tmp_path, "list").split() == ["encore", ".", "(ros.ament_python)"]


@pytest.mark.parametrize("folder", ["config", "launch"])
def test_share_has_every_file(folder: str, prefix: Path) -> None:
    wanted = {p.relative_to(ROOT) for p in (ROOT / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    share = prefix / "share" / "encore"
    assert wanted
    assert {p.relative_to(share) for p in (share / folder).rglob("*") if p.is_file()} == wanted


def test_the_ament_index_knows_it(prefix: Path, installed: dict[str, str]) -> None:
    assert (prefix / "share" / "encore" / "package.xml").is_file()
    code = "from ament_index_python.packages import get_package_share_directory as f; print(f('encore'))"
    assert Path(run(sys.executable, "-c", code, cwd=prefix, env=installed).strip()) == prefix / "share" / "encore"


def test_colcon_installs_one_copy_that_finds_its_own_configuration(prefix: Path, installed: dict[str, str]) -> None:
    code = (
        "import vla_policy_node.locations as l, rollout_manager, trainer\n"
        "print(l.__file__, rollout_manager.__file__, trainer.__file__, l.config_dir(), sep='\\n')"
    )
    places = run(sys.executable, "-c", code, cwd=prefix, env=installed).split()
    assert all(Path(place).is_relative_to(prefix) for place in places), places
    assert Path(places[-1]) == prefix / "share" / "encore" / "config"


def test_every_executable_is_where_ros_looks(prefix: Path) -> None:
    found = {p.name for p in (prefix / "lib" / "encore").iterdir() if os.access(p, os.X_OK)}
    assert found == {"encore", *NODES}


def test_the_installed_command_shows_its_help(prefix: Path, installed: dict[str, str]) -> None:
    assert "usage: encore" in run(prefix / "lib" / "encore" / "encore", "--help", cwd=prefix, env=installed)


@pytest.mark.ros
@pytest.mark.parametrize("name", ["policy_node", "sim_node", "expert_node"])
@pytest.mark.parametrize("by", ["colcon", "shim"])
def test_nodes_start_and_stop(name: str, by: str, prefix: Path, installed: dict[str, str], ros_domain: int) -> None:
    """Ctrl-C ends a node that is on the network, with exit code 0."""
    place = prefix / "lib" / "encore" if by == "colcon" else ROOT / "scripts" / "nodes"
    parameters = prefix / "share" / "encore" / "config" / "nodes" / f"{name}.yaml"
    env = installed | {"ROS_DOMAIN_ID": str(ros_domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    with Started([place / name, "--ros-args", "--params-file", parameters], prefix, env) as process:
        wait_until_it_spins(process, name, env)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors


@pytest.mark.ros
def test_a_rollout_manager_without_a_schedule_says_so(prefix: Path, installed: dict[str, str], ros_domain: int) -> None:
    env = installed | {"ROS_DOMAIN_ID": str(ros_domain)}
    with Started([prefix / "lib" / "encore" / "rollout_manager_node"], prefix, env) as process:
        _, errors = process.communicate(timeout=START_S)
        assert process.returncode == 1
        assert "schedule" in errors
        assert "Traceback" not in errors


class Started:
    """A node's process, killed if a test leaves it running."""

    def __init__(self, command: list[str | Path], cwd: Path, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            list(map(str, command)), cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> subprocess.Popen[str]:
        return self.process

    def __exit__(self, *unused: object) -> None:
        self.process.kill()
        self.process.communicate()


def wait_until_it_spins(process: subprocess.Popen[str], name: str, env: dict[str, str]) -> None:
    """Ask a service that every node has, until it answers."""
    code = f"""
import sys, rclpy
from rcl_interfaces.srv import ListParameters
rclpy.init()
asker = rclpy.create_node('asker')
client = asker.create_client(ListParameters, '/{name}/list_parameters')
if not client.wait_for_service(timeout_sec={START_S}): sys.exit('no service')
future = client.call_async(ListParameters.Request())
rclpy.spin_until_future_complete(asker, future, timeout_sec={START_S})
sys.exit(0 if future.done() else 'no answer')
"""
    asked = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=3 * START_S)
    if asked.returncode or process.poll() is not None:
        process.kill()
        output, errors = process.communicate()
        pytest.fail(f"{name} does not answer: {asked.stderr}\n{output}\n{errors}")


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel, built from the source distribution, so that this holds everything too."""
    place = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "setup.py", "-q", "sdist", "--dist-dir", place, cwd=checkout)
    (archive,) = place.glob("encore-*.tar.gz")
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", place)
    run(*pip, archive, cwd=place)
    (built,) = place.glob("encore-*.whl")
    with zipfile.ZipFile(built) as opened:
        yield opened


def test_metadata_is_package_xml(wheel: zipfile.ZipFile) -> None:
    (name,) = [n for n in wheel.namelist() if n.endswith(".dist-info/METADATA")]
    told = HeaderParser().parsestr(wheel.read(name).decode())
    for field, tag in (("Name", "name"), ("Version", "version"), ("Summary", "description"), ("License", "license")):
        assert told[field] == PACKAGE.findtext(tag)
    assert told["Requires-Python"].replace(" ", "") in (">=3.10,<3.13", "<3.13,>=3.10")


def test_the_wheel_has_code_configuration_and_executables(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    code = {p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src").rglob("*.py")}
    assert code <= names
    data = {n.split(".data/data/", 1)[1] for n in names if ".data/data/" in n}
    assert {f"lib/encore/{name}" for name in ("encore", *NODES)} <= data
    assert "share/ament_index/resource_index/packages/encore" in data
    assert {"share/encore/package.xml", "share/encore/config/robots/metaworld.yaml"} <= data


def test_entry_points_and_shims_start_the_same_functions(wheel: zipfile.ZipFile) -> None:
    (name,) = [n for n in wheel.namelist() if n.endswith(".dist-info/entry_points.txt")]
    pairs = [line.split("=") for line in wheel.read(name).decode().splitlines() if "=" in line]
    assert {name.strip() for name, _ in pairs} == {"encore", *NODES}
    for executable, target in pairs:
        module, function = target.strip().split(":")
        shim = (ROOT / "scripts" / "nodes" / executable.strip()).read_text()
        assert f"from {module} import {function}\n" in shim


def test_pyproject_holds_no_metadata() -> None:
    """A [project] table would make colcon install nothing, and say nothing."""
    assert "[project]" not in (ROOT / "pyproject.toml").read_text().splitlines()


def test_every_requirement_is_pinned() -> None:
    pinned = {
        line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    }
    code = (
        "import setuptools\n"
        "setuptools.setup = lambda **k: print(*sum(k['extras_require'].values(), k['install_requires']), sep='\\n')\n"
        "exec(compile(open('setup.py').read(), 'setup.py', 'exec'), {'__file__': 'setup.py'})"
    )
    told = run(sys.executable, "-c", code, cwd=ROOT)
    wanted = {re.split(r"[\[<>=]", line)[0].lower() for line in told.splitlines()}
    assert not wanted - pinned

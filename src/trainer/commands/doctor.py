"""`encore doctor`: what of a machine is ready for Encore, what is not, and the command that mends it."""

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rollout_manager.envs.libero.package import PACKAGES, installed_versions, locate_assets
from rollout_manager.exceptions import SimulatorError
from rollout_manager.shared_memory import stale
from trainer import diagnosis
from trainer.commands.arguments import parse
from trainer.diagnosis import Assets, Finding
from trainer.exceptions import ConfigError
from trainer.probes import PROBES, Probe, RunningProbe
from vla_policy_node.dds_ports import SHARED_MEMORY

READY, NOT_READY = 0, 1


@dataclass(frozen=True)
class DoctorCommand:
    """Look at Python, ROS, torch, the simulators, the renderer, LIBERO's assets, memory and disk.

    Every part that can break is tried out in a process of its own. The exit code is 0 when what the loop on MetaWorld
    needs is there, else 1; LIBERO and a GPU are optional.
    """

    timeout: float = 90.0
    """Seconds that trying out a part may take."""
    folder: Path = Path()
    """Where runs are to be written: the folder whose disk is looked at."""


def main(arguments: Sequence[str]) -> int:
    """Run the command. Returns 0 or 1, see there. Raises: ConfigError: a time that is not above 0, no such folder."""
    options = parse(DoctorCommand, arguments, "doctor")
    if options.timeout <= 0:
        raise ConfigError(f"doctor: timeout {options.timeout} must be above 0 seconds")
    if not options.folder.is_dir():
        raise ConfigError(f"doctor: folder {options.folder} is not there")
    findings = examine(options.timeout, options.folder.resolve())
    print(diagnosis.table(findings, shutil.get_terminal_size((100, 24)).columns))
    ready, text = diagnosis.verdict(findings)
    print(f"\n{text}")
    return READY if ready else NOT_READY


def examine(timeout_s: float, folder: Path) -> list[Finding]:
    """All findings. Args: timeout_s: for each probe; folder: where runs are to be written."""
    versions = installed_versions()
    probes = probe_all(timeout_s, libero=all(versions[name] == wanted for name, wanted in PACKAGES.items()))
    card = shutil.which("nvidia-smi") is not None
    loader = os.environ.get("MUJOCO_GL") or "osmesa"
    return [
        diagnosis.python(sys.version_info[:3], sys.executable),
        diagnosis.ros(probes["ros"], os.environ),
        diagnosis.torch(probes["torch"]),
        diagnosis.gpu(probes["torch"], card),
        diagnosis.mujoco(versions["mujoco"]),
        diagnosis.renderer(probes["renderer"], loader, card, os.geteuid() == 0),
        diagnosis.metaworld(probes["metaworld"]),
        diagnosis.language(probes["language"]),
        diagnosis.pictures(probes["pictures"]),
        shared_memory(),
        diagnosis.disk(folder, shutil.disk_usage(folder).free),
        diagnosis.libero(versions, probes.get("libero")),
        assets(),
    ]


def probe_all(timeout_s: float, libero: bool) -> dict[str, Probe]:
    """What all probes found, by name. Args: libero: whether to try LIBERO too."""
    with ExitStack() as running:
        started = {"ros": running.enter_context(RunningProbe(["-m", "trainer.probe_node"], timeout_s))}
        for name in PROBES:
            if name != "libero" or libero:
                started[name] = running.enter_context(RunningProbe(["-m", "trainer.probes", name], timeout_s))
        return {name: probe.result() for name, probe in started.items()}


def shared_memory() -> Finding:
    """What there is in /dev/shm, and what dead nodes hold of it."""
    if not SHARED_MEMORY.is_dir():
        return diagnosis.shared_memory(0, 0)
    usage = shutil.disk_usage(SHARED_MEMORY)
    return diagnosis.shared_memory(usage.total, usage.free, stale())


def assets() -> Finding:
    """LIBERO's assets."""
    try:
        found = locate_assets()
    except SimulatorError as error:
        return diagnosis.assets(None, str(error))
    files = [path for path in found.path.rglob("*") if path.is_file()]
    readme = found.path / "README.md"
    note = readme.read_text(errors="replace") if readme.is_file() else ""
    return diagnosis.assets(Assets(found.path, found.rule, sum(f.stat().st_size for f in files), len(files), note))

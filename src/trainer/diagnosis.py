"""What `encore doctor` makes of what it finds: a line for each part of the machine, and the command that mends it.

Pure functions from facts to findings; `probes.py` gathers the facts that take a process of their own.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rollout_manager.envs.libero.package import DOWNLOAD, INSTALL, PACKAGES, SCORED_MUJOCO, mujoco_effect
from rollout_manager.envs.opengl import LIBRARIES
from rollout_manager.shared_memory import Stale
from trainer.probes import Probe

State = Literal["ok", "note", "missing"]
"""`note`: it works, but there is something to know."""

GIB = 2**30
SEGMENT = 64 * 2**20
"""Bytes of shared memory a node takes, see config/fastdds_shm.xml."""
NODES = 4
"""Nodes of the largest graph: simulator, policy, expert, rollout manager."""
FEW_GIB, TOO_FEW_GIB = 5.0, 0.5
"""Free room on disk below which there is a note, and below which no run can be finished."""
WHOLE_ASSETS = 400 * 10**6
"""Bytes; the assets as published are 422 MB."""

SETUP = "make setup"
CLEAN = "fastdds shm clean"
"""Fast DDS's own command: removes the shared memory of processes that are dead, and nothing else."""
NOTHING_LEFT = Stale(0, 0)


@dataclass(frozen=True)
class Finding:
    """One part of the machine."""

    part: str
    state: State
    text: str
    mend: str = ""
    """The command that mends it; empty where nothing is to be done."""
    needed: bool = True
    """Whether the loop on MetaWorld needs it."""


@dataclass(frozen=True)
class Assets:
    """What is known of a folder of LIBERO's assets."""

    path: Path
    rule: str
    size: int
    """Bytes."""
    files: int
    note: str = ""
    """Its README, where it has one."""


def python(version: tuple[int, int, int], executable: str) -> Finding:
    text = f"{'.'.join(map(str, version))}, {executable}"
    if (3, 10) <= version[:2] <= (3, 12):
        return Finding("Python", "ok", text)
    return Finding("Python", "missing", f"{text}; 3.10 to 3.12 is needed", "ENCORE_PYTHON=python3.12 make setup")


def ros(probe: Probe, environment: Mapping[str, str]) -> Finding:
    """Args: environment: the environment variables."""
    distribution = environment.get("ROS_DISTRO", "")
    if probe.error:
        advice = "source /opt/ros/jazzy/setup.bash" if Path("/opt/ros/jazzy").is_dir() else SETUP
        return Finding("ROS 2", "missing", f"no node starts: {probe.error}", advice)
    place = str(probe.facts["rclpy"])
    # A sourced ROS may be hidden by wheels of the virtual environment: what counts is which rclpy was imported.
    prefixes = [p for p in environment.get("AMENT_PREFIX_PATH", "").split(":") if p]
    sourced = bool(distribution) and any(place.startswith(f"{prefix}/") for prefix in prefixes)
    text = f"{distribution} as sourced" if sourced else "Jazzy as wheels"
    text += f", {probe.facts['rmw']}, domain {probe.facts['domain']}"
    if (reach := environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")) != "":
        text += f", discovery {reach}"
    if sourced and distribution != "jazzy":
        return Finding("ROS 2", "note", f"{text}; Encore is tested with jazzy", "source /opt/ros/jazzy/setup.bash")
    return Finding("ROS 2", "ok", text)


def torch(probe: Probe) -> Finding:
    if probe.error:
        return Finding("torch", "missing", probe.error, SETUP)
    return Finding("torch", "ok", _build(probe))


def gpu(probe: Probe, card: bool) -> Finding:
    """Args: card: whether the system has an NVIDIA GPU, whatever torch thinks."""
    devices: Sequence[str] = probe.facts.get("devices", ())
    if devices:
        return Finding("GPU", "ok", ", ".join(devices), needed=False)
    if not card:
        return Finding("GPU", "note", "none; training and rendering run on the processor", needed=False)
    why = probe.error or f"{_build(probe)} does not see it"
    return Finding("GPU", "note", f"there is one, but {why}", "nvidia-smi", needed=False)


def _build(probe: Probe) -> str:
    cuda = probe.facts["cuda"]
    return f"{probe.facts['version']}, {f'built for CUDA {cuda}' if cuda else 'built without CUDA'}"


def mujoco(version: str | None) -> Finding:
    wanted = f"python -m pip install mujoco=={SCORED_MUJOCO}"
    if version is None:
        return Finding("MuJoCo", "missing", "not installed", SETUP)
    if effect := mujoco_effect(version):
        return Finding("MuJoCo", "note", f"{version}; LIBERO's scores hold for {SCORED_MUJOCO}: {effect}", wanted)
    return Finding("MuJoCo", "ok", f"{version}, the one that LIBERO's scores hold for")


def renderer(probe: Probe, loader: str, card: bool, root: bool = False) -> Finding:
    """Args: loader: MUJOCO_GL; card: whether there is an NVIDIA GPU; root: whether this user is."""
    if probe.error:
        return Finding("renderer", "missing", f"MUJOCO_GL={loader}: {probe.error}", renderer_advice(loader, root))
    facts = probe.facts
    red, green, blue = facts["middle_rgb"]
    text = f"MUJOCO_GL={loader}, {facts['renderer']}, {facts['frame_ms']:.1f} ms a small image of 128 px"
    if red < max(green, blue) + 64:
        advice = renderer_advice(loader, root)
        return Finding("renderer", "missing", f"{text}; a red box comes out as {facts['middle_rgb']}", advice)
    if card and loader == "osmesa":
        return Finding("renderer", "note", f"{text}; the GPU can do it", "export MUJOCO_GL=egl")
    if card and "llvmpipe" in facts["renderer"]:
        why = "the processor draws though there is a GPU: its OpenGL libraries are missing, in a container often"
        return Finding("renderer", "note", f"{text}; {why}", "docker run -e NVIDIA_DRIVER_CAPABILITIES=all ...")
    return Finding("renderer", "ok", text)


def renderer_advice(loader: str, root: bool) -> str:
    """The command after which MUJOCO_GL=loader renders, or another loader does."""
    if loader not in LIBRARIES:
        return "export MUJOCO_GL=osmesa"
    apt = "apt-get" if root else "sudo apt-get"
    return f"{apt} update && {apt} install -y {LIBRARIES[loader]}"


def metaworld(probe: Probe) -> Finding:
    if probe.error:
        return Finding("MetaWorld", "missing", probe.error, SETUP)
    return Finding("MetaWorld", "ok", f"{probe.facts['metaworld']}, {probe.facts['tasks']} tasks; one was stepped")


def libero(versions: Mapping[str, str | None], probe: Probe | None) -> Finding:
    """Args: versions: of LIBERO's packages, None where not installed; probe: of importing them, where it was tried."""
    found = ", ".join(f"{name} {versions[name] or 'missing'}" for name in PACKAGES)
    if any(versions[name] != wanted for name, wanted in PACKAGES.items()):
        wanted = ", ".join(f"{name} {version}" for name, version in PACKAGES.items())
        missing = all(versions[name] is None for name in PACKAGES)
        text = "not installed" if missing else f"{found}; wanted are {wanted}"
        return Finding("LIBERO", "missing", text, INSTALL, needed=False)
    if probe is not None and probe.error:
        return Finding("LIBERO", "missing", f"{found}, but: {probe.error}", INSTALL, needed=False)
    tasks = f", {probe.facts['tasks']} tasks" if probe is not None else ""
    return Finding("LIBERO", "ok", f"{found}{tasks}", needed=False)


def assets(found: Assets | None, error: str = "") -> Finding:
    """Args: found: the folder that is used; error: why there is none."""
    if found is None:
        return Finding("LIBERO assets", "missing", error, DOWNLOAD, needed=False)
    text = f"{found.path} ({found.rule}), {found.files} files, {found.size / 1e6:.0f} MB"
    if "stand-in" in found.note.lower():
        text += "; its README tells of stand-ins: images are not the official ones, say so beside every figure"
    elif found.size < WHOLE_ASSETS:
        text += "; the published ones have 422 MB, so images may differ from the official ones"
    else:
        return Finding("LIBERO assets", "ok", text, needed=False)
    return Finding("LIBERO assets", "note", text, needed=False)


def shared_memory(total: int, free: int, left: Stale = NOTHING_LEFT) -> Finding:
    """Args: total, free: bytes of /dev/shm, zero where there is none; left: what killed nodes have left there."""
    text = f"{free / GIB:.2f} of {total / GIB:.2f} GiB free in /dev/shm"
    if left.segments:
        text += f"; nodes that were killed left {left.segments} segments of {left.size / GIB:.2f} GiB in all"
    if free >= NODES * SEGMENT:
        return Finding("shared memory", "note" if left.segments else "ok", text, CLEAN if left.segments else "")
    text += f"; a graph of {NODES} nodes takes {NODES * SEGMENT / GIB:.2f} GiB"
    advice = CLEAN if free + left.size >= NODES * SEGMENT else "ls -lS /dev/shm"
    if total < NODES * SEGMENT:
        advice = "docker run --shm-size=1g ..."
    return Finding("shared memory", "note" if free >= SEGMENT else "missing", text, advice)


def disk(folder: Path, free: int) -> Finding:
    room = free / GIB
    text = f"{room:.1f} GiB free in {folder}"
    if room >= FEW_GIB:
        return Finding("disk", "ok", text)
    return Finding("disk", "note" if room >= TOO_FEW_GIB else "missing", text, f"du -sh {folder}/*")


def language(probe: Probe) -> Finding:
    if probe.error:
        return Finding("language encoder", "missing", probe.error, SETUP)
    size, width = probe.facts["megabytes"], probe.facts["width"]
    return Finding("language encoder", "ok", f"MiniLM, {width} wide, {size:.0f} MB of weights on disk")


def pictures(probe: Probe) -> Finding:
    if probe.error:
        libraries = "libGL" in probe.error or "libgthread" in probe.error
        advice = "sudo apt-get update && sudo apt-get install -y libgl1 libglib2.0-0" if libraries else SETUP
        return Finding("pictures", "missing", probe.error, advice)
    if not probe.facts["jpeg"] or not probe.facts["film_bytes"]:
        return Finding("pictures", "missing", f"cannot write JPEG or animated WebP: {dict(probe.facts)}", SETUP)
    return Finding("pictures", "ok", f"JPEG by OpenCV {probe.facts['opencv']}, films as animated WebP by Pillow")


def table(findings: Sequence[Finding], columns: int = 100) -> str:
    """The findings as text of at most `columns` characters a line; long words excepted."""
    part, state = (max(len(getattr(f, name)) for f in findings) for name in ("part", "state"))
    blank = " " * (part + state + 4)
    lines = []
    for finding in findings:
        told = [finding.text, *([f"mend: {finding.mend}"] if finding.mend else [])]
        width = max(columns - len(blank), 30)
        wrapped = [
            line for text in told for line in textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
        ]
        head = f"{finding.part:<{part}}  {finding.state:<{state}}  "
        lines += [f"{head if i == 0 else blank}{line}" for i, line in enumerate(wrapped)]
    return "\n".join(lines)


def verdict(findings: Sequence[Finding]) -> tuple[bool, str]:
    """Whether the loop on MetaWorld has what it needs, and what to say at the end."""
    missing = [f for f in findings if f.state == "missing"]
    needed = [f.part for f in missing if f.needed]
    optional = [f.part for f in missing if not f.needed]
    text = f"not ready: {', '.join(needed)} missing" if needed else "ready for the loop on MetaWorld"
    if optional:
        text += f"; optional and missing: {', '.join(optional)}"
    return not needed, text

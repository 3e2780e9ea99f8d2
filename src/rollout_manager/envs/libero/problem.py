"""LIBERO's own object of a task, built without what slows it down and without touching its classes."""

import pdb
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rollout_manager.envs.libero.light import check_files, lighten
from rollout_manager.envs.libero.package import load_package
from rollout_manager.envs.libero.suites import LiberoTask
from rollout_manager.exceptions import SimulatorError
from vla_policy_node.observation import Float64Array

Look = Literal["light", "full"]
RATE_HZ = 20


def build_problem(task: LiberoTask, assets: Path, look: Look) -> tuple[Any, tuple[Float64Array, Float64Array]]:
    """LIBERO's problem of a task: no renderer, no observations, nothing built anew at a reset.

    Returns:
        The problem, and the bodies' positions (nbody, 3) and quaternions (nbody, 4) as its files have them.

    Raises:
        SimulatorError: LIBERO is not installed, or the scene cannot be built of these assets.
    """
    package = load_package()
    from libero.libero.envs.bddl_utils import get_problem_info
    from robosuite import load_controller_config
    from robosuite.utils.errors import RandomizationError

    kind = package.problems[get_problem_info(str(task.bddl_file))["problem_name"]]
    package.use_assets(assets)
    prepare = lighten if look == "light" else check_files
    as_built: list[tuple[Float64Array, Float64Array]] = []

    def initialize() -> None:
        kind._initialize_sim(problem, prepare(problem.model.get_xml()))
        model = problem.sim.model._model
        as_built.append((model.body_pos.copy(), model.body_quat.copy()))

    problem = kind.__new__(kind)
    # Set on this one object, before its own __init__ calls them.
    problem._initialize_sim = initialize
    problem._setup_observables = OrderedDict  # A third of a step's time, and nobody looks: sensors read MjData.
    try:
        with numpy_seeded(0), no_debugger(RandomizationError("an object does not fit into its region")):
            problem.__init__(
                str(task.bddl_file),
                robots=["Panda"],
                controller_configs=load_controller_config(default_controller="OSC_POSE"),
                initialization_noise=None,
                use_camera_obs=False,
                has_renderer=False,
                has_offscreen_renderer=False,
                control_freq=RATE_HZ,
                ignore_done=True,
                hard_reset=False,
            )
    except (OSError, ValueError, KeyError, SyntaxError, RandomizationError) as error:
        raise SimulatorError(f"{task.name}: the scene cannot be built of the assets in {assets}: {error}") from error
    return problem, as_built[0]


@contextmanager
def no_debugger(error: Exception) -> Iterator[None]:
    """Where LIBERO would start its authors' debugger, and so wait for ever, raise `error`."""

    def refuse() -> None:
        raise error

    real, pdb.set_trace = pdb.set_trace, refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        pdb.set_trace = real


@contextmanager
def numpy_seeded(seed: int) -> Iterator[None]:
    """NumPy's global random numbers begin at `seed`; afterwards they go on as if nothing had been."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)

"""One task of LIBERO as a simulation of its own: exact resets, single actions, success as the benchmark reads it."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from rollout_manager.envs.libero.initial_states import STATES, read_initial_states
from rollout_manager.envs.libero.light import check_files, lighten
from rollout_manager.envs.libero.package import load_package
from rollout_manager.envs.libero.physics import Physics
from rollout_manager.envs.libero.suites import LiberoTask
from rollout_manager.envs.rendering import import_mujoco
from rollout_manager.exceptions import SimulatorError
from vla_policy_node.observation import Float64Array

Look = Literal["light", "full"]

FIRST_SAMPLED_SEED = 1000
"""From here on a seed samples a placement of its own; below, it is the number of one of the 50 initial states."""
SETTLING = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0])
"""No motion, open gripper."""
SETTLING_STEPS = 10
"""Control steps before the first observation, as in the field's evaluations; objects fall into place."""
RATE_HZ = 20
PLACING_TRIES = 20
"""Random placements tried before a reset fails; LIBERO itself goes on for ever."""


class LiberoScene:
    """One task's simulation. The task and the seed of `reset` decide everything in it, whatever went before."""

    def __init__(self, task: LiberoTask, assets: Path, look: Look = "light") -> None:
        """Args: assets: a folder of LIBERO's models; look: `light` changes what is seen, never what is touched.

        Raises:
            SimulatorError: LIBERO is not installed, or the scene cannot be built of these assets.
        """
        check_look(look)
        self.task = task
        self.problem: Any = _build(task, assets, look)
        self._mujoco = import_mujoco()
        self.model: Any = self.problem.sim.model._model
        self.data: Any = self.problem.sim.data._data
        self.goals: list[list[str]] = [list(goal) for goal in self.problem.parsed_problem["goal_state"]]
        """The predicates whose conjunction is success, such as ["on", "akita_black_bowl_1", "plate_1"]."""
        # They read forces, which nobody here looks at and no motion depends on.
        self.model.opt.disableflags |= self._mujoco.mjtDisableBit.mjDSBL_SENSOR
        self._physics = Physics(self.problem)

    @cached_property
    def initial_states(self) -> Float64Array:
        """The benchmark's, shape (50, 1 + nq + nv): time (s), qpos, qvel.

        Raises:
            SimulatorError: the file cannot be read, or is of another scene.
        """
        states = read_initial_states(self.task.states_file)
        width = 1 + self.model.nq + self.model.nv
        if states.shape[1] != width:
            raise SimulatorError(
                f"initial states {self.task.states_file}: {states.shape[1]} numbers a state, "
                f"but the scene of {self.task.name} has {width}; these assets are of another version"
            )
        return states

    def reset(self, seed: int) -> None:
        """Set up the initial state of a seed and let it settle.

        Args:
            seed: 0 to 49: the benchmark's initial state of that number; from 1000 on: a placement sampled with it.

        Raises:
            SimulatorError: another seed, or no placement of the objects was found.
        """
        check_seed(seed)
        with _numpy_seeded(seed):
            self._place(seed)
        self._physics.restart()
        if seed < FIRST_SAMPLED_SEED:
            self.problem.sim.set_state_from_flattened(self.initial_states[seed])
        self._mujoco.mj_forward(self.model, self.data)
        self.problem._post_process()
        for _ in range(SETTLING_STEPS):
            self._physics.step(SETTLING)
        self.problem._post_process()

    def step(self, action: Float64Array) -> None:
        """Advance by 1/20 s. Args: action: shape (7,), each in [-1, 1]."""
        self._physics.step(action)
        self.problem._post_process()  # Switches a stove's burner on, to be seen.

    def set_state(self, qpos: Float64Array, qvel: Float64Array) -> None:
        """Put everything where `qpos`, shape (nq,), and `qvel`, shape (nv,), say; the hand's goal is to stay there.

        Raises:
            SimulatorError: the state is of another scene.
        """
        if qpos.shape != (self.model.nq,) or qvel.shape != (self.model.nv,):
            raise SimulatorError(
                f"{self.task.name}: state of shapes {qpos.shape} and {qvel.shape}, "
                f"but the scene has {self.model.nq} positions and {self.model.nv} velocities"
            )
        self.data.qpos[:], self.data.qvel[:] = qpos, qvel
        self.data.qacc_warmstart[:] = 0.0
        self._mujoco.mj_forward(self.model, self.data)
        self._physics.hold()
        self.problem._post_process()

    def satisfied(self) -> tuple[bool, ...]:
        """Which of `goals` hold now; all of them together are the benchmark's success."""
        return tuple(bool(self.problem._eval_predicate(goal)) for goal in self.goals)

    def close(self) -> None:
        """Free the simulation; the scene may not be used any more."""
        self.problem.close()

    def _place(self, seed: int) -> None:
        """robosuite's reset: the arm at its start, fixtures and objects where NumPy's random numbers say."""
        from robosuite.utils.errors import RandomizationError

        for _ in range(PLACING_TRIES):
            try:
                self.problem.reset()
                return
            except RandomizationError as error:
                reason = error
        raise SimulatorError(
            f"{self.task.name}: no free place for all objects with seed {seed} in {PLACING_TRIES} tries: {reason}"
        )


def check_look(look: str) -> None:
    """Raises: SimulatorError: there is no such look."""
    if look not in get_args(Look):
        raise SimulatorError(f"libero: look '{look}' is not one of {', '.join(get_args(Look))}")


def check_seed(seed: int) -> None:
    """Raises: SimulatorError: a seed that is no initial state and samples none."""
    if not (0 <= seed < STATES or seed >= FIRST_SAMPLED_SEED):
        raise SimulatorError(
            f"libero: seed {seed} is none; 0 to {STATES - 1} are the benchmark's initial states, "
            f"{FIRST_SAMPLED_SEED} and more sample new placements"
        )


def _build(task: LiberoTask, assets: Path, look: Look) -> Any:
    """LIBERO's problem of a task: no renderer, no observations, nothing built anew at a reset.

    Raises:
        SimulatorError: as `LiberoScene`.
    """
    package = load_package()
    from libero.libero.envs.bddl_utils import get_problem_info
    from robosuite import load_controller_config

    kind = package.problems[get_problem_info(str(task.bddl_file))["problem_name"]]
    package.use_assets(assets)
    problem = kind.__new__(kind)
    # Set on this one object, before its own __init__ calls them.
    problem._setup_observables = OrderedDict  # A third of a step's time, and nobody looks: sensors read MjData.
    prepare = lighten if look == "light" else check_files
    problem._initialize_sim = lambda: kind._initialize_sim(problem, prepare(problem.model.get_xml()))
    try:
        with _numpy_seeded(0):
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
    except (OSError, ValueError, KeyError, SyntaxError) as error:
        raise SimulatorError(f"{task.name}: the scene cannot be built of the assets in {assets}: {error}") from error
    return problem


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """NumPy's global random numbers begin at `seed`; afterwards they go on as if nothing had been."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)

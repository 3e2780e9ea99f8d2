"""One task of LIBERO as a simulation of its own: exact resets, single actions, success as the benchmark reads it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np

from rollout_manager.envs.libero.initial_states import STATES, read_initial_states
from rollout_manager.envs.libero.physics import Aim, Physics
from rollout_manager.envs.libero.problem import Look, build_problem, no_debugger, numpy_seeded
from rollout_manager.envs.libero.suites import LiberoTask
from rollout_manager.envs.rendering import import_mujoco
from rollout_manager.exceptions import SimulatorError
from vla_policy_node.observation import Float64Array

FIRST_SAMPLED_SEED = 1000
"""From here on a seed samples a placement of its own; below, it is the number of one of the 50 initial states."""
SETTLING = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0])
"""No motion, open gripper."""
SETTLING_STEPS = 10
"""Control steps before the first observation, as in the field's evaluations; objects fall into place."""
PLACING_TRIES = 20
"""Random placements tried before a reset fails; LIBERO itself goes on for ever."""
SETTLED_KEPT = 200
"""Initial states a scene keeps as they are once settled, some 10 kB each: the next reset to one takes no time."""
USELESS = 1e10
"""An acceleration with which no solver would begin."""


@dataclass(frozen=True)
class _Settled:
    """All that decides how a scene goes on from its first observation."""

    simulation: Float64Array
    """MuJoCo's integration state."""
    body_pos: Float64Array
    body_quat: Float64Array
    """Fixtures are moved in the model itself."""
    aim: Aim


class LiberoScene:
    """One task's simulation. The task and the seed of `reset` decide everything in it, whatever went before."""

    def __init__(self, task: LiberoTask, assets: Path, look: Look = "light") -> None:
        """Args: assets: a folder of LIBERO's models; look: `light` changes what is seen, never what is touched.

        Raises:
            SimulatorError: LIBERO is not installed, or the scene cannot be built of these assets.
        """
        check_look(look)
        self.task = task
        self.problem: Any
        self.problem, self._as_built = build_problem(task, assets, look)
        self._mujoco = import_mujoco()
        self.model: Any = self.problem.sim.model._model
        self.data: Any = self.problem.sim.data._data
        self.goals: list[list[str]] = [list(goal) for goal in self.problem.parsed_problem["goal_state"]]
        """The predicates whose conjunction is success, such as ["on", "akita_black_bowl_1", "plate_1"]."""
        # They read forces, which nobody here looks at and no motion depends on.
        self.model.opt.disableflags |= self._mujoco.mjtDisableBit.mjDSBL_SENSOR
        self._physics = Physics(self.problem)
        self.problem.sim.reset = self._clear
        self._settled: dict[int, _Settled] = {}

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
        if seed in self._settled:
            self._restore(self._settled[seed])
        else:
            self._settle(seed)
            if len(self._settled) >= SETTLED_KEPT:
                self._settled.pop(next(iter(self._settled)))
            self._settled[seed] = self._settled_state()
        # Contacts and poses are those of now; where the solver starts next is not theirs to change.
        warmstart = self.data.qacc_warmstart.copy()
        self._mujoco.mj_forward(self.model, self.data)
        self.data.qacc_warmstart[:] = warmstart
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

    def _settle(self, seed: int) -> None:
        with numpy_seeded(seed):
            self._place()
        self._physics.restart()
        if seed < FIRST_SAMPLED_SEED:
            self.problem.sim.set_state_from_flattened(self.initial_states[seed])
            self._mujoco.mj_forward(self.model, self.data)
        for _ in range(SETTLING_STEPS):
            self._physics.step(SETTLING)

    def _place(self) -> None:
        """robosuite's reset: the arm at its start, fixtures and objects where NumPy's random numbers say.

        On the way it makes forward passes with all objects in one heap at the origin, which take longer than all else
        in it. They leave nothing but a place for the solver to begin, which it makes use of only where something is
        touched in the placement. So they are made without contacts, and once more as they are where it matters.
        """
        numbers = np.random.get_state()
        no_contacts = self._mujoco.mjtDisableBit.mjDSBL_CONTACT.value
        self.model.opt.disableflags |= no_contacts
        try:
            self._reset_problem()
        finally:
            self.model.opt.disableflags &= ~no_contacts
        self.data.qacc_warmstart[:] = USELESS
        self._mujoco.mj_forward(self.model, self.data)
        if self.data.ncon:
            np.random.set_state(numbers)
            self._reset_problem()

    def _clear(self) -> None:
        """MuJoCo's reset and a forward pass, which is how robosuite leaves a simulation that it has built anew."""
        self._mujoco.mj_resetData(self.model, self.data)
        self._mujoco.mj_forward(self.model, self.data)

    def _reset_problem(self) -> None:
        """Raises: SimulatorError: the objects do not find their places."""
        from robosuite.utils.errors import RandomizationError

        for _ in range(PLACING_TRIES):
            # Objects on a fixture are placed as if it still stood where its file says.
            self.model.body_pos[:], self.model.body_quat[:] = self._as_built
            try:
                with no_debugger(RandomizationError("an object does not fit into its region")):
                    self.problem.reset()
                return
            except RandomizationError as error:
                reason = str(error)
        raise SimulatorError(f"{self.task.name}: no free place for all objects in {PLACING_TRIES} tries: {reason}")

    def _settled_state(self) -> _Settled:
        mujoco, model, data = self._mujoco, self.model, self.data
        everything = mujoco.mjtState.mjSTATE_INTEGRATION.value
        state = np.empty(mujoco.mj_stateSize(model, everything))
        mujoco.mj_getState(model, data, state, everything)
        return _Settled(state, model.body_pos.copy(), model.body_quat.copy(), self._physics.aim())

    def _restore(self, settled: _Settled) -> None:
        self.model.body_pos[:], self.model.body_quat[:] = settled.body_pos, settled.body_quat
        everything = self._mujoco.mjtState.mjSTATE_INTEGRATION.value
        self._mujoco.mj_setState(self.model, self.data, settled.simulation, everything)
        self._physics.take_aim(settled.aim)


def check_look(look: str) -> None:
    """Raises: SimulatorError: there is no such look."""
    if look not in get_args(Look):
        raise SimulatorError(f"libero: look '{look}' is not one of {', '.join(get_args(Look))}")


def check_seed(seed: int) -> None:
    """Raises: SimulatorError: a seed that is no initial state and samples none."""
    if not (0 <= seed < STATES or seed >= FIRST_SAMPLED_SEED):
        raise SimulatorError(
            f"libero: seed {seed} is out of range: 0 to {STATES - 1} are the benchmark's initial states, "
            f"{FIRST_SAMPLED_SEED} and more sample new placements"
        )

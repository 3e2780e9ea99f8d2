"""An environment in which a task has succeeded when one's own rule says so."""

from rollout_manager.env import Env, Landmarks, StepResult
from rollout_manager.exceptions import SimulatorError
from rollout_manager.success import RULES_VERSION
from rollout_manager.success_rules import Judge, SuccessRules
from vla_policy_node.observation import Float32Array, Float64Array, Readings
from vla_policy_node.spec import RobotSpec


class RuledEnv:
    """An `Env` as it is, but for what counts as success and how much of it is reached."""

    def __init__(self, env: Env, rules: SuccessRules) -> None:
        """Raises: SimulatorError: a rule is for a task that the environment does not have."""
        for task in rules.rules:
            env.instruction(task)
        self._env, self._rules = env, rules
        self._judge: Judge | None = None

    @property
    def name(self) -> str:
        return self._env.name

    @property
    def spec(self) -> RobotSpec:
        return self._env.spec

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those that there are rules for."""
        return tuple(self._rules.rules)

    def instruction(self, task: str) -> str:
        return self._env.instruction(task)

    def default_time_limit(self, task: str) -> int:
        return self._env.default_time_limit(task)

    def reset(self, task: str, seed: int) -> None:
        """Raises: SimulatorError: no rule for the task, or one of what the scene does not have, or as the inner one."""
        if task not in self._rules.rules:
            raise SimulatorError(f"task '{task}' has no success rule; those that have: {', '.join(self.tasks)}")
        self._judge = None
        self._env.reset(task, seed)
        judge = self._rules.rules[task].judge()
        judge.update(self._env.landmarks())
        self._judge = judge

    def step(self, action: Float32Array) -> StepResult:
        """Raises: SimulatorError: not reset, or as the inner one."""
        if self._judge is None:
            raise SimulatorError(f"{self.name}: no task is set up; call reset(task, seed) first")
        result = self._env.step(action)
        progress = self._judge.update(self._env.landmarks())
        return StepResult(progress == 1.0, progress, result.failure)

    def read(self, cameras: bool = True) -> Readings:
        return self._env.read(cameras)

    def privileged_state(self) -> Float64Array:
        return self._env.privileged_state()

    def landmarks(self) -> Landmarks:
        return self._env.landmarks()

    def versions(self) -> dict[str, str]:
        return {**self._env.versions(), RULES_VERSION: self._rules.digest}

    def close(self) -> None:
        self._env.close()

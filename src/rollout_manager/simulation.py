"""One try in a simulated robot as others drive it from outside: reset, observe, apply, ended. No ROS, no clock."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rollout_manager.env import Env, StepResult
from rollout_manager.episode import BestProgress, Ending, Outcome
from rollout_manager.exceptions import RolloutError, SimulatorError
from vla_policy_node.messages import MessageMaker
from vla_policy_node.observation import Float32Array, Float64Array, Readings
from vla_policy_node.spec import NANOSECONDS

STAMP_LABEL = "stamp_ns"

TRY_PARAMETERS: dict[str, tuple[Any, str]] = {
    "task": ("", "task that ~/reset sets up, by its full name"),
    "seed": (0, "initial state that ~/reset sets up"),
    "time_limit_steps": (0, "steps after which the try is truncated; 0: the task's own limit"),
    "episode_id": ("", "name of the try, told again with its outcome"),
    "attempt": (0, "which try from this initial state it is, told again with its outcome"),
}
"""What a node is told of a try before `~/reset`: default and meaning by name."""
WHICH_TRY = ("episode_id", "task", "seed", "attempt")
"""Those of them that say which try it is; told again with its outcome."""


@dataclass(frozen=True)
class TaskInfo:
    """What a simulator says of the try that it has set up; travels as JSON."""

    environment: str
    task: str
    instruction: str
    seed: int
    robot: str
    spec_digest: str
    time_limit_steps: int
    first_stamp_ns: int
    """Stamp of the first observation; the k-th is k periods later."""
    versions: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Simulation:
    """An environment, the try it is in, and that try's clock: one period a step, never backwards."""

    def __init__(self, env: Env, apart_ns: int = NANOSECONDS) -> None:
        """Args: apart_ns: between the stamps of two tries, so that no observation of the one can pass for one of the
        other; 0 where stamps are those of a clock, which sees to that itself: a try's own time would be ahead of it,
        and everything count as an earlier try's until the clock has caught up."""
        self._apart_ns = apart_ns
        self.env = env
        self.info: TaskInfo | None = None
        self.outcome: Outcome | None = None
        self.stamp_ns = 0
        self._steps = self._human_steps = self._asked = 0
        self._best = BestProgress()

    def reset(self, task: str, seed: int, time_limit_steps: int, now_ns: int) -> TaskInfo:
        """Set up a try.

        Args:
            time_limit_steps: 0 for the environment's own.
            now_ns: its first stamp, unless the last try's stamps came as far as that.

        Raises:
            SimulatorError: unknown task or seed, or a negative time limit.
        """
        if time_limit_steps < 0:
            raise SimulatorError(f"time_limit_steps {time_limit_steps} is negative; 0 means the task's own limit")
        self.info = None
        self.env.reset(task, seed)
        self.outcome, self._best = None, BestProgress()
        self._steps = self._human_steps = self._asked = 0
        self.stamp_ns = max(now_ns, self.stamp_ns + self._apart_ns) if self._apart_ns else now_ns
        self.info = TaskInfo(
            environment=self.env.name,
            task=task,
            instruction=self.env.instruction(task),
            seed=seed,
            robot=self.env.spec.name,
            spec_digest=self.env.spec.digest,
            time_limit_steps=time_limit_steps or self.env.default_time_limit(task),
            first_stamp_ns=self.stamp_ns,
            versions=dict(self.env.versions()),
        )
        return self.info

    @property
    def running(self) -> bool:
        """A try is set up and has not ended."""
        return self.info is not None and self.outcome is None

    def read(self) -> Readings:
        """All sensors now, at `stamp_ns`."""
        return self.env.read(cameras=True)

    def apply(self, action: Float32Array) -> Outcome | None:
        """Apply one action, shape (A,), and go on by one period; the outcome where that ended the try.

        Raises:
            SimulatorError: no try is running, or the environment cannot take the action.
        """
        if not self.running:
            raise SimulatorError("no try is running; reset first")
        return self.judge(self.env.step(action))

    def human_asked(self) -> None:
        """A human asked for the action of a step, which comes next or has just come."""
        self._asked += self.running

    def judge(self, result: StepResult) -> Outcome | None:
        """Count one more period and what it led to; the outcome where that ended the try.

        Raises:
            SimulatorError: no try is running.
        """
        if self.info is None or self.outcome is not None:
            raise SimulatorError("no try is running; reset first")
        self._steps += 1
        if self._asked:
            self._asked, self._human_steps = self._asked - 1, self._human_steps + 1
        self.stamp_ns += self.env.spec.period_ns
        self._best.see(1.0 if result.success else result.progress, self._steps)
        if result.success:
            self.outcome = self._ended("success")
        elif result.failure:
            self.outcome = self._ended("failure")
        elif self._steps >= self.info.time_limit_steps:
            self.outcome = self._ended("truncated")
        return self.outcome

    def abort(self, reason: str) -> Outcome:
        """End the try for a reason that says nothing about the task."""
        self.outcome = self._ended("aborted", reason)
        return self.outcome

    def _ended(self, ending: Ending, reason: str = "") -> Outcome:
        return Outcome(ending, self._steps, self._best.value, reason, self._human_steps, self._best.steps)


def refusal(env: Env, name: str, value: Any) -> str:
    """Why one of `TRY_PARAMETERS` cannot have a value; empty where it can."""
    if name == "task" and value not in ("", *env.tasks):
        try:
            env.instruction(value)
        except RolloutError as error:
            return str(error)
    if name in ("seed", "time_limit_steps") and value < 0:
        return f"{name} {value} is negative"
    return ""


def outcome_text(about: Mapping[str, Any], outcome: Outcome) -> str:
    """What is said on /episode/outcome: JSON. Args: about: which try it was, and what else is to be told of it."""
    return json.dumps({**about, **outcome.to_dict()}, sort_keys=True)


def state_to_message(make: MessageMaker, stamp_ns: int, state: Float64Array) -> Any:
    """Privileged state (S,) as a Float64MultiArray, which has no header: the stamp is its dimension's label."""
    dimension = make(
        "std_msgs/msg/MultiArrayDimension", label=f"{STAMP_LABEL}={stamp_ns}", size=state.size, stride=state.size
    )
    layout = make("std_msgs/msg/MultiArrayLayout", dim=[dimension], data_offset=0)
    return make("std_msgs/msg/Float64MultiArray", layout=layout, data=state)


def state_stamp(msg: Any) -> int:
    """The stamp in ns that `state_to_message` put in. Raises: SimulatorError: there is none."""
    label = msg.layout.dim[0].label if len(msg.layout.dim) == 1 else ""
    name, _, value = label.partition("=")
    if name != STAMP_LABEL or not value.isdigit():
        raise SimulatorError(f"privileged state with label '{label}'; expected '{STAMP_LABEL}=<ns>'")
    return int(value)

"""The one loop of an episode in process: observe, decide, tell the observers, apply.

A simulator over ROS runs the same steps in the same order with the same stamps, so both give the same actions.
"""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rollout_manager.env import Env
from rollout_manager.episode import (
    BestProgress,
    ControlMode,
    Ending,
    EpisodeHeader,
    LabelSource,
    Outcome,
    episode_id,
)
from rollout_manager.episode import Driver as DriverName
from rollout_manager.exceptions import RolloutError
from vla_policy_node.events import SafetyEvent
from vla_policy_node.exceptions import PolicyNodeError
from vla_policy_node.observation import (
    Float32Array,
    Float64Array,
    Missing,
    Observation,
    ObservationBuffer,
    Readings,
    proprioception_of,
)
from vla_policy_node.policy import ActionChunk

START_NS = 1_000_000_000
"""Stamp of an episode's first observation; the k-th is `period_ns` * k later."""


@dataclass(frozen=True)
class Decision:
    """What a driver decided at one tick."""

    action: Float32Array
    """The command that is sent, shape (A,), within the spec's limits."""
    chunk: ActionChunk | None = None
    """What was proposed at this tick, if anything was."""
    trouble: str = ""
    """What the driver says went wrong so far; the reason of a try that runs out of time."""
    event: SafetyEvent | None = None
    """What has changed with this command in how what is asked for is held or limited, if anything has."""


@dataclass(frozen=True)
class StepRecord:
    """What happened at one tick."""

    stamp_ns: int
    readings: Readings | None
    """Of all cameras, from before the action; None where no observer needs images."""
    chunk: ActionChunk | None
    """What was proposed at this tick, if anything was."""
    action: Float32Array
    """The command that was sent, shape (A,)."""
    event: SafetyEvent | None = None
    """As of `Decision`."""


@dataclass(frozen=True)
class EpisodeResult:
    """One episode that is over."""

    header: EpisodeHeader
    outcome: Outcome


class Observer(Protocol):
    """Is told what happens in an episode, and never steers it."""

    @property
    def needs_images(self) -> bool:
        """Whether every tick is to be rendered for it."""
        ...

    def start(self, header: EpisodeHeader) -> None:
        """An episode begins."""
        ...

    def step(self, record: StepRecord) -> None:
        """An action was decided, and is applied next."""
        ...

    def finish(self, outcome: Outcome, stamp_ns: int, readings: Readings | None) -> None:
        """The episode is over; `readings` are the last ones, None as in `StepRecord` or where it was aborted."""
        ...


class Tick:
    """One tick as a driver may look at it. Nothing is rendered before somebody asks."""

    def __init__(self, env: Env, buffer: ObservationBuffer, stamp_ns: int) -> None:
        self.stamp_ns = stamp_ns
        self._env = env
        self._buffer = buffer
        self._readings: Readings | None = None

    def readings(self) -> Readings:
        """All cameras and joints now."""
        if self._readings is None:
            self._readings = self._env.read(cameras=True)
        return self._readings

    def observation(self) -> Observation:
        """What the policy gets, made by the code that makes it on a live robot.

        Raises:
            RolloutError: the environment lacks something that the spec names.
        """
        self._buffer.add_readings(self.stamp_ns, self.readings())
        observation = self._buffer.assemble()
        if isinstance(observation, Missing):
            raise RolloutError(f"environment '{self._env.name}': no observation: {'; '.join(observation.reasons)}")
        return observation

    def proprioception(self) -> Float32Array:
        """What the robot senses of itself now, shape (P,); nothing is rendered for it."""
        readings = self._readings or self._env.read(cameras=False)
        return proprioception_of(self._env.spec, readings.joints, readings.ee_pose)

    def privileged_state(self) -> Float64Array:
        """For scripted experts, shape (S,)."""
        return self._env.privileged_state()


class Driver(Protocol):
    """Decides what the robot does."""

    def reset(self, header: EpisodeHeader) -> None:
        """Start a new episode; all that is random in it is fixed by `driver_seed`."""
        ...

    def step(self, tick: Tick) -> Decision: ...


def driver_seed(seed: int, attempt: int) -> int:
    """The seed of a driver's own randomness: another one for every try from the same initial state."""
    return seed * 100 + attempt


def new_header(
    env: Env,
    task: str,
    seed: int,
    *,
    driver: DriverName,
    control_mode: ControlMode = "in_process",
    attempt: int = 0,
    exploration: float = 0.0,
    checkpoint_digest: str = "",
    label_source: LabelSource | None = None,
    time_limit: int | None = None,
) -> EpisodeHeader:
    """The header of a try in `env`, with the environment's own time limit unless one is given.

    Explored and expert episodes are labelled by what was proposed: what was sent carries noise.

    Raises:
        SimulatorError: unknown task.
    """
    noisy: LabelSource = "proposed" if driver == "expert" or exploration > 0 else "sent"
    return EpisodeHeader(
        episode_id=episode_id(env.name, task, seed, attempt),
        environment=env.name,
        task=task,
        instruction=env.instruction(task),
        seed=seed,
        robot=env.spec.name,
        spec_digest=env.spec.digest,
        driver=driver,
        control_mode=control_mode,
        checkpoint_digest=checkpoint_digest,
        label_source=label_source or noisy,
        attempt=attempt,
        exploration=exploration,
        time_limit_steps=env.default_time_limit(task) if time_limit is None else time_limit,
        versions=env.versions(),
    )


@dataclass
class _Progress:
    """How far the episode has come; what an abort reports."""

    stamp_ns: int
    steps: int = 0
    best: BestProgress = field(default_factory=BestProgress)
    trouble: str = ""

    def outcome(self, ending: Ending, reason: str = "") -> Outcome:
        """How the episode ended, if it ended now."""
        return Outcome(ending, self.steps, self.best.value, reason, progress_steps=self.best.steps)


def run_episode(
    env: Env,
    driver: Driver,
    header: EpisodeHeader,
    time_limit: int,
    observers: Sequence[Observer] = (),
    start_ns: int = START_NS,
) -> EpisodeResult:
    """Run one try to its end: the task ends it, or `time_limit` steps do.

    Whatever error stops it half-way, the observers are told `aborted` before it is raised.
    """
    if time_limit < 1:
        raise RolloutError(f"episode '{header.episode_id}': time limit {time_limit} is not positive")
    images = any(observer.needs_images for observer in observers)
    so_far = _Progress(start_ns)
    started: list[Observer] = []
    try:
        for observer in observers:
            observer.start(header)
            started.append(observer)
        outcome = _run(env, driver, header, time_limit, observers, images, so_far)
        last = env.read(cameras=True) if images else None
    except BaseException as error:
        aborted = so_far.outcome("aborted", describe(error))
        for observer in started:
            observer.finish(aborted, so_far.stamp_ns, None)
        raise
    for observer in observers:
        observer.finish(outcome, so_far.stamp_ns, last)
    return EpisodeResult(header, outcome)


def describe(error: BaseException) -> str:
    """An error in one line, as the reason of an aborted episode; one that nobody raised on purpose with its place."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "interrupted"
    text = " ".join(str(error).split())
    if isinstance(error, RolloutError | PolicyNodeError):
        return text
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = "".join(f" ({Path(frame.filename).name}, line {frame.lineno})" for frame in last)
    return f"{type(error).__name__}: {text}{place}"


def _run(
    env: Env,
    driver: Driver,
    header: EpisodeHeader,
    time_limit: int,
    observers: Sequence[Observer],
    images: bool,
    so_far: _Progress,
) -> Outcome:
    env.reset(header.task, header.seed)
    buffer = ObservationBuffer(env.spec, depth=1)
    buffer.instruction = header.instruction
    driver.reset(header)
    while so_far.steps < time_limit:
        tick = Tick(env, buffer, so_far.stamp_ns)
        decision = driver.step(tick)
        readings = tick.readings() if images else None
        record = StepRecord(tick.stamp_ns, readings, decision.chunk, decision.action, decision.event)
        for observer in observers:
            observer.step(record)
        result = env.step(decision.action)
        so_far.steps += 1
        so_far.stamp_ns += env.spec.period_ns
        so_far.best.see(1.0 if result.success else result.progress, so_far.steps)
        so_far.trouble = decision.trouble
        if result.success or result.failure:
            return so_far.outcome("success" if result.success else "failure")
    return so_far.outcome("truncated", so_far.trouble)

"""A worker of the pool: reads requests from stdin, makes the tries, writes results to stdout. Lines of JSON."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rollout_manager.decisions import DecisionLog, ReplayDriver
from rollout_manager.drivers import ExpertDriver, NoDriver, PolicyDriver, TakeoverDriver
from rollout_manager.env import Env
from rollout_manager.envs.registry import make_env
from rollout_manager.episode import EpisodeHeader
from rollout_manager.exceptions import SimulatorError
from rollout_manager.experts.demonstrator import Demonstrator
from rollout_manager.experts.expert import Expert, expert_noise, make_expert
from rollout_manager.pool_request import EpisodeRequest
from rollout_manager.rollout import Decision, Driver, EpisodeResult, Observer, Tick, describe, new_header, run_episode
from rollout_manager.success import simulator_label
from vla_policy_node.chunking import make_executor
from vla_policy_node.end_effector import make_safety_filter
from vla_policy_node.spec import load_spec

if TYPE_CHECKING:  # It imports torch, which only policies need.
    from vla_policy_node.network_policy import NetworkPolicy


class Termination:
    """SIGTERM ends a worker: at once while it has no episode, else between two steps.

    An exception raised by a signal handler can land inside a callback of the renderer or the simulator, which turns
    it into an error of its own.
    """

    def __init__(self) -> None:
        self._asked = False
        self._deferred = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The signal's handler."""
        self._asked = True
        if not self._deferred:
            raise SystemExit(128 + number)

    def check(self) -> None:
        """Raises: SystemExit: told to end; it unwinds the episode, so that its bag is closed as aborted."""
        if self._asked:
            raise SystemExit(128 + signal.SIGTERM)

    @contextlib.contextmanager
    def between_steps(self) -> Iterator[None]:
        """Within this, only `check` ends the process."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        self.check()


class Stoppable:
    """A driver at whose every step the process can be ended."""

    def __init__(self, driver: Driver, termination: Termination) -> None:
        self._driver = driver
        self._termination = termination

    def reset(self, header: EpisodeHeader) -> None:
        self._driver.reset(header)

    def step(self, tick: Tick) -> Decision:
        self._termination.check()
        return self._driver.step(tick)

    def replaying(self, decisions: Sequence[Decision]) -> "Stoppable":
        """One that gives back decisions made earlier."""
        return Stoppable(ReplayDriver(decisions), self._termination)


class Worker:
    """Makes tries one after the other; keeps the simulators and the last policy."""

    def __init__(self, termination: Termination) -> None:
        self._termination = termination
        self._envs: dict[tuple[str, str | None, str], Env] = {}
        self._experts: dict[str, Expert] = {}
        self._policy: tuple[tuple[str, int, str], NetworkPolicy] | None = None

    def run(self, request: EpisodeRequest) -> EpisodeResult:
        """One try, recorded as the request says."""
        env = self._env(request)
        driver, digest = self._driver(request, env)
        header = new_header(
            env,
            request.task,
            request.seed,
            driver=request.driver,
            attempt=request.attempt,
            exploration=request.exploration,
            checkpoint_digest=digest,
            time_limit=request.time_limit,
        )
        with self._termination.between_steps():
            result = _record(request, env, Stoppable(driver, self._termination), header)
            if request.record == "all" or (request.record == "successes" and result.outcome.success):
                _label(request, result)
        return result

    def close(self) -> None:
        for env in self._envs.values():
            env.close()

    def _env(self, request: EpisodeRequest) -> Env:
        key = (request.environment, request.robot, request.rules)
        if key not in self._envs:
            spec = None if request.robot is None else load_spec(request.robot)
            self._envs[key] = make_env(request.environment, spec, request.rules)
        return self._envs[key]

    def _driver(self, request: EpisodeRequest, env: Env) -> tuple[Driver, str]:
        """The driver, and the digest of its checkpoint."""
        if request.driver == "none":
            return NoDriver(make_safety_filter(env.spec)), ""
        if request.driver == "policy":
            return self._policy_driver(request, env, request.exploration)
        noise = expert_noise(request.environment, env.spec, request.exploration, request.noise_correlation)
        expert = ExpertDriver(
            Demonstrator(self._expert(request.environment), env.spec, noise, request.slips, request.pushes)
        )
        if request.checkpoint is None:
            return expert, ""
        policy, digest = self._policy_driver(request, env, exploration=0.0)
        return TakeoverDriver(policy, expert, request.takeover), digest

    def _policy_driver(self, request: EpisodeRequest, env: Env, exploration: float) -> tuple[PolicyDriver, str]:
        from vla_policy_node.exploration import exploring

        policy = self._load(request, env)
        executor = make_executor(request.execute, env.spec.period_ns, request.execute_every)
        safety = make_safety_filter(env.spec)
        return PolicyDriver(exploring(policy, exploration), executor, safety), policy.checkpoint_digest

    def _expert(self, environment: str) -> Expert:
        if environment not in self._experts:
            self._experts[environment] = make_expert(environment)
        return self._experts[environment]

    def _load(self, request: EpisodeRequest, env: Env) -> "NetworkPolicy":
        import torch

        from vla_policy_node.network_policy import NetworkPolicy

        torch.set_num_threads(1)  # There is a worker a core.
        folder = Path(request.checkpoint or "")
        written = folder.stat().st_mtime_ns if folder.is_dir() else 0
        key = (str(folder), written, request.device)
        if self._policy is None or self._policy[0] != key:
            self._policy = key, NetworkPolicy.load(folder, env.spec, request.device)
        return self._policy[1]


def _record(request: EpisodeRequest, env: Env, driver: Stoppable, header: EpisodeHeader) -> EpisodeResult:
    """Run the episode. To record successes only, run it unrendered, and the same actions again where it succeeds.

    Raises:
        SimulatorError: the second run went another way.
    """
    if request.record != "successes":
        recorders = [_recorder(request, env)] if request.record == "all" else []
        return run_episode(env, driver, header, header.time_limit_steps, recorders)
    log = DecisionLog()
    first = run_episode(env, driver, header, header.time_limit_steps, [log])
    if not first.outcome.success:
        return first
    again = run_episode(env, driver.replaying(log.decisions), header, len(log.decisions), [_recorder(request, env)])
    if again.outcome != first.outcome:
        raise SimulatorError(f"episode '{header.episode_id}': replay ended as {again.outcome}, not as {first.outcome}")
    return again


def _recorder(request: EpisodeRequest, env: Env) -> Observer:
    from rollout_manager.recorder import BagObserver

    assert request.bag_root is not None
    return BagObserver(Path(request.bag_root), env.spec)


def _label(request: EpisodeRequest, result: EpisodeResult) -> None:
    from rollout_manager.labels import append_label

    assert request.bag_root is not None
    append_label(Path(request.bag_root) / request.episode_id, simulator_label(result.header, result.outcome))


def attempt(worker: Worker, line: str) -> EpisodeResult:
    """One request's result; whatever goes wrong in it is an aborted episode with its reason."""
    request = EpisodeRequest(**json.loads(line))
    try:
        return worker.run(request)
    except Exception as error:  # noqa: BLE001 - the boundary of a process: the others go on
        return request.aborted(describe(error))


def main() -> None:
    """Serve requests until there are no more."""
    termination = Termination()
    signal.signal(signal.SIGTERM, termination.handle)
    results = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # What libraries print must not get among the results.
    _write(results, {"ready": os.getpid()})
    worker = Worker(termination)
    for line in sys.stdin:
        result = attempt(worker, line)
        _write(results, {"header": result.header.to_dict(), "outcome": result.outcome.to_dict()})
    worker.close()


def _write(stream: Any, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()


if __name__ == "__main__":
    main()

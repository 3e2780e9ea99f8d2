"""One try on a live graph, from reset to recorded bag: the order of things, without ROS."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rollout_manager.episode import ControlMode, EpisodeHeader, Outcome
from rollout_manager.exceptions import RolloutError
from rollout_manager.rollout import EpisodeResult
from rollout_manager.schedule import Schedule, Try
from rollout_manager.simulation import TaskInfo


class NodeLostError(RolloutError):
    """A node of the graph died, hangs, or says nothing; the try is aborted, the next may do."""


class RefusedError(RolloutError):
    """A node refuses what the schedule asks for; another try of it would be refused as well."""


class GraphLink(Protocol):
    """What the manager does to the nodes. Every call may raise NodeLostError, and RefusedError where noted."""

    def disable(self) -> None:
        """Take the robot out of the driver's hands."""
        ...

    def reset(self, attempt: Try) -> TaskInfo:
        """Set the simulator up. Raises: RefusedError: unknown task or seed."""
        ...

    def prepare(self, attempt: Try, info: TaskInfo) -> str:
        """Give the instruction, and the driver its parameters and checkpoint; returns the checkpoint's digest.

        Raises:
            RefusedError: the driver does not take them.
        """
        ...

    def enable(self) -> None:
        """Put the robot into the driver's hands. Raises: RefusedError."""
        ...

    def run(self) -> None:
        """Start the simulator. Raises: RefusedError."""
        ...

    def watch(self) -> Outcome:
        """Wait for the outcome."""
        ...

    def stop(self) -> None:
        """Take the robot out of the driver's hands, stop the simulator, and wait for its last observation."""
        ...

    def stand_down(self) -> None:
        """Take the robot out of the driver's hands after something went wrong: at once, or not at all. Never raises."""
        ...


class Recording(Protocol):
    """Where the try is recorded."""

    def begin(self, header: EpisodeHeader, info: TaskInfo) -> None:
        """Record from now on. Raises: BagError: it cannot be recorded."""
        ...

    def finish(self, outcome: Outcome) -> Path | None:
        """Close the bag; its path, None where none is kept. Raises: BagError: the disk refused."""
        ...


@dataclass(frozen=True)
class TryResult:
    """One try that is over; `bag` is None where none was kept."""

    episode: EpisodeResult
    bag: Path | None


def run_try(
    link: GraphLink, recording: Recording, schedule: Schedule, attempt: Try, mode: ControlMode, unknown: TaskInfo
) -> TryResult:
    """Make one try.

    The driver is disabled while the simulator is reset, the recorder runs before the driver is enabled, and the
    simulator starts last, so that nothing is missed and nothing of an earlier try is answered.

    Args:
        unknown: what the header says of the task where the simulator was lost before it could tell.

    Raises:
        RefusedError: what is asked for is not possible. BagError: it cannot be recorded.
    """
    info, digest, begun = unknown, "", False
    try:
        link.disable()
        info = link.reset(attempt)
        digest = link.prepare(attempt, info)
        header = header_of(schedule, attempt, info, digest, mode)
        recording.begin(header, info)
        begun = True
        link.enable()
        link.run()
        outcome = link.watch()
        link.stop()
    except (RolloutError, KeyboardInterrupt) as error:
        link.stand_down()  # The robot first, the books after it.
        outcome = Outcome("aborted", 0, reason=str(error) if isinstance(error, RolloutError) else "interrupted")
        bag = recording.finish(outcome) if begun else None
        if not isinstance(error, NodeLostError):
            raise
        return TryResult(EpisodeResult(header_of(schedule, attempt, info, digest, mode), outcome), bag)
    return TryResult(EpisodeResult(header, outcome), recording.finish(outcome))


def header_of(schedule: Schedule, attempt: Try, info: TaskInfo, digest: str, mode: ControlMode) -> EpisodeHeader:
    """The header of a try; labelled by what was proposed wherever noise was added to what was sent."""
    noisy = schedule.driver == "expert" or attempt.exploration > 0
    return EpisodeHeader(
        episode_id=attempt.episode_id,
        environment=schedule.environment,
        task=attempt.task,
        instruction=info.instruction,
        seed=attempt.seed,
        robot=info.robot,
        spec_digest=info.spec_digest,
        driver=schedule.driver,
        control_mode=mode,
        checkpoint_digest=digest,
        label_source="proposed" if noisy else "sent",
        attempt=attempt.attempt,
        exploration=attempt.exploration,
        time_limit_steps=info.time_limit_steps,
        versions=info.versions,
    )

"""What a worker of the pool is asked for: one try."""

from dataclasses import dataclass
from typing import Literal, get_args

from rollout_manager.episode import Driver, EpisodeHeader, Outcome, episode_id
from rollout_manager.exceptions import ScheduleError
from rollout_manager.rollout import EpisodeResult

Record = Literal["all", "successes", "none"]
"""Which tries become bags. `successes` runs without rendering first and renders again only what succeeded."""


@dataclass(frozen=True)
class EpisodeRequest:
    """One try to make."""

    environment: str
    task: str
    seed: int
    attempt: int = 0
    driver: Driver = "policy"
    checkpoint: str | None = None
    """Folder of the checkpoint that drives (driver `policy`), or that an expert takes over from."""
    exploration: float = 0.0
    """Noise as a share of half the action range: of the policy's exploration, or on the expert's actions."""
    noise_correlation: float = 0.0
    """From step to step, of the noise on the expert's actions; in [0, 1)."""
    slips: float = 0.0
    """Share of an expert's episodes in which a grasp is made to miss, in [0, 1]."""
    pushes: float = 0.0
    """Chance at each of an expert's steps that its hand is pushed aside, in [0, 1]."""
    takeover: tuple[int, int] = (0, 0)
    """Fewest and most steps that `checkpoint` drives before an expert takes over; no more than 0: none."""
    time_limit: int | None = None
    """Steps; None for the task's own."""
    bag_root: str | None = None
    record: Record = "none"
    execute: str = "replan"
    execute_every: int = 8
    """Actions executed of a chunk before the next is asked for."""
    robot: str | None = None
    """Name or YAML file of the robot's spec; None for the environment's own."""
    rules: str = ""
    """YAML file of success rules; empty: the simulator's own."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, value, kind in (("driver", self.driver, Driver), ("record", self.record, Record)):
            if value not in get_args(kind):
                raise ScheduleError(f"request of {self.task}: {name} '{value}' is not one of {get_args(kind)}")
        if self.driver == "human":
            raise ScheduleError(f"request of {self.task}: driver 'human' cannot drive in a pool")
        if self.driver == "policy" and not self.checkpoint:
            raise ScheduleError(f"request of {self.task}: driver 'policy' needs a checkpoint")
        if self.record != "none" and not self.bag_root:
            raise ScheduleError(f"request of {self.task}: to record '{self.record}' a bag_root is needed")

    @property
    def place(self) -> tuple[str, str]:
        """Environment and task."""
        return self.environment, self.task

    @property
    def episode_id(self) -> str:
        return episode_id(self.environment, self.task, self.seed, self.attempt)

    def aborted(self, reason: str) -> EpisodeResult:
        """The result of a try that did not come to its end."""
        header = EpisodeHeader(
            episode_id=self.episode_id,
            environment=self.environment,
            task=self.task,
            instruction="",
            seed=self.seed,
            robot=self.robot or self.environment,
            spec_digest="",
            driver=self.driver,
            control_mode="in_process",
            attempt=self.attempt,
            exploration=self.exploration,
            time_limit_steps=self.time_limit or 0,
        )
        return EpisodeResult(header, Outcome("aborted", 0, reason=reason))

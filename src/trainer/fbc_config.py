"""The configuration of a whole run of filtered behaviour cloning: what is tried where, and how it is learned from."""

from dataclasses import dataclass, field, replace
from typing import Literal

from rollout_manager.envs.tasks import find_tasks
from rollout_manager.exceptions import SimulatorError
from trainer.config import FilterConfig, TrainingConfig, require
from trainer.curriculum import PartialCreditConfig, check_attempts, check_execute_every
from trainer.exceptions import ConfigError
from trainer.seeds import SeedPlan, SeedStarts, plan_seeds

Via = Literal["ros", "pool"]


@dataclass(frozen=True)
class DemonstrationConfig:
    """Where the demonstrations come from."""

    bags: str = ""
    """A folder of bags that exist already; empty: the environment's scripted expert demonstrates."""
    per_task: int = 10
    """Seeds tried a task."""
    noise: float = 0.1
    """Standard deviation of the noise in what the expert sends, as a share of half the action range; its clean
    proposal is what is learned. Noise shows how to come back from small errors."""
    noise_correlation: float = 0.0
    """Of that noise, from one step to the next, in [0, 1): how long it pulls one way."""
    slips: float = 0.0
    """Share of the demonstrations in which a grasp is made to miss: without one, none shows what to do then. The miss
    itself is not learned."""
    pushes: float = 0.0
    """Chance at each step that the hand is pushed aside, which is not learned: without pushes a policy that arrives
    beside a thing does not know how to get to it."""

    def __post_init__(self) -> None:
        require(self.per_task >= 1, f"demonstrations: per_task {self.per_task} is not at least 1")
        require(0 <= self.noise <= 2, f"demonstrations: noise {self.noise} is not in [0, 2]")
        correlation = self.noise_correlation
        require(0 <= correlation < 1, f"demonstrations: noise_correlation {correlation} is not in [0, 1)")
        require(0 <= self.slips <= 1, f"demonstrations: slips {self.slips} is not a share in [0, 1]")
        require(0 <= self.pushes <= 1, f"demonstrations: pushes {self.pushes} is not a chance in [0, 1]")


@dataclass(frozen=True)
class CollectionConfig:
    """How the policy's own tries are collected in an iteration."""

    via: Via = "pool"
    """`ros`: over the ROS graph, nodes as processes of their own. `pool`: in process, without ROS."""
    seeds_per_task: int = 10
    """Initial states a task and iteration."""
    fresh: bool = True
    """Every iteration tries initial states of its own; false: the same ones, where a benchmark has only a few."""
    attempts: tuple[float, ...] = (0.0, 0.15, 0.3)
    """Exploration scale of each try of an initial state, as a share of half the action range. A state that the
    first try solves is not tried again; one that it does not solve is tried with the next scale."""
    execute_every: tuple[int, ...] = ()
    """Actions of a chunk that are carried out in each of the attempts, in turn: a policy that is stuck where it looks
    again after 8 may get on when it looks again after 12. Empty: as in the evaluation."""
    active: float = 1.0
    """Share of the initial states that are tried, in (0, 1]. Below 1 they are spent where success is uncertain: the
    more even the chances of a task are by the validation tries, the more of its states are among them."""
    graphs: int = 1
    """ROS graphs that share an iteration's tries, each with its own nodes. `via: ros` only."""
    mastered: float = 1.0
    """Tasks whose validation success is at least this are not tried. Above 1: every task is."""

    def __post_init__(self) -> None:
        check_attempts(self.attempts)
        check_execute_every(self.execute_every)
        require(self.seeds_per_task >= 1, f"collection: seeds_per_task {self.seeds_per_task} is not at least 1")
        require(self.graphs >= 1, f"collection: graphs {self.graphs} is not at least 1")
        require(0 < self.active <= 1, f"collection: active {self.active} is not in (0, 1]")
        require(self.mastered > 0, f"collection: mastered {self.mastered} is not above 0")


@dataclass(frozen=True)
class EvaluationConfig:
    """How success is measured: for choosing checkpoints, and in the end."""

    validation_seeds: int = 5
    """Initial states a task on which checkpoints are chosen."""
    evaluation_seeds: int = 20
    """Initial states a task on which every arm is measured, once, at the end."""
    execute_every: int = 8
    """Actions of a chunk that are carried out before the next is asked for."""

    def __post_init__(self) -> None:
        require(self.validation_seeds >= 1, "evaluation: validation_seeds is not at least 1")
        require(self.evaluation_seeds >= 1, "evaluation: evaluation_seeds is not at least 1")
        require(self.execute_every >= 1, "evaluation: execute_every is not at least 1")


@dataclass(frozen=True)
class ReferenceConfig:
    """The arms without which a gain means nothing."""

    control: bool = True
    """The same gradient steps on demonstrations alone, from the same start, chosen on the same seeds."""
    unfiltered: bool = False
    """The same, on demonstrations and all of the policy's tries, successful or not."""


@dataclass(frozen=True)
class ZeroShotConfig:
    """Tasks that nothing was ever trained on, tried by every arm at the end."""

    suite: str = ""
    """A suite of the environment, all of whose tasks are tried where none is named. Neither: nothing is tried."""
    tasks: tuple[str, ...] = ()
    """Names, parts of names that only one task has, or suite/index."""
    seeds: int = 20
    """Initial states a task, those of the evaluation's first seed and on."""
    time_limit: int = 0
    """Steps after which a try is given up; 0: the environment's own limit."""

    def __post_init__(self) -> None:
        require(self.seeds >= 1, f"zero_shot: seeds {self.seeds} is not at least 1")
        require(self.time_limit >= 0, f"zero_shot: time_limit {self.time_limit} is negative")

    @property
    def wanted(self) -> bool:
        """Whether there is anything to try."""
        return bool(self.suite or self.tasks)


@dataclass(frozen=True)
class FBCConfig:
    """A run of filtered behaviour cloning."""

    environment: str = "metaworld"
    """Where tasks are tried."""
    robot: str = ""
    """A robot of `config/robots/`, or the path of such a file; empty: the environment's own."""
    tasks: tuple[str, ...] = ()
    """The environment's tasks: names, parts of names that only one task has, or suite/index."""
    suite: str = ""
    """A suite of the environment, all of whose tasks are tried where none is named."""
    rules: str = ""
    """YAML file of success rules; empty: the simulator's own."""
    time_limit: int = 200
    """Steps after which a try is given up; 0: the environment's own limit."""
    iterations: int = 2
    """Rounds of trying, filtering and learning."""
    start: Literal["continued", "scratch"] = "continued"
    """What each iteration's training begins with: the weights before it, or new ones."""
    workers: int = 2
    """Processes that try tasks at once in process."""
    network: str = "small"
    """A network of `config/network/`, or the path of such a file; not looked at where `base_checkpoint` is given."""
    seeds: SeedStarts = field(default_factory=SeedStarts)
    """Where the seeds of each purpose begin."""
    demonstrations: DemonstrationConfig = field(default_factory=DemonstrationConfig)
    """Where the demonstrations come from."""
    collection: CollectionConfig = field(default_factory=CollectionConfig)
    """How the policy's own tries are collected."""
    partial_credit: PartialCreditConfig = field(default_factory=PartialCreditConfig)
    """What is kept while success is sparse."""
    filter: FilterConfig = field(default_factory=FilterConfig)
    """Which of the tries are kept; `min_progress` is set by `partial_credit`."""
    base_checkpoint: str = ""
    """Folder of a policy that there is already, for the rounds to begin from as it is; empty: `base` trains one."""
    base: TrainingConfig = field(default_factory=TrainingConfig)
    """Behaviour cloning of the demonstrations."""
    retrain: TrainingConfig = field(default_factory=TrainingConfig)
    """Training of every iteration, and of the arms it is compared with."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """How success is measured."""
    references: ReferenceConfig = field(default_factory=ReferenceConfig)
    """Arms to compare with."""
    zero_shot: ZeroShotConfig = field(default_factory=ZeroShotConfig)
    """Tasks to be tried in the end without ever having been trained on."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "robot", self.robot or self.environment)
        try:
            object.__setattr__(self, "tasks", find_tasks(self.environment, self.tasks, self.suite))
        except SimulatorError as error:
            raise ConfigError(f"tasks: {error}") from error
        self._find_zero_shot()
        require(self.iterations >= 1, f"iterations {self.iterations} is not at least 1")
        require(self.time_limit >= 0 and self.workers >= 1, "time_limit is negative or workers is not at least 1")
        _ = self.seed_plan

    def _find_zero_shot(self) -> None:
        """Name the tasks in full. Raises: ConfigError: one is unknown, or is trained on."""
        if not self.zero_shot.wanted:
            return
        try:
            tasks = find_tasks(self.environment, self.zero_shot.tasks, self.zero_shot.suite)
        except SimulatorError as error:
            raise ConfigError(f"zero_shot: {error}") from error
        if trained := sorted(set(tasks) & set(self.tasks)):
            raise ConfigError(f"zero_shot: {', '.join(trained)} is among the tasks that are trained on")
        object.__setattr__(self, "zero_shot", replace(self.zero_shot, tasks=tasks))

    @property
    def seed_plan(self) -> SeedPlan:
        """The seeds of every purpose. Raises: ConfigError: two purposes share one."""
        return plan_seeds(
            self.seeds,
            self.demonstrations.per_task,
            self.collection.seeds_per_task,
            self.iterations if self.collection.fresh else 1,
            self.evaluation.validation_seeds,
            self.evaluation.evaluation_seeds,
        )

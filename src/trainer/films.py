"""Films of a run: what the policy did before and after, from the same initial state, seen in larger pictures."""

from dataclasses import dataclass, replace
from pathlib import Path

from rollout_manager.decisions import DecisionLog, replay_actions
from rollout_manager.drivers import PolicyDriver
from rollout_manager.envs.registry import make_env
from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.results import EpisodeResultRow
from rollout_manager.rollout import StepRecord, new_header, run_episode
from trainer.fbc_config import FBCConfig
from trainer.report import gather
from trainer.report_data import Arm, Video
from trainer.report_video import Frames, side_by_side
from vla_policy_node.chunking import make_executor
from vla_policy_node.end_effector import make_safety_filter
from vla_policy_node.network_policy import NetworkPolicy
from vla_policy_node.observation import ImageArray, Readings
from vla_policy_node.spec import RobotSpec, load_spec

SIDE, FILMS = 200, 4
"""Pixels of a film's side; films in a report."""
FRAMES_PER_SECOND = 20.0


class Camera:
    """An observer that keeps the first camera's picture of every n-th step, and of the last."""

    needs_images = True

    def __init__(self, every: int) -> None:
        self._every, self._steps = every, 0
        self.frames: list[ImageArray] = []

    def start(self, header: EpisodeHeader) -> None:
        """See `Observer`."""

    def step(self, record: StepRecord) -> None:
        """See `Observer`."""
        if self._steps % self._every == 0:
            self._take(record.readings)
        self._steps += 1

    def finish(self, outcome: Outcome, stamp_ns: int, readings: Readings | None) -> None:
        """See `Observer`."""
        self._take(readings)

    def _take(self, readings: Readings | None) -> None:
        if readings is not None:
            self.frames.append(next(iter(readings.images.values())).copy())


@dataclass(frozen=True)
class Choice:
    """An initial state worth showing."""

    task: str
    seed: int
    before: EpisodeResultRow
    after: EpisodeResultRow


def make_films(config: FBCConfig, folder: Path) -> list[Video]:
    """Films of the base beside the last iteration, from evaluation's initial states."""
    report = gather(folder)
    own = [arm for arm in report.arms if arm.name.startswith("fbc_")]
    if not own:
        return []
    before, after = report.arm("bc"), own[-1]
    spec = load_spec(config.robot)
    videos = []
    for choice in choose(before, after):
        left, right = (film(config, spec, folder / a.checkpoint, choice.task, choice.seed) for a in (before, after))
        frames = side_by_side(left, right, choice.before.success, choice.after.success)
        caption = f"{before.title} (left) {told(choice.before)}, {after.title} (right) {told(choice.after)}"
        videos.append(Video(choice.task, choice.seed, caption, frames, FRAMES_PER_SECOND))
    return videos


def choose(before: Arm, after: Arm, films: int = FILMS) -> list[Choice]:
    """At most one initial state a task: first tasks where only the later policy succeeds, then where both do."""
    earlier = {(row.task, row.seed): row for row in before.rows}
    choices: dict[str, Choice] = {}
    for row in sorted(after.rows, key=lambda row: (row.task, row.seed)):
        old = earlier.get((row.task, row.seed))
        if old is None or not row.success:
            continue
        choice = Choice(row.task, row.seed, old, row)
        if row.task not in choices or _gain(choice) > _gain(choices[row.task]):
            choices[row.task] = choice
    return sorted(choices.values(), key=_gain, reverse=True)[:films]


def _gain(choice: Choice) -> tuple[bool, int]:
    return (not choice.before.success, choice.before.steps - choice.after.steps)


def told(row: EpisodeResultRow) -> str:
    """How a try went, in words."""
    return f"succeeds after {row.steps} steps" if row.success else f"does not succeed in {row.steps} steps"


def film(config: FBCConfig, spec: RobotSpec, checkpoint: Path, task: str, seed: int) -> Frames:
    """One try, made as in the evaluation and then replayed, action for action, before a larger camera."""
    env = make_env(config.environment, spec, config.rules)
    executor = make_executor("replan", spec.period_ns, config.evaluation.execute_every)
    driver = PolicyDriver(NetworkPolicy.load(checkpoint, spec), executor, make_safety_filter(spec))
    limit = config.time_limit or env.default_time_limit(task)
    header, log = new_header(env, task, seed, driver="policy", time_limit=limit), DecisionLog()
    run_episode(env, driver, header, limit, [log])
    env.close()
    first = replace(spec.cameras[0], height=SIDE, width=SIDE)
    large = make_env(config.environment, replace(spec, cameras=(first,)), config.rules)
    camera = Camera(every=max(1, round(spec.rate_hz / FRAMES_PER_SECOND)))
    replay_actions(large, header, log.decisions, [camera])
    large.close()
    return camera.frames

"""A policy beside a recorded try: what it says at every step, and what was done.

Open loop: at each step it is shown what was recorded, wherever its own answers would have led. A small error here does
not make a policy that succeeds; a large one, or one in a single dimension, says what is wrong with one that does not.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rollout_manager.rollout import driver_seed
from trainer.episode_arrays import EpisodeArrays
from trainer.plotting import FAINT, INK, as_svg, new_figures
from vla_policy_node.observation import Float32Array, Float64Array, Observation
from vla_policy_node.policy import Policy
from vla_policy_node.spec import RobotSpec

PREDICTED = "#2672c9"


@dataclass(frozen=True)
class OpenLoop:
    """A policy's answers to the T observations of an episode: chunks of H actions with A dimensions."""

    episode: EpisodeArrays
    predicted: Float32Array
    """Shape (T, H, A), in the spec's units."""
    errors: Float64Array
    """Shape (T, H, A): the action predicted for a step less the one recorded; not a number where none was."""

    @property
    def first(self) -> Float32Array:
        """What the policy says of the very step that it sees, shape (T, A)."""
        return self.predicted[:, 0]


def open_loop(policy: Policy, episode: EpisodeArrays) -> OpenLoop:
    """Ask the policy at every step of an episode.

    Args:
        episode: decoded for the policy's robot; its images may have the network's size already.

    Raises:
        NetworkError: the policy cannot answer, as where an instruction is empty.
    """
    spec = policy.spec
    policy.reset(driver_seed(episode.header.seed, episode.header.attempt))
    predicted = np.stack([policy.act(_observation(episode, t, spec)).actions for t in range(len(episode))])
    return OpenLoop(episode, predicted, _errors(episode, predicted, spec.period_ns))


def _observation(episode: EpisodeArrays, t: int, spec: RobotSpec) -> Observation:
    images = dict(zip(spec.camera_names, episode.images[t], strict=True))
    instruction = episode.instructions[episode.instruction_index[t]]
    return Observation(int(episode.stamps[t]), images, episode.proprioception[t], instruction)


def _errors(episode: EpisodeArrays, predicted: Float32Array, period_ns: int) -> Float64Array:
    steps = np.arange(len(episode))[:, None] + np.arange(predicted.shape[1])
    there = steps < episode.run_ends(period_ns)[:, None]
    recorded = np.asarray(episode.actions, np.float64)[np.minimum(steps, len(episode) - 1)]
    return np.where(there[..., None], predicted - recorded, np.nan)


@dataclass(frozen=True)
class DimensionError:
    """How far off a policy is in one dimension, over all steps of some episodes."""

    name: str
    unit: str
    mean: float
    """Mean absolute error of the action for the step that is seen, in the unit."""
    high: float
    """What 95 % of these errors do not exceed."""
    share: float
    """The mean as a share of the dimension's range."""
    bias: float
    """Mean error with its sign: where it is nearly the mean absolute one, the policy is off to one side."""


def error_table(compared: Sequence[OpenLoop], spec: RobotSpec) -> list[DimensionError]:
    """The errors of every dimension over some episodes."""
    errors = np.concatenate([one.errors[:, 0] for one in compared])
    sizes = np.abs(errors)
    spans = spec.action_high - spec.action_low
    return [
        DimensionError(
            dimension.name,
            dimension.unit,
            float(sizes[:, i].mean()),
            float(np.quantile(sizes[:, i], 0.95)),
            float(sizes[:, i].mean() / spans[i]),
            float(errors[:, i].mean()),
        )
        for i, dimension in enumerate(spec.action)
    ]


def error_ahead(compared: Sequence[OpenLoop], spec: RobotSpec) -> npt.NDArray[np.float64]:
    """Mean absolute error by how many steps ahead an action is, as a share of the range, over all dimensions; (H,)."""
    errors = np.concatenate([one.errors for one in compared]) / (spec.action_high - spec.action_low)
    return np.asarray(np.nanmean(np.abs(errors), axis=(0, 2)))


def write_steps(path: Path, compared: Sequence[OpenLoop], spec: RobotSpec) -> None:
    """A row a step and dimension: episode, stamp, what was recorded, what was predicted for that step; atomic."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["episode_id", "step", "stamp_ns", "dimension", "recorded", "predicted"])
        for one in compared:
            for t, stamp_ns in enumerate(one.episode.stamps):
                for name, done, said in zip(spec.action_names, one.episode.actions[t], one.first[t], strict=True):
                    table.writerow([one.episode.header.episode_id, t, int(stamp_ns), name, float(done), float(said)])
    temporary.replace(path)


def plot(one: OpenLoop, spec: RobotSpec) -> str:
    """An SVG: of each dimension what was done over time, and what the policy said for the same step."""
    figure, plots = new_figures(9.0, 0.6 + 1.05 * len(spec.action), len(spec.action))
    stamps = one.episode.stamps
    seconds = (stamps - stamps[0]) / 1e9
    for axes, dimension, done, said in zip(plots, spec.action, one.episode.actions.T, one.first.T, strict=True):
        axes.plot(seconds, done, color=INK, lw=1.2, label="recorded")
        axes.plot(seconds, said, color=PREDICTED, lw=1.2, label="predicted for this step")
        axes.set_ylabel(f"{dimension.name}\n{dimension.unit}", rotation=0, ha="right", va="center")
    plots[0].set_title(one.episode.header.episode_id, fontsize=9, color=FAINT, loc="left")
    plots[-1].set_xlabel("time, s")
    figure.legend(*plots[0].get_legend_handles_labels(), frameon=False, fontsize=8, ncols=2, loc="outside lower right")
    return as_svg(figure)

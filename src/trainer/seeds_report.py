"""Several runs of one experiment that differ in their training seeds, on one page: what holds beyond one lucky seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import t

from trainer import report_plots as plots
from trainer.exceptions import TrainerError
from trainer.journal import differences, read_journal
from trainer.report import JOURNAL, NOTES, gather, title_of
from trainer.report_data import Arm, Report
from trainer.report_page import document, figure, section, share, table, task_table
from trainer.statistics import Key, PairedComparison, compare_paired, success_by_state

MAY_DIFFER = ("base.seed", "retrain.seed", "demonstrations.bags", "workers", "base.threads", "retrain.threads")
"""Settings that runs of one experiment may have otherwise; of these only the seeds matter to what they find."""


@dataclass(frozen=True)
class SeedArm:
    """One arm in all runs."""

    name: str
    by_run: tuple[Arm, ...]

    @property
    def pooled(self) -> Arm:
        """All of its tries together."""
        rows = tuple(row for arm in self.by_run for row in arm.rows)
        return Arm(self.name, title_of(self.name), rows, self.by_run[0].note)

    @property
    def shares(self) -> tuple[float, ...]:
        """Success of each run, in [0, 1]."""
        return tuple(arm.summary.rate.value for arm in self.by_run)

    @property
    def each(self) -> str:
        """Success of each run in per cent, for a person to read."""
        return ", ".join(f"{100 * share:.1f}" for share in self.shares)


@dataclass(frozen=True)
class Spread:
    """Mean of some values with the 95 % interval of Student's t; the values are taken as independent."""

    mean: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> "Spread":
        """Of a single value the interval is not a number."""
        centre = mean(values)
        if len(values) < 2:
            return Spread(centre, float("nan"), float("nan"))
        half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / sqrt(len(values))
        return Spread(centre, centre - half, centre + half)

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def write_seeds_report(folders: Sequence[Path], path: Path) -> list[SeedArm]:
    """Write the page. Returns the arms.

    Raises:
        TrainingError: a folder holds no run.
        TrainerError: the runs are of different experiments, or of one seed, or not all are evaluated.
    """
    check_same_experiment(folders)
    reports = [gather(folder) for folder in folders]
    arms = joined(reports)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(_page(folders, reports, arms))
    temporary.replace(path)
    return arms


def check_same_experiment(folders: Sequence[Path]) -> None:
    """Raises: TrainerError: two runs differ in more than their seeds, or have the same ones."""
    configs = [read_journal(folder / JOURNAL)["config"] for folder in folders]
    seeds: dict[tuple[int, int], Path] = {}
    for folder, config in zip(folders, configs, strict=True):
        others = [text for text in differences(configs[0], config) if text.split(":")[0] not in MAY_DIFFER]
        if others:
            raise TrainerError(f"'{folders[0]}' and '{folder}' are runs of different experiments: {'; '.join(others)}")
        mine = (config["base"]["seed"], config["retrain"]["seed"])
        if mine in seeds:
            raise TrainerError(f"'{seeds[mine]}' and '{folder}' have the same training seeds, {mine[0]} and {mine[1]}")
        seeds[mine] = folder


def joined(reports: Sequence[Report]) -> list[SeedArm]:
    """The arms that all runs have, in the first one's order. Raises: TrainerError: there is none."""
    names = [arm.name for arm in reports[0].arms if all(arm.name in {a.name for a in r.arms} for r in reports)]
    if not names:
        raise TrainerError("the runs have no arm in common: finish them first")
    return [SeedArm(name, tuple(report.arm(name) for report in reports)) for name in names]


def compare_over_runs(old: SeedArm, new: SeedArm) -> PairedComparison:
    """Both on every initial state of every run, paired within it."""
    return compare_paired(_states(old), _states(new))


def _states(arm: SeedArm) -> Mapping[Key, bool]:
    found: dict[Key, bool] = {}
    for run, of_run in enumerate(arm.by_run):
        for (environment, task, seed), success in success_by_state(of_run.rows).items():
            found[f"{environment}, run {run}", task, seed] = success
    return found


def _page(folders: Sequence[Path], reports: Sequence[Report], arms: Sequence[SeedArm]) -> str:
    pooled = [arm.pooled for arm in arms]
    tasks = reports[0].tasks
    title = f"{len(tasks)} tasks, {len(folders)} training seeds"
    sections = [
        section("Success on initial states that nothing was trained or chosen with", _results(arms, pooled)),
        section("Is the difference real?", _comparisons(arms)),
        section("Task by task, all seeds together", figure(plots.task_plot(pooled, tasks)) + task_table(pooled)),
        section("Runs", table(("run", "folder"), [(str(i), f"<code>{f}</code>") for i, f in enumerate(folders)], 2)),
    ]
    return document(title, _summary(arms), sections)


def _summary(arms: Sequence[SeedArm]) -> str:
    by_name = {arm.name: arm for arm in arms}
    own = [arm for arm in arms if arm.name.startswith("fbc_")]
    text = f"Behaviour cloning succeeds in {Spread.of(by_name['bc'].shares)} of the tries"
    if not own:
        return f"{text}."
    last = max(own, key=lambda arm: int(arm.name.removeprefix("fbc_")))
    return f"{text}, {title_of(last.name)} in {Spread.of(last.shares)} (mean over seeds, 95 % interval by Student's t)."


def _results(arms: Sequence[SeedArm], pooled: Sequence[Arm]) -> str:
    rows = []
    for arm, together in zip(arms, pooled, strict=True):
        title = (
            f"<b>{escape(together.title)}</b><br><small>{escape(NOTES.get(arm.name, 'and its own successes'))}</small>"
        )
        rows.append((title, f"<b>{Spread.of(arm.shares)}</b>", arm.each, share(together.summary, steps=False)))
    head = ("", "mean over seeds, 95 % interval", "each seed, %", "all tries together")
    return figure(plots.iterations_plot(pooled, [arm.by_run for arm in arms])) + table(head, rows)


def _comparisons(arms: Sequence[SeedArm]) -> str:
    own = [arm for arm in arms if arm.name.startswith("fbc_")]
    rows = []
    for new in own:
        for old in (arm for arm in arms if arm is not new and not arm.name.startswith("fbc_")):
            test = compare_over_runs(old, new)
            apart = Spread.of([b - a for a, b in zip(old.shares, new.shares, strict=True)])
            rows.append(
                (
                    f"{escape(title_of(new.name))} against {escape(title_of(old.name))}",
                    f"{100 * apart.mean:+.1f} [{100 * apart.low:+.1f}, {100 * apart.high:+.1f}]",
                    f"{test.only_new} / {test.only_old}",
                    f"<b>{100 * test.difference:+.1f}</b> [{100 * test.low:+.1f}, {100 * test.high:+.1f}]",
                    f"{test.p_value:.3f}",
                )
            )
    head = ("", "points, over seeds (Student's t)", "won / lost", "points, over initial states of all seeds", "p")
    note = (
        "<p>The first interval takes the seeds as the sample: would another training do as well? The second takes the "
        "initial states, each once a seed, as if they were independent; p is the exact McNemar test's.</p>"
    )
    return table(head, rows) + note if rows else ""

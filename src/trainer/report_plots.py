"""The report's pictures, each drawn into one SVG text; nothing here reads a file or keeps state."""

import math
from collections.abc import Sequence

from rollout_manager.schedule import in_turn
from trainer.plotting import BAD, FAINT, GOOD, INK, as_svg, new_figure
from trainer.report_data import Arm, Candidate, Collection, Curve

OWN_COLOURS = ("#9cc3ee", "#5b9be0", "#2672c9", "#134f96", "#0a3264")
REFERENCE_COLOURS = {"bc": "#9aa3ad", "best_bc": "#c9a227", "control": "#d97b29", "unfiltered": "#b0559b"}
MOST_BARS = 6
"""Tasks that bars are drawn for; more are told apart better in a map."""
LONGEST = 96
"""Characters of a task's name beside a row of the map."""


def arm_colour(name: str, names: Sequence[str]) -> str:
    """References have colours of their own; a method's iterations darken from first to last."""
    if name in REFERENCE_COLOURS:
        return REFERENCE_COLOURS[name]
    own = [n for n in names if n not in REFERENCE_COLOURS]
    index = own.index(name) + (len(OWN_COLOURS) - len(own)) // 2 + 1 if len(own) < len(OWN_COLOURS) else own.index(name)
    return OWN_COLOURS[min(index, len(OWN_COLOURS) - 1)]


def success_plot(arms: Sequence[Arm]) -> str:
    """Success of every arm over all tasks, with 95 % Wilson intervals."""
    figure, axes = new_figure(7.2, 0.9 + 0.42 * len(arms))
    names = [arm.name for arm in arms]
    for row, arm in enumerate(arms):
        rate = arm.summary.rate
        if rate.trials == 0:
            continue
        axes.barh(row, 100 * rate.value, height=0.62, color=arm_colour(arm.name, names))
        axes.plot([100 * rate.low, 100 * rate.high], [row, row], color=INK, lw=1.4)
        axes.text(100 * rate.high + 1.2, row, f"{100 * rate.value:.1f} %", va="center", color=INK, fontsize=9)
    axes.set_yticks(range(len(arms)), [arm.title for arm in arms])
    axes.invert_yaxis()
    axes.set_xlim(0, 108)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("success, % of all evaluation tries (line: 95 % Wilson interval)")
    axes.grid(axis="y", visible=False)
    return as_svg(figure)


def iterations_plot(arms: Sequence[Arm], runs: Sequence[Sequence[Arm]] = ()) -> str:
    """Success over iterations, 0 being behaviour cloning, with 95 % Wilson intervals; references where they ended.

    Args:
        runs: for each arm the arms of single runs that it sums up, drawn as small dots beside it.
    """
    figure, axes = new_figure(6.2, 3.0)
    names = [arm.name for arm in arms]
    own = {0 if arm.name == "bc" else int(arm.name.removeprefix("fbc_")): arm for arm in arms if is_own(arm.name)}
    last = max(own, default=0)
    places = [(i, own[i], 0.0) for i in sorted(own)]
    others = [arm for arm in arms if not is_own(arm.name)]
    places += [(last, arm, 0.12 * (k + 1)) for k, arm in enumerate(others)]
    singles = dict(zip(names, runs, strict=False))
    for i, arm, aside in places:
        dots = [100 * single.summary.rate.value for single in singles.get(arm.name, ())]
        axes.plot([i + aside - 0.05] * len(dots), dots, ".", ms=4, color=FAINT)
        rate, colour = arm.summary.rate, arm_colour(arm.name, names)
        axes.plot([i + aside] * 2, [100 * rate.low, 100 * rate.high], color=colour, lw=1.4)
        axes.plot(i + aside, 100 * rate.value, "D" if aside else "o", ms=6, color=colour, label=arm.title)
    axes.plot(
        sorted(own), [100 * own[i].summary.rate.value for i in sorted(own)], color=OWN_COLOURS[2], lw=1.2, zorder=0
    )
    axes.set_xticks(range(last + 1))
    axes.set_xlabel("iteration")
    axes.set_ylabel("success, %")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return as_svg(figure)


def is_own(name: str) -> bool:
    """Whether an arm is a step of the method itself: the base or an iteration."""
    return name == "bc" or name.startswith("fbc_")


def task_plot(arms: Sequence[Arm], tasks: Sequence[str]) -> str:
    """Success of every arm on every task: groups of bars for a few tasks, a map for many."""
    return _task_bars(arms, tasks) if len(tasks) <= MOST_BARS else _task_map(arms, tasks)


def _task_map(arms: Sequence[Arm], tasks: Sequence[str]) -> str:
    """A row a task, a column an arm, the share of successes as colour and number."""
    figure, axes = new_figure(6.4 + 0.62 * len(arms), 0.9 + 0.19 * len(tasks))
    shares = [[100 * arm.of_task(task).rate.value for arm in arms] for task in tasks]
    axes.imshow(shares, cmap="RdYlGn", vmin=0, vmax=100, aspect="auto", alpha=0.75)
    for row, values in enumerate(shares):
        for column, share in enumerate(values):
            text = "–" if math.isnan(share) else f"{share:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=INK)
    axes.set_yticks(range(len(tasks)), [shortened(task) for task in tasks], fontsize=7)
    axes.set_xticks(range(len(arms)), [arm.title for arm in arms])
    axes.xaxis.tick_top()
    axes.grid(visible=False)
    return as_svg(figure)


def shortened(task: str) -> str:
    """A task's name so that it fits beside a row, its two ends kept: they tell one from the other."""
    text = task.replace("_", " ").replace("-v3", "")
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2 - 1]} … {text[-(LONGEST // 2 - 2) :]}"


def _task_bars(arms: Sequence[Arm], tasks: Sequence[str]) -> str:
    figure, axes = new_figure(10.4, 3.0)
    names = [arm.name for arm in arms]
    width = 0.84 / len(arms)
    for k, arm in enumerate(arms):
        at = [i + (k - (len(arms) - 1) / 2) * width for i in range(len(tasks))]
        shares = [100 * arm.of_task(task).rate.value for task in tasks]
        axes.bar(at, shares, width * 0.92, color=arm_colour(arm.name, names), label=arm.title)
    axes.set_xticks(range(len(tasks)), [task.replace("-v3", "") for task in tasks], rotation=18, ha="right")
    axes.set_ylabel("success, %")
    axes.set_ylim(0, 105)
    axes.grid(axis="x", visible=False)
    axes.legend(ncols=len(arms), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize=8)
    return as_svg(figure)


def loss_plot(curves: Sequence[Curve]) -> str:
    """Training loss of every run over its own gradient steps."""
    figure, axes = new_figure(5.1, 3.0)
    for k, curve in enumerate(curves):
        axes.plot(curve.steps, curve.values, lw=1.4, label=curve.name, color=f"C{k}")
    axes.set_xlabel("gradient steps of the run")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    return as_svg(figure)


def validation_plot(candidates: Sequence[Candidate]) -> str:
    """Validation success of every candidate checkpoint over all gradient steps of its lineage; chosen ones ringed."""
    figure, axes = new_figure(5.1, 3.0)
    for k, run in enumerate(dict.fromkeys(c.run for c in candidates)):
        points = sorted((c for c in candidates if c.run == run), key=lambda c: c.step)
        shares = [100 * c.successes / max(1, c.tries) for c in points]
        axes.plot([c.step for c in points], shares, "o-", ms=4, lw=1.3, label=run, color=f"C{k}")
        chosen = [(c.step, share) for c, share in zip(points, shares, strict=True) if c.chosen]
        axes.plot([x for x, _ in chosen], [y for _, y in chosen], "o", ms=10, mfc="none", mec=INK, mew=1.2)
    axes.set_xlabel("gradient steps from the first")
    axes.set_ylabel("validation success, %")
    axes.set_ylim(0, 105)
    axes.legend(frameon=False, fontsize=8)
    return as_svg(figure)


def collection_plot(collections: Sequence[Collection]) -> str:
    """Per iteration and attempt: tries that succeeded and tries that did not."""
    figure, axes = new_figure(7.2, 2.8)
    labels: list[str] = []
    for collection in collections:
        for attempt, (scale, successes, tries) in enumerate(collection.attempts):
            at = len(labels)
            axes.bar(at, successes, 0.7, color=GOOD, label=_once(at, "success"))
            axes.bar(at, tries - successes, 0.7, bottom=successes, color=BAD, alpha=0.75, label=_once(at, "no success"))
            axes.text(at, tries, f"{successes}/{tries}", ha="center", va="bottom", fontsize=8, color=INK)
            labels.append(_try_label(collection, attempt, scale))
    axes.set_xticks(range(len(labels)), labels, fontsize=7.5)
    axes.set_xlabel("actions carried out of each chunk, ± exploration")
    axes.set_ylabel("tries")
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.15)
    axes.legend(frameon=False, fontsize=8)
    return as_svg(figure)


def _try_label(collection: Collection, attempt: int, scale: float) -> str:
    """The iteration, once; which try it is, how much of each chunk it carried out, and how far it explored."""
    name = collection.name if attempt == 0 else ""
    explored = f"±{scale:g}" if scale else ""
    return f"try {attempt + 1}\n{in_turn(collection.execute_every, attempt)}\n{explored}\n{name}"


def _once(position: int, label: str) -> str | None:
    return label if position == 0 else None

"""How often LIBERO's scripted expert succeeds: every task of every suite, a row a try, and the page that tells it.

    python benchmarks/libero_expert.py --workers 2

tries initial states 30 to 49, on which it was not tuned; `--placements 5` adds placements sampled afresh, five a task.
The same command again goes on where it was: tries that the CSV file holds are not made again, so after a change of the
expert name another file. `--page-only` makes no try. In docs/libero_expert.md what stands between the two marks is
written anew, the rest is kept.
"""

import argparse
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from rollout_manager.envs.libero.env import TIME_LIMITS
from rollout_manager.envs.libero.initial_states import STATES
from rollout_manager.envs.libero.suites import SUITES, suite_names
from rollout_manager.pool import WorkerPool
from rollout_manager.results import EpisodeResultRow, latest_by_episode, read_results
from trainer.exceptions import TrainingError
from trainer.progress import ProgressBar
from trainer.statistics import Summary, by_task, wilson

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "libero_expert.md"
BEGIN, END = "<!-- written by benchmarks/libero_expert.py -->", "<!-- end of what it writes -->"
FIRST_PLACEMENT = 2000
"""Seed of the first fresh placement; some from 1000 on were used in writing the expert."""
TIME_LIMIT = 600

Rows = Sequence[EpisodeResultRow]


def main() -> int:
    """Make the tries that are missing, and write the page. Returns 1 where there is nothing to tell."""
    given = _arguments().parse_args()
    tasks = {suite: suite_names()[suite] for suite in given.suites}
    seeds = [*given.states, *range(FIRST_PLACEMENT, FIRST_PLACEMENT + given.placements)]
    if not given.page_only:
        make_tries([task for names in tasks.values() for task in names], seeds, given.csv, given.workers)
    if not given.csv.is_file():
        print(f"no tries in {given.csv}", file=sys.stderr)
        return 1
    rows = [row for path in (given.csv, *given.also) for row in read_results(path) if row.driver == "expert"]
    rows = list(latest_by_episode(rows).values())
    old = (
        given.page.read_text() if given.page.is_file() else f"# LIBERO's scripted expert, measured\n\n{BEGIN}\n{END}\n"
    )
    if BEGIN not in old or END not in old.partition(BEGIN)[2]:
        print(f"{given.page} lacks a line '{BEGIN}' and one '{END}' after it", file=sys.stderr)
        return 1
    given.page.write_text(replaced(old, page(rows, suite_names())))
    print(suite_table(rows, suite_names()))
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", nargs="+", choices=SUITES, default=list(SUITES))
    parser.add_argument("--states", type=_range, default=range(30, 50), metavar="FIRST-LAST", help="initial states")
    parser.add_argument("--placements", type=int, default=0, help="placements sampled afresh, a task")
    parser.add_argument("--workers", type=int, default=2, help="processes that try at once")
    parser.add_argument("--csv", type=Path, default=ROOT / "runs" / "libero_expert.csv", help="gets a row a try")
    parser.add_argument("--also", type=Path, nargs="+", default=[], metavar="CSV", help="more tries for the page")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--page-only", action="store_true", help="only write the page from the CSV file")
    return parser


def _range(text: str) -> range:
    """Raises: ValueError, which argparse makes an error of: not FIRST-LAST within the benchmark's initial states."""
    first, _, last = text.partition("-")
    found = range(int(first), int(last or first) + 1)
    if not found or found[0] < 0 or found[-1] >= STATES:
        raise ValueError(text)
    return found


def make_tries(tasks: Sequence[str], seeds: Sequence[int], results: Path, workers: int) -> None:
    """One try of each task from each seed, but for those that `results` holds.

    One task after the other: a worker keeps few scenes, and to build one takes as long as a short try.
    """
    from trainer.evaluate import EvaluationPlan, evaluate  # It imports torch, which the page does not need.

    solved = tried = 0
    with WorkerPool(workers) as pool, ProgressBar("tasks", len(tasks)) as bar:
        for task in tasks:
            plan = EvaluationPlan((task,), tuple(seeds), "expert", environment="libero", time_limit=TIME_LIMIT)
            try:
                rows = evaluate(plan, results, visible=False, pool=pool)
            except TrainingError as error:  # That nothing of one task can be tried is told, and the others go on.
                print(f"{task}: {error}", file=sys.stderr)
                rows = []
            solved, tried = solved + sum(row.success for row in rows), tried + len(rows)
            bar.advance(f"{solved} of {tried} tries solved")


def page(rows: Rows, tasks: dict[str, tuple[str, ...]]) -> str:
    """What the script knows, in Markdown."""
    states = [row for row in rows if row.seed < STATES]
    placements = [row for row in rows if row.seed >= STATES]
    parts = [f"## Initial states {_span(states)}", suite_table(states, tasks)] if states else []
    if placements:
        parts += [f"## Fresh placements, seeds {_span(placements)}", suite_table(placements, tasks)]
    parts += ["## Why tries failed", reason_table(rows, tasks), "## Every task", task_table(states, placements, tasks)]
    return "\n\n".join([*parts, f"Versions: {_versions(rows)}."])


def suite_table(rows: Rows, tasks: dict[str, tuple[str, ...]]) -> str:
    """A row a suite: success with its interval, also within the usual limit, and how many tasks were ever solved."""
    head = (
        "suite",
        "tries",
        "success, 95 % interval",
        "within usual limit",
        "mean steps",
        "tasks solved ever",
        "always",
    )
    lines = []
    for suite, names in tasks.items():
        mine = [row for row in rows if row.task in names]
        if not mine:
            continue
        summary, limit = Summary.of(mine), TIME_LIMITS[suite]
        in_time = wilson(sum(row.success and row.steps <= limit for row in mine), len(mine))
        rates = [Summary.of(of_task).rate for of_task in by_task(mine).values()]
        ever, always = sum(r.successes > 0 for r in rates), sum(0 < r.trials == r.successes for r in rates)
        steps = f"{summary.steps.mean:.0f}" if summary.steps.successes else "-"
        within = f"{100 * in_time.value:.1f} % of {limit} steps"
        lines.append((suite, summary.rate.trials, summary.rate, within, steps, f"{ever} of {len(rates)}", always))
    return _table(head, lines)


def reason_table(rows: Rows, tasks: dict[str, tuple[str, ...]]) -> str:
    """A row a reason, the most frequent first, with the tasks where it came up and how often."""
    places = {name: f"{suite}/{index}" for suite, names in tasks.items() for index, name in enumerate(names)}
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if not row.success:
            counts[_general(row)][places.get(row.task, row.task)] += 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1].total(), item[0]))
    lines = [(c.total(), reason, ", ".join(f"{t} ({n})" for t, n in sorted(c.items()))) for reason, c in ordered]
    return _table(("tries", "reason", "tasks (tries)"), lines) if lines else "None failed."


def task_table(states: Rows, placements: Rows, tasks: dict[str, tuple[str, ...]]) -> str:
    """A row a task."""
    first, second = by_task(states), by_task(placements)
    head = ("task", "name", "initial states", "placements", "mean steps")
    lines = []
    for suite, names in tasks.items():
        for index, name in enumerate(names):
            mine = [*first.get(name, ()), *second.get(name, ())]
            if mine:
                steps = Summary.of(mine).steps
                mean = f"{steps.mean:.0f}" if steps.successes else "-"
                lines.append((f"{suite}/{index}", name, _share(first.get(name)), _share(second.get(name)), mean))
    return _table(head, lines)


def replaced(text: str, found: str) -> str:
    """A page with what stands between its two marks changed."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{found}\n\n{END}{rest.partition(END)[2]}"


def _general(row: EpisodeResultRow) -> str:
    """The reason of a failure without what differs from try to try."""
    if not row.reason:
        return "no trouble noticed until the time was up"
    return re.sub(r"_\d+\b", "", re.sub(r"none of \d+ grasps", "no grasp", row.reason)).replace("|", "/")


def _share(rows: Rows | None) -> str:
    return f"{sum(row.success for row in rows)} of {len(rows)}" if rows else "-"


def _span(rows: Rows) -> str:
    seeds = sorted({row.seed for row in rows})
    return f"{seeds[0]} to {seeds[-1]}"


def _versions(rows: Rows) -> str:
    return "; ".join(sorted({", ".join(f"{k} {v}" for k, v in sorted(row.versions.items())) for row in rows}))


def _table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    as_line: Callable[[Iterable[object]], str] = lambda cells: f"| {' | '.join(map(str, cells))} |"  # noqa: E731
    return "\n".join([as_line(head), as_line("---" for _ in head), *(as_line(line) for line in lines)])


if __name__ == "__main__":
    sys.exit(main())

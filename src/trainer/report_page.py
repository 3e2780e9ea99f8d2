"""The report as one HTML page that needs nothing but itself: no script, no font, no address outside."""

import base64
from collections.abc import Iterable, Sequence
from html import escape

from trainer import report_plots as plots
from trainer.report_data import Arm, Report, tasks_of
from trainer.report_style import STYLE
from trainer.report_video import animation
from trainer.statistics import Summary, compare_paired, success_by_state


def page(report: Report) -> str:
    """The whole page. Sections of which the report has nothing are left out."""
    sections = [
        section("Success on seeds that nothing was trained or chosen with", _results(report)),
        section("Task by task", task_table(report.arms) + figure(plots.task_plot(report.arms, report.tasks))),
        section("Is the difference real?", _comparisons(report)),
        section("Tasks that nothing was trained on", _zero_shot(report)),
        section("Before and after, from the same initial state", _videos(report)),
        section("Learning", _learning(report)),
        section("What was collected, what was kept", _collections(report)),
        section("Where each checkpoint comes from", _lineage(report)),
        section("Time", _times(report)),
        section("Where everything is", _pairs_table(report.paths.items())),
        section("Facts", _pairs_table(report.facts.items())),
    ]
    return document(report.title, report.summary, sections)


def document(title: str, summary: str, sections: Sequence[str]) -> str:
    """A whole page of sections that are HTML already."""
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body><main>"
        f"<h1>{escape(title)}</h1><p class='summary'>{escape(summary)}</p>{''.join(sections)}"
        "</main></body></html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers_from: int = 1) -> str:
    """An HTML table; cells are HTML already. Columns from `numbers_from` on are set as numbers."""

    def cells(kind: str, values: Sequence[str]) -> str:
        marks = ["" if i < numbers_from else " class='n'" for i in range(len(values))]
        return "".join(f"<{kind}{mark}>{value}</{kind}>" for mark, value in zip(marks, values, strict=True))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<div class='wide'><table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table></div>"


def section(title: str, content: str) -> str:
    """A titled part of the page; nothing where there is no content."""
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def figure(svg: str) -> str:
    """A picture that is SVG text."""
    # As an image, so that ids and styles of one picture cannot reach into another.
    return f"<img class='plot' alt='' src='{_data_uri('image/svg+xml', svg.encode())}'>"


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _results(report: Report) -> str:
    rows = []
    for arm in report.arms:
        title = f"<b>{escape(arm.title)}</b><br><small>{escape(arm.note)}</small>"
        summary = arm.summary
        steps = f"{summary.steps.median:g}" if summary.steps.successes else "–"
        rows.append((title, share(summary, steps=False), steps, str(summary.aborted)))
    head = ("", "success, tries, 95 % interval", "steps to success (median)", "aborted (not counted)")
    pictures = figure(plots.success_plot(report.arms)) + figure(plots.iterations_plot(report.arms))
    return f"<div class='pair'>{pictures}</div>" + table(head, rows)


def task_table(arms: Sequence[Arm]) -> str:
    """Success of every arm on every task, and on all."""
    rows = [[escape(task), *(share(arm.of_task(task)) for arm in arms)] for task in tasks_of(arms)]
    rows.append(["<b>all tasks</b>", *(share(arm.summary) for arm in arms)])
    return table(["task", *(escape(arm.title) for arm in arms)], rows)


def _zero_shot(report: Report) -> str:
    if not report.zero_shot:
        return ""
    return figure(plots.success_plot(report.zero_shot)) + task_table(report.zero_shot)


def share(summary: Summary, steps: bool = True) -> str:
    """A cell: share of successes, of how many, interval, and how many more had a human's help; on request the median
    of steps to success."""
    rate = summary.rate
    if not rate.trials:
        return "–"
    below = f"<br><small>{summary.steps.median:g} steps</small>" if steps and summary.steps.successes else ""
    helped = f"<br><small>{summary.helped} more with a human's help</small>" if summary.helped else ""
    interval = f"<small>[{100 * rate.low:.0f}, {100 * rate.high:.0f}]</small>"
    return f"<b>{100 * rate.value:.0f} %</b> {rate.successes}/{rate.trials} {interval}{below}{helped}"


def _comparisons(report: Report) -> str:
    rows = []
    for reference, candidate in report.pairs:
        old, new = report.arm(reference), report.arm(candidate)
        test = compare_paired(success_by_state(old.rows), success_by_state(new.rows))
        rows.append(
            (
                f"{escape(new.title)} against {escape(old.title)}",
                str(test.pairs),
                str(test.only_new),
                str(test.only_old),
                f"<b>{100 * test.difference:+.1f}</b> <small>[{100 * test.low:+.1f}, {100 * test.high:+.1f}]</small>",
                f"{test.p_value:.3f}",
            )
        )
    if not rows:
        return ""
    head = ("", "initial states", "won", "lost", "difference, points, 95 % interval", "p")
    return table(head, rows) + (
        "<p>Both tried each initial state once. Won and lost count the states that only one of the two "
        "solved. p is the exact McNemar test's: how often chance alone would give a difference as large.</p>"
    )


def _videos(report: Report) -> str:
    films = (
        f"<figure><img alt='' src='{_data_uri('image/webp', animation(video.frames, video.frames_per_second))}'>"
        f"<figcaption><b>{escape(video.task)}</b>, seed {video.seed}: {escape(video.caption)}</figcaption></figure>"
        for video in report.videos
    )
    content = "".join(films)
    return f"<div class='films'>{content}</div>" if content else ""


def _learning(report: Report) -> str:
    parts = []
    if report.candidates:
        parts.append(figure(plots.validation_plot(report.candidates)))
    if report.losses:
        parts.append(figure(plots.loss_plot(report.losses)))
    return f"<div class='pair'>{''.join(parts)}</div>" if parts else ""


def _collections(report: Report) -> str:
    if not report.collections:
        return ""
    rows = [
        (
            escape(c.name),
            f"{c.successes}/{c.tries}",
            str(sum(c.kept.values())),
            "<br>".join(f"{escape(task)} {n}" for task, n in c.kept.items()) or "–",
            "<br>".join(f"{escape(reason)}: {n}" for reason, n in c.dropped.items()) or "–",
            escape(", ".join(c.skipped)) or "–",
        )
        for c in report.collections
    ]
    head = ("", "successes of tries", "kept", "kept per task", "dropped, with reason", "mastered, not tried")
    return figure(plots.collection_plot(report.collections)) + table(head, rows)


def _lineage(report: Report) -> str:
    rows = [
        (
            f"<b>{escape(a.name)}</b>",
            f"<code>{escape(a.digest)}</code>",
            f"<code>{escape(a.parent) or '–'}</code>",
            str(a.steps),
            str(a.demonstrations),
            str(a.own),
            f"<code>{escape(a.path)}</code>",
        )
        for a in report.lineage
    ]
    head = ("", "digest", "parent", "gradient steps", "demonstrations", "own tries", "folder")
    return table(head, rows) if rows else ""


def _times(report: Report) -> str:
    if not report.stages:
        return ""
    total = sum(seconds for _, seconds in report.stages)
    rows = [(escape(name), _clock(seconds)) for name, seconds in report.stages]
    return table(("stage", "min:s"), [*rows, ("<b>all</b>", f"<b>{_clock(total)}</b>")])


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _pairs_table(pairs: Iterable[tuple[str, str]]) -> str:
    rows = [(escape(name), f"<code>{escape(value)}</code>") for name, value in pairs]
    return table(("", ""), rows, numbers_from=2) if rows else ""

"""What comes of bench_chunking_node.py: its tries, as a table and as a picture."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks._chunking_task import OBSTACLE, Head

from trainer.plotting import FAINT, as_svg, new_figures
from trainer.statistics import wilson

DELAYS_MS = (0, 50, 200, 400)
WAYS: dict[str, tuple[str, Head]] = {
    "synchronous": ("synchronous", "flow"),
    "replan": ("replan", "flow"),
    "ensemble": ("ensemble", "flow"),
    "guided": ("real_time_chunking", "flow"),
    "blended": ("real_time_chunking", "regression"),
}
"""What is compared: the node's parameter `execute`, and whether the policy can be guided."""
COLOURS = ("#6b7684", "#c9483b", "#d9a441", "#2a9d5c", "#3b7cc9")
"""One a way."""


@dataclass(frozen=True)
class Try:
    """What came of one try."""

    way: str
    delay_ms: int
    seed: int
    success: bool
    seconds: float
    """Until the hand had arrived; the time limit where it did not."""
    clearance_mm: float
    """Least distance of the hand from the obstacle's middle."""
    ticks: int
    missed: int
    held: int
    """Ticks with a command to hold after the first that was none."""
    jerk: float
    """rad/s^3."""
    off_mm: float
    delay_ticks: int
    """What the node expected of the next chunk in the end."""


def told(values: Sequence[float], digits: int = 0) -> str:
    """Median [least, most]."""
    return f"{np.median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def table(tries: Sequence[Try]) -> str:
    """A row a case, in Markdown: missed and held ticks are counted, of all tries together; the rest is the median of a
    case's tries with the least and the most."""
    heads = ("network", "executed", "succeeded", "hit", "missed", "held", "arrived, s", "jerk, rad/s^3", "off, mm")
    lines = ["| " + " | ".join([*heads, "delay, ticks"]) + " |", "|" + " --- |" * (len(heads) + 1)]
    for delay_ms in DELAYS_MS:
        for way in WAYS:
            own = [one for one in tries if (one.way, one.delay_ms) == (way, delay_ms)]
            cells = [
                f"{delay_ms} ms",
                way,
                str(wilson(sum(one.success for one in own), len(own))),
                f"{sum(one.clearance_mm < 1e3 * OBSTACLE for one in own)}",
                f"{sum(one.missed for one in own)} of {sum(one.ticks for one in own)}",
                str(sum(one.held for one in own)),
                told([one.seconds for one in own], 1),
                told([one.jerk for one in own]),
                told([one.off_mm for one in own]),
                told([one.delay_ticks for one in own]),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(tries: Sequence[Try]) -> str:
    """What the delay does to each way, as SVG: medians, with least and most."""
    figure, plots = new_figures(7.0, 8.0, 4)
    kinds: list[tuple[str, Callable[[Try], float]]] = [
        ("succeeded, %", lambda one: 100.0 * one.success),
        ("until arrived, s", lambda one: one.seconds),
        ("jerk, rad/s\u00b3", lambda one: one.jerk),
        ("off the way, mm", lambda one: one.off_mm),
    ]
    for axes, (label, value) in zip(plots, kinds, strict=True):
        for i, (way, colour) in enumerate(zip(WAYS, COLOURS, strict=True)):
            found = [[value(one) for one in tries if (one.way, one.delay_ms) == (way, ms)] for ms in DELAYS_MS]
            middle = [float(np.mean(v) if "%" in label else np.median(v)) for v in found]
            places = [at + 0.08 * (i - 2) for at in range(len(DELAYS_MS))]
            axes.plot(places, middle, "o-", color=colour, lw=1.6, ms=4, label=way)
            if "%" not in label:
                axes.vlines(places, [min(v) for v in found], [max(v) for v in found], color=colour, lw=1, alpha=0.5)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
    plots[0].legend(ncols=5, frameon=False, fontsize=8.5, labelcolor=FAINT, loc="lower left", bbox_to_anchor=(0, 1))
    plots[-1].set_xticks(range(len(DELAYS_MS)), [f"{ms} ms" for ms in DELAYS_MS])
    plots[-1].set_xlabel("what the network takes")
    return as_svg(figure)

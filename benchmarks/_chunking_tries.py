"""What comes of bench_chunking_node.py: its tries, as a table and as a picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from _chunking_task import JOINTS, OBSTACLE, Head, Task, hands

from trainer.plotting import FAINT, as_svg, new_figures
from trainer.statistics import wilson
from vla_policy_node.observation import Float64Array
from vla_policy_node.spec import NANOSECONDS

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


EVERY = 16
"""Actions executed of a chunk before the next one is asked for."""
NEAR, STAYS_S, TIME_S = 0.02, 0.2, 5.0
"""How near the hand must come, in m, for how long, and within which time, in s."""

Hand = tuple[float, Float64Array]
"""When, in s, and where the hand was: (3,), m."""


class Sent(NamedTuple):
    """One command: when, in s, whether it was a hold, and what it was, (A,)."""

    at: float
    held: bool
    action: Float64Array


class Case(NamedTuple):
    """Which way with which network, and from which seed."""

    way: str
    delay_ms: int
    seed: int


@dataclass(frozen=True)
class Try:
    """What came of one try."""

    case: Case
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
    """rad/s^3, from the second chunk on: with the first one the arm sets off from rest, whatever executes it."""
    off_mm: float
    delay_ticks: int
    """What was expected of the next chunk in the end."""


def arrived(hand: Sequence[Hand], goal: Float64Array) -> float | None:
    """When the hand came near its goal (3,), if it has stayed there since for long enough."""
    since: float | None = None
    for at, position in reversed(hand):
        if np.linalg.norm(position - goal) > NEAR:
            break
        since = at
    return since if since is not None and hand[-1][0] - since >= STAYS_S else None


def judged(
    case: Case, task: Task, began: float, hand: Sequence[Hand], sent: Sequence[Sent], delay_ticks: int, period_ns: int
) -> Try:
    """What a try that began at a time, in s, amounts to. Raises: RuntimeError: the policy did nothing."""
    if (first := next((i for i, one in enumerate(sent) if not one.held), None)) is None:
        raise RuntimeError(f"{case.way} at {case.delay_ms} ms: the policy sent nothing but holds")
    driven, period = sent[first:], period_ns / NANOSECONDS
    joints = np.array([one.action[:JOINTS] for one in driven[EVERY:]])
    places = np.array([position for _, position in hand])
    ideal = np.concatenate([hands(task.way(side, np.linspace(0.0, 1.0, 200))) for side in (1.0, -1.0)])
    off = np.linalg.norm(places[:, None] - ideal, axis=-1).min(1)
    clearance = float(np.linalg.norm(places - hands(task.way(0.0, np.array([0.5])))[0], axis=1).min())
    there = arrived(hand, hands(np.array([task.goal]))[0])
    seconds = TIME_S if there is None else min(TIME_S, there - began)
    return Try(
        case,
        success=seconds < TIME_S and clearance > OBSTACLE,
        seconds=seconds,
        clearance_mm=1e3 * clearance,
        ticks=len(sent),
        missed=int(np.maximum(0, np.round(np.diff([one.at for one in sent]) / period) - 1).sum()),
        held=sum(one.held for one in driven),
        jerk=float(np.sqrt((np.diff(joints, 3, axis=0) ** 2).mean()) / period**3),
        off_mm=1e3 * float(np.sqrt((off**2).mean())),
        delay_ticks=delay_ticks,
    )


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
            own = [one for one in tries if one.case[:2] == (way, delay_ms)]
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


Span = tuple[float, float, float]
"""What is drawn of a case: the middle, and from where to where a line goes through it."""


def solved(tries: Sequence[Try]) -> Span:
    """Share of successes in %, and its 95 % Wilson interval."""
    rate = wilson(sum(one.success for one in tries), len(tries))
    return 100 * rate.value, 100 * rate.low, 100 * rate.high


def spread(of: Callable[[Try], float]) -> Callable[[Sequence[Try]], Span]:
    """Median, least and most of a number that each try has."""

    def found(tries: Sequence[Try]) -> Span:
        values = [of(one) for one in tries]
        return float(np.median(values)), min(values), max(values)

    return found


PLOTTED: dict[str, Callable[[Sequence[Try]], Span]] = {
    "succeeded, %": solved,
    "until arrived, s": spread(lambda one: one.seconds),
    "jerk, rad/s\u00b3": spread(lambda one: one.jerk),
    "off the way, mm": spread(lambda one: one.off_mm),
}


def plot(tries: Sequence[Try]) -> str:
    """What the delay does to each way, as SVG: success with its 95 % interval, else medians with least and most."""
    figure, plots = new_figures(7.0, 8.0, len(PLOTTED))
    for axes, (label, span) in zip(plots, PLOTTED.items(), strict=True):
        for i, (way, colour) in enumerate(zip(WAYS, COLOURS, strict=True)):
            spans = [span([one for one in tries if one.case[:2] == (way, ms)]) for ms in DELAYS_MS]
            middle, low, high = zip(*spans, strict=True)
            places = [at + 0.08 * (i - 2) for at in range(len(DELAYS_MS))]
            axes.plot(places, middle, "o-", color=colour, lw=1.6, ms=4, label=way)
            axes.vlines(places, low, high, color=colour, lw=1, alpha=0.5)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
    plots[0].legend(ncols=5, frameon=False, fontsize=8.5, labelcolor=FAINT, loc="lower left", bbox_to_anchor=(0, 1))
    plots[-1].set_xticks(range(len(DELAYS_MS)), [f"{ms} ms" for ms in DELAYS_MS])
    plots[-1].set_xlabel("what the network takes")
    return as_svg(figure)

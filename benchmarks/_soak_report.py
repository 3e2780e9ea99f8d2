"""What a soak test found: trends with intervals, a verdict on each bound, and a picture."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean

import numpy as np
from _processes import Holding
from scipy.stats import t as student

from trainer.plotting import BAD, FAINT, GOOD, INK, as_svg, new_figures

COLOURS = {"arm": FAINT, "policy": BAD, "recorder": GOOD}
HOUR_S = 3600.0
MEMORY_MIB = 4.0
"""Private memory that a process may grow by in an hour, or in the whole run where that is shorter."""
COUNTED = 0.5
"""Threads, files and segments may not grow by one."""
DRIFT = 0.005
"""Share that the rate of commands may change by from beginning to end, and be off the robot's rate."""
HELD = 0.05
"""Share of the commands that may hold the arm, as where a picture came late."""
NEEDED = 3
"""Samples that a judgement takes."""
MISSED = 0.001
"""Share of ticks that may be missed: on a computer without real-time guarantees some are."""


@dataclass(frozen=True)
class Window:
    """What was seen at one sample, and since the one before."""

    at_s: float
    """Since the policy began to drive."""
    holdings: dict[str, Holding]
    """By process."""
    periods_ms: tuple[float, float, float]
    """Between commands as they were published: median, 99th percentile, longest."""
    rate_hz: float
    missed: int
    """Ticks without a command: whole periods in gaps of more than one and a half."""

    def line(self) -> str:
        """When, how fast, and what was missed."""
        return f"{self.at_s:.0f} s: {self.rate_hz:.2f} Hz, {self.missed} missed"


@dataclass(frozen=True)
class Trend:
    """What a line through the samples grows by from the first to the last, with its 95 % interval."""

    growth: float
    low: float
    high: float

    def __str__(self) -> str:
        growth, low, high = (round(value, 2) + 0.0 for value in (self.growth, self.low, self.high))
        return f"{growth:+.2f} [{low:+.2f}, {high:+.2f}]"


@dataclass(frozen=True)
class Finding:
    """One bound, and whether it was kept."""

    what: str
    found: str
    bound: str
    kept: bool


def trend(times: Sequence[float], values: Sequence[float]) -> Trend:
    """Least squares. Samples that resemble the ones before count for less: of n with a correlation r of the residuals
    from one to the next, as n (1 - r) / (1 + r) do (Bayley & Hammersley, 1946). Times must differ."""
    x, y = np.asarray(times, float), np.asarray(values, float)
    span, n = float(x[-1] - x[0]), len(x)
    if n < 3:
        return Trend(float(y[-1] - y[0]), -math.inf, math.inf)
    slope, start = np.polyfit(x, y, 1)
    residuals = y - (slope * x + start)
    power = float(residuals @ residuals)
    scale = max(1.0, float(np.abs(y).max()))
    if power < (1e-9 * scale) ** 2 * n:  # a line, but for rounding
        return Trend(float(slope * span), float(slope * span), float(slope * span))
    correlation = max(0.0, float(residuals[1:] @ residuals[:-1]) / power)
    degrees = max(1.0, n * (1 - correlation) / (1 + correlation) - 2)
    error = math.sqrt(power / degrees / float(((x - x.mean()) ** 2).sum()))
    half = float(student.ppf(0.975, degrees)) * error * span
    return Trend(float(slope * span), float(slope * span) - half, float(slope * span) + half)


def judge(windows: Sequence[Window], rate_hz: float) -> list[Finding]:
    """Whether memory, threads, files, segments and rate stayed as they were.

    Args: windows: after the warm-up; fewer than NEEDED say nothing, as where a process ended before.
    """
    if len(windows) < NEEDED:
        return [lost("samples that a judgement lacks", NEEDED - len(windows))]
    times = [window.at_s for window in windows]
    hours = max(1.0, (times[-1] - times[0]) / HOUR_S)
    found = []
    for process in windows[0].holdings:
        held = [window.holdings[process] for window in windows]
        grown = trend(times, [h.private for h in held])
        level = f"{mean(h.private for h in held):.1f} MiB, grew by {grown}"
        found.append(_bounded(f"{process}: private memory", level, grown.growth, MEMORY_MIB * hours, "MiB"))
        for name in ("threads", "files", "segments"):
            values = [getattr(h, name) for h in held]
            grown = trend(times, values)
            level = f"{min(values)} to {max(values)}, grew by {grown}"
            found.append(_bounded(f"{process}: {name}", level, grown.growth, COUNTED, ""))
    rates = [window.rate_hz for window in windows]
    drift, off = trend(times, rates), mean(rates) / rate_hz - 1
    found.append(_bounded("rate: drift, Hz", str(drift), abs(drift.growth), DRIFT * rate_hz, "Hz"))
    found.append(_bounded("rate", f"{mean(rates):.3f} Hz", abs(off), DRIFT, f"off {rate_hz:g} Hz"))
    missed, commands = sum(w.missed for w in windows), sum(rates) * (times[-1] - times[0]) / max(1, len(times) - 1)
    share = missed / commands
    found.append(_bounded("missed ticks", f"{missed} of {commands:.0f}", share, MISSED, "of the ticks"))
    return found


def _bounded(what: str, found: str, value: float, bound: float, unit: str) -> Finding:
    return Finding(what, found, f"{bound:g} {unit}".strip(), value <= bound)


def lost(what: str, count: int) -> Finding:
    """Something of which none may be."""
    return Finding(what, str(count), "0", count == 0)


def stood_still(holds: int, commands: int) -> Finding:
    """Whether the policy drove, or stood still instead: what stops it may last until somebody clears it."""
    return _bounded("commands that held", f"{holds} of {commands}", holds / max(1, commands), HELD, "of them")


def table(findings: Sequence[Finding]) -> str:
    """A line a finding."""
    widths = [max(len(getattr(f, name)) for f in findings) for name in ("what", "found")]
    return "\n".join(
        f"{f.what:<{widths[0]}}  {f.found:<{widths[1]}}  at most {f.bound:<18}  {'kept' if f.kept else 'BROKEN'}"
        for f in findings
    )


def picture(windows: Sequence[Window], rate_hz: float) -> str:
    """Memory, threads and files, periods and rate over time, as SVG; empty axes without windows."""
    figure, (memory, counts, periods, rate) = new_figures(8.0, 8.5, 4)
    minutes = [window.at_s / 60 for window in windows]
    for process in windows[0].holdings if windows else ():
        held, colour = [window.holdings[process] for window in windows], COLOURS.get(process, INK)
        first = held[0].private
        memory.plot(minutes, [h.private - first for h in held], color=colour, label=f"{process} ({first:.0f} MiB)")
        counts.plot(minutes, [h.files for h in held], color=colour, label=f"{process}: files")
        counts.plot(minutes, [h.threads for h in held], color=colour, ls=":", label=f"{process}: threads")
    for k, (name, style) in enumerate((("median", "-"), ("99 %", "--"), ("longest", ":"))):
        periods.plot(minutes, [w.periods_ms[k] for w in windows], color=INK, ls=style, label=name)
    rate.plot(minutes, [w.rate_hz for w in windows], color=INK)
    rate.axhline(rate_hz, color=FAINT, lw=0.8)
    named = {memory: "private memory, MiB\nsince the start", counts: "held", periods: "between commands, ms"}
    for axes, name in {**named, rate: "commands a second"}.items():
        axes.set_ylabel(name)
    for axes in named if windows else ():
        axes.legend(fontsize=7, frameon=False, ncols=3)
    rate.set_xlabel("minutes")
    return as_svg(figure)


def as_json(windows: Sequence[Window], findings: Sequence[Finding]) -> dict[str, object]:
    """All of it."""
    return {"findings": [asdict(f) for f in findings], "windows": [asdict(w) for w in windows]}

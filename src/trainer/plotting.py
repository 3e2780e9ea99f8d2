"""How Encore's pictures look, and how they become SVG texts."""

import io

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, FAINT, GRID = "#1d2733", "#6b7684", "#e4e8ed"
GOOD, BAD = "#2a9d5c", "#c9483b"


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of one plot, its sides in inches."""
    figure, axes = new_figures(width, height, 1)
    return figure, axes[0]


def new_figures(width: float, height: float, rows: int) -> tuple[Figure, list[Axes]]:
    """A figure of plots one above the other, which share their x axis; its sides in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    plots: list[Axes] = list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])
    for axes in plots:
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(GRID)
        axes.tick_params(colors=FAINT, labelcolor=INK, labelsize=8.5, length=0)
        axes.xaxis.label.set(color=FAINT, fontsize=8.5)
        axes.yaxis.label.set(color=FAINT, fontsize=8.5)
        axes.grid(color=GRID, lw=0.8)
        axes.set_axisbelow(True)
    return figure, plots


def as_svg(figure: Figure) -> str:
    """The figure as SVG. Text stays text, and the same data give the same characters."""
    text = io.StringIO()
    # Files stay small; a fixed salt and no date make the same data give the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "encore", "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()

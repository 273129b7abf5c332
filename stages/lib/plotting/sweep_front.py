"""The trials of a sweep, and the front of those of which none is both smaller and better."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.lib.plotting.png import Axes, draw_png

# Shares that people know, for the marks of an axis.
_SHARES = (0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.999, 1)

_LISTED = 20  # points of the front that are numbered


class Point(NamedTuple):
    """One mark of a scatter plot."""

    x: float
    y: float
    is_valid: bool  # a dot; else a cross
    label: str


def draw_front(path: Path, title: str, x_label: str, y_label: str, points: Sequence[Point], best: int | None) -> None:
    """Draw points, and a line of steps through those than which no valid one is both smaller and better.

    These stand numbered below with their labels, the largest 20. y is a share, 0..1, drawn such that each halving of
    what is missing to 1 takes the same height. best: the position of the point that is ringed. Everyone can tell the
    colours apart, and the shapes say the same: Okabe and Ito's palette (https://jfly.uni-koeln.de/color/).
    """
    front = find_front([point for point in points if point.is_valid])
    listed = front[-_LISTED:]
    kinds = (
        ("trial", "o", "#0072B2", [point for point in points if point.is_valid]),
        ("failed", "x", "#000000", [point for point in points if not point.is_valid]),
    )
    with draw_png(path, 9.5, 5.5 + 0.2 * len(listed)) as figure:
        axes = figure.subplots()
        for name, marker, color, shown in kinds:
            if shown:
                x, y = [point.x for point in shown], [point.y for point in shown]
                axes.scatter(x, y, s=26, marker=marker, color=color, alpha=0.5, label=name)
        if front:
            axes.plot(
                [point.x for point in front],
                [point.y for point in front],
                color="#D55E00",
                drawstyle="steps-post",
                marker="D",
                markersize=5,
                linewidth=1.2,
                label="none is both smaller and better",
            )
        for number, point in enumerate(listed, start=1):
            axes.annotate(
                str(number),
                (point.x, point.y),
                xytext=(-4, 5),
                textcoords="offset points",
                ha="right",
                fontsize=9,
                color="#8A3D00",
                weight="bold",
            )
        if best is not None:
            x, y = [points[best].x], [points[best].y]
            axes.scatter(x, y, s=170, facecolors="none", edgecolors="#000000", linewidths=1.5, label="best")
        _scale_share(axes, [point.y for point in points])
        axes.grid(color="lightgrey", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.margins(x=0.06)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.set_title(title, parse_math=False)
        axes.legend(loc="lower right", fontsize=8)
        axes.text(
            *(0.0, -0.13),
            "\n".join(
                f"{number:>2}  {point.y:.4f}  {point.x:>9,.0f}  {point.label}"
                for number, point in enumerate(listed, start=1)
            ),
            transform=axes.transAxes,
            va="top",
            fontsize=8,
            family="monospace",
            linespacing=1.5,
            parse_math=False,
        )


def find_front(points: Sequence[Point]) -> list[Point]:
    """The points than which none has both a smaller x and a larger y, the smallest first: the Pareto front.

    Of equal points the first one stands for all.
    """
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.y)):
        if not front or point.y > front[-1].y:
            front.append(point)
    return front


def _scale_share(axes: Axes, shares: Sequence[float]) -> None:
    """Let y be -log(1 - share), with marks at well-known shares."""
    whole = 1.0005  # keeps a share of 1 on the chart
    axes.set_yscale("function", functions=(lambda y: -np.log10(whole - y), lambda z: whole - 10**-z))
    low, high = min(shares, default=0.5), max(shares, default=0.5)
    axes.set_ylim(max(0.0, whole - (whole - low) * 1.15), whole - (whole - high) / 1.3)
    bottom, top = axes.get_ylim()
    shown = [share for share in _SHARES if bottom <= share <= top]
    axes.set_yticks(shown, [f"{share:g}" for share in shown])

"""Charts as PNG files whose bytes depend on what they show alone."""

import os
import zlib
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# It reads a matplotlibrc of the folder that it is imported in, and fails over one that is damaged.
with chdir(os.sep):
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

from stages.lib.core.files import atomic_write

# Of a grid of images; lengths in inches. Captions are of 8 points, at matplotlib's distance of 1.2 from line to line.
_COLUMNS = 5
_CELL_WIDTH, _CELL_HEIGHT = 1.9, 2.3
_TITLE_HEIGHT = 0.6
_FONT_POINTS = 8
_LINE_HEIGHT = _FONT_POINTS * 1.2 / 72
_GAP = 0.15
# Letters of a class's name, and of a line of a caption, that there is room for.
_NAME_LETTERS = 30
_CAPTION_LETTERS = 31


def draw_confusions(path: Path, confusions: NDArray[np.int64], class_names: Sequence[str]) -> None:
    """Draw the confusion matrix (true class in rows, predicted in columns): colour is the share of the row."""
    count = len(class_names)
    names = [_cut(name, _NAME_LETTERS) for name in class_names]
    longest = max(map(len, names))
    with mpl.rc_context(mpl.rcParamsDefault):
        room = 0.5 * count + 0.08 * max(longest - 10, 0)  # inches; 10 letters fit beside a matrix without more
        figure = Figure(figsize=(2 + room, 1.5 + room), layout="constrained")
        axes = figure.subplots()
        shares = confusions / np.maximum(confusions.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.argwhere(confusions):
            axes.text(
                column,
                row,
                str(confusions[row, column]),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if shares[row, column] > 0.5 else "black",
            )
        # A class may be called "$5": no formulas.
        axes.set_xticks(range(count), names, rotation=90 if longest > 3 else 0, parse_math=False)
        axes.set_yticks(range(count), names, parse_math=False)
        axes.set(xlabel="predicted class", ylabel="true class", title="Test images by class")
        _save(figure, path)


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"


class Cell(NamedTuple):
    """One square of a heat map."""

    heat: float | None  # its colour, from 0, white, to 1, red; none leaves it grey
    text: str


def draw_heat_map(path: Path, title: str, rows: Sequence[str], columns: Sequence[str], cells: list[list[Cell]]) -> None:
    """Draw a table of `cells`, a list for each row, coloured by their heat."""
    with mpl.rc_context(mpl.rcParamsDefault):
        figure = Figure(figsize=(2.4 + 1.5 * len(columns), 1.3 + 0.6 * len(rows)), layout="constrained")
        axes = figure.subplots()
        axes.set_facecolor("lightgrey")
        heats = [[np.nan if cell.heat is None else cell.heat for cell in line] for line in cells]
        axes.imshow(heats, cmap="OrRd", vmin=0, vmax=1, aspect="auto")
        for row, line in enumerate(cells):
            for column, cell in enumerate(line):
                axes.text(column, row, cell.text, ha="center", va="center", fontsize=8, parse_math=False)
        axes.set_xticks(range(len(columns)), [column.replace(" ", "\n") for column in columns], parse_math=False)
        axes.set_yticks(range(len(rows)), rows, parse_math=False)
        axes.set_xticks(np.arange(0.5, len(columns) - 1), minor=True)
        axes.set_yticks(np.arange(0.5, len(rows) - 1), minor=True)
        axes.grid(which="minor", color="grey")
        axes.tick_params(which="both", length=0)
        axes.xaxis.tick_top()
        axes.set_title(title)
        _save(figure, path)


class Point(NamedTuple):
    """One mark of a scatter plot."""

    x: float
    y: float
    is_valid: bool  # a dot; else a cross
    label: str  # of a point of the front, else empty


def draw_front(path: Path, title: str, x_label: str, y_label: str, points: Sequence[Point], best: int | None) -> None:
    """Draw points, and a line of steps through those that have a label, which stand numbered below.

    y is a share, 0..1, drawn such that each halving of what is missing to 1 takes the same height. best: the position
    of the point that is ringed. Everyone can tell the colours apart, and the shapes say the same: Okabe and Ito's
    palette (https://jfly.uni-koeln.de/color/).
    """
    front = sorted((point for point in points if point.label), key=lambda point: (point.x, point.y))
    kinds = (
        ("trial", "o", "#0072B2", [point for point in points if point.is_valid]),
        ("failed", "x", "#000000", [point for point in points if not point.is_valid]),
    )
    with mpl.rc_context(mpl.rcParamsDefault):
        figure = Figure(figsize=(9.5, 5.5 + 0.2 * len(front)), layout="constrained")
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
        for number, point in enumerate(front, start=1):
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
            axes.scatter(
                [points[best].x],
                [points[best].y],
                s=170,
                facecolors="none",
                edgecolors="#000000",
                linewidths=1.5,
                label="best",
            )
        _scale_share(axes, [point.y for point in points])
        axes.grid(color="lightgrey", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.margins(x=0.06)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.set_title(title, parse_math=False)
        axes.legend(loc="lower right", fontsize=8)
        lines = "\n".join(f"{number:>2}  {point.label}" for number, point in enumerate(front, start=1))
        axes.text(
            *(0.0, -0.13),
            lines,
            transform=axes.transAxes,
            va="top",
            fontsize=8,
            family="monospace",
            linespacing=1.5,
            parse_math=False,
        )
        _save(figure, path)


def _scale_share(axes: Axes, shares: Sequence[float]) -> None:
    """Let y be -log(1 - share), with marks that people know."""
    whole = 1.0005  # keeps a share of 1 on the chart
    axes.set_yscale("function", functions=(lambda y: -np.log10(whole - y), lambda z: whole - 10**-z))
    low, high = min(shares, default=0.5), max(shares, default=0.5)
    axes.set_ylim(max(0.0, whole - (whole - low) * 1.15), whole - (whole - high) / 1.3)
    marks = [
        0.0,
        0.2,
        0.4,
        0.6,
        0.7,
        0.8,
        0.85,
        0.9,
        0.92,
        0.94,
        0.95,
        0.96,
        0.97,
        0.98,
        0.985,
        0.99,
        0.995,
        0.999,
        1.0,
    ]
    bottom, top = axes.get_ylim()
    shown = [mark for mark in marks if bottom <= mark <= top]
    axes.set_yticks(shown, [f"{mark:g}" for mark in shown])


def draw_images(
    path: Path,
    title: str,
    images: Sequence[NDArray[np.generic]] | NDArray[np.generic],
    captions: Sequence[str],
    grey_levels: tuple[int, int] | None = None,
) -> None:
    """Draw images (H, W) in a grid, each with its caption; without an image, the title stands alone.

    grey_levels: the values that are black and white; by default the least and the largest of each image.
    """
    rows = -(-len(images) // _COLUMNS)
    width, height = _CELL_WIDTH * _COLUMNS, _TITLE_HEIGHT + _CELL_HEIGHT * rows
    black, white = grey_levels or (None, None)
    lines = max((caption.count("\n") + 1 for caption in captions), default=0)
    box_width, box_height = _CELL_WIDTH - _GAP, _CELL_HEIGHT - _GAP - lines * _LINE_HEIGHT
    with mpl.rc_context(mpl.rcParamsDefault):
        figure = Figure(figsize=(width, height))
        figure.suptitle(title, y=1 - 0.1 / height)
        # One for all images, with inches as its units: one for each would take longer than everything else.
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
            row, column = divmod(place, _COLUMNS)
            middle = _CELL_WIDTH * (column + 0.5)
            bottom = _TITLE_HEIGHT + _CELL_HEIGHT * (row + 1) - _GAP
            inches = min(box_width / image.shape[1], box_height / image.shape[0])  # of a pixel
            top, half = bottom - inches * image.shape[0], inches * image.shape[1] / 2
            axes.imshow(
                image,
                cmap="gray",
                interpolation="nearest",
                vmin=black,
                vmax=white,
                extent=(middle - half, middle + half, bottom, top),
                aspect="auto",
            )
            text = "\n".join(_cut(line, _CAPTION_LETTERS) for line in caption.split("\n"))
            axes.text(middle, top - 0.05, text, ha="center", va="bottom", fontsize=_FONT_POINTS, parse_math=False)
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with atomic_write(path) as partial:
        figure.savefig(
            partial,
            format="png",
            dpi=100,
            # No name and version of the program, so that the file outlives an update.
            metadata={"Software": None},
            # Run lengths alone: zlib's other strategies search matches in ways that differ between its builds.
            pil_kwargs={"compress_type": zlib.Z_RLE},
        )

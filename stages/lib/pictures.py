"""Pictures as PNG files whose bytes depend on what they show alone."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stages.lib.files import write_whole

_COLUMNS = 5


def draw_confusions(path: Path, confusions: NDArray[np.int64], class_names: Sequence[str]) -> None:
    """Draw the confusion matrix (true class in rows, predicted in columns): colour is the share of the row."""
    count = len(class_names)
    with mpl.rc_context(mpl.rcParamsDefault):
        figure = Figure(figsize=(2 + 0.5 * count, 1.5 + 0.5 * count), layout="constrained")
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
        rotation = 90 if max(map(len, class_names)) > 3 else 0
        # A class may be called "$5": no formulas.
        axes.set_xticks(range(count), class_names, rotation=rotation, parse_math=False)
        axes.set_yticks(range(count), class_names, parse_math=False)
        axes.set(xlabel="predicted class", ylabel="true class", title="Test images by class")
        _save(figure, path)


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
    is_sound: bool  # a dot; else a cross
    label: str  # of a point of the front, else empty


def draw_front(path: Path, title: str, x_label: str, y_label: str, points: Sequence[Point], best: int | None) -> None:
    """Draw points, and a line of steps through those that have a label, which stand numbered beside the picture.

    best: the position of the point that is ringed. Colours are told apart by everyone, and shapes say the same: Okabe
    and Ito's palette (https://jfly.uni-koeln.de/color/).
    """
    front = sorted((point for point in points if point.label), key=lambda point: (point.x, point.y))
    with mpl.rc_context(mpl.rcParamsDefault):
        figure = Figure(figsize=(11, max(5.5, 1.5 + 0.3 * len(front))), layout="constrained")
        axes = figure.subplots()
        for is_sound, marker, color, name in ((True, "o", "#0072B2", "trial"), (False, "x", "#000000", "failed trial")):
            shown = [point for point in points if point.is_sound is is_sound]
            if shown:
                axes.scatter(
                    [point.x for point in shown],
                    [point.y for point in shown],
                    s=26,
                    marker=marker,
                    color=color,
                    alpha=0.5,
                    linewidths=0 if is_sound else 1.2,
                    label=name,
                )
        if front:
            axes.plot(
                [point.x for point in front],
                [point.y for point in front],
                color="#D55E00",
                drawstyle="steps-post",
                linewidth=1.2,
                marker="D",
                markersize=5,
                label="none is both smaller and more accurate",
            )
        for number, point in enumerate(front, start=1):
            axes.annotate(
                str(number),
                (point.x, point.y),
                xytext=(-5, 5),
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
                marker="o",
                facecolors="none",
                edgecolors="#000000",
                linewidths=1.5,
                label="best",
            )
        axes.grid(color="lightgrey", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.margins(0.07)
        axes.ticklabel_format(useOffset=False, style="plain")
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.set_title(title, parse_math=False)
        axes.legend(loc="lower right", fontsize=8)
        if front:
            lines = "\n".join(f"{number:>2}  {point.label}" for number, point in enumerate(front, start=1))
            axes.text(
                1.02,
                1.0,
                lines,
                transform=axes.transAxes,
                va="top",
                fontsize=8,
                family="monospace",
                linespacing=1.6,
                parse_math=False,
            )
        _save(figure, path)


def draw_images(path: Path, title: str, images: NDArray[np.float32], captions: Sequence[str]) -> None:
    """Draw images (N, H, W) in a grid, each with its caption; without an image, the title stands alone."""
    rows = -(-len(images) // _COLUMNS)
    with mpl.rc_context(mpl.rcParamsDefault):
        figure = Figure(figsize=(1.9 * _COLUMNS, 0.6 + 2.3 * rows), layout="constrained")
        figure.suptitle(title)
        if rows:
            cells: list[Axes] = list(figure.subplots(rows, _COLUMNS, squeeze=False).flat)
            for axes in cells:
                axes.set_axis_off()
            for axes, image, caption in zip(cells, images, captions, strict=False):
                _draw_image(axes, image, caption)
        _save(figure, path)


def _draw_image(axes: Axes, image: NDArray[np.float32], caption: str) -> None:
    axes.imshow(image, cmap="gray", interpolation="nearest")
    axes.set_title(caption, fontsize=8, parse_math=False)


def _save(figure: Figure, path: Path) -> None:
    with write_whole(path) as partial:
        figure.savefig(
            partial,
            format="png",
            dpi=100,
            # No name and version of the program, so that the file outlives an update.
            metadata={"Software": None},
            # Run lengths alone: zlib's other strategies search matches in ways that differ between its builds.
            pil_kwargs={"compress_type": zlib.Z_RLE},
        )

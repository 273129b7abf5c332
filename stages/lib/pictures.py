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
                axes.set(xticks=[], yticks=[])  # else those that are not shown are laid out, too
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

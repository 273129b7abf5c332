"""A table whose cells are coloured."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.lib.plotting.png import draw_png


class Cell(NamedTuple):
    """One square of a heat map."""

    heat: float | None  # its colour, from 0, white, to 1, red; none leaves it grey
    text: str


def draw_heat_map(path: Path, title: str, rows: Sequence[str], columns: Sequence[str], cells: list[list[Cell]]) -> None:
    """Draw a table of `cells`, a list for each row, coloured by their heat."""
    with draw_png(path, 2.4 + 1.5 * len(columns), 1.3 + 0.6 * len(rows)) as figure:
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

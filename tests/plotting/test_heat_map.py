"""A heat map has a cell for each row and column, coloured by its heat."""

import numpy as np
import pytest
from charts import read_pixels

from stages.lib.plotting.heat_map import Cell, draw_heat_map

# The ends of matplotlib's colours `OrRd`, and its `lightgrey`.
WHITE, RED, GREY = (255, 247, 236), (127, 0, 0), (211, 211, 211)


def draw_cells(folder, cells):
    """A heat map of these cells, a list for each row, as RGB pixels (height, width, 3)."""
    rows, columns = (
        [f"{kind} {number}" for number in range(count)]
        for kind, count in (("row", len(cells)), ("column", len(cells[0])))
    )
    draw_heat_map(folder / "map.png", "title", rows, columns, cells)
    return read_pixels(folder / "map.png")


@pytest.mark.parametrize(
    ("heat", "colour"), [(0.0, WHITE), (1.0, RED), (None, GREY)], ids=["no heat", "all heat", "none"]
)
def test_heat_decides_on_a_cells_colour(tmp_path, heat, colour):
    """A cell is white at 0, red at 1, and grey without a heat."""
    pixels = draw_cells(tmp_path, [[Cell(heat, "")]])
    shares = {other: (pixels == other).all(axis=2).mean() for other in (WHITE, RED, GREY)}

    assert shares.pop(colour) > 0.2
    assert max(shares.values()) < 0.01  # the edges of letters are grey, too


def test_heat_does_not_depend_on_the_other_cells(tmp_path):
    """Colours are not stretched to the heats that there are: a half alone is a half among others."""
    colour = tuple(draw_cells(tmp_path, [[Cell(0.5, "")]])[-30, -30])
    pixels = draw_cells(tmp_path, [[Cell(0.0, ""), Cell(0.5, ""), Cell(1.0, "")]])

    assert colour not in (WHITE, RED, GREY)
    assert (pixels == colour).all(axis=2).any()


def test_cells_stand_in_the_order_of_rows_and_columns(tmp_path):
    """The first row is above, the first column to the left."""
    pixels = draw_cells(tmp_path, [[Cell(1.0, ""), Cell(0.0, "")], [Cell(None, ""), Cell(0.0, "")]])
    # The middles of their areas, down and to the right.
    red, grey, white = (np.median((pixels == colour).all(axis=2).nonzero(), axis=1) for colour in (RED, GREY, WHITE))

    assert red[0] < white[0] < grey[0]
    assert max(red[1], grey[1]) < white[1]


def test_cell_shows_its_text(tmp_path):
    """Another text is another chart."""
    assert not np.array_equal(draw_cells(tmp_path, [[Cell(0.0, "9")]]), draw_cells(tmp_path, [[Cell(0.0, "8")]]))


@pytest.mark.parametrize("name", [r"$\frac$", "$5^$"])
def test_name_that_looks_like_a_formula_is_drawn(tmp_path, name):
    """Dollar signs in a row, a column or a cell begin no formula, which could not be parsed."""
    draw_heat_map(tmp_path / "map.png", "title", [name], [name], [[Cell(0.0, name)]])

    assert (tmp_path / "map.png").exists()

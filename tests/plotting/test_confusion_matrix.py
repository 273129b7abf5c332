"""The confusion matrix shows its counts, whatever the classes are called."""

import numpy as np
import pytest
from charts import CONFUSIONS, draw, read_pixels
from samples import CLASS_NAMES

from stages.lib.plotting.confusion_matrix import draw_confusions


def test_other_confusions_are_another_chart(tmp_path):
    """What is shown decides the bytes."""
    before = draw(tmp_path, "confusions")
    draw_confusions(tmp_path / "other.png", CONFUSIONS.T, CLASS_NAMES)

    assert (tmp_path / "other.png").read_bytes() != before


def test_long_class_name_is_cut(tmp_path):
    """A class may have 255 letters: the matrix keeps its place."""
    charts = []
    for letters in (100, 255):
        draw_confusions(tmp_path / "confusions.png", CONFUSIONS, ["a" * letters, "b", "c"])
        charts.append((tmp_path / "confusions.png").read_bytes())
    pixels = read_pixels(tmp_path / "confusions.png").astype(int)
    blue = (pixels[..., 2] - pixels[..., 0] > 20).sum()  # squares of more than few images: four of nine

    assert charts[0] == charts[1]
    assert blue > 4 * 40**2  # each at least 40 pixels wide; with short names it is 50


@pytest.mark.parametrize("name", [r"$\frac$", "$5^$"])
def test_class_name_that_looks_like_a_formula_is_drawn(tmp_path, name):
    """Dollar signs begin no formula, which could not be parsed."""
    draw_confusions(tmp_path / "confusions.png", CONFUSIONS, [name, "b", "c"])

    assert (tmp_path / "confusions.png").exists()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["猫", "🦄 unicorn", "ไก่"])
def test_class_name_that_the_font_lacks_is_drawn_by_number(tmp_path, name):
    """The chart is that of a class which is called by its number, and matplotlib does not warn."""
    charts = []
    for shown in (name, "class 1"):
        draw_confusions(tmp_path / "confusions.png", CONFUSIONS, ["left", shown, "right"])
        charts.append((tmp_path / "confusions.png").read_bytes())

    assert charts[0] == charts[1]


def test_many_classes_share_the_room_of_some(tmp_path):
    """Each of 500 classes has its square in a chart of bounded size: half an inch for each would take gigabytes.

    The diagonal is dark from end to end, and so is one confusion far from it.
    """
    confusions = np.eye(500, dtype=np.int64)
    confusions[400] = np.eye(500, dtype=np.int64)[20]
    draw_confusions(tmp_path / "confusions.png", confusions, list(map(str, range(500))))
    dark = (read_pixels(tmp_path / "confusions.png") == (8, 48, 107)).all(axis=2)  # the end of matplotlib's `Blues`
    rows, columns = dark.nonzero()
    at_confusion = columns[rows == rows.min() + round(400.5 / 500 * (np.ptp(rows) + 1))]

    assert dark.shape == (2550, 2600)
    assert np.unique(rows).size > 2300
    assert at_confusion.max() < columns.min() + 0.05 * np.ptp(columns)

"""The confusion matrix shows its counts, whatever the classes are called."""

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

"""The front of a sweep's trials is drawn with a line for each of its points."""

import pytest
from charts import POINTS, read_size

from stages.lib.plotting.sweep_front import Point, draw_front, find_front


def test_front_has_no_point_that_another_beats():
    """The Pareto front: from the smallest on, each point is better than all that are smaller."""
    places = [(1, 0.5), (2, 0.4), (2, 0.7), (3, 0.7), (4, 0.9), (1, 0.5)]
    points = [Point(x, y, is_valid=True, label=str(number)) for number, (x, y) in enumerate(places)]

    assert [point.label for point in find_front(points)] == ["0", "2", "4"]
    assert find_front([]) == []


def test_every_point_of_a_front_has_its_line(tmp_path):
    """The labels stand below: a chart with more of them is taller, and as wide."""
    sizes = []
    for count in (1, 2):
        draw_front(tmp_path / "front.png", "trials", "bytes", "accuracy", POINTS[:count], best=None)
        sizes.append(read_size(tmp_path / "front.png"))

    assert sizes == [(950, 570), (950, 590)]


@pytest.mark.parametrize("name", [r"$\frac$", "$5^$"])
def test_title_that_looks_like_a_formula_is_drawn(tmp_path, name):
    """Dollar signs in the title or a label begin no formula, which could not be parsed."""
    draw_front(tmp_path / "front.png", name, "x", "y", [POINTS[0]._replace(label=name)], best=None)

    assert (tmp_path / "front.png").exists()

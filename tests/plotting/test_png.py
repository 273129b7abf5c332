"""Charts are PNG files whose bytes depend on what they show alone."""

import struct
from pathlib import Path

import numpy as np
import pytest
from charts import NAMES, draw
from PIL import Image
from samples import run_python

from stages.lib.plotting.png import draw_png

CHARTS = pytest.mark.parametrize("name", NAMES)


def list_chunks(content):
    """The names of a PNG file's chunks (PNG specification, section 5.3: length, name, data, checksum)."""
    place, names = 8, []
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        names.append(content[place + 4 : place + 8].decode())
        place += 12 + length
    return names


@CHARTS
def test_chart_drawn_twice_is_the_same_bytes(tmp_path, name):
    """Neither time nor chance is in a chart."""
    assert draw(tmp_path, name) == draw(tmp_path, name)


def test_charts_under_a_users_own_settings_are_the_same_bytes(tmp_path):
    """A matplotlibrc and another process change no byte."""
    (tmp_path / "matplotlibrc").write_text(
        "font.size: 20\nfigure.dpi: 30\nsavefig.dpi: 50\nsavefig.transparent: True\nsavefig.bbox: tight\n"
        "image.cmap: jet\naxes.facecolor: red\nlines.linewidth: 7\nfont.family: monospace\n",
        encoding="utf-8",
    )
    (tmp_path / "own").mkdir()
    code = "\n".join(
        [
            f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})",
            "import matplotlib; assert matplotlib.rcParams['font.size'] == 20",
            "from pathlib import Path; from charts import NAMES, draw",
            "for name in NAMES: draw(Path('own'), name)",
        ]
    )
    done = run_python("-c", code, cwd=tmp_path, MATPLOTLIBRC=str(tmp_path / "matplotlibrc"), PYTHONHASHSEED="7")

    assert done.returncode == 0, done.stderr
    for name in NAMES:
        assert (tmp_path / "own" / f"{name}.png").read_bytes() == draw(tmp_path, name), name


@CHARTS
def test_chart_names_no_program(tmp_path, name):
    """No text chunk tells the program and its version: an update does not change the file."""
    content = draw(tmp_path, name)

    assert set(list_chunks(content)) == {"IHDR", "pHYs", "IDAT", "IEND"}
    assert b"atplotlib" not in content


@CHARTS
def test_chart_can_be_opened(tmp_path, name):
    """A chart is a PNG file with something on it."""
    draw(tmp_path, name)
    with Image.open(tmp_path / f"{name}.png") as chart:
        chart.load()
        colours = np.unique(np.asarray(chart).reshape(-1, 4), axis=0)

    assert chart.format == "PNG"
    assert len(colours) > 2


def test_chart_that_fails_leaves_the_file_as_it_was(tmp_path):
    """A file is written only once the whole chart is drawn."""
    path = tmp_path / "chart.png"
    path.write_bytes(b"before")
    with pytest.raises(ZeroDivisionError), draw_png(path, 1, 1):
        1 / 0  # noqa: B018  # an error of the drawing

    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["chart.png"]

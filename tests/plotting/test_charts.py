"""Charts are PNG files whose bytes depend on what they show alone."""

import struct
from pathlib import Path

import numpy as np
import pytest
from imports import ROOT
from PIL import Image
from samples import CLASS_NAMES, make_split, run_python

from stages.lib.plotting.charts import Cell, Point, draw_confusions, draw_front, draw_heat_map, draw_images

CONFUSIONS = np.array([[9, 1, 0], [0, 8, 2], [0, 0, 0]])
IMAGES = (make_split(7, seed=0).images / 255).astype(np.float32)
CAPTIONS = [f"test[{row}]: left\ntaken for right (0.{row}1)" for row in range(7)]
CELLS = [
    [Cell(0.0, "all 30"), Cell(0.5, "29\nof 30"), Cell(None, "not run")],
    [Cell(1.0, "none"), *[Cell(None, "")] * 2],
]
POINTS = [
    Point(9904, 0.73, is_valid=True, label="0.7300  hidden_units=[8]"),
    Point(29632, 1.0, is_valid=True, label="1.0000  hidden_units=[32]"),
    Point(29632, 0.97, is_valid=True, label=""),
    Point(6704, 0.0, is_valid=False, label=""),
]
# The ends of matplotlib's colours `OrRd`, and its `lightgrey`.
WHITE, RED, GREY = (255, 247, 236), (127, 0, 0), (211, 211, 211)


def draw(folder, name):
    """One of the charts that the stages draw, as bytes."""
    path = folder / f"{name}.png"
    match name:
        case "confusions":
            draw_confusions(path, CONFUSIONS, CLASS_NAMES)
        case "images":
            draw_images(path, "7 of 30 test images are misclassified", IMAGES, CAPTIONS)
        case "no image":
            draw_images(path, "0 of 30 test images are misclassified", IMAGES[:0], [])
        case "heat map":
            draw_heat_map(path, "Test images", ["a.onnx", "b.tflite"], ["one two", "three", "four five six"], CELLS)
        case "front":
            draw_front(path, "4 trials", "bytes", "accuracy", POINTS, best=1)
        case "no point":
            draw_front(path, "1 trial, which failed", "bytes", "accuracy", [], best=None)
    return path.read_bytes()


def list_chunks(content):
    """The names of a PNG file's chunks (PNG specification, section 5.3: length, name, data, checksum)."""
    place, names = 8, []
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        names.append(content[place + 4 : place + 8].decode())
        place += 12 + length
    return names


NAMES = ["confusions", "images", "no image", "heat map", "front", "no point"]
PICTURES = pytest.mark.parametrize("name", NAMES)


@PICTURES
def test_picture_drawn_twice_is_the_same_bytes(tmp_path, name):
    """Neither time nor chance is in a chart."""
    assert draw(tmp_path, name) == draw(tmp_path, name)


def test_pictures_under_a_users_own_settings_are_the_same_bytes(tmp_path):
    """A matplotlibrc and another process change no byte."""
    (tmp_path / "matplotlibrc").write_text(
        "font.size: 20\nfigure.dpi: 30\nsavefig.dpi: 50\nsavefig.transparent: True\nsavefig.bbox: tight\n"
        "image.cmap: jet\naxes.facecolor: red\nlines.linewidth: 7\nfont.family: monospace\n",
        encoding="utf-8",
    )
    (tmp_path / "own").mkdir()
    code = "\n".join(
        [
            f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(ROOT / 'tests')]!r}",
            "import matplotlib; assert matplotlib.rcParams['font.size'] == 20",
            "from pathlib import Path; from test_charts import NAMES, draw",
            "for name in NAMES: draw(Path('own'), name)",
        ]
    )
    done = run_python("-c", code, cwd=tmp_path, MATPLOTLIBRC=str(tmp_path / "matplotlibrc"), PYTHONHASHSEED="7")

    assert done.returncode == 0, done.stderr
    for name in NAMES:
        assert (tmp_path / "own" / f"{name}.png").read_bytes() == draw(tmp_path, name), name


@PICTURES
def test_picture_names_no_program(tmp_path, name):
    """No text chunk tells the program and its version: an update does not change the file."""
    content = draw(tmp_path, name)

    assert set(list_chunks(content)) == {"IHDR", "pHYs", "IDAT", "IEND"}
    assert b"atplotlib" not in content


@PICTURES
def test_picture_can_be_opened(tmp_path, name):
    """A chart is a PNG file with something on it."""
    draw(tmp_path, name)
    with Image.open(tmp_path / f"{name}.png") as picture:
        picture.load()
        colours = np.unique(np.asarray(picture).reshape(-1, 4), axis=0)

    assert picture.format == "PNG"
    assert len(colours) > 2


def test_other_confusions_are_another_picture(tmp_path):
    """What is shown decides the bytes."""
    before = draw(tmp_path, "confusions")
    draw_confusions(tmp_path / "other.png", CONFUSIONS.T, CLASS_NAMES)

    assert (tmp_path / "other.png").read_bytes() != before


def test_each_image_is_shown(tmp_path):
    """A grid of seven images has two rows: it is taller than that of five, and as wide."""
    sizes = []
    for count in (5, 7):
        draw_images(tmp_path / "grid.png", "images", IMAGES[:count], CAPTIONS[:count])
        with Image.open(tmp_path / "grid.png") as picture:
            sizes.append(picture.size)

    assert sizes == [(950, 290), (950, 520)]


def draw_cells(folder, cells):
    """A heat map of these cells, a list for each row, as RGB pixels (height, width, 3)."""
    rows, columns = (
        [f"{kind} {number}" for number in range(count)]
        for kind, count in (("row", len(cells)), ("column", len(cells[0])))
    )
    draw_heat_map(folder / "map.png", "title", rows, columns, cells)
    with Image.open(folder / "map.png") as picture:
        return np.asarray(picture.convert("RGB"))


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


def test_every_point_of_a_front_has_its_line(tmp_path):
    """The labels stand below: a chart with more of them is taller, and as wide."""
    sizes = []
    for count in (1, 2):
        draw_front(tmp_path / "front.png", "trials", "bytes", "accuracy", POINTS[:count], best=None)
        with Image.open(tmp_path / "front.png") as picture:
            sizes.append(picture.size)

    assert sizes == [(950, 570), (950, 590)]


def test_long_names_are_cut(tmp_path):
    """A class may have 255 letters: the matrix keeps its place, and a caption stays below its image's width."""
    pictures = []
    for letters in (100, 255):
        draw_confusions(tmp_path / "confusions.png", CONFUSIONS, ["a" * letters, "b", "c"])
        draw_images(tmp_path / "images.png", "title", IMAGES[:1], ["a" * letters])
        pictures.append([(tmp_path / name).read_bytes() for name in ("confusions.png", "images.png")])
    with Image.open(tmp_path / "confusions.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    blue = (pixels[..., 2] - pixels[..., 0] > 20).sum()  # squares of more than few images: four of nine

    assert pictures[0] == pictures[1]
    assert blue > 4 * 40**2  # each at least 40 pixels wide; with short names it is 50


@pytest.mark.parametrize("name", [r"$\frac$", "$5^$"])
def test_name_that_looks_like_a_formula_is_drawn(tmp_path, name):
    """Dollar signs in a class, a row, a column, a cell or a caption begin no formula, which could not be parsed."""
    draw_confusions(tmp_path / "confusions.png", CONFUSIONS, [name, "b", "c"])
    draw_heat_map(tmp_path / "map.png", "title", [name], [name], [[Cell(0.0, name)]])
    draw_images(tmp_path / "images.png", "title", IMAGES[:1], [name])
    draw_front(tmp_path / "front.png", name, "x", "y", [POINTS[0]._replace(label=name)], best=None)

    assert len(list(tmp_path.glob("*.png"))) == 4

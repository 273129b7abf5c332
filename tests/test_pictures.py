"""Pictures are PNG files whose bytes depend on what they show alone."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from samples import CLASS_NAMES, make_split, run_python

from stages.lib.pictures import draw_confusions, draw_images

CONFUSIONS = np.array([[9, 1, 0], [0, 8, 2], [0, 0, 0]])
IMAGES = (make_split(7, seed=0).images / 255).astype(np.float32)
CAPTIONS = [f"test[{row}]: left\ntaken for right (0.{row}1)" for row in range(7)]


def draw(folder, name):
    """One of the pictures that `evaluate` draws, as bytes."""
    path = folder / f"{name}.png"
    match name:
        case "confusions":
            draw_confusions(path, CONFUSIONS, CLASS_NAMES)
        case "images":
            draw_images(path, "7 of 30 test images are misclassified", IMAGES, CAPTIONS)
        case "no image":
            draw_images(path, "0 of 30 test images are misclassified", IMAGES[:0], [])
    return path.read_bytes()


def list_chunks(content):
    """The names of a PNG file's chunks (PNG specification, section 5.3: length, name, data, checksum)."""
    place, names = 8, []
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        names.append(content[place + 4 : place + 8].decode())
        place += 12 + length
    return names


PICTURES = pytest.mark.parametrize("name", ["confusions", "images", "no image"])


@PICTURES
def test_picture_drawn_twice_is_the_same_bytes(tmp_path, name):
    """Neither time nor chance is in a picture."""
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
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})",
            "import matplotlib; assert matplotlib.rcParams['font.size'] == 20",
            "from pathlib import Path; from test_pictures import draw",
            "for name in ('confusions', 'images', 'no image'): draw(Path('own'), name)",
        ]
    )
    done = run_python("-c", code, cwd=tmp_path, MATPLOTLIBRC=str(tmp_path / "matplotlibrc"), PYTHONHASHSEED="7")

    assert done.returncode == 0, done.stderr
    for name in ("confusions", "images", "no image"):
        assert (tmp_path / "own" / f"{name}.png").read_bytes() == draw(tmp_path, name), name


@PICTURES
def test_picture_names_no_program(tmp_path, name):
    """No text chunk tells the program and its version: an update does not change the file."""
    content = draw(tmp_path, name)

    assert set(list_chunks(content)) == {"IHDR", "pHYs", "IDAT", "IEND"}
    assert b"atplotlib" not in content


@PICTURES
def test_picture_can_be_opened(tmp_path, name):
    """A picture is a PNG file with something on it."""
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

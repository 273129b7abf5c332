"""A grid shows each image with its caption."""

import numpy as np
import pytest
from charts import CAPTIONS, COLOURS, IMAGES, read_pixels, read_size

from stages.lib.plotting.image_grid import draw_images


def test_each_image_is_shown(tmp_path):
    """A grid of seven images has two rows: it is taller than that of five, and as wide."""
    sizes = []
    for count in (5, 7):
        draw_images(tmp_path / "grid.png", "images", IMAGES[:count], CAPTIONS[:count])
        sizes.append(read_size(tmp_path / "grid.png"))

    assert sizes == [(950, 290), (950, 520)]


@pytest.mark.parametrize("images", [IMAGES, COLOURS], ids=["grey", "colour"])
def test_pixels_are_shown_as_they_are(tmp_path, images):
    """Every level of an image is in the chart, none of them stretched."""
    draw_images(tmp_path / "grid.png", "", images[:1], [""])
    shown = {tuple(pixel) for pixel in read_pixels(tmp_path / "grid.png").reshape(-1, 3).tolist()}
    pixels = images[0].reshape(48, -1)

    assert {tuple(pixel.tolist()) for pixel in np.broadcast_to(pixels, (48, 3))} <= shown


def test_long_caption_is_cut(tmp_path):
    """A caption stays below its image's width."""
    charts = []
    for letters in (100, 255):
        draw_images(tmp_path / "images.png", "title", IMAGES[:1], ["a" * letters])
        charts.append((tmp_path / "images.png").read_bytes())

    assert charts[0] == charts[1]


@pytest.mark.parametrize("name", [r"$\frac$", "$5^$"])
def test_caption_that_looks_like_a_formula_is_drawn(tmp_path, name):
    """Dollar signs begin no formula, which could not be parsed."""
    draw_images(tmp_path / "images.png", "title", IMAGES[:1], [name])

    assert (tmp_path / "images.png").exists()


@pytest.mark.filterwarnings("error")
def test_letter_that_the_font_lacks_is_drawn_as_a_mark(tmp_path):
    """A file may be called anything: matplotlib does not warn, and the rest of the caption stays."""
    charts = []
    for caption in ("train[3] 写真 3.png\nblank", "train[3] \ufffd\ufffd 3.png\nblank"):
        draw_images(tmp_path / "images.png", "title", IMAGES[:1], [caption])
        charts.append((tmp_path / "images.png").read_bytes())

    assert charts[0] == charts[1]

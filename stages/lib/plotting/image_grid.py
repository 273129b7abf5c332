"""Images in a grid, each with its caption."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.lib.plotting.png import draw_png, replace_missing, shorten

# Lengths are in inches. Captions are of 8 points, at matplotlib's distance of 1.2 from line to line.
_COLUMNS = 5
_CELL_WIDTH, _CELL_HEIGHT = 1.9, 2.3
_TITLE_HEIGHT = 0.6
_FONT_POINTS = 8
_LINE_HEIGHT = _FONT_POINTS * 1.2 / 72
_GAP = 0.15
# Of a line of a caption, that there is room for.
_MAX_LETTERS = 31


def draw_images(
    path: Path,
    title: str,
    images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    captions: Sequence[str],
) -> None:
    """Draw images uint8 (H, W) or (H, W, 3) as they are, in a grid, each with its caption.

    Without an image, the title stands alone.
    """
    rows = -(-len(images) // _COLUMNS)
    width, height = _CELL_WIDTH * _COLUMNS, _TITLE_HEIGHT + _CELL_HEIGHT * rows
    lines = max((caption.count("\n") + 1 for caption in captions), default=0)
    box_width, box_height = _CELL_WIDTH - _GAP, _CELL_HEIGHT - _GAP - lines * _LINE_HEIGHT
    with draw_png(path, width, height, layout=None) as figure:
        figure.suptitle(title, y=1 - 0.1 / height)
        # One for all images, with inches as its units: one for each would take longer than everything else.
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
            row, column = divmod(place, _COLUMNS)
            middle = _CELL_WIDTH * (column + 0.5)
            bottom = _TITLE_HEIGHT + _CELL_HEIGHT * (row + 1) - _GAP
            inches = min(box_width / image.shape[1], box_height / image.shape[0])  # of a pixel
            top, half = bottom - inches * image.shape[0], inches * image.shape[1] / 2
            axes.imshow(
                # A colour map would round some grey levels to their neighbours.
                image if image.ndim == 3 else np.repeat(image[..., np.newaxis], 3, axis=-1),
                interpolation="nearest",
                extent=(middle - half, middle + half, bottom, top),
                aspect="auto",
            )
            text = "\n".join(shorten(replace_missing(line), _MAX_LETTERS) for line in caption.split("\n"))
            axes.text(middle, top - 0.05, text, ha="center", va="bottom", fontsize=_FONT_POINTS, parse_math=False)

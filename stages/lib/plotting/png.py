"""Charts as PNG files whose bytes depend on what they show alone; the only module that imports matplotlib."""

import os
import zlib
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from functools import cache
from pathlib import Path
from typing import Literal

# It reads a matplotlibrc of the folder that it is imported in, and fails over one that is damaged.
with chdir(os.sep):
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ft2font import FT2Font

from stages.lib.core.files import atomic_write

__all__ = ["Axes", "draw_png", "has_letters", "replace_missing", "shorten"]

# Matplotlib brings it along. Without this it would look for missing letters in other fonts that a machine may have.
_FONT, _FONT_PATH = "DejaVu Sans", Path(mpl.get_data_path(), "fonts/ttf/DejaVuSans.ttf")


@contextmanager
def draw_png(
    path: Path, width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Iterator[Figure]:
    """A figure of this size, in inches, which is written to `path` when the block ends without an error."""
    with mpl.rc_context({**mpl.rcParamsDefault, "font.family": _FONT}):
        figure = Figure(figsize=(width, height), layout=layout)
        yield figure
        with atomic_write(path) as partial:
            figure.savefig(
                partial,
                format="png",
                dpi=100,
                # No name and version of the program, so that the file outlives an update.
                metadata={"Software": None},
                # Run lengths alone: zlib's other strategies search matches in ways that differ between its builds.
                pil_kwargs={"compress_type": zlib.Z_RLE},
            )


def has_letters(text: str) -> bool:
    """Whether the charts' font has every letter of a line of text."""
    return all(map(_is_in_font, text))


def replace_missing(text: str) -> str:
    """The line of text with a mark (U+FFFD) for each letter that the charts' font lacks."""
    return "".join(letter if _is_in_font(letter) else "\N{REPLACEMENT CHARACTER}" for letter in text)


@cache
def _is_in_font(letter: str) -> bool:
    return bool(_load_font().get_char_index(ord(letter)))


@cache
def _load_font() -> FT2Font:
    return FT2Font(str(_FONT_PATH))


def shorten(text: str, max_letters: int) -> str:
    """The text, cut off with an ellipsis if it is longer."""
    return text if len(text) <= max_letters else text[: max_letters - 1] + "…"

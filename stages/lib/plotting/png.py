"""Charts as PNG files whose bytes depend on what they show alone; the only module that imports matplotlib."""

import os
import zlib
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Literal

# It reads a matplotlibrc of the folder that it is imported in, and fails over one that is damaged.
with chdir(os.sep):
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

from stages.lib.core.files import atomic_write

__all__ = ["Axes", "draw_png", "shorten"]


@contextmanager
def draw_png(
    path: Path, width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Iterator[Figure]:
    """A figure of this size, in inches, which is written to `path` when the block ends without an error."""
    with mpl.rc_context(mpl.rcParamsDefault):
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


def shorten(text: str, max_letters: int) -> str:
    """The text, cut off with an ellipsis if it is longer."""
    return text if len(text) <= max_letters else text[: max_letters - 1] + "…"

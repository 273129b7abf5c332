"""The confusion matrix of a classifier."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.lib.plotting.class_labels import label_classes
from stages.lib.plotting.png import draw_png, shorten

# Of a class's name, that there is room for.
_MAX_LETTERS = 30


def draw_confusions(path: Path, confusions: NDArray[np.int64], class_names: Sequence[str]) -> None:
    """Draw the confusion matrix (true class in rows, predicted in columns): colour is the share of the row."""
    count = len(class_names)
    names = [shorten(name, _MAX_LETTERS) for name in label_classes(class_names)]
    longest = max(map(len, names))
    room = 0.5 * count + 0.08 * max(longest - 10, 0)  # inches; 10 letters fit beside a matrix without more
    with draw_png(path, 2 + room, 1.5 + room) as figure:
        axes = figure.subplots()
        shares = confusions / np.maximum(confusions.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.argwhere(confusions):
            text, color = str(confusions[row, column]), "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
        # A class may be called "$5": no formulas.
        axes.set_xticks(range(count), names, rotation=90 if longest > 3 else 0, parse_math=False)
        axes.set_yticks(range(count), names, parse_math=False)
        axes.set(xlabel="predicted class", ylabel="true class", title="Test images by class")

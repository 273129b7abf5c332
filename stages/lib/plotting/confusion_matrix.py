"""The confusion matrix of a classifier."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.lib.plotting.class_labels import label_classes
from stages.lib.plotting.png import draw_png, shorten

# Of a class's name, that there is room for.
_MAX_LETTERS = 30
# Inches of a class, and of all: more would take gigabytes. Of so many classes each still has its name and its counts.
_CELL_SIZE, _MAX_SIZE = 0.5, 24
_MAX_NAMED = 160
_POINTS = 72  # in an inch


def draw_confusions(path: Path, confusions: NDArray[np.int64], class_names: Sequence[str]) -> None:
    """Draw the confusion matrix (true class in rows, predicted in columns): colour is the share of the row.

    Of more than 160 classes some are named, and the counts are left out.
    """
    count = len(class_names)
    names = [shorten(name, _MAX_LETTERS) for name in label_classes(class_names)]
    longest = max(map(len, names))
    size = min(_CELL_SIZE * count, _MAX_SIZE)
    room = size + 0.08 * max(longest - 10, 0)  # inches; 10 letters fit beside a matrix without more
    points = _POINTS * size / count  # of a cell
    with draw_png(path, 2 + room, 1.5 + room) as figure:
        axes = figure.subplots()
        shares = confusions / np.maximum(confusions.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.argwhere(confusions) if count <= _MAX_NAMED else ():
            text, color = str(confusions[row, column]), "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=min(8, points * 0.45), color=color)
        named = range(0, count, -(-count // _MAX_NAMED))
        shown = [names[label] for label in named]
        # A class may be called "$5": no formulas.
        axes.set_xticks(named, shown, rotation=90 if longest > 3 else 0, parse_math=False)
        axes.set_yticks(named, shown, parse_math=False)
        axes.tick_params(labelsize=min(10, _POINTS * size / len(named) * 0.9))
        axes.set(xlabel="predicted class", ylabel="true class", title="Test images by class")

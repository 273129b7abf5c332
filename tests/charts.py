"""One chart of each kind that the stages draw, and what can be read from its file."""

from pathlib import Path

import numpy as np
from PIL import Image
from samples import CLASS_NAMES, make_colour_dataset, make_split

from stages.lib.plotting.confusion_matrix import draw_confusions
from stages.lib.plotting.heat_map import Cell, draw_heat_map
from stages.lib.plotting.image_grid import draw_images
from stages.lib.plotting.sweep_front import Point, draw_front
from stages.lib.plotting.sweep_importances import draw_importances

CONFUSIONS = np.array([[9, 1, 0], [0, 8, 2], [0, 0, 0]])
IMAGES = make_split(7, seed=0).images
COLOURS = make_colour_dataset().train.images[:7]
CAPTIONS = [f"test[{row}]: left\ntaken for right (0.{row}1)" for row in range(7)]
CELLS = [
    [Cell(0.0, "all 30"), Cell(0.5, "29\nof 30"), Cell(None, "not run")],
    [Cell(1.0, "none"), *[Cell(None, "")] * 2],
]
POINTS = [
    Point(9904, 0.73, is_valid=True, label="hidden_units=[8]"),
    Point(29632, 1.0, is_valid=True, label="hidden_units=[32]"),
    Point(29632, 0.97, is_valid=True, label="hidden_units=[32]"),
    Point(6704, 0.0, is_valid=False, label="hidden_units=[4]"),
]
SHARES = {
    "accuracy/test": {"train.epochs": 0.75, "train.seed": 0.25},
    "loss/test": {"train.epochs": 1.0, "train.seed": 0.0},
}
NAMES = ["confusions", "images", "colours", "no image", "heat map", "front", "no point", "importances", "no importance"]


def draw(folder: Path, name: str) -> bytes:
    """The chart of this name, as the bytes of the file that it becomes in the folder."""
    path = folder / f"{name}.png"
    match name:
        case "confusions":
            draw_confusions(path, CONFUSIONS, CLASS_NAMES)
        case "images":
            draw_images(path, "7 of 30 test images are misclassified", IMAGES, CAPTIONS)
        case "colours":
            draw_images(path, "7 of 30 test images are misclassified", COLOURS, CAPTIONS)
        case "no image":
            draw_images(path, "0 of 30 test images are misclassified", IMAGES[:0], [])
        case "heat map":
            draw_heat_map(path, "Test images", ["a.onnx", "b.tflite"], ["one two", "three", "four five six"], CELLS)
        case "front":
            draw_front(path, "4 trials", "bytes", "accuracy", POINTS, best=1)
        case "no point":
            draw_front(path, "1 trial, which failed", "bytes", "accuracy", [], best=None)
        case "importances":
            draw_importances(path, "What mattered in 4 trials", SHARES)
        case "no importance":
            draw_importances(path, "What mattered in 1 trial", {})
    return path.read_bytes()


def read_size(path: Path) -> tuple[int, int]:
    """Width and height of a chart in pixels."""
    with Image.open(path) as chart:
        return chart.size


def read_pixels(path: Path) -> np.ndarray:
    """A chart's colours, uint8 (height, width, 3)."""
    with Image.open(path) as chart:
        return np.asarray(chart.convert("RGB"))

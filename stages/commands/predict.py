"""Classify images with an exported model."""

import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from numpy.typing import NDArray

from stages.lib.core.errors import DataError, ExportError, show_controls
from stages.lib.data.image_decoding import DecodedImage, read_image
from stages.lib.exports.model_metadata import read_onnx_metadata, read_tflite_metadata
from stages.lib.exports.runtimes import RUNTIMES, find_runtimes, load_predictor

_BAR_WIDTH = 30
_STANDARD_INPUT = "-"


@click.command()
@click.argument("image_paths", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--model",
    "model_path",
    type=click.Path(path_type=Path),
    default=Path("models/export/model.onnx"),
    show_default=True,
    help="An exported .onnx or .tflite file.",
)
@click.option(
    "--runtime",
    type=click.Choice(list(RUNTIMES)),
    help="What runs it.  [default: onnx_runtime or litert, by the file's kind]",
)
def predict(image_paths: tuple[str, ...], model_path: Path, runtime: str | None) -> None:
    """Classify each image FILE (any size, grey or colour; - is standard input) with an exported model.

    An image whose background is not the training images' (dark or light) is inverted, which is said.
    Exit code 1 if a file is no image; the others are answered all the same.
    """
    runtime = runtime or find_runtimes(model_path)[0]
    predictor = load_predictor(model_path, runtime)
    metadata = read_metadata(model_path)
    problems: list[DataError] = []
    for name in image_paths:
        try:
            image = open_image(name, metadata)
        except DataError as problem:
            problems.append(problem)
            continue
        (probabilities,) = predictor(image.pixels[np.newaxis])
        source = f"{RUNTIMES[runtime].title} with {model_path.name}"
        click.echo("\n".join(describe(name, image, probabilities, metadata["class_names"], source)))
    if problems:
        raise DataError.join(problems)


def read_metadata(model_path: Path) -> dict[str, Any]:
    """What the exported model says of its classes and its input.

    Raises:
        ExportError: it says nothing, as a model from elsewhere does.
    """
    if model_path.suffix == ".onnx":
        metadata = read_onnx_metadata(onnx.load(model_path, load_external_data=False))
    else:
        metadata = read_tflite_metadata(model_path.read_bytes())
    if not {"background", "class_names", "image_size"} <= metadata.keys():
        hint = "name a model that the export stage wrote, such as models/export/model.onnx"
        raise ExportError(str(model_path), "there are no class names in it", hint)
    return metadata


def open_image(name: str, metadata: dict[str, Any]) -> DecodedImage:
    """The image of that file name, or on standard input, as the model takes it."""
    height, width = metadata["image_size"]
    if name == _STANDARD_INPUT:
        return read_image(sys.stdin.buffer, "standard input", (height, width), metadata["background"])
    try:
        with Path(name).open("rb") as file:
            return read_image(file, name, (height, width), metadata["background"])
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        raise DataError(name, reason, "name an image file that you may read") from None


def describe(
    name: str, image: DecodedImage, probabilities: NDArray[np.float32], class_names: list[str], source: str
) -> list[str]:
    """The answer for a person: the class, who gave it, and a bar for each class."""
    class_names = [show_controls(class_name) for class_name in class_names]  # a model's word, which may be anybody's
    best = class_names[probabilities.argmax()]
    inverted = ", inverted for its background" if image.was_inverted else ""
    width = max(map(len, class_names))
    return [
        f"{show_controls(name)}: {best} ({probabilities.max():.1%}) by {source}{inverted}",
        *(
            f"  {class_name:>{width}} {probability:6.1%} {'█' * round(probability * _BAR_WIDTH)}".rstrip()
            for class_name, probability in zip(class_names, probabilities.tolist(), strict=True)
        ),
    ]

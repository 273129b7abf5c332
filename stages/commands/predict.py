"""Classify images with an exported model."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from stages.lib.core.errors import DataError, PipelineError, show_controls
from stages.lib.core.files import print_csv
from stages.lib.core.paths import find_project
from stages.lib.data.image_decoding import DecodedImage, read_image
from stages.lib.data.image_folder import is_left_by_systems
from stages.lib.exports.model_metadata import find_image_shape, read_metadata
from stages.lib.exports.runtimes import RUNTIMES, find_runtimes, load_predictor

_MODEL_PATH = Path("models/export/model.onnx")
_BAR_WIDTH = 30
_STANDARD_INPUT = "-"
# Of more images each is told in one line.
_MOST_WITH_BARS = 3


@click.command()
@click.argument("names", metavar="FILE|DIR...", nargs=-1, required=True)
@click.option(
    "--model",
    "model_path",
    type=click.Path(path_type=Path),
    help=f"An exported .onnx or .tflite file.  [default: the project's {_MODEL_PATH}]",
)
@click.option(
    "--runtime",
    type=click.Choice(list(RUNTIMES)),
    help="What runs it.  [default: onnx_runtime or litert, by the file's kind]",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "csv", "json"]),
    default="text",
    show_default=True,
    help="csv and json have the probability of every class, unrounded.",
)
def predict(names: tuple[str, ...], model_path: Path | None, runtime: str | None, output_format: str) -> None:
    """Classify images with an exported model.

    FILE is an image of any size, grey or colour; - is standard input. DIR is a folder: all files in it and in its
    subfolders are classified, sorted by path. Hidden files, Thumbs.db and desktop.ini are left out.

    A model of grey images gets an image inverted if its background is not that of the training images (dark or
    light); the answer says so. For a file that is no image there is a line on standard error; the others are
    classified, and the exit code is 1.
    """
    model_path = model_path or find_default_model()
    runtime = runtime or find_runtimes(model_path)[0]
    predictor = load_predictor(model_path, runtime)
    metadata = read_metadata(model_path)
    class_names, source = metadata["class_names"], f"{RUNTIMES[runtime].title} with {model_path.name}"
    listed = [image for name in names for image in list_images(name)]
    is_brief = output_format == "text" and len(listed) > _MOST_WITH_BARS
    records = []
    for name in listed:
        try:
            if isinstance(name, DataError):
                raise name
            image = open_image(name, metadata)
        except DataError as problem:
            click.echo(f"predict: {problem}", err=True)
            continue
        (probabilities,) = predictor(image.pixels[np.newaxis])
        records.append(make_record(name, image, probabilities, class_names))
        if output_format == "text":
            click.echo("\n".join(describe(records[-1], "" if is_brief else source)))
    if output_format == "csv":
        header = ["file", "class", "probability", "was_inverted", *(f"probability of {name}" for name in class_names)]
        rows = ([*list(record.values())[:4], *record["probabilities"].values()] for record in records)
        print_csv(sys.stdout, [header, *rows])
    elif output_format == "json":
        click.echo(json.dumps({"images": records, "model": str(model_path), "runtime": runtime}, indent=2))
    elif is_brief:
        click.echo(f"predict: {len(records):,} images by {source}")
    if len(records) < len(listed):
        raise click.exceptions.Exit(1)


def find_default_model() -> Path:
    """The model that the project exports as ONNX, as a path from this folder.

    Raises:
        PipelineError: this folder is in no project.
    """
    root = find_project(Path.cwd())
    if root is None:
        raise PipelineError(str(Path.cwd()), "it is in no project, so there is no default model", "add --model FILE")
    return Path(os.path.relpath(root / _MODEL_PATH))


def list_images(name: str) -> Iterator[str | DataError]:
    """The file of that name, or each file in the folder of that name and below, and what cannot be looked at."""
    if name == _STANDARD_INPUT or not Path(name).is_dir():
        yield name
        return
    unreadable: list[OSError] = []
    found: list[Path] = []
    for parent, folders, files in os.walk(name, onerror=unreadable.append):
        folders[:] = [folder for folder in folders if not is_left_by_systems(folder)]
        found += [Path(parent, file) for file in files if not is_left_by_systems(file)]
    for path in sorted(found):
        is_special = path.exists() and not path.is_file()  # a FIFO would wait for its other end
        yield DataError(str(path), "it is no ordinary file", "remove it") if is_special else str(path)
    yield from (DataError.unreadable(str(error.filename), error) for error in unreadable)
    if not (found or unreadable):
        yield DataError(name, "there is no image in it", "name a folder with images")


def open_image(name: str, metadata: dict[str, Any]) -> DecodedImage:
    """The image of that file name, or on standard input, as the model takes it."""
    image_shape = find_image_shape(metadata)
    if name == _STANDARD_INPUT:
        return read_image(sys.stdin.buffer, "standard input", image_shape, metadata["background"])
    try:
        with Path(name).open("rb") as file:
            return read_image(file, name, image_shape, metadata["background"])
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        raise DataError(name, reason, "name an image file that you may read") from None


def make_record(
    name: str, image: DecodedImage, probabilities: NDArray[np.float32], class_names: list[str]
) -> dict[str, Any]:
    """The answer for one image. Names are shown as text: a model's words and a file's name may be anybody's."""
    names = list(map(show_controls, class_names))
    return {
        "file": show_controls(name),
        "class": names[probabilities.argmax()],
        "probability": float(probabilities.max()),
        "was_inverted": image.was_inverted,
        "probabilities": dict(zip(names, probabilities.tolist(), strict=True)),
    }


def describe(record: dict[str, Any], source: str) -> list[str]:
    """An answer for a person: the class, who gave it, and a bar for each class; without a source, the class alone."""
    by = f" by {source}" if source else ""
    inverted = ", inverted for its background" if record["was_inverted"] else ""
    width = max(map(len, record["probabilities"]))
    return [
        f"{record['file']}: {record['class']} ({record['probability']:.1%}){by}{inverted}",
        *(
            f"  {name:>{width}} {probability:6.1%} {'█' * round(probability * _BAR_WIDTH)}".rstrip()
            for name, probability in record["probabilities"].items()
            if source
        ),
    ]

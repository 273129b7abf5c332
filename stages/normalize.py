"""Scale images to the network's input range and set a validation split aside.

Reads   data/raw, reports/validation/validation.json
Writes  data/normalized/{train,validation,test}/images.npy   float32 (N, H, W) or (N, H, W, 3)
        data/normalized/{train,validation,test}/labels.npy   uint8 (N,), class ids
        data/normalized/{train,validation,test}/rows.npy     int64 (N,), each image's row in its raw split
        data/normalized/dataset.json                         name, class names, image size, normalization's constants
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stages.lib.core.arrays import Split, count_channels, iterate_chunks, load_split, save_array, write_array
from stages.lib.core.errors import DataError
from stages.lib.core.files import atomic_write, read_json, require_space, write_json
from stages.lib.core.params import Section
from stages.lib.data.normalization import Normalization
from stages.lib.data.splits import split_stratified
from stages.lib.runner.stage import main

# Images handled at a time: 784 float32 features each make 0.8 MB, which stay in the processor's cache until they are
# written. With 25 MB, and a copy of them, most of the processor's time went into fresh pages for each chunk.
ROWS_AT_ONCE = 256
# What a pixel's values are called, by their number.
_CHANNELS = {1: ["grey level"], 3: ["red value", "green value", "blue value"]}


class NormalizeParams(Section):
    """The `normalize` section of params.yaml."""

    method: Literal["scale", "standardize"] = Field(description="one of scale, standardize")
    validation_fraction: float = Field(ge=0, lt=1, description="a number from 0 to below 1")
    seed: int = Field(ge=0, lt=2**32, description="a whole number from 0 to 4294967295")


def compute_normalization(method: str, images: NDArray[np.uint8], rows: NDArray[np.int64]) -> Normalization:
    """Compute the normalization from the training split (`rows` of `images`) alone.

    images: (N, H, W) or (N, H, W, 3). scale: to 0..1. standardize: each channel to mean 0 and standard deviation 1 over
    all pixels, summed in whole numbers, so that neither the order nor the size of the chunks changes a bit.

    Raises:
        DataError: a channel of every pixel is the same, so that there is nothing to divide by.
    """
    channels = count_channels(images)
    if method == "scale":
        return Normalization(shift=(0.0,) * channels, divisor=(255.0,) * channels)
    counts = np.zeros((channels, 256), np.int64)  # of each value in each channel
    for chunk in read_chunks(images, rows):
        for channel, pixels in enumerate(chunk.reshape(-1, channels).T):
            counts[channel] += np.bincount(pixels, minlength=256)
    constants = map(_standardize, counts.tolist(), _CHANNELS[channels])
    shift, divisor = zip(*constants, strict=True)
    return Normalization(shift, divisor)


def _standardize(counts: list[int], channel: str) -> tuple[float, float]:
    """The mean and the standard deviation of pixels of which `counts` tells how many have each value, from 0 on."""
    # Python's whole numbers have no largest one.
    count = sum(counts)
    total = sum(value * number for value, number in enumerate(counts))
    total_of_squares = sum(value**2 * number for value, number in enumerate(counts))
    variance = (count * total_of_squares - total**2) / count**2
    if variance == 0:
        problem, hint = f"every pixel has the same {channel}", "set ingest.path to images that show something"
        raise DataError("data/raw/train", problem, hint)
    return total / count, math.sqrt(variance)


def read_chunks(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """Read the given rows (ascending) of memory-mapped images, a bounded number at a time."""
    for chunk in iterate_chunks(len(rows), ROWS_AT_ONCE):
        yield images[rows[chunk]]


def write_split(split: Split, rows: NDArray[np.int64], normalization: Normalization, split_dir: Path) -> None:
    """Stream the given rows of a raw split to disk as features."""
    split_dir.mkdir()
    save_array(split_dir / "rows.npy", rows)
    save_array(split_dir / "labels.npy", split.labels[rows])
    shape = (len(rows), *split.images.shape[1:])
    features = (normalization.apply(chunk) for chunk in read_chunks(split.images, rows))
    write_array(split_dir / "images.npy", shape, "<f4", features)


def run(
    params: NormalizeParams,
    raw_dir: Path = Path("data/raw"),
    validation_report_path: Path = Path("reports/validation/validation.json"),
    target_dir: Path = Path("data/normalized"),
) -> None:
    """Normalize every split of valid data with constants of the training split alone."""
    if not read_json(validation_report_path)["success"]:
        raise DataError(
            str(validation_report_path),
            "the data did not pass `validate`",
            "run `dvc repro validate`: it names what is wrong, and what to do",
        )
    train, test = load_split(raw_dir / "train"), load_split(raw_dir / "test")
    train_rows, validation_rows = split_stratified(train.labels, params.validation_fraction, params.seed)
    if not len(train_rows):
        raise DataError(
            "normalize.validation_fraction",
            f"all {len(validation_rows)} images are set aside, and none is left to train on",
            "lower it",
        )
    require_space(target_dir, (train.images.size + test.images.size) * np.dtype(np.float32).itemsize)
    normalization = compute_normalization(params.method, train.images, train_rows)
    dataset = read_json(raw_dir / "dataset.json")
    with atomic_write(target_dir) as partial_dir:
        partial_dir.mkdir()
        write_split(train, train_rows, normalization, partial_dir / "train")
        write_split(train, validation_rows, normalization, partial_dir / "validation")
        write_split(test, np.arange(len(test.labels)), normalization, partial_dir / "test")
        write_json(
            partial_dir / "dataset.json",
            {
                "channels": dataset["channels"],
                "class_names": dataset["class_names"],
                "image_size": dataset["image_size"],
                "name": dataset["name"],
                "normalization": normalization._asdict(),
            },
        )
    shift, divisor = (" ".join(f"{constant:g}" for constant in constants) for constants in normalization)
    print(
        f"normalize: {len(train_rows)} training, {len(validation_rows)} validation and {len(test.labels)} test "
        f"images as (pixel - {shift}) / {divisor}"
    )


if __name__ == "__main__":
    main("normalize", NormalizeParams, run)

"""Golden vectors: a few images as bytes and the answers that every export must give for them, on any device."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import Split, count_channels

# Digits of a probability in JSON.
_DECIMALS = 6
# Half a step of these decimals, and Keras's own distance from exact arithmetic.
_SLACK = 5e-6
# Where an answer is sure, a logit rounded the other way hardly moves it: right and wrong answers are far apart.
_SURE = 0.99
_CANDIDATES = 100  # of each class
# Enough for a look at every digit, few enough for a microcontroller's flash.
MAX_IMAGES = 10


class Golden(NamedTuple):
    """A few test images and the exact answers to them."""

    rows: NDArray[np.int64]  # (G,), of the test split
    images: NDArray[np.uint8]  # (G, H, W) or (G, H, W, 3)
    labels: NDArray[np.integer]  # (G,)
    probabilities: NDArray[np.float64]  # (G, classes), of the network


def find_golden(probabilities: NDArray[np.float64], test: Split) -> Golden:
    """For each class, of ten at most, an image that the network is sure of, and the answers.

    probabilities: the network's for the test images, float64 (N, classes), the same to the bit on every processor.
    """
    rows = []
    for label in np.unique(test.labels)[:MAX_IMAGES]:
        candidates = np.flatnonzero(test.labels == label)[:_CANDIDATES]
        certainties = probabilities[candidates, label]
        is_sure = certainties >= _SURE
        rows.append(candidates[is_sure.argmax() if is_sure.any() else certainties.argmax()])
    chosen = np.sort(rows)
    return Golden(chosen, np.array(test.images[chosen]), np.array(test.labels[chosen]), np.array(probabilities[chosen]))


def describe_golden(
    golden: Golden,
    class_names: Sequence[str],
    max_abs_errors: Mapping[str, float],
    integers: Mapping[str, tuple[NDArray[np.uint8], int]],
) -> dict[str, Any]:
    """The golden vectors as JSON takes them.

    max_abs_errors: of each export, by its file's name. integers: outputs (G, classes) before scale and zero point are
    applied, and by how many steps they may differ, by the file's name.
    """
    _, *image_size = golden.images.shape[:3]
    channels = count_channels(golden.images)
    order = "red, green and blue of each pixel, " if channels > 1 else ""
    return {
        "about": (
            f"Each of `images` is one image's bytes, row by row, {order}in hexadecimal. "
            "The row of `probabilities` with its number is the answer of every file in `tolerances`; "
            "no value may be further off than that. For a file in "
            "`integers`, `output` is the answer before scale and zero point are applied, `tolerance` in steps of it."
        ),
        "channels": channels,
        "class_names": list(class_names),
        "classes": [class_names[label] for label in golden.labels],
        "image_size": image_size,
        "images": [image.tobytes().hex() for image in golden.images],
        "integers": {
            name: {"output": outputs.tolist(), "tolerance": tolerance}
            for name, (outputs, tolerance) in integers.items()
        },
        "probabilities": golden.probabilities.round(_DECIMALS).tolist(),
        "tolerances": {name: round(error + _SLACK, _DECIMALS) for name, error in max_abs_errors.items()},
    }

"""Export the network to ONNX and TFLite, and prove that each export answers as Keras does.

Reads   models/model.keras, data/normalized, data/raw/{train,test}
Writes  models/export/model.onnx           float32, any batch
        models/export/model.tflite         float32, any batch
        models/export/model_int8.tflite    integers alone, calibrated on training images
        reports/parity.json                each export against Keras over the whole test split
        reports/parity_measured.json       the largest |Δp| of each: differs between machines, so no output of DVC's

All take raw pixels, uint8 (N, H, W), and give probabilities (N, classes).
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stages.lib.arrays import load_array, load_split
from stages.lib.canonical_onnx import canonicalize_onnx
from stages.lib.conversion import (
    convert_to_int8_tflite,
    convert_to_onnx,
    convert_to_tflite,
    fold_normalization,
)
from stages.lib.deterministic_tensorflow import keras
from stages.lib.errors import ExportError
from stages.lib.files import read_json, write_json, write_whole
from stages.lib.hashing import hash_output
from stages.lib.model_metadata import add_onnx_metadata, add_tflite_metadata
from stages.lib.normalization import read_normalization
from stages.lib.params import Section
from stages.lib.parity import Parity, compare
from stages.lib.photos import find_background
from stages.lib.prediction import predict_in_batches
from stages.lib.runtimes import load_predictor
from stages.lib.stage import main


class MaxAbsError(Section):
    """The largest |Δp| that each format may show against Keras."""

    onnx: float = Field(gt=0, le=1, description="a difference of probabilities above 0, at most 1")
    tflite: float = Field(gt=0, le=1, description="a difference of probabilities above 0, at most 1")
    tflite_int8: float = Field(gt=0, le=1, description="a difference of probabilities above 0, at most 1")


class ExportParams(Section):
    """The `export` section of params.yaml."""

    opset: int = Field(ge=13, le=18, description="a whole number from 13 to 18")
    representative_samples: int = Field(ge=1, description="a whole number of images, at least 1")
    max_abs_error: MaxAbsError = Field(description="a mapping with the keys onnx, tflite, tflite_int8")


def convert(
    network: keras.Model, dataset: dict[str, Any], calibration_images: NDArray[np.uint8], opset: int
) -> dict[str, bytes]:
    """The bytes of each exported file by its name."""
    pixel_network = fold_normalization(network, read_normalization(dataset))
    metadata = {
        "background": find_background(calibration_images),
        "class_names": dataset["class_names"],
        "image_size": dataset["image_size"],
        "input": "uint8 grey levels 0..255 as they are, (batch, height, width)",
        "output": "class probabilities, (batch, classes)",
    }
    onnx_model = convert_to_onnx(pixel_network, opset)
    add_onnx_metadata(onnx_model, metadata)
    return {
        "model.onnx": canonicalize_onnx(onnx_model),
        "model.tflite": add_tflite_metadata(convert_to_tflite(pixel_network), metadata),
        "model_int8.tflite": add_tflite_metadata(convert_to_int8_tflite(pixel_network, calibration_images), metadata),
    }


def choose_calibration_images(data_dir: Path, raw_dir: Path, count: int) -> NDArray[np.uint8]:
    """Up to `count` raw images of the training split, evenly spaced; none of validation or test."""
    rows = load_array(data_dir / "train" / "rows.npy")
    chosen = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)]
    images: NDArray[np.uint8] = load_array(raw_dir / "train" / "images.npy")[chosen]
    return images


def compare_exports(
    export_dir: Path, network: keras.Model, data_dir: Path, raw_dir: Path, budgets: dict[str, float]
) -> dict[str, Parity]:
    """Each exported file on raw test images against Keras on normalized ones."""
    raw_test = load_split(raw_dir / "test")
    reference = predict_in_batches(network, load_array(data_dir / "test" / "images.npy"))
    return {
        name: compare(
            reference,
            predict_in_batches(load_predictor(export_dir / name), raw_test.images),
            raw_test.labels,
            budget,
        )
        for name, budget in budgets.items()
    }


def describe_parity(parity: Parity, size: int) -> dict[str, Any]:
    """What is the same on every machine: counts and verdicts."""
    described = parity._asdict()
    del described["max_abs_error"]
    return {**described, "accuracy": round(parity.accuracy, 4), "bytes": size}


def require_parity(parities: dict[str, Parity]) -> None:
    """Refuse an export that does not answer as Keras does.

    Raises:
        ExportError: naming each such file and its largest |Δp|.
    """
    faults = [
        ExportError(
            name,
            expected=f"|Δp| of at most {parity.budget:g} against Keras",
            got=f"{parity.max_abs_error:.3g} ({parity.images - parity.same_class} of {parity.images} classes differ)",
            do="find the cause, or give export.max_abs_error a reason to be larger",
        )
        for name, parity in parities.items()
        if not parity.within_budget
    ]
    if faults:
        raise ExportError.join(faults)


def run(
    params: ExportParams,
    data_dir: Path = Path("data/normalized"),
    raw_dir: Path = Path("data/raw"),
    model_path: Path = Path("models/model.keras"),
    export_dir: Path = Path("models/export"),
    reports_dir: Path = Path("reports"),
) -> None:
    """Convert, compare, report; the exports become an output only if all of them are within budget."""
    network = keras.saving.load_model(model_path, compile=False, safe_mode=True)
    dataset = read_json(data_dir / "dataset.json")
    calibration_images = choose_calibration_images(data_dir, raw_dir, params.representative_samples)
    budgets = {
        "model.onnx": params.max_abs_error.onnx,
        "model.tflite": params.max_abs_error.tflite,
        "model_int8.tflite": params.max_abs_error.tflite_int8,
    }
    with write_whole(export_dir) as partial_dir:
        partial_dir.mkdir()
        contents = convert(network, dataset, calibration_images, params.opset)
        for name, content in contents.items():
            (partial_dir / name).write_bytes(content)
        parities = compare_exports(partial_dir, network, data_dir, raw_dir, budgets)
        write_json(
            reports_dir / "parity.json",
            {name: describe_parity(parity, len(contents[name])) for name, parity in parities.items()},
        )
        write_json(
            reports_dir / "parity_measured.json",
            {
                "max_abs_error": {name: parity.max_abs_error for name, parity in parities.items()},
                "parity_md5": hash_output(reports_dir / "parity.json"),
            },
        )
        require_parity(parities)
    for name, parity in parities.items():
        print(
            f"export: {name}: {len(contents[name])} bytes, same class as Keras on {parity.same_class} of "
            f"{parity.images} test images, accuracy {parity.accuracy:.4f}, largest |Δp| {parity.max_abs_error:.1e}"
        )


if __name__ == "__main__":
    main("export", ExportParams, run)

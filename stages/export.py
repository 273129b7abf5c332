"""Export the network to ONNX, TFLite and C, and prove that each export answers as Keras does in every runtime.

Reads   models/model.keras, data/normalized, data/raw, the sections of params.yaml that made them
Writes  models/export/model.onnx, model_int8.onnx                 for servers and browsers
        models/export/model.tflite, model_float16.tflite, model_dynamic_range.tflite    for phones
        models/export/model_int8.tflite, c/*, arduino/classifier.zip    for microcontrollers
        models/export/web/index.html                              a page that answers, for any browser
        models/export/golden.json, c/golden.h                     images and the answers that a device must give
        models/export/SHA256SUMS                                  checked before one of these is loaded
        reports/exports.json       accuracy and bytes of model_int8.tflite, null where it is withheld
        reports/parity.csv         each export against Keras in its worst runtime, and why it is withheld
        reports/parity/parity.{json,md,png}    every export in every runtime against Keras
        reports/parity/disagreements.png       the test images that an export answers differently
        reports/parity_measured.json    what differs between machines, so no output of DVC's: largest |Δp|, and all of
                                        tract and TensorFlow Lite Micro, which not every machine has

A file that is beyond its budget, a runtime's limit or the microcontroller's memory is withheld, which the reports say;
the others are written, unless it is one of export.required.

Every model takes raw pixels, uint8 (N, H, W) or (N, H, W, 3), and gives probabilities (N, classes).
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator

from stages.lib.core.arrays import count_channels, load_array, load_split
from stages.lib.core.files import atomic_write, read_json, write_csv, write_json, write_text
from stages.lib.core.hashing import hash_output
from stages.lib.core.params import Section, load_params
from stages.lib.data.image_decoding import find_background
from stages.lib.data.normalization import read_normalization
from stages.lib.exports.canonical_onnx import canonicalize_onnx
from stages.lib.exports.checksums import write_checksums
from stages.lib.exports.conversion import (
    calibrate,
    convert_to_dynamic_range_tflite,
    convert_to_float16_tflite,
    convert_to_int8_tflite,
    convert_to_onnx,
    convert_to_tflite,
    fold_normalization,
)
from stages.lib.exports.golden import describe_golden, find_golden
from stages.lib.exports.lineage import MODEL_SECTIONS, Upstream, digest_params
from stages.lib.exports.model_metadata import add_onnx_metadata, add_tflite_metadata
from stages.lib.exports.onnx_quantization import quantize_onnx
from stages.lib.exports.parity import Budget
from stages.lib.exports.parity_matrix import (
    Comparison,
    compare_exports,
    describe_exports,
    describe_others,
    draw_disagreements,
    draw_matrix,
    list_portable,
    measure_errors,
    tabulate,
)
from stages.lib.exports.withholding import Refusal, judge, list_withheld, require_exports, require_parity_here
from stages.lib.microcontroller.arduino_library import ARDUINO_NAME, build_arduino_library
from stages.lib.microcontroller.firmware import (
    MicrocontrollerBudget,
    check_c_classifier,
    describe_firmware,
    examine_firmware,
    judge_firmware,
    measure_golden_steps,
    render_firmware,
    require_arena,
    require_golden_here,
    require_reference_here,
    summarize_firmware,
)
from stages.lib.model.boards import BOARDS, BoardName, find_limits
from stages.lib.model.deterministic_tensorflow import keras
from stages.lib.model.int8_footprint import INT8_NAME, Sizes
from stages.lib.model.network import load_network
from stages.lib.model.order_free_network import compile_probabilities
from stages.lib.model.prediction import predict_in_batches
from stages.lib.runner.stage import main
from stages.lib.web.page import PAGE_PATH, render_page

ArtifactName = Literal[
    "onnx_float32", "onnx_int8", "tflite_float32", "tflite_float16", "tflite_dynamic_range", "tflite_int8"
]
FILES: dict[ArtifactName, str] = {
    "onnx_float32": "model.onnx",
    "onnx_int8": "model_int8.onnx",
    "tflite_float32": "model.tflite",
    "tflite_float16": "model_float16.tflite",
    "tflite_dynamic_range": "model_dynamic_range.tflite",
    "tflite_int8": INT8_NAME,
}
_GREY_INPUT = "uint8 grey levels 0..255 as they are, (batch, height, width)"
_COLOUR_INPUT = "uint8 pixels 0..255 as they are, (batch, height, width, 3), RGB"
_BUDGET_KEYS = ", ".join(Budget.model_fields)


class Budgets(Section):
    """One budget for each kind of export, in every runtime."""

    onnx_float32: Budget = Field(description=f"a mapping with the keys {_BUDGET_KEYS}")
    onnx_int8: Budget = Field(description=f"a mapping with the keys {_BUDGET_KEYS}")
    tflite_float32: Budget = Field(description=f"a mapping with the keys {_BUDGET_KEYS}")
    tflite_float16: Budget = Field(description=f"a mapping with the keys {_BUDGET_KEYS}")
    tflite_dynamic_range: Budget = Field(description=f"a mapping with the keys {_BUDGET_KEYS}")
    tflite_int8: Budget = Field(description=f"a mapping with the keys {_BUDGET_KEYS}")


class ExportParams(Section):
    """The `export` section of params.yaml."""

    artifacts: list[ArtifactName] = Field(
        description=f"a list of different ones of {', '.join(FILES)}, onnx_float32 among them (MLflow registers it)"
    )
    required: list[ArtifactName] = Field(
        description=f"a list of different ones of export.artifacts ({', '.join(FILES)}), onnx_float32 among them"
    )
    opset: int = Field(ge=13, le=18, description="a whole number from 13 to 18")
    representative_samples: int = Field(ge=1, description="a whole number of images, at least 1")
    budgets: Budgets = Field(description=f"a mapping with the keys {', '.join(FILES)}")
    board: BoardName | None = Field(description=f"one of {', '.join(BOARDS)}, or null")
    microcontroller: MicrocontrollerBudget = Field(
        description=f"a mapping with the keys {', '.join(MicrocontrollerBudget.model_fields)}"
    )

    @field_validator("artifacts", "required")
    @classmethod
    def _require_registered_and_different(
        cls, artifacts: list[ArtifactName], info: ValidationInfo
    ) -> list[ArtifactName]:
        is_asked_for = set(artifacts) <= set(info.data.get("artifacts", FILES))
        if "onnx_float32" not in artifacts or not is_asked_for or len(set(artifacts)) < len(artifacts):
            raise ValueError
        return artifacts


def convert(
    artifacts: Sequence[ArtifactName],
    pixel_network: keras.Model,
    calibration_images: NDArray[np.uint8],
    metadata: dict[str, Any],
    opset: int,
) -> dict[str, bytes]:
    """The bytes of each exported model by its file's name.

    pixel_network: as `fold_normalization` gives it. calibration_images: raw, uint8.
    """
    onnx_model = convert_to_onnx(pixel_network, opset)
    ranges = calibrate(pixel_network, calibration_images)
    converters: dict[ArtifactName, Callable[[], bytes]] = {
        "onnx_float32": lambda: finish_onnx(onnx_model, metadata),
        "onnx_int8": lambda: finish_onnx(quantize_onnx(onnx_model, ranges), metadata),
        "tflite_float32": lambda: add_tflite_metadata(convert_to_tflite(pixel_network), metadata),
        "tflite_float16": lambda: add_tflite_metadata(convert_to_float16_tflite(pixel_network), metadata),
        "tflite_dynamic_range": lambda: add_tflite_metadata(convert_to_dynamic_range_tflite(pixel_network), metadata),
        "tflite_int8": lambda: add_tflite_metadata(convert_to_int8_tflite(pixel_network, ranges), metadata),
    }
    return {FILES[artifact]: converters[artifact]() for artifact in artifacts}


def finish_onnx(model: onnx.ModelProto, metadata: dict[str, Any]) -> bytes:
    """The model's canonical bytes, metadata included."""
    add_onnx_metadata(model, metadata)
    return canonicalize_onnx(model)


def describe_model(
    dataset: dict[str, Any], calibration_images: NDArray[np.uint8], upstream: Upstream
) -> dict[str, Any]:
    """What every exported model says of itself.

    calibration_images: raw, uint8 (N, H, W) or (N, H, W, 3).
    """
    channels = count_channels(calibration_images)
    is_grey = channels == 1
    return {
        # Images are light on dark or dark on light, which is to be told of grey ones alone.
        "background": find_background(calibration_images) if is_grey else None,
        "channels": channels,
        "class_names": dataset["class_names"],
        "image_size": dataset["image_size"],
        "input": _GREY_INPUT if is_grey else _COLOUR_INPUT,
        "output": "class probabilities, (batch, classes)",
        "upstream": upstream._asdict(),
    }


def choose_calibration_images(data_dir: Path, raw_dir: Path, count: int) -> NDArray[np.uint8]:
    """Up to `count` raw images of the training split, evenly spaced; none of validation or test."""
    rows = load_array(data_dir / "train" / "rows.npy")
    chosen = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)]
    images: NDArray[np.uint8] = load_array(raw_dir / "train" / "images.npy")[chosen]
    return images


def describe_int8(report: dict[str, Any], withheld: dict[str, str]) -> dict[str, Any]:
    """Accuracy and bytes of the int8 export, none where it is withheld: what a table of experiments has room for."""
    is_there = INT8_NAME in report and INT8_NAME not in withheld
    return {
        "int8_acc": report[INT8_NAME]["accuracy"] if is_there else None,
        "int8_bytes": report[INT8_NAME]["bytes"] if is_there else None,
    }


def write_reports(
    reports_dir: Path, report: dict[str, Any], measured: dict[str, Any], comparisons: Sequence[Comparison]
) -> None:
    """Write what the comparison found: counts and verdicts for all to hash, and figures of this machine.

    report: with whether each export is required, and why it is withheld, or "".
    comparisons: of runtimes that every machine has.
    """
    withheld = {name: export["withheld"] for name, export in report.items() if export["withheld"]}
    write_json(reports_dir / "exports.json", describe_int8(report, withheld))
    columns = ("images", "same_class", "ties", "accuracy", "bytes", "required", "withheld")
    write_csv(
        reports_dir / "parity.csv",
        ["export", *columns, "max_abs_error"],
        (
            [name, *(export[key] for key in columns), export["budget"]["max_abs_error"]]
            for name, export in report.items()
        ),
    )
    write_json(reports_dir / "parity/parity.json", report)
    parity_md5 = hash_output(reports_dir / "parity/parity.json")
    write_json(reports_dir / "parity_measured.json", {**measured, "parity_md5": parity_md5})
    told = ["## Withheld", "", *(f"- `{name}`: {reason}." for name, reason in withheld.items()), ""]
    table = tabulate(comparisons, is_measured=False)
    write_text(reports_dir / "parity/parity.md", "\n".join([*(told if withheld else []), *table]) + "\n")
    draw_matrix(reports_dir / "parity/parity.png", comparisons)


def read_sizes(network: keras.Model) -> Sizes:
    """What the network's memory on a microcontroller follows from."""
    units: list[int] = []
    blocks: list[tuple[int, ...]] = []
    filters: list[int] = []
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            filters.append(layer.filters)
        elif isinstance(layer, keras.layers.MaxPooling2D):
            blocks.append(tuple(filters))
            filters = []
        elif isinstance(layer, keras.layers.Dense):
            units.append(layer.units)
    height, width, *channels = network.input_shape[1:]
    return Sizes((height, width), tuple(units[:-1]), units[-1], tuple(blocks), math.prod(channels))


def tell_withheld(refusals: Sequence[Refusal], required: Sequence[str]) -> None:
    """Print a line for each cause for which files are withheld; those of required files end the stage instead."""
    for refusal in refusals:
        if not set(required) & refusal.measured.keys():
            print(f"export: withheld: {refusal.describe()}")


def write_exports(
    export_dir: Path, models: dict[str, bytes], golden: dict[str, Any], sources: dict[str, str], page: str
) -> None:
    """Write all of these exports or none, and the digests of them.

    sources: in C, by the file's name. page: for browsers. Both are of the int8 export, and empty where it is withheld.
    """
    with atomic_write(export_dir) as partial_dir:
        partial_dir.mkdir()
        for name, content in models.items():
            (partial_dir / name).write_bytes(content)
        write_json(partial_dir / "golden.json", golden)
        for name, text in sources.items():
            write_text(partial_dir / "c" / name, text)
        if sources:
            (partial_dir / "arduino").mkdir()
            library = build_arduino_library(sources, models[INT8_NAME])
            (partial_dir / "arduino" / ARDUINO_NAME).write_bytes(library)
        if page:
            write_text(partial_dir / PAGE_PATH, page)
        write_checksums(partial_dir)


def run(
    params: ExportParams,
    data_dir: Path = Path("data/normalized"),
    raw_dir: Path = Path("data/raw"),
    model_path: Path = Path("models/model.keras"),
    export_dir: Path = Path("models/export"),
    reports_dir: Path = Path("reports"),
) -> None:
    """Convert, compare, report; the exports that are within their limits become an output, if the required ones are."""
    limits = find_limits(params.board, params.microcontroller.max_arena_bytes, params.microcontroller.max_file_bytes)
    network = load_network(model_path)
    dataset = read_json(data_dir / "dataset.json")
    test, features = load_split(raw_dir / "test"), load_array(data_dir / "test" / "images.npy")
    budgets: dict[str, Budget] = {FILES[kind]: getattr(params.budgets, kind) for kind in params.artifacts}

    calibration_images = choose_calibration_images(data_dir, raw_dir, params.representative_samples)
    upstream = Upstream(digest_params(load_params()), hash_output(raw_dir), hash_output(model_path))
    metadata = describe_model(dataset, calibration_images, upstream)
    pixel_network = fold_normalization(network, read_normalization(dataset))
    models = convert(params.artifacts, pixel_network, calibration_images, metadata, params.opset)

    probabilities = predict_in_batches(compile_probabilities(network), features)
    reference = probabilities.astype(np.float32)
    comparisons = compare_exports(models, budgets, reference, test)
    portable = list_portable(comparisons)
    report = describe_exports(portable, {name: len(content) for name, content in models.items()})
    measured: dict[str, Any] = {"max_abs_error": measure_errors(comparisons), "runtimes": describe_others(comparisons)}
    refusals = judge(comparisons, models, {FILES[kind]: kind for kind in params.artifacts})
    golden, golden_steps, firmware = find_golden(probabilities, test), {}, None
    if INT8_NAME in models and not any(found.failure for found in comparisons if found.export == INT8_NAME):
        answers = {
            comparison.runtime: comparison.probabilities
            for comparison in comparisons
            if comparison.export == INT8_NAME and comparison.parity
        }
        firmware = examine_firmware(models[INT8_NAME], golden, test.images, answers)
        golden_steps = measure_golden_steps(firmware, golden, answers)
        operators = params.microcontroller.operators
        refusals += judge_firmware(firmware, read_sizes(network), limits, operators, golden_steps)
        report[INT8_NAME]["microcontroller"] = describe_firmware(firmware, limits, operators)
        measured |= {
            "arena_bytes": firmware.measured_arena_bytes,
            "integer_reference": {name: found._asdict() for name, found in firmware.agreements.items()},
            "integer_steps": firmware.steps,
        }
    withheld, required = list_withheld(refusals), [FILES[kind] for kind in params.required]
    for name, export in report.items():
        export |= {"required": name in required, "withheld": withheld.get(name, "")}

    write_reports(reports_dir, report, measured, portable)
    draw_disagreements(reports_dir / "parity/disagreements.png", portable, reference, test, dataset["class_names"])
    print("\n".join(tabulate(comparisons, is_measured=True)))
    if firmware:
        print(summarize_firmware(firmware))
    tell_withheld(refusals, required)
    require_exports(refusals, required)
    require_parity_here([comparison for comparison in comparisons if comparison.export not in withheld])
    models = {name: content for name, content in models.items() if name not in withheld}
    sources, page, integers = {}, "", {}
    if firmware and INT8_NAME in models:
        require_arena(firmware)
        require_golden_here(firmware, golden_steps)
        require_reference_here(firmware)
        sources = render_firmware(firmware, golden, metadata["class_names"], metadata["background"])
        print(check_c_classifier(firmware, sources, test.images))
        page = render_page(
            firmware.network,
            metadata["class_names"],
            metadata["background"],
            golden.images,
            golden.labels,
            firmware.outputs,
        )
        integers = {INT8_NAME: (firmware.outputs, firmware.tolerance)}
    max_abs_errors = {name: budgets[name].max_abs_error for name in models}
    described = describe_golden(golden, dataset["class_names"], max_abs_errors, integers)
    write_exports(export_dir, models, described, sources, page)


if __name__ == "__main__":
    main("export", ExportParams, run, also_reads=MODEL_SECTIONS)

"""Every exported model answers as Keras does in every runtime that can run it: on digits, MNIST and odd images."""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from imports import ROOT
from runs import list_runs, needs_micro
from samples import list_files, run_python

from stages import export, ingest, normalize, train, validate
from stages.export import FILES
from stages.lib.core.arrays import load_array
from stages.lib.core.errors import DataError, ExportError, ParamsError
from stages.lib.core.files import read_csv, read_json, write_json
from stages.lib.core.hashing import hash_output
from stages.lib.core.params import load_params, load_section, validate_section
from stages.lib.data.normalization import read_normalization
from stages.lib.exports.checksums import write_checksums
from stages.lib.exports.conversion import fold_normalization
from stages.lib.exports.lineage import digest_params
from stages.lib.exports.model_metadata import read_onnx_metadata, read_tflite_metadata
from stages.lib.exports.runtimes import load_predictor
from stages.lib.exports.tflite_micro import MISSING_MICRO
from stages.lib.model.canonical_keras import save_keras
from stages.lib.model.deterministic_tensorflow import keras
from stages.lib.model.prediction import predict_in_batches

FLOAT_EXPORTS = ["model.onnx", "model.tflite"]
EXPORTS = list(FILES.values())
TFLITE_EXPORTS = [name for name in EXPORTS if name.endswith(".tflite")]
RUNS = list_runs(EXPORTS)
FLOAT_RUNS = list_runs(FLOAT_EXPORTS)
# The largest |Δp| against Keras on digits and MNIST, and on images unlike any digit but for INT8_ON_MNIST.
TOLERANCES = {
    # Rounding in another order of sums: 1e-6 to 4e-6 measured on digits and MNIST.
    "model.onnx": 1e-5,
    "model.tflite": 1e-5,
    # Weights have 11 significant bits: 8e-4 measured on digits, 3e-3 on MNIST.
    "model_float16.tflite": 1e-2,
    # Weights have 8 bits, activations as many within each image's own range: 0.005 on digits, 0.07 on MNIST.
    "model_dynamic_range.tflite": 0.1,
    # Weights and activations have 8 bits, felt where two classes are close: 0.04 on digits, 0.15 on MNIST.
    "model_int8.onnx": 0.15,
    "model_int8.tflite": 0.15,
}
# int8 clips what is beyond the ranges of its calibration images. Networks trained on digits stay within them whatever
# the image; of those trained on MNIST a white image's probabilities were 0.81 off, and random pixels' 0.65 to 0.71.
INT8_ON_MNIST = "int8 is calibrated on MNIST: images unlike it are clipped, and no tolerance holds for them"
HASHED_REPORTS = [
    *("exports.json", "parity.csv", "parity/parity.json"),
    *("parity/parity.md", "parity/parity.png", "parity/disagreements.png"),
]
# Floats sum to 1 up to rounding; ten values in steps of 1/256 are half a step off each at the most.
PROBABILITY_SUM_TOLERANCES = dict.fromkeys(EXPORTS, 1e-5) | {"model_int8.tflite": 5 / 256}


class Exported(NamedTuple):
    """A project folder in which the pipeline has run up to `export`, its data set's name, and the network in it."""

    root: object
    dataset: str
    network: object

    def predict(self, name, runtime, images, batch_size=1000):
        """Probabilities of an exported file in a runtime."""
        return predict_in_batches(load_predictor(self.root / "models/export" / name, runtime), images, batch_size)

    def refer(self, images):
        """Keras on the normalized images."""
        dataset = read_json(self.root / "data/normalized/dataset.json")
        return predict_in_batches(self.network, read_normalization(dataset).apply(images))


def run_until_export(root, method, mnist=None):
    """The pipeline's own stages with the project's params, in a folder of their own: on digits, or on `mnist`."""
    raw_dir, data_dir = root / "data/raw", root / "data/normalized"
    model_path, reports_dir = root / "models/model.keras", root / "reports"
    normalize_params = load_section("normalize", normalize.NormalizeParams).model_copy(update={"method": method})
    if mnist:
        ingest.write_dataset(mnist, "mnist", raw_dir)
    else:
        ingest.run(load_section("ingest", ingest.IngestParams), raw_dir)
    write_json(root / "data/accepted.json", {})
    validate.run(load_section("validate", validate.ValidateParams), raw_dir, root / "data/accepted.json", reports_dir)
    normalize.run(normalize_params, raw_dir, reports_dir / "validation.json", data_dir)
    train.run(load_section("train", train.TrainParams), data_dir, model_path, reports_dir / "history.csv")
    export_params = load_section("export", export.ExportParams)
    export.run(export_params, data_dir, raw_dir, model_path, root / "models/export", reports_dir)
    return Exported(root, "mnist" if mnist else "digits", keras.saving.load_model(model_path))


@pytest.fixture(scope="module", params=["scale", "standardize", pytest.param("mnist", marks=pytest.mark.slow)])
def exported(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    if request.param == "mnist":
        return run_until_export(root, "scale", request.getfixturevalue("mnist"))
    return run_until_export(root, request.param)


def make_images(kind):
    if kind == "random":
        return np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8)
    return np.full((3, 28, 28), {"blank": 0, "white": 255}[kind], np.uint8)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
@pytest.mark.parametrize(("name", "runtime"), FLOAT_RUNS)
def test_float_export_matches_keras_on_the_test_split(exported, name, runtime, batch_size):
    """A float export gives Keras's probabilities and its class on every test image, whatever the batch."""
    images = load_array(exported.root / "data/raw/test/images.npy")
    reference, actual = exported.refer(images), exported.predict(name, runtime, images, batch_size)

    assert np.abs(actual - reference).max() <= TOLERANCES[name]
    assert np.array_equal(actual.argmax(axis=1), reference.argmax(axis=1))


@pytest.mark.parametrize("batch_size", [1, 7])
@pytest.mark.parametrize("kind", ["test", "blank", "white", "random"])
@pytest.mark.parametrize(("name", "runtime"), RUNS)
def test_export_keeps_its_budget_and_decided_classes(exported, name, runtime, kind, batch_size):
    """Each export is within its tolerance of Keras; its class differs only where Keras held two classes close."""
    if exported.dataset == "mnist" and "int8" in name and kind in ("white", "random"):
        pytest.skip(INT8_ON_MNIST)
    images = load_array(exported.root / "data/raw/test/images.npy") if kind == "test" else make_images(kind)
    reference, actual = exported.refer(images), exported.predict(name, runtime, images, batch_size)
    differs = actual.argmax(axis=1) != reference.argmax(axis=1)
    best_two = np.sort(reference[differs], axis=1)[:, -2:]

    assert np.abs(actual - reference).max() <= TOLERANCES[name]
    assert (best_two[:, 1] - best_two[:, 0] <= 2 * TOLERANCES[name]).all()


@pytest.mark.parametrize("name", EXPORTS)
def test_export_costs_at_most_a_point_of_accuracy(exported, name):
    """No export's test accuracy is lower than Keras's by more than a point, in any runtime."""
    parity = read_json(exported.root / "reports/parity/parity.json")
    reference = parity["model.onnx"]["accuracy"]  # whose classes are Keras's
    accuracies = [cell["accuracy"] for cell in parity[name]["runtimes"].values() if "accuracy" in cell]

    assert accuracies
    assert min(accuracies) >= reference - 0.01


@pytest.mark.parametrize("kind", ["blank", "white", "random"])
@pytest.mark.parametrize(("name", "runtime"), RUNS)
def test_export_gives_probabilities_of_the_promised_shape_and_type(exported, name, runtime, kind):
    """Whatever the image, the answer is float32 (N, classes), within 0..1, and sums to 1."""
    images = make_images(kind)
    actual = exported.predict(name, runtime, images)

    assert actual.dtype == np.float32
    assert actual.shape == (len(images), 10)
    assert actual.min() >= 0
    assert actual.max() <= 1
    assert np.abs(actual.sum(axis=1) - 1).max() <= PROBABILITY_SUM_TOLERANCES[name]


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 28, 28), np.float32),
        np.zeros((1, 28, 28), np.int64),
        np.zeros((28, 28), np.uint8),
        np.zeros((1, 27, 28), np.uint8),
        np.zeros((1, 28, 28, 1), np.uint8),
        np.zeros((0, 28, 28), np.uint8),
    ],
    ids=lambda images: f"{images.dtype}{images.shape}",
)
@pytest.mark.parametrize(("name", "runtime"), RUNS)
def test_what_is_no_raw_image_is_refused_in_one_line(exported, name, runtime, images):
    """Floats, other sizes and an empty batch get no answer but a line with what was expected and what came."""
    predict = load_predictor(exported.root / "models/export" / name, runtime)
    with pytest.raises(DataError) as refusal:
        predict(images)

    assert refusal.value.expected == "uint8 of shape (N, 28, 28), N at least 1"
    assert refusal.value.got == f"{images.dtype} of shape {images.shape}"
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", EXPORTS)
def test_export_takes_raw_bytes_as_they_are(exported, name):
    """The file itself asks for uint8 of (28, 28); where it is quantized, by a scale of 1 and a zero point of 0."""
    path = exported.root / "models/export" / name
    if path.suffix == ".onnx":
        pixels = onnx.load(path).graph.input[0].type.tensor_type
        is_uint8 = pixels.elem_type == onnx.TensorProto.UINT8
        shape, quantization = [dim.dim_param or dim.dim_value for dim in pixels.shape.dim], None
    else:
        (detail,) = Interpreter(str(path)).get_input_details()
        is_uint8 = detail["dtype"] == np.uint8
        shape, quantization = detail["shape_signature"].tolist(), detail["quantization"]

    assert is_uint8
    assert shape in (["batch", 28, 28], [1, 28, 28])  # the second as LiteRT for the web wants it; others resize it
    assert quantization in (None, (0.0, 0), (1.0, 0))
    assert (quantization == (1.0, 0)) == (name == "model_int8.tflite")


LAYERS = ["FULLY_CONNECTED", "FULLY_CONNECTED", "SOFTMAX"]
QUANTIZED_LAYER = ["Gemm", "QuantizeLinear", "DequantizeLinear"]


@pytest.mark.parametrize(
    ("name", "operators"),
    [
        ("model.onnx", ["Cast", "Reshape", "MatMul", "Add", "Relu", "MatMul", "Add", "Softmax"]),
        # Four constants (two weights, two biases), then the pixels, which are the quantized input already.
        (
            "model_int8.onnx",
            [*["DequantizeLinear"] * 4, "Reshape", "DequantizeLinear", *QUANTIZED_LAYER, *QUANTIZED_LAYER, "Softmax"],
        ),
        ("model.tflite", ["CAST", "RESHAPE", *LAYERS]),
        # Two weights and two biases, once, when the model is loaded.
        ("model_float16.tflite", [*["DEQUANTIZE"] * 4, "CAST", "RESHAPE", *LAYERS]),
        ("model_dynamic_range.tflite", ["CAST", "RESHAPE", *LAYERS]),
        ("model_int8.tflite", ["QUANTIZE", "RESHAPE", *LAYERS, "QUANTIZE"]),
    ],
)
def test_export_holds_no_operator_for_normalization(exported, name, operators):
    """Normalization is folded into the first layer: the graph holds the network's operators and a cast, no more."""
    path = exported.root / "models/export" / name
    if path.suffix == ".onnx":
        found = [node.op_type for node in onnx.load(path).graph.node]
    else:
        # The builtin kernels alone: a delegate would hide operators.
        kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        details = Interpreter(str(path), experimental_op_resolver_type=kernels)._get_ops_details()  # noqa: SLF001  (LiteRT has no public list of operators)
        found = [detail["op_name"] for detail in details]

    assert found == operators


@pytest.mark.parametrize("name", EXPORTS)
def test_export_describes_itself(exported, name):
    """Class names, the input contract and what it was made of can be read from the file alone."""
    path = exported.root / "models/export" / name
    onnx_metadata = read_onnx_metadata(onnx.load(path)) if path.suffix == ".onnx" else None
    metadata = onnx_metadata or read_tflite_metadata(path.read_bytes())

    assert metadata["class_names"] == list("0123456789")
    assert "uint8" in metadata["input"]
    assert metadata["upstream"] == {
        "params": digest_params(load_params()),
        "data": hash_output(exported.root / "data/raw"),
        "model": hash_output(exported.root / "models/model.keras"),
    }


@pytest.mark.parametrize("name", TFLITE_EXPORTS)
def test_tflite_weights_stay_aligned(exported, name):
    """Every buffer begins at a multiple of 16 bytes, as TFLite's schema asks: kernels read words, not bytes."""
    content = (exported.root / "models/export" / name).read_bytes()
    model = schema.Model.GetRootAs(content, 0)
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    offsets = [buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in buffers if buffer.DataLength()]  # noqa: SLF001

    assert len(offsets) > 4
    assert [offset % 16 for offset in offsets] == [0] * len(offsets)


def test_exports_are_the_same_bytes_again(exported, tmp_path):
    """A second export of one network, in the same process, gives the same bytes and reports."""
    root = exported.root
    params = load_section("export", export.ExportParams)
    model_path = root / "models/model.keras"
    export.run(params, root / "data/normalized", root / "data/raw", model_path, tmp_path / "export", tmp_path)

    assert list_files(tmp_path / "export") == list_files(root / "models/export")
    assert {name: (tmp_path / name).read_bytes() for name in HASHED_REPORTS} == {
        name: (root / "reports" / name).read_bytes() for name in HASHED_REPORTS
    }


# The stage in a process without the runtimes that only some platforms have.
CODE_WITHOUT_OTHERS = """
import sys
from pathlib import Path
sys.modules |= {"tflite_micro": None, "tract": None}  # as Python marks what cannot be imported
from stages import export
from stages.lib.core.params import load_section
root, out = Path(sys.argv[1]), Path(sys.argv[2])
params = load_section("export", export.ExportParams)
folders = root / "data/normalized", root / "data/raw", root / "models/model.keras"
export.run(params, *folders, out / "export", out)
"""


@pytest.mark.slow
def test_exports_are_the_same_bytes_without_the_runtimes_of_some_machines(exported, tmp_path):
    """What is hashed does not tell whether TensorFlow Lite Micro and tract are installed; what is not hashed does."""
    done = run_python("-c", CODE_WITHOUT_OTHERS, str(exported.root), str(tmp_path), cwd=ROOT)

    assert done.returncode == 0, done.stderr
    assert list_files(tmp_path / "export") == list_files(exported.root / "models/export")
    for name in HASHED_REPORTS:
        assert (tmp_path / name).read_bytes() == (exported.root / "reports" / name).read_bytes()
        assert not any(title in (tmp_path / name).read_bytes() for title in (b"Micro", b"tract"))
    measured = read_json(tmp_path / "parity_measured.json")
    assert measured["arena_bytes"] is None
    assert measured["runtimes"]["model_int8.tflite"]["tflite_micro"] == {"not_run": MISSING_MICRO}
    assert measured["runtimes"]["model.onnx"]["tract"]["not_run"].startswith("not installed: ")


@needs_micro
def test_what_tensorflow_lite_micro_measures_is_kept(exported):
    """Its arena and its counts are in the file that nothing hashes."""
    measured = read_json(exported.root / "reports/parity_measured.json")
    parity = read_json(exported.root / "reports/parity/parity.json")

    assert 0 < measured["arena_bytes"] <= parity["model_int8.tflite"]["microcontroller"]["arena_bytes"]
    assert measured["runtimes"]["model_int8.tflite"]["tflite_micro"]["within_budget"] is True
    assert measured["runtimes"]["model.tflite"]["tflite_micro"] == {"not_run": "its CAST takes no uint8"}


def test_calibration_images_are_of_the_training_split_alone(exported):
    """int8 is calibrated on images that the network was trained on, never on validation or test images."""
    root = exported.root
    rows = load_array(root / "data/normalized/train/rows.npy")
    images = export.choose_calibration_images(root / "data/normalized", root / "data/raw", len(rows))

    assert np.array_equal(images, load_array(root / "data/raw/train/images.npy")[rows])


def test_wrong_normalization_is_found(exported, tmp_path):
    """A network folded with other constants than it was trained with does not pass as an export."""
    root = exported.root
    dataset = read_json(root / "data/normalized/dataset.json")
    dataset["normalization"]["divisor"][0] *= 1.01
    data_dir = tmp_path / "normalized"
    data_dir.mkdir()
    for name in ("train", "test"):
        (data_dir / name).symlink_to(root / "data/normalized" / name)
    write_json(data_dir / "dataset.json", dataset)
    params = load_section("export", export.ExportParams)
    with pytest.raises(ExportError) as refusal:
        export.run(params, data_dir, root / "data/raw", root / "models/model.keras", tmp_path / "export", tmp_path)

    assert "\n" not in str(refusal.value)
    assert [cause.where for cause in refusal.value.causes] == ["model.onnx", "model.tflite"]
    assert "rounding alone" in refusal.value.causes[0].problem
    assert "export.budgets.onnx_float32" in refusal.value.causes[0].hint
    assert not (tmp_path / "export").exists()
    assert "rounding alone" in read_json(tmp_path / "parity/parity.json")["model.onnx"]["withheld"]


def test_folded_network_keeps_the_original(exported):
    """Folding makes a new network; the one it was given predicts as before."""
    features = np.zeros((1, 28, 28), np.float32)
    before = np.asarray(exported.network(features))
    dataset = read_json(exported.root / "data/normalized/dataset.json")
    fold_normalization(exported.network, read_normalization(dataset))

    assert np.array_equal(before, np.asarray(exported.network(features)))


@pytest.mark.parametrize("byte", [100, 20_000, -100])
@pytest.mark.parametrize("name", EXPORTS)
def test_flipped_bit_is_refused_in_one_line(exported, tmp_path, name, byte):
    """A model of which a single bit is another is not loaded, wherever the bit is."""
    shutil.copytree(exported.root / "models/export", tmp_path / "export")
    content = bytearray((tmp_path / "export" / name).read_bytes())
    content[byte % len(content)] ^= 1
    (tmp_path / "export" / name).write_bytes(content)
    with pytest.raises(ExportError) as refusal:
        load_predictor(tmp_path / "export" / name)

    assert refusal.value.expected.startswith("a whole model, SHA-256 ")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.onnx", b"", "ONNX Runtime cannot run it: "),
        ("model.tflite", b"TFL3", "LiteRT cannot run it: "),
        ("model.h5", b"", "expected a .onnx or .tflite file, got .h5"),
    ],
)
def test_file_that_is_no_model_is_refused_in_one_line(tmp_path, name, content, message):
    """Something else under a model's name, digest and all, ends in one line that says what was expected."""
    (tmp_path / name).write_bytes(content)
    write_checksums(tmp_path)
    with pytest.raises(ExportError) as refusal:
        load_predictor(tmp_path / name)

    assert refusal.value.problem.startswith(message)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("name", "runtime"), RUNS)
def test_golden_vectors_hold_in_every_runtime(exported, name, runtime):
    """With golden.json alone a stranger finds every export right, and one that normalizes twice wrong."""
    golden = read_json(exported.root / "models/export/golden.json")
    height, width = golden["image_size"]
    images = np.array([list(bytes.fromhex(image)) for image in golden["images"]], np.uint8).reshape(-1, height, width)
    expected, tolerance = np.array(golden["probabilities"]), golden["tolerances"][name]
    right, wrong = (exported.predict(name, runtime, pixels) for pixels in (images, images // 255))

    assert len(images) == 10
    assert np.abs(right - expected).max() <= tolerance
    assert np.abs(wrong - expected).max() > tolerance
    if name in golden["integers"]:
        output = np.array(golden["integers"][name]["output"])
        assert np.abs(np.rint(right * 256) - output).max() <= golden["integers"][name]["tolerance"]


def test_digests_are_those_that_sha256sum_checks(exported):
    """Every exported file but the list itself is in SHA256SUMS, in the form of coreutils."""
    folder = exported.root / "models/export"
    checked = subprocess.run(
        ["sha256sum", "--check", "SHA256SUMS"], cwd=folder, capture_output=True, text=True, check=True
    )

    assert sorted(line.removesuffix(": OK") for line in checked.stdout.splitlines()) == sorted(
        name for name in list_files(folder) if name != "SHA256SUMS"
    )


def run_with(exported, tmp_path, **changes):
    """Export the network anew with other params: what was written, and the reports."""
    params = load_section("export", export.ExportParams).model_copy(update=changes)
    root = exported.root
    export.run(
        params,
        *(root / "data/normalized", root / "data/raw", root / "models/model.keras"),
        *(tmp_path / "export", tmp_path),
    )
    return list_files(tmp_path / "export")


def limit_microcontroller(**limits):
    """The section with other limits."""
    return load_section("export", export.ExportParams).microcontroller.model_copy(update=limits)


def limit_budget(kind, **limits):
    """The budgets with another one for a kind of export."""
    budgets = load_section("export", export.ExportParams).budgets
    return budgets.model_copy(update={kind: getattr(budgets, kind).model_copy(update=limits)})


@pytest.mark.parametrize("limit", [{"max_arena_bytes": 1000}, {"max_file_bytes": 1000}, {"operators": ["SOFTMAX"]}])
def test_int8_export_beyond_a_microcontroller_is_withheld_alone(exported, tmp_path, capsys, limit):
    """An arena, a file or operators beyond what params.yaml allows withhold it and what is made of it alone."""
    written = run_with(exported, tmp_path, microcontroller=limit_microcontroller(**limit))
    usual = list_files(exported.root / "models/export")
    parity = read_json(tmp_path / "parity/parity.json")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "withheld" in line]

    of_int8 = {name for name in usual if name.startswith(("c/", "arduino/", "web/"))}
    assert {"c/classifier.c", "c/golden.h", "c/model_int8.c", "arduino/classifier.zip", "web/index.html"} < of_int8
    assert set(usual) - set(written) == {"model_int8.tflite", *of_int8}
    assert all(written[name] == usual[name] for name in written if name.startswith("model"))
    assert "int8.tflite" not in (tmp_path / "export/SHA256SUMS").read_text(encoding="utf-8")
    assert "model_int8.tflite" not in (tmp_path / "export/golden.json").read_text(encoding="utf-8")
    assert line.startswith("export: withheld: model_int8.tflite: ")
    assert parity["model_int8.tflite"]["withheld"] in line
    assert f"- `model_int8.tflite`: {parity['model_int8.tflite']['withheld']}." in (
        tmp_path / "parity/parity.md"
    ).read_text(encoding="utf-8")
    assert read_json(tmp_path / "exports.json") == {"int8_acc": None, "int8_bytes": None}


def test_export_beyond_its_budget_is_withheld_alone(exported, tmp_path):
    """A file that is further from Keras than allowed is not written; the others are, and the table says which."""
    tight = limit_budget("tflite_float16", max_abs_error=1e-7)
    written = run_with(exported, tmp_path, budgets=tight)
    rows = {row["export"]: row for row in read_csv(tmp_path / "parity.csv")}

    assert set(list_files(exported.root / "models/export")) - set(written) == {"model_float16.tflite"}
    assert [name for name, row in rows.items() if row["withheld"]] == ["model_float16.tflite"]
    assert {name for name, row in rows.items() if row["required"] == "True"} == {"model.onnx", "model.tflite"}


@pytest.mark.slow
def test_withheld_exports_are_the_same_reports_again(exported, tmp_path):
    """What tells of a withheld file is byte-stable, too."""
    tight = limit_budget("tflite_float16", max_abs_error=1e-7)
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        run_with(exported, folder, budgets=tight)

    assert list_files(folders[0] / "export") == list_files(folders[1] / "export")
    assert [(folders[0] / name).read_bytes() for name in HASHED_REPORTS] == [
        (folders[1] / name).read_bytes() for name in HASHED_REPORTS
    ]


def test_required_export_that_is_withheld_fails_the_stage_after_its_reports(exported, tmp_path, capsys):
    """The error has the cause, the files that are not required are told as ever, and the reports are written."""
    required = ["onnx_float32", "tflite_int8"]
    changes = {"required": required, "budgets": limit_budget("tflite_float16", max_abs_error=1e-7)}
    with pytest.raises(ExportError) as refusal:
        run_with(exported, tmp_path, microcontroller=limit_microcontroller(max_arena_bytes=1000), **changes)

    assert refusal.value.where == "model_int8.tflite"
    assert "bytes of RAM, where 1,000 are allowed" in refusal.value.problem
    assert "export: withheld: model_float16.tflite: " in capsys.readouterr().out
    assert not (tmp_path / "export").exists()
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} >= {Path(name).name for name in HASHED_REPORTS}


def test_network_that_learned_nothing_is_exported_without_its_int8_file(exported, tmp_path):
    """A layer that gives only zeros makes an int8 file that LiteRT refuses: that file alone is withheld."""
    network = keras.models.clone_model(exported.network)
    kernel, bias, *others = exported.network.get_weights()
    network.set_weights([kernel, bias - 1000, *others])
    save_keras(network, tmp_path / "model.keras")
    params, root = load_section("export", export.ExportParams), exported.root
    folders = (root / "data/normalized", root / "data/raw", tmp_path / "model.keras", tmp_path / "export", tmp_path)
    export.run(params, *folders)
    parity = read_json(tmp_path / "parity/parity.json")

    assert parity["model_int8.tflite"]["withheld"].startswith("LiteRT refuses it; ")
    assert "model_int8.tflite" not in list_files(tmp_path / "export")
    assert {"model.onnx", "model.tflite"} <= set(list_files(tmp_path / "export"))


def test_exports_are_those_that_are_asked_for(exported, tmp_path):
    """Which exports are made is the user's choice; without the int8 one there is no C source."""
    written = run_with(exported, tmp_path, artifacts=["onnx_float32", "tflite_float16"], required=["onnx_float32"])

    assert set(written) == {"SHA256SUMS", "golden.json", "model.onnx", "model_float16.tflite"}
    assert set(read_json(tmp_path / "parity/parity.json")) == {"model.onnx", "model_float16.tflite"}


def test_table_has_the_int8_exports_accuracy_and_bytes(exported):
    """What `dvc exp show` has room for is what the whole report has of that file."""
    parity = read_json(exported.root / "reports/parity/parity.json")["model_int8.tflite"]

    assert read_json(exported.root / "reports/exports.json") == {
        "int8_acc": parity["accuracy"],
        "int8_bytes": parity["bytes"],
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("required", ["tflite_int8"]),  # without the file that MLflow registers
        ("required", ["onnx_float32", "onnx_float32"]),
        ("required", ["onnx_float32", "onnx_int8"]),  # which is not asked for
        ("board", "nonsense"),
        ("board", 7),
    ],
)
def test_what_is_required_is_asked_for_and_boards_are_known(key, value):
    """A required file that is not made, one named twice, and a board that is in no table are refused."""
    section = load_params()["export"] | {"artifacts": ["onnx_float32", "tflite_int8"], "required": ["onnx_float32"]}
    validate_section(section, export.ExportParams, "")
    with pytest.raises(ParamsError) as refusal:
        validate_section(section | {key: value}, export.ExportParams, "")

    assert refusal.value.where == key

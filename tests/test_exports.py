"""Every exported model answers as Keras does: ONNX Runtime and LiteRT against the network they were made from."""

from typing import NamedTuple

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from stages import export, ingest, normalize, train, validate
from stages.lib.arrays import load_array
from stages.lib.conversion import fold_normalization
from stages.lib.deterministic_tensorflow import keras
from stages.lib.errors import ExportError
from stages.lib.files import read_json, write_json
from stages.lib.model_metadata import read_onnx_metadata, read_tflite_metadata
from stages.lib.normalization import read_normalization
from stages.lib.params import load_section
from stages.lib.prediction import predict_in_batches
from stages.lib.runtimes import load_predictor

FLOAT_EXPORTS = ["model.onnx", "model.tflite"]
EXPORTS = [*FLOAT_EXPORTS, "model_int8.tflite"]
# Rounding in another order of sums: 1e-6 to 4e-6 measured on digits and MNIST.
FLOAT_TOLERANCE = 1e-5
# Weights and activations have 8 bits, the output steps of 1/256. 0.04 measured on digits, 0.15 on MNIST.
INT8_TOLERANCE = 0.15
# Ten values rounded to steps of 1/256, half a step off each at the most.
PROBABILITY_SUM_TOLERANCE = {"model.onnx": 1e-5, "model.tflite": 1e-5, "model_int8.tflite": 5 / 256}


class Exported(NamedTuple):
    """A project folder in which the pipeline has run up to `export`, and the network in it."""

    root: object
    network: object

    def predict(self, name, images, batch_size=1000):
        """Probabilities of an exported file."""
        return predict_in_batches(load_predictor(self.root / "models/export" / name), images, batch_size)

    def refer(self, images):
        """Keras on the normalized images."""
        dataset = read_json(self.root / "data/normalized/dataset.json")
        return predict_in_batches(self.network, read_normalization(dataset).apply(images))


def run_until_export(root, method):
    """The pipeline's own stages on digits, in a folder of their own, with the project's params."""
    raw_dir, data_dir = root / "data/raw", root / "data/normalized"
    model_path, reports_dir = root / "models/model.keras", root / "reports"
    normalize_params = load_section("normalize", normalize.NormalizeParams).model_copy(update={"method": method})
    ingest.run(load_section("ingest", ingest.IngestParams), raw_dir)
    validate.run(load_section("validate", validate.ValidateParams), raw_dir, reports_dir / "validation.json")
    normalize.run(normalize_params, raw_dir, reports_dir / "validation.json", data_dir)
    train.run(load_section("train", train.TrainParams), data_dir, model_path, reports_dir / "history.csv")
    export_params = load_section("export", export.ExportParams)
    export.run(export_params, data_dir, raw_dir, model_path, root / "models/export", reports_dir)
    return Exported(root, keras.saving.load_model(model_path))


@pytest.fixture(scope="module", params=["scale", "standardize"])
def exported(request, tmp_path_factory):
    return run_until_export(tmp_path_factory.mktemp(request.param), request.param)


def make_images(kind):
    if kind == "random":
        return np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8)
    return np.full((3, 28, 28), {"blank": 0, "white": 255}[kind], np.uint8)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
@pytest.mark.parametrize("name", FLOAT_EXPORTS)
def test_float_export_matches_keras_on_the_test_split(exported, name, batch_size):
    """A float export gives Keras's probabilities and its class on every test image, whatever the batch."""
    images = load_array(exported.root / "data/raw/test/images.npy")
    reference, actual = exported.refer(images), exported.predict(name, images, batch_size)

    assert np.abs(actual - reference).max() <= FLOAT_TOLERANCE
    assert np.array_equal(actual.argmax(axis=1), reference.argmax(axis=1))


@pytest.mark.parametrize("batch_size", [1, 7])
@pytest.mark.parametrize("kind", ["test", "blank", "white", "random"])
def test_int8_export_keeps_its_budget_and_decided_classes(exported, kind, batch_size):
    """The int8 export is within its budget of Keras; its class differs only where Keras held two classes close."""
    images = load_array(exported.root / "data/raw/test/images.npy") if kind == "test" else make_images(kind)
    reference, actual = exported.refer(images), exported.predict("model_int8.tflite", images, batch_size)
    differs = actual.argmax(axis=1) != reference.argmax(axis=1)
    best_two = np.sort(reference[differs], axis=1)[:, -2:]

    assert np.abs(actual - reference).max() <= INT8_TOLERANCE
    assert (best_two[:, 1] - best_two[:, 0] <= 2 * INT8_TOLERANCE).all()


def test_int8_export_costs_at_most_a_point_of_accuracy(exported):
    """Quantization lowers the test accuracy by one point at the most."""
    parity = read_json(exported.root / "reports/parity.json")

    assert parity["model_int8.tflite"]["accuracy"] >= parity["model.onnx"]["accuracy"] - 0.01


@pytest.mark.parametrize("kind", ["blank", "white", "random"])
@pytest.mark.parametrize("name", FLOAT_EXPORTS)
def test_float_export_matches_keras_on_unusual_images(exported, name, kind):
    """Blank, all-white and random images, unlike any digit, get Keras's answer, too."""
    images = make_images(kind)
    reference, actual = exported.refer(images), exported.predict(name, images)

    assert np.abs(actual - reference).max() <= FLOAT_TOLERANCE
    assert np.array_equal(actual.argmax(axis=1), reference.argmax(axis=1))


@pytest.mark.parametrize("kind", ["blank", "white", "random"])
@pytest.mark.parametrize("name", EXPORTS)
def test_export_gives_probabilities_of_the_promised_shape_and_type(exported, name, kind):
    """Whatever the image, the answer is float32 (N, classes), within 0..1, and sums to 1."""
    images = make_images(kind)
    actual = exported.predict(name, images)

    assert actual.dtype == np.float32
    assert actual.shape == (len(images), 10)
    assert actual.min() >= 0
    assert actual.max() <= 1
    assert np.abs(actual.sum(axis=1) - 1).max() <= PROBABILITY_SUM_TOLERANCE[name]


def test_exports_take_raw_bytes_as_they_are(exported):
    """The files themselves ask for uint8 (batch, 28, 28); int8's input has scale 1 and zero point 0."""
    onnx_input = onnx.load(exported.root / "models/export/model.onnx").graph.input[0].type.tensor_type
    details = [Interpreter(str(exported.root / "models/export" / name)).get_input_details()[0] for name in EXPORTS[1:]]

    assert onnx_input.elem_type == onnx.TensorProto.UINT8
    assert [dim.dim_param or dim.dim_value for dim in onnx_input.shape.dim] == ["batch", 28, 28]
    assert [detail["dtype"] for detail in details] == [np.uint8, np.uint8]
    assert [detail["shape_signature"].tolist() for detail in details] == [[-1, 28, 28]] * 2
    assert details[1]["quantization"] == (1.0, 0)


def test_exports_hold_no_operator_for_normalization(exported):
    """Normalization is folded into the first layer: the graphs hold the network's operators and a cast, no more."""
    graph = onnx.load(exported.root / "models/export/model.onnx").graph
    operators = {
        name: [
            detail["op_name"]
            for detail in Interpreter(  # noqa: SLF001  (LiteRT has no public list of operators)
                str(exported.root / "models/export" / name),
                # The builtin kernels alone: a delegate would hide operators.
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )._get_ops_details()
        ]
        for name in EXPORTS[1:]
    }

    assert [node.op_type for node in graph.node] == [
        *("Cast", "Reshape", "MatMul", "Add", "Relu", "MatMul", "Add", "Softmax"),
    ]
    assert operators["model.tflite"] == ["CAST", "RESHAPE", "FULLY_CONNECTED", "FULLY_CONNECTED", "SOFTMAX"]
    assert operators["model_int8.tflite"] == [
        *("QUANTIZE", "RESHAPE", "FULLY_CONNECTED", "FULLY_CONNECTED", "SOFTMAX", "QUANTIZE"),
    ]


def test_exports_carry_the_class_names(exported):
    """Class names and the input contract can be read from each file alone."""
    folder = exported.root / "models/export"
    found = [
        read_onnx_metadata(onnx.load(folder / "model.onnx")),
        *(read_tflite_metadata((folder / name).read_bytes()) for name in EXPORTS[1:]),
    ]

    assert [metadata["class_names"] for metadata in found] == [list("0123456789")] * 3
    assert all("uint8" in metadata["input"] for metadata in found)


@pytest.mark.parametrize("name", EXPORTS[1:])
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

    assert [(tmp_path / "export" / name).read_bytes() for name in EXPORTS] == [
        (root / "models/export" / name).read_bytes() for name in EXPORTS
    ]
    assert (tmp_path / "parity.json").read_bytes() == (root / "reports/parity.json").read_bytes()


def test_calibration_images_are_of_the_training_split_alone(exported):
    """int8 is calibrated on images that the network was trained on, never on validation or test images."""
    root = exported.root
    images = export.choose_calibration_images(root / "data/normalized", root / "data/raw", 10_000)
    raw = load_array(root / "data/raw/train/images.npy")

    assert np.array_equal(images, raw[load_array(root / "data/normalized/train/rows.npy")])


def test_wrong_normalization_is_found(exported, tmp_path):
    """A network folded with other constants than it was trained with does not pass as an export."""
    root = exported.root
    dataset = read_json(root / "data/normalized/dataset.json")
    dataset["normalization"]["divisor"] *= 1.01
    data_dir = tmp_path / "normalized"
    data_dir.mkdir()
    for name in ("train", "test"):
        (data_dir / name).symlink_to(root / "data/normalized" / name)
    write_json(data_dir / "dataset.json", dataset)
    params = load_section("export", export.ExportParams)
    with pytest.raises(ExportError, match=r"model\.onnx: expected \|Δp\| of at most 1e-05 against Keras") as refusal:
        export.run(params, data_dir, root / "data/raw", root / "models/model.keras", tmp_path / "export", tmp_path)

    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "export").exists()
    assert read_json(tmp_path / "parity.json")["model.onnx"]["within_budget"] is False


def test_folded_network_keeps_the_original(exported):
    """Folding makes a new network; the one it was given predicts as before."""
    features = np.zeros((1, 28, 28), np.float32)
    before = np.asarray(exported.network(features))
    dataset = read_json(exported.root / "data/normalized/dataset.json")
    fold_normalization(exported.network, read_normalization(dataset))

    assert np.array_equal(before, np.asarray(exported.network(features)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.onnx", b"", "expected a whole model"),
        ("model.tflite", b"TFL3", "expected a whole model"),
        ("model.h5", b"", "expected a .onnx or .tflite file, got .h5"),
    ],
)
def test_damaged_model_is_refused_in_one_line(tmp_path, name, content, message):
    """An empty or cut-off model file, or one of another kind, ends in one line that says what was expected."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExportError) as refusal:
        load_predictor(tmp_path / name)

    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)

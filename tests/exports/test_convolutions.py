"""Networks with convolutions, and for colour images, are exported with every promise of the lecture's dense one."""

import re
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from imports import ROOT
from runs import list_runs
from samples import list_files, make_colour_dataset, make_dataset, run_python, write_normalized, write_raw

from stages import export, train
from stages.export import FILES, read_sizes
from stages.lib.core.arrays import load_split
from stages.lib.core.errors import ExportError
from stages.lib.core.files import read_json
from stages.lib.core.params import load_section
from stages.lib.data.normalization import Normalization, read_normalization
from stages.lib.exports.conversion import convert_to_onnx, convert_to_tflite, fold_normalization
from stages.lib.exports.model_metadata import read_onnx_metadata, read_tflite_metadata
from stages.lib.exports.runtimes import load_predictor
from stages.lib.microcontroller.c_source import list_operators
from stages.lib.microcontroller.integer_reference import IntegerReference
from stages.lib.model.deterministic_tensorflow import keras
from stages.lib.model.int8_footprint import Sizes
from stages.lib.model.network import load_network

EXPORTS = list(FILES.values())
# By its name: whether the images are in colour, filters by block, hidden units.
NETWORKS = {
    "grey": (False, [[4]], []),
    "grey, two a block": (False, [[4, 6]], [8]),
    "colour": (True, [[6]], [8]),
    "colour, dense": (True, [], [8]),
}
CODE = """
import sys
from pathlib import Path
from stages import export
from stages.lib.core.params import load_section
root, out = Path(sys.argv[1]), Path(sys.argv[2])
folders = root / "data/normalized", root / "data/raw", root / "model.keras"
export.run(load_section("export", export.ExportParams), *folders, out / "export", out)
"""


class Exported(NamedTuple):
    """A folder with data, a network trained on them, its exports and reports."""

    root: object
    is_colour: bool
    conv_blocks: list[list[int]]
    hidden_units: list[int]
    network: keras.Model


@pytest.fixture(scope="module", params=list(NETWORKS))
def exported(request, tmp_path_factory):
    is_colour, conv_blocks, hidden_units = NETWORKS[request.param]
    root = tmp_path_factory.mktemp("convolutions")
    write_raw(root, (make_colour_dataset if is_colour else make_dataset)(400, 100))
    data_dir = write_normalized(root, method="standardize")
    changes = {"conv_blocks": conv_blocks, "hidden_units": hidden_units, "dropout": 0.1, "learning_rate": 0.01}
    train_params = load_section("train", train.TrainParams).model_copy(update=changes)
    train.run(train_params, data_dir, root / "model.keras", root / "history.csv")
    export_params = load_section("export", export.ExportParams)
    export.run(export_params, data_dir, root / "data/raw", root / "model.keras", root / "export", root)
    return Exported(root, is_colour, conv_blocks, hidden_units, load_network(root / "model.keras"))


def test_every_file_is_within_its_budget(exported):
    """None is withheld: over the whole test split, in each runtime, each kind of file answers as Keras does."""
    parity = read_json(exported.root / "parity/parity.json")

    assert list(parity) == sorted(EXPORTS)
    assert {name: found["withheld"] for name, found in parity.items()} == dict.fromkeys(EXPORTS, "")
    assert set(EXPORTS) <= set(list_files(exported.root / "export"))
    assert parity["model.onnx"]["accuracy"] >= 0.9


@pytest.mark.parametrize(("name", "runtime"), list_runs(["model.onnx", "model.tflite"]))
def test_float_files_give_keras_probabilities(exported, name, runtime):
    """Raw pixels in, standardized for each channel inside, up to rounding."""
    test = load_split(exported.root / "data/raw/test")
    dataset = read_json(exported.root / "data/normalized/dataset.json")
    reference = exported.network(read_normalization(dataset).apply(test.images)).numpy()
    actual = load_predictor(exported.root / "export" / name, runtime)(np.array(test.images))

    np.testing.assert_allclose(actual, reference, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", EXPORTS)
def test_files_take_raw_bytes_of_their_channels(exported, name):
    """uint8 images of (H, W), or (H, W, 3) in colour; quantized by 1 and 0 where it is quantized."""
    path = exported.root / "export" / name
    shape = [6, 8, 3] if exported.is_colour else [6, 8]
    if path.suffix == ".onnx":
        pixels = onnx.load(path).graph.input[0].type.tensor_type
        assert pixels.elem_type == onnx.TensorProto.UINT8
        assert [dim.dim_param or dim.dim_value for dim in pixels.shape.dim] == ["batch", *shape]
    else:
        (detail,) = Interpreter(str(path)).get_input_details()
        assert (detail["dtype"], detail["shape_signature"].tolist()) == (np.uint8, [1, *shape])
        assert detail["quantization"] in ((0.0, 0), (1.0, 0))


@pytest.mark.parametrize("name", EXPORTS)
def test_files_say_how_many_channels_they_take(exported, name):
    """Channels, the order of colours, and a background where images are grey, are in the metadata."""
    path = exported.root / "export" / name
    is_onnx = path.suffix == ".onnx"
    metadata = read_onnx_metadata(onnx.load(path)) if is_onnx else read_tflite_metadata(path.read_bytes())

    assert metadata["image_size"] == [6, 8]
    assert metadata["channels"] == (3 if exported.is_colour else 1)
    assert metadata["background"] == (None if exported.is_colour else "dark")
    assert ("(batch, height, width, 3), RGB" in metadata["input"]) is exported.is_colour


def test_int8_file_has_the_networks_operators_alone(exported):
    """Nothing is normalized, transposed or quantized anew between the layers."""
    operators = list_operators((exported.root / "export/model_int8.tflite").read_bytes())
    convolution = ["CONV_2D", "MAX_POOL_2D"] if exported.conv_blocks else []

    assert sorted(operators) == sorted(["QUANTIZE", "RESHAPE", *convolution, "FULLY_CONNECTED", "SOFTMAX"])


def test_float_onnx_transposes_colours_alone(exported):
    """ONNX wants channels before rows: of grey images, and of what is flattened, nothing is moved for it."""
    operators = [node.op_type for node in onnx.load(exported.root / "export/model.onnx").graph.node]
    is_moved = exported.is_colour and bool(exported.conv_blocks)

    assert operators[:2] == ["Cast", "Transpose" if is_moved else "Reshape"]
    assert operators.count("Transpose") == int(is_moved)


def test_golden_answers_are_the_integer_references(exported):
    """golden.json and golden.h hold the images with their channels, and the bytes to answer."""
    golden = read_json(exported.root / "export/golden.json")
    shape = (6, 8, 3) if exported.is_colour else (6, 8)
    images = np.array([list(bytes.fromhex(image)) for image in golden["images"]], np.uint8).reshape(-1, *shape)
    reference = IntegerReference((exported.root / "export/model_int8.tflite").read_bytes())
    header = (exported.root / "export/c/golden.h").read_text(encoding="ascii")
    numbers = re.findall(r"\d+", header[header.index("golden_images[") :])

    assert (golden["image_size"], golden["channels"]) == ([6, 8], 3 if exported.is_colour else 1)
    assert ("red, green and blue" in golden["about"]) is exported.is_colour
    assert golden["integers"]["model_int8.tflite"]["output"] == reference.answer(images).tolist()
    assert [int(number) for number in numbers[: images.size]] == images.ravel().tolist()


def test_runtimes_agree_with_the_reference_of_their_rounding(exported):
    """XNNPACK gives its bytes, the other kernels are at most a step away, over the whole test split."""
    agreements = read_json(exported.root / "parity_measured.json")["integer_reference"]

    assert agreements["litert"] == {"different_bytes": 0, "different_images": 0, "largest": 0, "rounding": "single"}
    assert all(found["largest"] <= 1 for found in agreements.values())


def test_network_is_sized_as_it_is(exported):
    """What its memory follows from is read off its layers."""
    blocks = tuple(map(tuple, exported.conv_blocks))

    assert read_sizes(exported.network) == Sizes(
        (6, 8), tuple(exported.hidden_units), 3, blocks, 3 if exported.is_colour else 1
    )


@pytest.mark.slow
def test_another_process_exports_the_same_bytes(exported, tmp_path):
    """Whatever the hash seed and the number of threads."""
    arguments = ["-c", CODE, str(exported.root), str(tmp_path)]
    done = run_python(*arguments, cwd=ROOT, PYTHONHASHSEED="7", TF_NUM_INTRAOP_THREADS="2")

    assert done.returncode == 0, done.stderr
    assert list_files(tmp_path / "export") == list_files(exported.root / "export")


def make_network(image_shape, padding):
    """A convolutional network that nobody trained."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input(image_shape),
            layers.Reshape((*image_shape[:2], image_shape[2] if len(image_shape) == 3 else 1)),
            layers.Conv2D(4, 3, padding=padding, activation="relu", name="conv_1_1"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    draws = np.random.default_rng(0)
    network.set_weights([draws.normal(scale=0.3, size=weights.shape) for weights in network.get_weights()])
    return network


@pytest.mark.parametrize("image_shape", [(6, 8), (6, 8, 3)])
def test_normalization_is_folded_exactly_at_the_border(image_shape):
    """With shifts, of each channel its own, raw pixels give what features gave: every pixel is under the kernel."""
    channels = image_shape[2] if len(image_shape) == 3 else 1
    normalization = Normalization((90.0, 120.0, 150.0)[:channels], (40.0, 50.0, 60.0)[:channels])
    network = make_network(image_shape, "valid")
    images = np.random.default_rng(0).integers(0, 256, (50, *image_shape), np.uint8)
    pixel_network = fold_normalization(network, normalization)

    np.testing.assert_allclose(
        pixel_network(images.astype(np.float32)).numpy(),
        network(normalization.apply(images)).numpy(),
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.parametrize("image_shape", [(6, 8), (6, 8, 3)])
def test_padded_convolution_is_refused_where_a_fold_would_be_wrong(image_shape):
    """Zeros beside features are no zeros beside pixels: folded all the same, answers would be others."""
    channels = image_shape[2] if len(image_shape) == 3 else 1
    normalization = Normalization((90.0, 120.0, 150.0)[:channels], (40.0, 50.0, 60.0)[:channels])
    network = make_network(image_shape, "same")
    with pytest.raises(ExportError) as refusal:
        fold_normalization(network, normalization)

    assert refusal.value.where == "the layer conv_1_1"
    assert (refusal.value.expected, refusal.value.got) == ("a convolution with 'valid' padding", "'same'")
    # The trap: what would happen.
    images = np.random.default_rng(0).integers(0, 256, (50, *image_shape), np.uint8)
    folded = keras.models.clone_model(network)
    folded.set_weights([*normalization.fold(*network.get_weights()[:2]), *network.get_weights()[2:]])
    difference = folded(images.astype(np.float32)).numpy() - network(normalization.apply(images)).numpy()
    assert np.abs(difference).max() > 0.01


def test_given_network_is_left_as_it_was():
    """Converting reorders and folds copies of the weights."""
    network = make_network((6, 8), "valid")
    before = [weights.copy() for weights in network.get_weights()]
    pixel_network = fold_normalization(network, Normalization((40.0,), (255.0,)))
    folded = [weights.copy() for weights in pixel_network.get_weights()]
    convert_to_onnx(pixel_network, 18)
    convert_to_tflite(pixel_network)

    assert all(map(np.array_equal, before, network.get_weights()))
    assert all(map(np.array_equal, folded, pixel_network.get_weights()))

"""The int8 ONNX model takes the camera's bytes as they are, computes with 8 bits, and is the same bytes each time."""

from typing import NamedTuple

import numpy as np
import onnx
import pytest
from samples import CLASS_NAMES, IMAGE_SIZE, NORMALIZATION, make_split

from stages.export import convert
from stages.lib.data.normalization import Normalization
from stages.lib.exports.canonical_onnx import canonicalize_onnx
from stages.lib.exports.conversion import calibrate, convert_to_onnx, fold_normalization
from stages.lib.exports.onnx_quantization import quantize_onnx
from stages.lib.exports.runtimes import load_content
from stages.lib.model.deterministic_tensorflow import keras
from stages.lib.model.network import Architecture, build_network

CALIBRATION_IMAGES = make_split(60, seed=1).images
TEST_IMAGES = make_split(300, seed=2).images
# Of images to which a network that nobody trained gives the class of its float form: 0.98 measured at least.
MIN_SAME_CLASS = 0.95
OPSET = 19
# The shape of an image, filters by block, hidden units.
CONVOLUTIONS = [
    (IMAGE_SIZE, ((6,),), (4,)),
    (IMAGE_SIZE, ((6, 6),), ()),
    ((*IMAGE_SIZE, 3), ((6,),), ()),
    ((*IMAGE_SIZE, 3), (), (5,)),
]
NETWORKS = pytest.mark.parametrize(
    "network", [((), 18), ((4,), 18), ((4,), 13), ((5, 7), 15)], indirect=True, ids=lambda choice: f"{choice}"
)


class Quantized(NamedTuple):
    """A network as ONNX before and after quantization."""

    network: keras.Model  # for features
    pixel_network: keras.Model
    model: onnx.ModelProto  # float
    before: bytes  # of the same, when it was given
    quantized: onnx.ModelProto


def make_pixel_network(hidden_units, image_shape=IMAGE_SIZE, conv_blocks=(), *, has_biases=True):
    """A network that nobody trained, with answers that are neither all sure nor all alike."""
    keras.utils.set_random_seed(0)
    network = build_network(image_shape, Architecture(hidden_units, conv_blocks), len(CLASS_NAMES), "softmax")
    draw = np.random.default_rng(0).normal
    network.set_weights(
        [
            3 * weights if weights.ndim > 1 else draw(scale=0.3, size=weights.shape) * has_biases
            for weights in network.get_weights()
        ]
    )
    channels = image_shape[2] if len(image_shape) == 3 else 1
    normalization = Normalization(NORMALIZATION.shift * channels, NORMALIZATION.divisor * channels)
    return network, fold_normalization(network, normalization)


def quantize(pixel_network, model, images=CALIBRATION_IMAGES):
    """The network's ONNX model, quantized for these images."""
    return quantize_onnx(model, calibrate(pixel_network, images))


@pytest.fixture(scope="module")
def network(request):
    """A network of these hidden units, quantized from ONNX of this opset."""
    hidden_units, opset = request.param
    network, pixel_network = make_pixel_network(hidden_units)
    model = convert_to_onnx(pixel_network, opset)
    before = model.SerializeToString(deterministic=True)
    return Quantized(network, pixel_network, model, before, quantize(pixel_network, model))


def list_operators(model):
    return [node.op_type for node in model.graph.node]


def list_layer_types(model):
    """The types of each layer's weights and, if it has one, bias, as they are stored."""
    types = {constant.name: constant.data_type for constant in model.graph.initializer}
    sources = {node.output[0]: node for node in model.graph.node}
    layers = [node for node in model.graph.node if node.op_type in {"Gemm", "MatMul"}]
    return [[types[sources[name].input[0]] for name in layer.input[1:]] for layer in layers]


@NETWORKS
def test_given_model_is_left_as_it_was(network):
    """The float model, of which there is an export, too, is not written to."""
    assert network.model.SerializeToString(deterministic=True) == network.before


@NETWORKS
def test_pixels_are_the_quantized_input_as_they_are(network):
    """No cast and no quantization comes before the first layer: bytes are reshaped and taken for 0..255."""
    graph = network.quantized.graph
    (pixels,) = graph.input
    (reshape,) = [node for node in graph.node if pixels.name in node.input]
    (dequantize,) = [node for node in graph.node if reshape.output[0] in node.input]
    constants = {constant.name: onnx.numpy_helper.to_array(constant) for constant in graph.initializer}

    assert "Cast" not in list_operators(network.quantized)
    assert pixels.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert (reshape.op_type, dequantize.op_type) == ("Reshape", "DequantizeLinear")
    assert [constants[name].item() for name in dequantize.input[1:]] == [1, 0]


@NETWORKS
def test_nothing_is_quantized_before_the_first_dequantization(network):
    """The first thing that becomes 8 bits anew is the first layer's result."""
    operators = list_operators(network.quantized)

    assert operators.index("DequantizeLinear") < operators.index("QuantizeLinear")
    assert operators.index("Gemm") < operators.index("QuantizeLinear")


@NETWORKS
def test_answers_are_floats_by_a_float_softmax(network):
    """The softmax is the last operator and gives probabilities as float32."""
    (probabilities,) = network.quantized.graph.output

    assert list_operators(network.quantized)[-1] == "Softmax"
    assert probabilities.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


@NETWORKS
def test_layers_have_weights_of_8_bits_and_biases_of_32(network):
    """Each layer is one Gemm with unsigned 8-bit weights and a bias as wide as its sums."""
    layers = len(network.network.get_weights()) // 2

    assert list_layer_types(network.quantized) == [[onnx.TensorProto.UINT8, onnx.TensorProto.INT32]] * layers
    assert not {"MatMul", "Add"} & set(list_operators(network.quantized))


@NETWORKS
def test_canonical_form_is_the_same_bytes_again(network):
    """A second quantization, with its temporary files elsewhere, gives the same bytes."""
    again = quantize(network.pixel_network, network.model)

    assert canonicalize_onnx(again) == canonicalize_onnx(network.quantized)


@NETWORKS
def test_canonical_form_needs_the_standard_operators_alone(network):
    """Only the domain whose operators are in the graph is listed, of the version that the reference evaluator knows."""
    canonical = onnx.load_from_string(canonicalize_onnx(network.quantized))

    assert [(opset.domain, opset.version) for opset in canonical.opset_import] == [("", OPSET)]


@NETWORKS
@pytest.mark.parametrize("runtime", ["onnx_runtime", "onnx_reference"])
def test_most_images_get_the_float_networks_class(network, runtime):
    """Eight bits change an answer only where two classes are close."""
    reference = network.network(NORMALIZATION.apply(TEST_IMAGES)).numpy()
    actual = load_content(canonicalize_onnx(network.quantized), runtime, "model_int8.onnx")(TEST_IMAGES)

    assert len(set(reference.argmax(axis=1))) > 1
    assert (actual.argmax(axis=1) == reference.argmax(axis=1)).mean() >= MIN_SAME_CLASS


@pytest.mark.parametrize("hidden_units", [(), (4,), (5, 7)])
@pytest.mark.parametrize("runtime", ["onnx_runtime", "onnx_reference"])
def test_layers_without_a_bias_are_quantized_too(hidden_units, runtime):
    """Of biases that are all zero the conversion keeps none: the weights of such a layer are 8 bits all the same."""
    network, pixel_network = make_pixel_network(hidden_units, has_biases=False)
    quantized = quantize(pixel_network, convert_to_onnx(pixel_network, 18))
    reference = network(NORMALIZATION.apply(TEST_IMAGES)).numpy()
    actual = load_content(canonicalize_onnx(quantized), runtime, "model_int8.onnx")(TEST_IMAGES)

    assert [weights for weights, *_ in list_layer_types(quantized)] == [onnx.TensorProto.UINT8] * (
        len(hidden_units) + 1
    )
    assert (actual.argmax(axis=1) == reference.argmax(axis=1)).mean() >= MIN_SAME_CLASS


class Convolutional(NamedTuple):
    """A network with convolutions or for colour images, and its quantized ONNX model."""

    network: keras.Model  # for features
    pixel_network: keras.Model
    quantized: onnx.ModelProto
    images: np.ndarray


@pytest.fixture(scope="module", params=CONVOLUTIONS, ids=lambda choice: f"{choice}")
def convolutional(request):
    image_shape, conv_blocks, hidden_units = request.param
    network, pixel_network = make_pixel_network(hidden_units, image_shape, conv_blocks)
    images = TEST_IMAGES
    if len(image_shape) == 3:
        images = np.stack([images, images[:, ::-1], images // 2], axis=-1)
    quantized = quantize(pixel_network, convert_to_onnx(pixel_network, 18), images[:60])
    return Convolutional(network, pixel_network, quantized, images)


def test_convolutions_take_the_cameras_bytes(convolutional):
    """Nothing but a Reshape or a Transpose lies between the bytes and the first layer."""
    operators = [name for name in list_operators(convolutional.quantized) if not name.endswith("Linear")]

    assert "Cast" not in operators
    assert operators.count("Transpose") == int(operators[0] == "Transpose")
    assert operators[0] == ("Transpose" if convolutional.images.ndim == 4 and "Conv" in operators else "Reshape")


def test_pooled_and_flattened_values_keep_their_scale(convolutional):
    """What lies between two layers is quantized by one range: pooling and reshaping round nothing."""
    graph = convolutional.quantized.graph
    constants = {constant.name: onnx.numpy_helper.to_array(constant) for constant in graph.initializer}
    activations = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    scales = {constants[node.input[1]].item() for node in activations}
    layers = list_operators(convolutional.quantized)

    assert len(scales) == layers.count("Conv") + layers.count("Gemm")


def test_each_filter_has_a_scale_of_its_own(convolutional):
    """Per channel where there are convolutions, per tensor where there are none, and unsigned in both."""
    graph = convolutional.quantized.graph
    constants = {constant.name: onnx.numpy_helper.to_array(constant) for constant in graph.initializer}
    sources = {node.output[0]: node for node in graph.node}
    layers = [node for node in graph.node if node.op_type in {"Conv", "Gemm"}]
    weights = [sources[layer.input[1]] for layer in layers]
    counts = [constants[node.input[1]].size for node in weights]
    units = [len(bias) for bias in convolutional.network.get_weights()[1::2]]

    assert counts == (units if "Conv" in list_operators(convolutional.quantized) else [1] * len(units))
    assert {constants[node.input[0]].dtype.name for node in weights} == {"uint8"}


@pytest.mark.parametrize("runtime", ["onnx_runtime", "onnx_reference"])
def test_most_images_get_the_class_of_the_float_convolutions(convolutional, runtime):
    """In both runtimes, which agree up to the rounding of the softmax."""
    content = canonicalize_onnx(convolutional.quantized)  # which has onnx.checker look at it
    features = convolutional.images.astype(np.float32)
    reference = convolutional.pixel_network(features).numpy()
    actual = load_content(content, runtime, "model_int8.onnx")(convolutional.images)

    assert len(set(reference.argmax(axis=1))) > 1
    assert (actual.argmax(axis=1) == reference.argmax(axis=1)).mean() >= MIN_SAME_CLASS


def test_runtimes_agree_on_convolutions(convolutional):
    """ONNX Runtime's own integer kernels round as the standard's evaluator: the softmax alone differs, in floats."""
    content = canonicalize_onnx(convolutional.quantized)
    one, other = (
        load_content(content, name, "x.onnx")(convolutional.images) for name in ("onnx_runtime", "onnx_reference")
    )

    assert np.abs(one - other).max() <= 1e-6


def test_convolutions_without_biases_are_quantized_too():
    """A convolution without a bias, and MatMul in place of Gemm, have weights of 8 bits all the same."""
    _, pixel_network = make_pixel_network((4,), conv_blocks=((6,),), has_biases=False)
    quantized = quantize(pixel_network, convert_to_onnx(pixel_network, 18))
    one, other = (
        load_content(canonicalize_onnx(quantized), name, "x.onnx")(TEST_IMAGES)
        for name in ("onnx_runtime", "onnx_reference")
    )

    assert [weights for weights, *_ in list_layer_types(quantized)] == [onnx.TensorProto.UINT8] * 2
    assert np.abs(one - other).max() <= 1e-6


@pytest.mark.parametrize("level", [0, 7, 255])
def test_blank_calibration_images_still_give_the_whole_range(level):
    """Whatever the images show, even nothing, grey levels 0..255 are the quantized input as they are."""
    _, pixel_network = make_pixel_network((4,))
    images = np.full((2, *IMAGE_SIZE), level, np.uint8)
    quantized = quantize(pixel_network, convert_to_onnx(pixel_network, 18), images)

    assert "Cast" not in list_operators(quantized)


def test_image_of_one_pixel_is_enough():
    """The smallest network there is can be quantized, too."""
    _, pixel_network = make_pixel_network((4,), (1, 1))
    model = convert_to_onnx(pixel_network, 18)
    content = canonicalize_onnx(quantize(pixel_network, model, CALIBRATION_IMAGES[:, :1, :1]))

    assert load_content(content, "onnx_runtime", "")(TEST_IMAGES[:, :1, :1]).shape == (300, 3)


def test_calibration_decides_on_the_scales():
    """Darker calibration images give finer steps: they are looked at."""
    _, pixel_network = make_pixel_network((4,))
    model = convert_to_onnx(pixel_network, 18)
    bright, dark = (
        canonicalize_onnx(quantize(pixel_network, model, images)) for images in (TEST_IMAGES, TEST_IMAGES // 4)
    )

    assert bright != dark


def test_export_does_not_depend_on_what_else_is_exported():
    """Each ONNX file is the same bytes alone, before and after the other."""
    _, pixel_network = make_pixel_network((4,))
    both = ["onnx_float32", "onnx_int8"]
    first, second, alone = (
        convert(artifacts, pixel_network, CALIBRATION_IMAGES, {"class_names": list(CLASS_NAMES)}, 18)
        for artifacts in (both, both[::-1], both[1:])
    )

    assert first == second
    assert alone == {"model_int8.onnx": first["model_int8.onnx"]}

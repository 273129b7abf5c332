"""The integer reference computes by hand what a fully quantized file says, and what LiteRT answers, to the bit."""

from itertools import combinations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools.flatbuffer_utils import convert_bytearray_to_object, convert_object_to_bytearray
from int8_models import CONVOLUTIONS, IMAGES, NETWORKS, make_convolutional, make_int8

from stages.lib.core.errors import ExportError
from stages.lib.exports.conversion import calibrate, convert_to_int8_tflite
from stages.lib.exports.parity import measure_steps
from stages.lib.exports.runtimes import load_content
from stages.lib.exports.tflite_micro import HAS_MICRO
from stages.lib.microcontroller import integer_reference
from stages.lib.microcontroller.firmware import RUNTIME_ROUNDINGS
from stages.lib.microcontroller.integer_network import STEP
from stages.lib.microcontroller.integer_reference import ROUNDINGS, IntegerReference
from stages.lib.model.network import Architecture, build_network

INT8 = "model_int8.tflite"
# With this, a probability is 232.499992 / 256.
NETWORK_AT_HALF_A_STEP = ((24,), 3)
# Runtimes other than XNNPACK, and how they round.
OTHER_ROUNDINGS = [
    (runtime, RUNTIME_ROUNDINGS[runtime]) for runtime in ("litert_builtin", *(["tflite_micro"] if HAS_MICRO else []))
]
# Of output bytes, which the reference kernels' own exponentials make another: 0.002 measured.
MAX_OTHER_BYTES = 0.01
# Of the logits in the tiny network below: a power of two, so that products with it are exact.
LOGIT_SCALE = 1 / 32


@pytest.fixture(scope="module")
def tiny_content():
    """The int8 export of a network of two pixels and two classes, whose numbers are to be edited."""
    network = build_network((1, 2), Architecture(()), 2, "softmax")
    network.set_weights([np.eye(2, dtype=np.float32), np.full(2, 0.5, np.float32)])
    return convert_to_int8_tflite(network, calibrate(network, np.array([[[0, 255]]], np.uint8)))


def edit(content, *, weight, bias, factor, zero_point=0, has_relu=False):
    """The tiny network with this first logit: (weight * first pixel + bias) * factor steps; the second is 0."""
    model = convert_bytearray_to_object(bytearray(content))
    (graph,) = model.subgraphs
    codes = [model.operatorCodes[step.opcodeIndex].builtinCode for step in graph.operators]
    layer = graph.operators[codes.index(schema.BuiltinOperator.FULLY_CONNECTED)]
    _, weights, biases = (graph.tensors[index] for index in layer.inputs)
    logits = graph.tensors[layer.outputs[0]]
    for tensor, values in ((weights, np.array([[weight, 0], [0, 0]], np.int8)), (biases, np.array([bias, 0], "<i4"))):
        tensor.quantization.scale = [factor * LOGIT_SCALE] * len(tensor.quantization.scale)
        model.buffers[tensor.buffer].data = list(values.tobytes())
    logits.quantization.scale, logits.quantization.zeroPoint = [LOGIT_SCALE], [zero_point]
    if has_relu:
        layer.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.RELU
    return bytes(convert_object_to_bytearray(model))


def make_pixels(values):
    """Images of two pixels, the second of them black."""
    return np.array([[[value, 0]] for value in values], np.uint8)


def list_probabilities(logits):
    """The first class's probability in steps of 1/256, for first logits in steps of LOGIT_SCALE and second ones of 0.

    By the definition of softmax; 256, which a byte cannot hold, becomes 255.
    """
    return [min(round(256 / (1 + np.exp(-LOGIT_SCALE * logit))), 255) for logit in logits]


@pytest.mark.parametrize(("image_shape", "conv_blocks", "hidden_units"), CONVOLUTIONS)
def test_convolutions_are_computed_as_xnnpack_does(image_shape, conv_blocks, hidden_units):
    """Convolution, pooling and colour, with each sum rounded once: LiteRT's bytes, to the bit."""
    content, images = make_convolutional(image_shape, conv_blocks, hidden_units)
    answers = IntegerReference(content, "single").predict(images)

    np.testing.assert_array_equal(answers, load_content(content, "litert", INT8)(images), strict=True)


@pytest.mark.parametrize(("runtime", "rounding"), OTHER_ROUNDINGS)
@pytest.mark.parametrize(("image_shape", "conv_blocks", "hidden_units"), CONVOLUTIONS)
def test_convolutions_rounded_twice_are_those_of_the_other_kernels(
    image_shape, conv_blocks, hidden_units, runtime, rounding
):
    """Up to the softmax, whose exponentials are computed in few bits: a probability is a step off at the most."""
    content, images = make_convolutional(image_shape, conv_blocks, hidden_units)
    reference = IntegerReference(content, rounding)
    answers, actual = reference.predict(images), load_content(content, runtime, INT8)(images)

    assert measure_steps(answers, actual, STEP) <= 1
    assert np.mean(answers != actual) <= MAX_OTHER_BYTES


@pytest.mark.parametrize(("runtime", "rounding"), OTHER_ROUNDINGS)
@pytest.mark.parametrize(("hidden_units", "factor"), NETWORKS)
def test_dense_layers_rounded_twice_are_those_of_the_other_kernels(hidden_units, factor, runtime, rounding):
    """The same of dense layers."""
    content = make_int8(hidden_units, factor)
    reference = IntegerReference(content, rounding)
    answers, actual = reference.predict(IMAGES), load_content(content, runtime, INT8)(IMAGES)

    assert measure_steps(answers, actual, STEP) <= 1
    assert np.mean(answers != actual) <= MAX_OTHER_BYTES


def test_rounding_once_and_twice_is_not_the_same():
    """Otherwise nothing above would tell them apart."""
    content, images = make_convolutional(*CONVOLUTIONS[0])

    assert (
        IntegerReference(content, "single").answer(images) != IntegerReference(content, "double").answer(images)
    ).any()


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_memory_is_bounded_and_answers_do_not_depend_on_the_bound(monkeypatch, rounding):
    """Few images at a time or many: each is computed by itself."""
    content, images = make_convolutional(*CONVOLUTIONS[0])
    expected = IntegerReference(content, rounding).answer(images)
    monkeypatch.setattr(integer_reference, "_VALUES_AT_ONCE", 1)

    np.testing.assert_array_equal(IntegerReference(content, rounding).answer(images[:20]), expected[:20], strict=True)


@pytest.mark.parametrize(("hidden_units", "factor"), NETWORKS)
def test_answers_are_those_of_litert_to_the_bit(hidden_units, factor):
    """Whatever the network and the images, LiteRT gives what the file's numbers say."""
    content = make_int8(hidden_units, factor)
    answers = IntegerReference(content).predict(IMAGES)

    np.testing.assert_array_equal(answers, load_content(content, "litert", INT8)(IMAGES), strict=True)


def test_probability_at_half_a_step_is_at_most_one_off():
    """Where float32 cannot tell on which side of half a step a probability lies, LiteRT may take the other."""
    content = make_int8(*NETWORK_AT_HALF_A_STEP)
    reference = IntegerReference(content)
    answers, actual = reference.predict(IMAGES), load_content(content, "litert", INT8)(IMAGES)

    assert measure_steps(answers, actual, STEP) <= 1
    assert np.count_nonzero(answers != actual) <= 1


def test_trained_network_is_answered_as_litert_does(small_model):
    """The same for a network that was trained, with the metadata of an export in its file."""
    content, images = small_model.exports[INT8], small_model.test.images

    np.testing.assert_array_equal(
        IntegerReference(content).predict(images), load_content(content, "litert", INT8)(images), strict=True
    )


def test_layers_without_a_bias_are_computed():
    """Of biases that are all zero the converter keeps none: such a layer's sums stand alone."""
    content = make_int8((4,), has_biases=False)

    np.testing.assert_array_equal(
        IntegerReference(content).predict(IMAGES), load_content(content, "litert", INT8)(IMAGES), strict=True
    )


def test_answer_does_not_depend_on_the_batch(small_model):
    """Each image is computed by itself."""
    reference = IntegerReference(small_model.exports[INT8])
    one_by_one = np.concatenate([reference.answer(IMAGES[row : row + 1]) for row in range(len(IMAGES))])

    np.testing.assert_array_equal(reference.answer(IMAGES), one_by_one, strict=True)


def test_probabilities_are_the_answers_in_steps(small_model):
    """A byte is so many 256ths."""
    reference = IntegerReference(small_model.exports[INT8])

    np.testing.assert_array_equal(
        reference.predict(IMAGES), reference.answer(IMAGES).astype(np.float32) / 256, strict=True
    )


@pytest.mark.parametrize(
    ("numbers", "pixels", "logits"),
    [
        pytest.param({"weight": 1, "bias": 0, "factor": 1}, [0, 1, 2, 100], [0, 1, 2, 100], id="as it is"),
        pytest.param({"weight": -1, "bias": 7, "factor": 1}, [0, 7, 10, 107], [7, 0, -3, -100], id="negative"),
        pytest.param({"weight": 3, "bias": -2, "factor": 0.25}, [2, 6, 10], [1, 4, 7], id="a quarter"),
        pytest.param({"weight": 1, "bias": 0, "factor": 0.3}, [1, 2, 3, 4], [0, 1, 1, 1], id="to the nearest"),
        pytest.param({"weight": -1, "bias": 0, "factor": 0.3}, [1, 2, 3, 4], [0, -1, -1, -1], id="nearest below 0"),
        pytest.param({"weight": 1, "bias": 0, "factor": 0.5}, [1, 3, 5, 7], [0, 2, 2, 4], id="halves to even"),
        pytest.param({"weight": -1, "bias": 0, "factor": 0.5}, [1, 3, 5, 7], [0, -2, -2, -4], id="halves below 0"),
        pytest.param({"weight": 2, "bias": 0, "factor": 1}, [63, 64, 200], [126, 127, 127], id="no more than 127"),
        pytest.param({"weight": -2, "bias": 0, "factor": 1}, [63, 64, 65, 200], [-126, -128, -128, -128], id="-128"),
        pytest.param({"weight": 127, "bias": 0, "factor": 1 / 512}, [255], [63], id="the largest sum"),
        pytest.param({"weight": 1, "bias": 10**8, "factor": 1e-6}, [0, 255], [100, 100], id="a large bias"),
    ],
)
def test_logits_are_those_worked_out_by_hand(tiny_content, numbers, pixels, logits):
    """Weights times pixels and bias, rescaled, rounded to the nearest, halves to even, and kept within int8."""
    answers = IntegerReference(edit(tiny_content, **numbers)).answer(make_pixels(pixels))

    assert answers[:, 0].tolist() == list_probabilities(logits)
    assert answers[:, 1].tolist() == list_probabilities([-logit for logit in logits])


@pytest.mark.parametrize(
    ("weight", "factor", "pixels", "logits"),
    [
        pytest.param(1, 1, [0, 1, 2, 100], [0, 1, 2, 100], id="as it is"),
        pytest.param(1, 0.5, [1, 3, 5, 7], [1, 2, 3, 4], id="halves up"),
        pytest.param(-1, 0.5, [1, 3, 5, 7], [0, -1, -2, -3], id="halves up below 0"),
        # 0.5, 1, 1.5, 2.5, 3 and 3.5 after the first rounding are 1, 1, 2, 3, 3 and 4, of which half is rounded again.
        pytest.param(1, 0.25, [1, 2, 3, 5, 6, 7], [1, 1, 1, 2, 2, 2], id="twice"),
        # 0, -1, -1, -2, -3 and -3, of which half is rounded away from 0.
        pytest.param(-1, 0.25, [1, 2, 3, 5, 6, 7], [0, -1, -1, -1, -2, -2], id="twice below 0"),
        pytest.param(1, 3, [1, 2, 40], [3, 6, 120], id="a factor above 1"),
    ],
)
def test_logits_rounded_twice_are_those_worked_out_by_hand(tiny_content, weight, factor, pixels, logits):
    """The product is rounded, halves up, and what is shifted out of it once more, halves away from 0."""
    content = edit(tiny_content, weight=weight, bias=0, factor=factor)
    answers = IntegerReference(content, "double").answer(make_pixels(pixels))

    assert answers[:, 0].tolist() == list_probabilities(logits)


def test_second_halves_may_be_rounded_upward(tiny_content):
    """0, -1, -1, -2, -3 and -3 after the first rounding are -0, -0.5, -0.5, -1, -1.5 and -1.5."""
    content = edit(tiny_content, weight=-1, bias=0, factor=0.25)
    answers = IntegerReference(content, "double_upward").answer(make_pixels([1, 2, 3, 5, 6, 7]))

    assert answers[:, 0].tolist() == list_probabilities([0, 0, 0, -1, -1, -1])


def test_pooling_takes_the_largest_of_four_and_leaves_what_is_over():
    """A convolution that gives its middle pixel, then pooling: of the 5 x 5 within the border, 2 x 2 maxima."""
    network = build_network((7, 7), Architecture((), ((1,),)), 4, "softmax")
    middle = np.zeros((3, 3, 1, 1), np.float32)
    middle[1, 1] = 1
    network.set_weights([middle, np.zeros(1, np.float32), np.eye(4, dtype=np.float32) / 32, np.zeros(4, np.float32)])
    image = np.arange(49, dtype=np.uint8).reshape(1, 7, 7) * 5
    content = convert_to_int8_tflite(network, calibrate(network, image))
    largest = np.array([image[0, row, column] for row in (2, 4) for column in (2, 4)], np.float64) / 32
    expected = np.exp(largest) / np.exp(largest).sum()

    assert np.abs(IntegerReference(content).predict(image)[0] - expected).max() <= 2 / 256


@pytest.mark.parametrize(("zero_point", "limits"), [(-128, [0, 255]), (127, [-255, 0]), (28, [-156, 99])])
def test_limits_of_a_logit_depend_on_its_zero_point(tiny_content, zero_point, limits):
    """A byte holds 256 logits; the zero point says which: those beyond become the last of them."""
    pixels = make_pixels([255])
    answers = [
        IntegerReference(edit(tiny_content, weight=weight, bias=0, factor=1, zero_point=zero_point)).answer(pixels)
        for weight in (-127, 127)
    ]

    assert [answer[0, 0] for answer in answers] == list_probabilities(limits)


@pytest.mark.parametrize("zero_point", [-128, -5, 0, 6])
def test_relu_ends_at_the_zero_point(tiny_content, zero_point):
    """What is below 0 becomes 0, which the zero point stands for, and not the least number that a byte holds."""
    content = edit(tiny_content, weight=-1, bias=3, factor=1, zero_point=zero_point, has_relu=True)

    assert IntegerReference(content).answer(make_pixels([0, 2, 3, 4, 90]))[:, 0].tolist() == list_probabilities(
        [3, 1, 0, 0, 0]
    )


@pytest.mark.parametrize("weight", [-127, -3, 1, 2, 127])
@pytest.mark.parametrize("factor", [0.0123457, 1 / np.pi, 0.774597, 1.91372])
def test_every_pixel_gives_litert_its_answer(tiny_content, weight, factor):
    """Over all grey levels, and with factors that give no halves, LiteRT rounds as the reference does."""
    content = edit(tiny_content, weight=weight, bias=-17, factor=factor, zero_point=3)
    pixels = make_pixels(range(256))

    np.testing.assert_array_equal(
        IntegerReference(content).predict(pixels), load_content(content, "litert", INT8)(pixels), strict=True
    )


@pytest.mark.parametrize("name", ["model.tflite", "model_float16.tflite", "model_dynamic_range.tflite"])
def test_file_with_floats_is_refused(small_model, name):
    """An export that does not compute in integers alone ends in one line."""
    with pytest.raises(ExportError) as refusal:
        IntegerReference(small_model.exports[name])

    assert refusal.value.expected == "a fully quantized network of convolutions and dense layers"
    assert refusal.value.got.startswith("an operator or a type of number ")
    assert refusal.value.hint == "give it model_int8.tflite"
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("hidden_units", "factor"), [*NETWORKS, NETWORK_AT_HALF_A_STEP])
def test_bound_of_rounding_holds_between_all_runtimes(hidden_units, factor):
    """No two of LiteRT, LiteRT without XNNPACK, TensorFlow Lite Micro and the reference are further apart."""
    content = make_int8(hidden_units, factor)
    reference = IntegerReference(content)
    runtimes = ["litert", "litert_builtin", *(["tflite_micro"] if HAS_MICRO else [])]
    answers = [reference.predict(IMAGES), *(load_content(content, runtime, INT8)(IMAGES) for runtime in runtimes)]
    steps = max(measure_steps(one, other, STEP) for one, other in combinations(answers, 2))

    assert steps <= reference.bound_rounding(answers[0].astype(np.float64))


@pytest.mark.parametrize(("image_shape", "conv_blocks", "hidden_units"), CONVOLUTIONS)
def test_bound_of_rounding_holds_with_convolutions(image_shape, conv_blocks, hidden_units):
    """The same of convolutions, whose roundings add up over more layers."""
    content, images = make_convolutional(image_shape, conv_blocks, hidden_units)
    references = [IntegerReference(content, rounding) for rounding in ROUNDINGS]
    answers = [reference.predict(images) for reference in references]
    steps = max(measure_steps(one, other, STEP) for one, other in combinations(answers, 2))

    assert steps <= references[0].bound_rounding(answers[0].astype(np.float64))


@pytest.mark.parametrize(
    ("probabilities", "steps"),
    [
        # 2 * p * (1 - p) * 1/32 in steps of 1/256, rounded up, and one.
        ([[0.5, 0.5]], 1 + 4),
        ([[0.75, 0.25]], 1 + 3),
        ([[0.99, 0.01]], 1 + 1),
        ([[1.0, 0.0]], 1),
        ([[1.0, 0.0], [0.5, 0.5], [0.99, 0.01]], 1 + 4),
    ],
)
def test_bound_of_rounding_is_the_steepest_answers(tiny_content, probabilities, steps):
    """The bound is a step, and what a step in each logit moves the least sure probability by."""
    reference = IntegerReference(edit(tiny_content, weight=1, bias=0, factor=1))

    assert reference.bound_rounding(np.array(probabilities)) == steps

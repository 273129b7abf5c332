"""Sums are exact, so that no processor, number of threads or order can change a bit of them."""

import hashlib
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from imports import ROOT
from samples import CLASS_NAMES, IMAGE_SIZE, make_split, run_python

from stages.lib.model.augmentation import Augmentation, Augmenter
from stages.lib.model.deterministic_tensorflow import keras, tf
from stages.lib.model.learning_rates import compute_learning_rates
from stages.lib.model.network import Architecture, build_network
from stages.lib.model.optimizers import OPTIMIZERS
from stages.lib.model.order_free import (
    MAX_TERMS,
    VALUE_BITS,
    add_up,
    compute_probabilities,
    compute_slopes,
    count_bits,
    exponentiate,
    measure_cross_entropy,
    multiply,
    round_to_grid,
    take_logarithm,
)
from stages.lib.model.order_free_network import compile_logits, compile_probabilities, compute_logits, measure_ranges
from stages.lib.model.order_free_optimizers import create_optimizer
from stages.lib.model.training import Schedule, _compile_steps

# Of exponentials, absolute: the sixth squaring's share of the approximant's error, largest at x = -5.
EXPONENTIAL_ATOL = 2e-9
# Of logarithms: a few roundings of float64.
LOGARITHM_RTOL = 1e-15
# Keras adds up in float32.
KERAS_ATOL = 1e-5
SIZES = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
GENERATOR = np.random.default_rng(0)


def draw(*shape):
    """Numbers of very different sizes, float64."""
    return GENERATOR.normal(size=shape) * 10.0 ** GENERATOR.integers(-6, 3, size=shape)


def round_values(values, bits=VALUE_BITS):
    """Values on a grid of their own."""
    return round_to_grid(values, np.abs(values).max(), bits)


@given(arrays(np.float64, 20, elements=SIZES), st.integers(8, 40))
@settings(deadline=None)
def test_grid_is_whole_multiples_of_a_power_of_two(values, bits):
    """At most 2^bits of it, and no value is off by more than 2^(2 - bits) of the largest."""
    rounded, largest = round_values(values, bits), np.abs(values).max()
    if largest == 0:
        assert not rounded.any()
        return
    _, exponent = math.frexp(largest * 2.0 ** (54 - bits))  # largest * 2^(54 - bits) is in 2^(e - 1)..2^e
    unit = Fraction(2) ** (exponent - 1 - 53)
    multiples = [Fraction(value) / unit for value in rounded.tolist()]

    assert all(multiple.denominator == 1 and abs(multiple) <= 2**bits for multiple in multiples)
    assert np.abs(rounded - values).max() <= 2.0 ** (2 - bits) * largest


@given(arrays(np.float32, 20, elements=SIZES))
@settings(deadline=None)
def test_grid_of_float32_is_no_coarser(values):
    """Float32 is rounded in float32, with the same bound."""
    rounded = round_values(values)

    assert rounded.dtype == np.float32
    assert np.abs(rounded.astype(np.float64) - values).max() <= 2.0 ** (2 - VALUE_BITS) * np.abs(values).max()


@pytest.mark.parametrize("terms", [1, 7, 784, MAX_TERMS])
def test_product_is_the_exact_one(terms):
    """Each entry is the sum of its products as rational numbers have it, whatever the order of the terms."""
    one, other = round_values(draw(3, terms)), round_values(draw(terms, 2))
    exact = [
        [float(sum(Fraction(a) * Fraction(b) for a, b in zip(row, column, strict=True))) for column in other.T.tolist()]
        for row in one.tolist()
    ]
    order = GENERATOR.permutation(terms)

    assert multiply(tf.constant(one), tf.constant(other), terms, 2 * VALUE_BITS).numpy().tolist() == exact
    assert (one[:, order] @ other[order]).tolist() == exact


@pytest.mark.parametrize("terms", [MAX_TERMS + 1, 3 * MAX_TERMS, 12_345])
@pytest.mark.parametrize("transposed", [False, True])
def test_longer_product_is_split_and_the_same_in_any_order(terms, transposed):
    """Beyond what one sum holds, pieces are exact, and so is their sum; it is as close as float64 would be."""
    one, other = round_values(draw(3, terms)), round_values(draw(terms, 2))
    order = np.concatenate([GENERATOR.permutation(MAX_TERMS), np.arange(MAX_TERMS, terms)])
    given_one, given_other = (one[:, order].T, other[order].T) if transposed else (one[:, order], other[order])
    flags = {"transpose_one": transposed, "transpose_other": transposed}
    product = multiply(tf.constant(given_one), tf.constant(given_other), terms, 2 * VALUE_BITS, **flags).numpy()

    assert product.tobytes() == multiply(tf.constant(one), tf.constant(other), terms, 2 * VALUE_BITS).numpy().tobytes()
    np.testing.assert_allclose(product, one @ other, rtol=1e-13, atol=1e-13 * np.abs(product).max())


def test_grids_too_fine_for_any_sum_are_refused():
    """There is no silent approximation: two products of 53 bits do not add up exactly."""
    with pytest.raises(ValueError, match="53 bits cannot be added up exactly"):
        multiply(tf.ones((1, 2), tf.float64), tf.ones((2, 1), tf.float64), terms=2, bits=53)
    with pytest.raises(ValueError, match="terms cannot be added up exactly"):
        count_bits(2**53)


@given(arrays(np.float64, (50, 2), elements=SIZES), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=20)
def test_sum_does_not_depend_on_order(values, chance):
    """However the terms are shuffled, the sum is the same to the bit."""
    order = list(range(50))
    chance.shuffle(order)
    total = add_up(tf.constant(values), 50).numpy()

    assert add_up(tf.constant(values[order]), 50).numpy().tobytes() == total.tobytes()
    np.testing.assert_allclose(total, values.sum(axis=0), rtol=1e-12, atol=1e-12 * np.abs(values).max())


def test_exponential_is_close_everywhere_and_one_at_zero():
    """From 0 to where it no longer counts."""
    values = -np.linspace(0, 64, 100_001)

    np.testing.assert_allclose(exponentiate(values), np.exp(values), rtol=0, atol=EXPONENTIAL_ATOL)
    assert exponentiate(np.zeros(1)).tolist() == [1.0]
    assert (np.diff(exponentiate(values)) < 0).all()


def test_logarithm_is_as_close_as_float64_allows():
    """Small, large, and on both sides of 1 and of the square root of a half."""
    values = np.concatenate([10.0 ** np.linspace(-300, 300, 1001), np.linspace(0.5, 2, 1001)])

    np.testing.assert_allclose(take_logarithm(values), np.log(values), rtol=LOGARITHM_RTOL, atol=1e-16)
    assert take_logarithm(np.ones(1)).tolist() == [0.0]


def test_cross_entropy_is_the_textbooks():
    """Loss, accuracy, probabilities and the gradient of the mean loss, against their definitions."""
    logits, labels = 10 * GENERATOR.normal(size=(100, 7)), GENERATOR.integers(0, 7, 100)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax = powers / powers.sum(axis=1, keepdims=True)
    loss, correct = measure_cross_entropy(logits, labels)

    assert loss == pytest.approx(-np.log(softmax[np.arange(100), labels]).sum(), abs=1e-6)
    assert correct == (logits.argmax(axis=1) == labels).sum()
    np.testing.assert_allclose(compute_probabilities(logits), softmax, atol=EXPONENTIAL_ATOL)
    np.testing.assert_allclose(
        compute_slopes(tf.constant(logits), tf.constant(labels, tf.int32)).numpy(),
        (softmax - np.eye(7)[labels]) / 100,
        atol=EXPONENTIAL_ATOL,
    )


def test_equal_logits_are_one_right_answer_at_most():
    """Where all classes are as likely, the first is the answer, not each."""
    assert measure_cross_entropy(np.zeros((3, 3)), np.arange(3))[1] == 1


def test_compiler_keeps_the_rounding():
    """TensorFlow would fold (a + s) - s of a constant s: compiled, the rounding is the one that NumPy does."""
    values = draw(1000)
    compiled = tf.function(lambda x: round_to_grid(x, tf.reduce_max(tf.abs(x)), VALUE_BITS))

    assert compiled(tf.constant(values)).numpy().tobytes() == round_values(values).tobytes()
    assert round_values(values).tobytes() != values.tobytes()


def test_image_has_the_same_logits_in_any_company():
    """By itself, among others and in another order, to the bit; close to what Keras gives."""
    keras.utils.set_random_seed(0)
    network = build_network(IMAGE_SIZE, Architecture((8, 4)), len(CLASS_NAMES), "linear")
    features = make_split(20, seed=3).images.astype(np.float32) / np.float32(255)
    predict = compile_logits(network)
    logits = predict(features)

    assert b"".join(predict(features[row : row + 1]).tobytes() for row in range(20)) == logits.tobytes()
    assert predict(features[::-1])[::-1].tobytes() == logits.tobytes()
    np.testing.assert_allclose(logits, network(features).numpy(), atol=KERAS_ATOL)


def make_network(weights, image_size):
    """A network with these weights, kernel and bias of each layer in turn, that ends in probabilities."""
    *hidden, _, bias = weights
    network = build_network(image_size, Architecture(tuple(len(each) for each in hidden[1::2])), len(bias), "softmax")
    network.set_weights([np.array(each, np.float32) for each in weights])
    return network


def test_answers_are_those_worked_out_by_hand():
    """Two layers: sums, what is below zero cut off between them, and a softmax at the end."""
    weights = [[[1, -1], [2, 0]], [0.5, 0.25], [[1, 0, 0], [8, 8, 8]], [0, 1, -1]]
    features = np.array([[[0.5, 0.25]], [[-4, 0]]], np.float32)  # hidden (1.5, 0) and (0, 4.25)
    logits = [[1.5, 1, -1], [34, 35, 33]]

    assert compile_logits(make_network(weights, (1, 2)))(features).tolist() == logits
    np.testing.assert_allclose(
        compile_probabilities(make_network(weights, (1, 2)))(features),
        [np.exp(row) / np.exp(row).sum() for row in logits],
        atol=EXPONENTIAL_ATOL,
    )


def test_enormous_logits_are_probabilities_and_those_beyond_float32_are_not():
    """Logits whose exponential float64 cannot hold are sure; those that Keras's float32 cannot hold are no number."""
    predict = compile_probabilities(make_network([[[1e30, -1, 0]], [0, 0, 0]], (1, 1)))

    np.testing.assert_allclose(predict(np.array([[[1e4]]], np.float32)), [[1, 0, 0]], atol=EXPONENTIAL_ATOL)
    assert np.isnan(predict(np.array([[[1e20]]], np.float32))).any()


def test_ranges_are_those_of_the_layers():
    """Smallest and largest output of each layer before its activation, over all images."""
    keras.utils.set_random_seed(0)
    network = build_network(IMAGE_SIZE, Architecture((8,)), len(CLASS_NAMES), "softmax")
    features = make_split(20, seed=3).images.astype(np.float32)
    flatten, hidden, classes = network.layers
    sums = flatten(features).numpy() @ hidden.kernel.numpy() + hidden.bias.numpy()
    logits = np.maximum(sums, 0) @ classes.kernel.numpy() + classes.bias.numpy()

    for found, values in zip(measure_ranges(network, features), (sums, logits), strict=True):
        assert found == pytest.approx((values.min(), values.max()), rel=KERAS_ATOL)


def test_layer_without_an_order_free_form_is_refused():
    """A new kind of layer or activation cannot bring an unsafe sum in unseen."""
    for layer in (keras.layers.LayerNormalization(), keras.layers.Dense(2, activation="sigmoid")):
        network = keras.Sequential([keras.Input((3, 3)), keras.layers.Flatten(), layer])
        with pytest.raises(TypeError, match="has no order-free form"):
            compute_logits(network, tf.zeros((1, 3, 3)), 1)


# Elementwise operations and moves of data, which are the same on every processor (measured on x86-64 and AArch64), and
# reductions that only choose.
ALLOWED = {
    *("Abs", "AddN", "AddV2", "BroadcastGradientArgs", "BroadcastTo", "Cast", "Equal", "FloorDiv", "Greater"),
    *("GreaterEqual", "Less", "LessEqual", "Maximum", "Minimum", "Mul", "Neg", "RealDiv", "Relu", "ReluGrad"),
    *("Select", "SelectV2", "Sign", "Sqrt", "Square", "Sub", "ZerosLike", "OnesLike", "LogicalAnd", "LogicalOr"),
    *("All", "Max", "Min", "Prod"),
    *(
        "Assert",
        "AssignAddVariableOp",
        "AssignSubVariableOp",
        "AssignVariableOp",
        "ReadVariableOp",
        "VarIsInitializedOp",
    ),
    *("Floor", "RightShift", "MaxPool"),
    *("StatelessRandomGetKeyCounter", "StatelessRandomUniformFullIntV2", "StatelessRandomUniformIntV2"),  # counted
    *("BitwiseOr", "LeftShift"),
    *("ConcatV2", "Const", "ExpandDims", "Fill", "GatherV2", "Identity", "IdentityN", "NoOp", "OneHot", "Pack", "Pad"),
    *("Placeholder", "PlaceholderWithDefault", "Range", "Reshape", "Shape", "Size", "Squeeze", "StopGradient"),
    *("ConcatOffset", "FloorMod", "Slice", "StridedSlice", "StridedSliceGrad", "Tile", "Transpose"),
    *("PartitionedCall", "StatefulPartitionedCall", "StatelessWhile", "While", "If", "StatelessIf"),
    *("TensorListElementShape", "TensorListFromTensor", "TensorListGetItem", "TensorListLength", "TensorListReserve"),
    *("TensorListSetItem", "TensorListStack", "EmptyTensorList", "TensorListPushBack", "TensorListPopBack"),
    "ResourceApplyAdam",  # elementwise, measured as the others
}
# Sums, whose terms must be on a grid, and which of their inputs those are; and those that may be float32, whose bounds
# the module that convolves proves.
SUMS = {
    "BatchMatMulV2": [0, 1],
    "MatMul": [0, 1],
    "Sum": [0],
    "Conv2D": [0, 1],
    "Conv2DBackpropInput": [1, 2],
    "Conv2DBackpropFilter": [0, 2],
}
SHORT_SUMS = {"MatMul", "Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter"}
# What keeps values on the grid that they are on, or on one of their own.
MOVES = {"Identity", "IdentityN", "Reshape", "Transpose", "Pad", "Cast", "GatherV2", "Relu", "StopGradient"}
MOVES |= {"StridedSlice", "Abs", "Square"}


def list_operations(function):
    """All operations of a traced function and of those that it calls, with the graph that each is in."""
    graphs = [function.graph]
    names = set()
    while graphs:
        graph = graphs.pop()
        yield from graph.get_operations()
        for operation in graph.get_operations():
            for key in operation.node_def.attr:
                value = operation.get_attr(key) if operation.node_def.attr[key].HasField("func") else None
                if value is not None and value.name not in names:
                    names.add(value.name)
                    graphs.append(graph._get_function(value.name).graph)  # noqa: SLF001  (there is no public way)


def is_on_grid(tensor):
    """Whether a float64 tensor is what `round_to_grid` gave, moved at most, or the images that the caller rounded."""
    operation = tensor.op
    while operation.type in MOVES:
        operation = operation.inputs[list(operation.outputs).index(tensor) if operation.type == "IdentityN" else 0].op
        tensor = operation.outputs[0]
    # Of a loop's body, and so of the images; or nothing but 1, and multiplied with what is on a grid.
    if operation.type in ("Placeholder", "OnesLike") or (operation.type == "MatMul" and is_sum_exact(operation)):
        return True
    if operation.type in ("Const", "Fill"):
        return bool((tf.get_static_value(operation.outputs[0]) == 1).all())
    is_rounding = operation.type == "Sub" and operation.inputs[0].op.type == "AddV2"
    return is_rounding and operation.inputs[0].op.inputs[1] is operation.inputs[1]


def is_sum_exact(operation):
    """Whether all terms are float64 on a grid, or float32 where so few digits are kept that their sum is exact."""
    factors = [operation.inputs[place] for place in SUMS[operation.type]]
    types = {tf.float64, tf.float32} if operation.type in SHORT_SUMS else {tf.float64}
    return all(factor.dtype in types and is_on_grid(factor) for factor in factors)


def find_unsafe(function):
    """The operations whose bytes might depend on the processor."""
    unsafe = []
    for operation in list_operations(function):
        if operation.type in SUMS:
            if operation.inputs[0].dtype.is_integer or is_sum_exact(operation):
                continue
        elif operation.type == "AvgPool":  # a quarter of how many are equal
            if operation.inputs[0].op.inputs[0].op.inputs[0].op.type == "Equal":
                continue
        elif operation.type in ALLOWED:
            continue
        unsafe.append(f"{operation.type} {operation.name}")
    return unsafe


def trace_steps(
    optimizer_name="adam",
    *,
    hidden_units=(8, 4),
    batch_size=16,
    image_shape=IMAGE_SIZE,
    conv_blocks=(),
    dropout=0.0,
    augmentation=None,
):
    """The traced training step of a network, its gradient and its optimizer included, with a schedule and decay."""
    network = build_network(image_shape, Architecture(hidden_units, conv_blocks, dropout), len(CLASS_NAMES), "linear")
    rates = compute_learning_rates(0.01, "cosine", 3, 1000)
    images = np.ones((1, *image_shape), np.float32) * np.arange(1, 4 if len(image_shape) == 3 else 2)
    augmenter = Augmenter(augmentation, images.astype(np.float32), 0) if augmentation else None
    optimizer, schedule = create_optimizer(optimizer_name, rates, 0.1), Schedule(1, batch_size, 0)
    return _compile_steps(network, optimizer, schedule, np.ones(3), augmenter).get_concrete_function()


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_training_step_has_no_sum_but_exact_ones(optimizer_name):
    """No reduction, product, exponential, logarithm or power is TensorFlow's own, in the gradient neither."""
    assert find_unsafe(trace_steps(optimizer_name)) == []


@pytest.mark.parametrize(
    "settings_",
    [{"hidden_units": [2500]}, {"batch_size": 3000}, {"image_shape": (64, 64)}, {"hidden_units": []}],
    ids=str,
)
def test_large_training_step_has_no_sum_but_exact_ones(settings_):
    """Neither where products are split: many units, large batches, large images."""
    assert find_unsafe(trace_steps("adam", **settings_)) == []


@pytest.mark.parametrize("shape", [IMAGE_SIZE, (*IMAGE_SIZE, 3)], ids=str)
@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(shift=1, horizontal_flip=True),
        Augmentation(contrast=0.1),
        Augmentation(1, 5.0, 0.1, horizontal_flip=True, brightness=0.1, contrast=0.1),
    ],
    ids=["moved", "contrast", "everything"],
)
def test_convolutional_step_has_no_sum_but_exact_ones(shape, augmentation):
    """Convolution, pooling, dropout, augmentation and their gradients neither."""
    steps = trace_steps(image_shape=shape, conv_blocks=((4, 3),), dropout=0.25, augmentation=augmentation)

    assert find_unsafe(steps) == []
    assert {"Conv2D", "MaxPool", "StatelessRandomUniformIntV2"} <= {each.type for each in list_operations(steps)}


def test_large_convolutional_step_has_no_sum_but_exact_ones():
    """Neither where sums are split: many channels, large batches, large images."""
    assert find_unsafe(trace_steps(image_shape=(96, 96, 3), conv_blocks=((300, 4),), batch_size=20)) == []


@pytest.mark.parametrize("name", ["tanh", "exp", "matmul", "rsqrt", "conv2d", "uniform"])
def test_unsafe_operation_is_found(name):
    """The search finds each kind of operation that it is for, nested in a loop, too."""
    functions = {
        "tanh": tf.tanh,
        "exp": tf.exp,
        "matmul": lambda x: x @ x,
        "rsqrt": tf.math.rsqrt,
        "conv2d": lambda x: tf.reshape(tf.nn.conv2d(x[None, :, :, None], x[:1, :1, None, None], 1, "VALID"), [2, 2]),
        "uniform": lambda x: x + tf.random.stateless_uniform([2, 2], [0, 0], dtype=tf.float64),
    }

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([2, 2], tf.float64)])
    def compute(values):
        return tf.while_loop(lambda _: True, lambda x: [functions[name](x + 1)], [values], maximum_iterations=2)

    assert len(find_unsafe(compute.get_concrete_function())) == 1


TRAIN = """
import hashlib, sys
import numpy as np
from stages.lib.model.deterministic_tensorflow import keras, tf
tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
from stages.lib.core.arrays import Split
from stages.lib.model.augmentation import Augmentation
from stages.lib.model.learning_rates import compute_learning_rates
from stages.lib.model.network import Architecture, build_network
from stages.lib.model.order_free_optimizers import create_optimizer
from stages.lib.model.shuffling import MemoryBudget
from stages.lib.model.training import Schedule, count_steps, fit

def train(shape, count, architecture, schedule):
    generator = np.random.default_rng(0)
    images = generator.random((count, *shape)).astype(np.float32)
    split = Split(images, generator.integers(0, 10, count).astype(np.uint8))
    keras.utils.set_random_seed(0)
    network = build_network(shape, architecture, 10, "linear")
    budget = MemoryBudget(group_bytes=2**21)
    rates = compute_learning_rates(1e-3, "cosine", 5, count_steps(split, schedule, budget))
    epochs = []
    optimizer = create_optimizer("adam", rates, 0.1)
    fit(network, optimizer, split, split, schedule, on_epoch_end=epochs.append, budget=budget)
    print(hashlib.md5(b"".join(weights.tobytes() for weights in network.get_weights())).hexdigest(), epochs[-1])

everything = Augmentation(2, 10.0, 0.1, True, 0.1, 0.1)
for units, batch_size in (([20], 32), ([600, 20], 512)):
    train((28, 28), 1500, Architecture(units), Schedule(2, batch_size, 0))
for shape, augmentation in (((28, 28), Augmentation(shift=2)), ((32, 32, 3), everything)):
    schedule = Schedule(2, 32, 0, balances_classes=True, augmentation=augmentation)
    train(shape, 400, Architecture([16], [[8], [12]], 0.25), schedule)
"""


def test_threads_do_not_change_a_bit():
    """One, two and four threads train the same networks, and measure the same losses to the last bit."""
    outputs = set()
    for threads in ("1", "2", "4"):
        done = run_python("-c", TRAIN, threads, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        outputs.add(done.stdout)

    assert len(outputs) == 1


def test_float32_products_would_depend_on_threads_or_blocks():
    """The trap that all this avoids: TensorFlow's own float32 product is not that of its terms in another order."""
    one, other = (
        GENERATOR.normal(size=(32, 784)).astype(np.float32),
        GENERATOR.normal(size=(784, 20)).astype(np.float32),
    )
    order = GENERATOR.permutation(784)
    digests = {
        hashlib.md5(np.asarray(tf.constant(one[:, rows]) @ tf.constant(other[rows])).tobytes()).hexdigest()
        for rows in (np.arange(784), order)
    }

    assert len(digests) == 2

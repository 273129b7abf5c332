"""A Keras network computed, and differentiated, with sums that are the same on every processor.

Training takes each product at VALUE_BITS of both factors, and of the gradient at as many as the batch leaves.
Predictions take three such products in place of one: a factor's digits beyond the first VALUE_BITS count, too.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import iterate_chunks
from stages.lib.model.deterministic_tensorflow import keras, tf
from stages.lib.model.order_free import VALUE_BITS, Floats, compute_probabilities, count_bits, multiply, round_to_grid

# Of a gradient, together with those of what it is multiplied with: 53 - 21.
_SLOPE_BITS = 32

# From inputs (N, inputs), kernel (inputs, units) and bias (units,) to outputs (N, units), float64.
_Dense = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


class Range(NamedTuple):
    """The smallest and the largest of some values."""

    low: float
    high: float


def compute_logits(network: keras.Model, inputs: tf.Tensor, largest_batch: int) -> tf.Tensor:
    """The logits, float64 (N, classes), of a network, with a gradient by its weights; for training.

    inputs: float64 (N, H, W), on a grid of VALUE_BITS. largest_batch: what N is at most.

    Raises:
        TypeError: see `_compute_dense_outputs`.
    """

    def apply_dense(activations: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        return _apply_dense(activations, kernel, bias, largest_batch)

    def round_activations(activations: tf.Tensor) -> tf.Tensor:  # none below 0
        return round_to_grid(activations, tf.stop_gradient(tf.reduce_max(activations)), VALUE_BITS)

    return _compute_dense_outputs(network, inputs, apply_dense, round_activations)[-1]


def compile_logits(network: keras.Model) -> Callable[[NDArray[np.float32]], Floats]:
    """A function from features float32 (N, H, W) to logits float64 (N, classes), each image by itself.

    Logits beyond what float32 holds, in which the saved network computes, are infinite.
    """
    compute = _compile(network)

    def predict(features: NDArray[np.float32]) -> Floats:
        logits = compute(tf.constant(features))[-1].numpy()
        return np.where(np.abs(logits) <= np.finfo(np.float32).max, logits, np.inf)

    return predict


def compile_probabilities(network: keras.Model) -> Callable[[NDArray[np.float32]], Floats]:
    """A function from features float32 (N, H, W) to probabilities float64 (N, classes), each image by itself."""
    predict = compile_logits(network)
    return lambda features: compute_probabilities(predict(features))


def measure_ranges(network: keras.Model, features: NDArray[np.float32]) -> list[Range]:
    """The range of what each Dense layer gives for features (N, H, W), before its activation."""
    predict = _compile(network)
    ranges: list[Range] = []
    for chunk in iterate_chunks(len(features)):
        outputs = [layer_outputs.numpy() for layer_outputs in predict(tf.constant(features[chunk]))]
        found = [Range(float(values.min()), float(values.max())) for values in outputs]
        ranges = [Range(min(a.low, b.low), max(a.high, b.high)) for a, b in zip(ranges or found, found, strict=True)]
    return ranges


def _compile(network: keras.Model) -> tf.types.experimental.Callable:
    """A function from features float32 (N, H, W) to what each Dense layer gives before its activation."""

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(network.input_shape, tf.float32)])
    def predict(features: tf.Tensor) -> list[tf.Tensor]:
        return _compute_dense_outputs(network, tf.cast(features, tf.float64), _apply_dense_closely, tf.identity)

    return predict


def _compute_dense_outputs(
    network: keras.Model, inputs: tf.Tensor, apply_dense: _Dense, round_activations: Callable[[tf.Tensor], tf.Tensor]
) -> list[tf.Tensor]:
    """What each Dense layer gives before its activation, float64 (N, units), for inputs float64 (N, H, W).

    Raises:
        TypeError: there is a layer, or an activation, that has no order-free form here.
    """
    activations, outputs = inputs, []
    for layer in network.layers:
        if isinstance(layer, keras.layers.Flatten):
            activations = tf.reshape(activations, [-1, math.prod(activations.shape[1:])])
        elif isinstance(layer, keras.layers.Dense):
            outputs.append(
                apply_dense(activations, tf.convert_to_tensor(layer.kernel), tf.convert_to_tensor(layer.bias))
            )
            if layer.activation is keras.activations.relu:
                activations = round_activations(tf.nn.relu(outputs[-1]))
            elif layer.activation not in (keras.activations.linear, keras.activations.softmax):
                raise TypeError(f"{layer.name}: {layer.activation} has no order-free form")
        else:
            raise TypeError(f"{layer.name}: {type(layer).__name__} has no order-free form")
    return outputs


def _apply_dense(inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, largest_batch: int) -> tf.Tensor:
    """(N, inputs) @ (inputs, units) + (units,), float64, for inputs on a grid, with a gradient of the same kind."""
    input_count, unit_count = kernel.shape
    # The finest that neither the sum over the batch nor that over the units is too long for, unless they are split.
    slope_bits = max(VALUE_BITS, _SLOPE_BITS - count_bits(max(largest_batch, unit_count)))

    @tf.custom_gradient
    def apply(inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, Callable[..., object]]:
        rounded = tf.cast(round_to_grid(kernel, tf.reduce_max(tf.abs(kernel)), VALUE_BITS), tf.float64)
        outputs = multiply(inputs, rounded, input_count, 2 * VALUE_BITS) + tf.cast(bias, tf.float64)

        def differentiate(slopes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            slopes = round_to_grid(slopes, tf.reduce_max(tf.abs(slopes)), slope_bits)
            bits = VALUE_BITS + slope_bits
            return (
                multiply(slopes, rounded, unit_count, bits, transpose_other=True),
                tf.cast(multiply(inputs, slopes, largest_batch, bits, transpose_one=True), tf.float32),
                tf.cast(tf.reduce_sum(slopes, axis=0), tf.float32),
            )

        return outputs, differentiate

    return apply(inputs, kernel, bias)


def _apply_dense_closely(inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """The same for any inputs, each row by itself, off by about 2^-40 of the largest product; no gradient."""
    input_count, _ = kernel.shape
    coarse_inputs, fine_inputs = _split_digits(inputs, axis=1)
    coarse_kernel, fine_kernel = _split_digits(tf.cast(kernel, tf.float64), axis=0)
    bits = 2 * VALUE_BITS
    coarse = multiply(coarse_inputs, coarse_kernel, input_count, bits)
    mixed = multiply(coarse_inputs, fine_kernel, input_count, bits)
    fine = multiply(fine_inputs, coarse_kernel, input_count, bits)
    return coarse + (mixed + fine) + tf.cast(bias, tf.float64)


def _split_digits(values: tf.Tensor, axis: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Two parts of values, float64, on grids of VALUE_BITS each, one for all values along the axis."""
    coarse = round_to_grid(values, tf.reduce_max(tf.abs(values), axis, keepdims=True), VALUE_BITS)
    rest = values - coarse
    return coarse, round_to_grid(rest, tf.reduce_max(tf.abs(rest), axis, keepdims=True), VALUE_BITS)

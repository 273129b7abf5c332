"""A Keras network computed, and differentiated, with sums that are the same on every processor.

Training takes each product of a dense layer at VALUE_BITS of both factors, and of the gradient at as many as the batch
leaves; for convolutions see `order_free_convolution`.
Close predictions take three such products in place of one: a factor's digits beyond the first VALUE_BITS count, too.
"""

import math
from collections.abc import Callable
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import iterate_chunks
from stages.lib.model.deterministic_tensorflow import keras, tf
from stages.lib.model.network import POOL_SIZE, has_convolutions
from stages.lib.model.order_free import (
    VALUE_BITS,
    Floats,
    compute_probabilities,
    convolve,
    count_bits,
    multiply,
    round_to_grid,
)
from stages.lib.model.order_free_convolution import apply_convolution, pool

# Of a gradient, together with those of what it is multiplied with: 53 - 21.
_SLOPE_BITS = 32
# Values of a layer that are predicted together: 8 MB. More images at a time would leave the processor's cache.
_VALUES_AT_ONCE = 1 << 20
# Of a step's images, at least; fewer would spend more time on starting operations than on computing.
_SHARD_IMAGES, _MOST_SHARDS = 16, 8
_STEP_BITS = 40
# Whole numbers that are drawn to decide what is dropped.
_DRAWS = 1 << 24
_ACTIVATIONS = {
    keras.layers.Conv2D: [keras.activations.relu],
    keras.layers.Dense: [keras.activations.relu, keras.activations.linear, keras.activations.softmax],
}


class Range(NamedTuple):
    """The smallest and the largest of some values."""

    low: float
    high: float


class _Training:
    """How a network is computed to be trained: each function has a gradient of exact sums.

    Convolutions take and give float32, dense layers float64.
    """

    def __init__(self, network: keras.Model, largest_batch: int, dropout_key: tf.Tensor | None) -> None:
        self._first = next((layer for layer in network.layers if type(layer) in _ACTIVATIONS), None)
        self._largest_batch, self._dropout_key = largest_batch, dropout_key

    def apply_layer(self, layer: keras.Layer, inputs: tf.Tensor) -> tf.Tensor:
        """The outputs of a convolution or a dense layer before its activation."""
        kernel, bias = tf.convert_to_tensor(layer.kernel), tf.convert_to_tensor(layer.bias)
        if isinstance(layer, keras.layers.Dense):
            return _apply_dense(inputs, kernel, bias, self._largest_batch)
        return apply_convolution(inputs, kernel, bias, self._largest_batch, is_first=layer is self._first)

    def finish(self, activations: tf.Tensor) -> tf.Tensor:
        """Activations, none below 0, as a dense layer takes them; a convolution rounds them itself."""
        if activations.dtype == tf.float32:
            return activations
        return round_to_grid(activations, tf.stop_gradient(tf.reduce_max(activations)), VALUE_BITS)

    def flatten(self, values: tf.Tensor) -> tf.Tensor:
        """Images, which are on a grid, or a convolution's activations (N, ...) as a dense layer takes them."""
        flat = tf.cast(tf.reshape(values, [-1, math.prod(values.shape[1:])]), tf.float64)
        return flat if isinstance(self._first, keras.layers.Dense) else self.finish(flat)

    def pool(self, values: tf.Tensor) -> tf.Tensor:
        """The largest of each 2 x 2 values."""
        return pool(values)

    def drop(self, layer: keras.layers.Dropout, activations: tf.Tensor) -> tf.Tensor:
        """Leave out a share of the activations, and scale the others up, as Keras does."""
        # Whole numbers from a counter, the same on every processor.
        draws = tf.random.stateless_uniform(tf.shape(activations), self._dropout_key, 0, _DRAWS, tf.int32, alg="philox")
        factors = tf.cast(draws >= round(layer.rate * _DRAWS), tf.float64) / (1 - layer.rate)

        @tf.custom_gradient
        def scale(values: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            return values * factors, lambda slopes: slopes * factors

        return self.finish(scale(activations))


class _Prediction:
    """How a network is computed to predict: in float64, each image by itself, without a gradient."""

    def __init__(self, *, is_close: bool) -> None:
        self._is_close = is_close

    def apply_layer(self, layer: keras.Layer, inputs: tf.Tensor) -> tf.Tensor:
        """The outputs of a convolution or a dense layer before its activation.

        Off by about 2^-20 of the largest product; closely, in three times the time, 2^-40.
        """
        kernel, bits = tf.cast(layer.kernel, tf.float64), 2 * VALUE_BITS
        coarse_inputs, fine_inputs = _split_digits(inputs, axes=list(range(1, len(inputs.shape))))
        coarse_kernel, fine_kernel = _split_digits(kernel, axes=list(range(len(kernel.shape) - 1)))

        def apply(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
            is_dense = isinstance(layer, keras.layers.Dense)
            return multiply(one, other, kernel.shape[0], bits) if is_dense else convolve(one, other, bits)

        sums = apply(coarse_inputs, coarse_kernel)
        if self._is_close:
            sums += apply(coarse_inputs, fine_kernel) + apply(fine_inputs, coarse_kernel)
        return sums + tf.cast(layer.bias, tf.float64)

    def finish(self, activations: tf.Tensor) -> tf.Tensor:
        """The activations as they are."""
        return activations

    def flatten(self, values: tf.Tensor) -> tf.Tensor:
        """Images or activations (N, ...) as a dense layer takes them."""
        return tf.reshape(values, [-1, math.prod(values.shape[1:])])

    def pool(self, values: tf.Tensor) -> tf.Tensor:
        """The largest of each 2 x 2 values."""
        return tf.nn.max_pool2d(values, POOL_SIZE, POOL_SIZE, "VALID")

    def drop(self, _: keras.layers.Dropout, activations: tf.Tensor) -> tf.Tensor:
        """The activations as they are: only training drops some."""
        return activations


def compute_logits(
    network: keras.Model, inputs: tf.Tensor, largest_batch: int, dropout_key: tf.Tensor | None = None
) -> tf.Tensor:
    """The logits, float64 (N, classes), of a network, with a gradient by its weights; for training.

    inputs: float32 (N, H, W[, 3]), on a grid of VALUE_BITS. largest_batch: what N is at most. dropout_key: int64 (2,),
    decides which activations a Dropout layer leaves out; the second number is below 2^40.

    With convolutions, images go in shards that several cores compute at a time. Their number follows from the batch
    alone: each has grids of its own.

    Raises:
        TypeError: see `_compute_outputs`.
    """
    if not has_convolutions(network):
        return _compute_outputs(network, inputs, _Training(network, largest_batch, dropout_key))[-1]
    image_count, sides = tf.shape(inputs)[0], inputs.shape[1:]
    # Blank images in a smaller last batch: shards may not be empty, for oneDNN gives them a wrong shape.
    padded = tf.pad(inputs, [[0, largest_batch - image_count], *([0, 0] for _ in sides)])
    padded.set_shape([largest_batch, *sides])
    size = max(_SHARD_IMAGES, math.ceil(largest_batch / _MOST_SHARDS))
    logits = []
    for number, start in enumerate(range(0, largest_batch, size)):
        shard = padded[start : start + size]
        key = None if dropout_key is None else tf.add(dropout_key, [0, number << _STEP_BITS])
        logits.append(_compute_outputs(network, shard, _Training(network, shard.shape[0], key))[-1])
    return tf.concat(logits, axis=0)[:image_count]


def compile_logits(network: keras.Model, *, is_close: bool = True) -> Callable[[NDArray[np.float32]], Floats]:
    """A function from features float32 (N, H, W[, 3]) to logits float64 (N, classes), each image by itself.

    is_close: to some 2^-40; else to 2^-20, in a third of the time. Logits beyond what float32 holds, in which the saved
    network computes, are infinite.
    """
    compute = _compile(network, is_close=is_close)

    rows_at_once = _count_rows(network)

    def predict(features: NDArray[np.float32]) -> Floats:
        chunks = iterate_chunks(len(features), rows_at_once)
        logits = np.concatenate([compute(tf.constant(features[chunk]))[-1].numpy() for chunk in chunks])
        return np.where(np.abs(logits) <= np.finfo(np.float32).max, logits, np.inf)

    return predict


def compile_probabilities(network: keras.Model) -> Callable[[NDArray[np.float32]], Floats]:
    """A function from features float32 (N, H, W[, 3]) to probabilities float64 (N, classes), each image by itself."""
    predict = compile_logits(network)
    return lambda features: compute_probabilities(predict(features))


def measure_ranges(network: keras.Model, features: NDArray[np.float32]) -> list[Range]:
    """The range of what each convolution and dense layer gives for features (N, H, W[, 3]), before its activation."""
    predict = _compile(network)
    ranges: list[Range] = []
    for chunk in iterate_chunks(len(features), _count_rows(network)):
        outputs = [layer_outputs.numpy() for layer_outputs in predict(tf.constant(features[chunk]))]
        found = [Range(float(values.min()), float(values.max())) for values in outputs]
        ranges = [Range(min(a.low, b.low), max(a.high, b.high)) for a, b in zip(ranges or found, found, strict=True)]
    return ranges


def _compile(network: keras.Model, *, is_close: bool = True) -> tf.types.experimental.Callable:
    """A function from features float32 (N, H, W[, 3]) to what each layer with weights gives before its activation."""

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(network.input_shape, tf.float32)])
    def predict(features: tf.Tensor) -> list[tf.Tensor]:
        images, half = tf.cast(features, tf.float64), tf.shape(features)[0] // 2
        # Several cores may compute both halves at a time.
        halves = (images[:half], images[half:]) if has_convolutions(network) else (images,)
        outputs = [_compute_outputs(network, part, _Prediction(is_close=is_close)) for part in halves]
        return [tf.concat(parts, axis=0) for parts in zip(*outputs, strict=True)]

    return predict


def _count_rows(network: keras.Model) -> int:
    """How many images are predicted together: no layer of theirs is larger than _VALUES_AT_ONCE."""
    largest: int = max(math.prod(layer.output.shape[1:]) for layer in network.layers)
    return max(1, _VALUES_AT_ONCE // largest)


def _compute_outputs(network: keras.Model, inputs: tf.Tensor, arithmetic: _Training | _Prediction) -> list[tf.Tensor]:
    """What each convolution and dense layer gives for inputs (N, H, W[, 3]), before its activation.

    Raises:
        TypeError: there is a layer, or an activation, that has no order-free form here.
    """
    activations, outputs = inputs, []
    for layer, next_layer in zip_longest(network.layers, network.layers[1:]):
        if isinstance(layer, keras.layers.Reshape):
            activations = tf.reshape(activations, [-1, *layer.output.shape[1:]])
        elif isinstance(layer, keras.layers.Flatten):
            activations = arithmetic.flatten(activations)
        elif type(layer) in _ACTIVATIONS and layer.activation in _ACTIVATIONS[type(layer)]:
            activations = arithmetic.apply_layer(layer, activations)
            outputs.append(activations)
            # The largest of four before relu is relu's largest of the four, with a quarter of the work.
            if layer.activation is keras.activations.relu and not isinstance(next_layer, keras.layers.MaxPooling2D):
                activations = arithmetic.finish(tf.nn.relu(activations))
        elif isinstance(layer, keras.layers.MaxPooling2D):
            activations = arithmetic.finish(tf.nn.relu(arithmetic.pool(activations)))
        elif isinstance(layer, keras.layers.Dropout):
            activations = arithmetic.drop(layer, activations)
        else:
            what = getattr(layer, "activation", None) or type(layer).__name__
            raise TypeError(f"{layer.name}: {what} has no order-free form")
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


def _split_digits(values: tf.Tensor, axes: list[int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Two parts of values, float64, on grids of VALUE_BITS each, one for all values along the axes."""
    coarse = round_to_grid(values, tf.reduce_max(tf.abs(values), axes, keepdims=True), VALUE_BITS)
    rest = values - coarse
    return coarse, round_to_grid(rest, tf.reduce_max(tf.abs(rest), axes, keepdims=True), VALUE_BITS)

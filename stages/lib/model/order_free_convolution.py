"""Convolution and pooling for training, with float32 sums that are the same on every processor.

float32 is four times as fast as float64 here, and its sums are exact, too, if they are short of digits enough. As in
`order_free`, (a + s) - s makes of a a multiple k g of a power of two g. Of float32, s 2^-25 < g <= s 2^-24, so that
|k| < 2^25 |a| / s + 1/2. A sum of products of a and b on such grids is g_a g_b times a sum of whole numbers, and no
partial sum rounds, in whatever order and fused or not, if

    sum of |k_a| |k_b| <= 2^24.

The largest values alone would leave few digits to a sum of 288 products, and none to one of 28,800. So the bounds here
are of sums: the largest input times the sum of a kernel's magnitudes for outputs and for the gradient by the inputs,
and by Cauchy and Schwarz the root of the two sums of squares for the gradient by the kernel. That leaves some 8 bits to
each factor: as many as an int8 model has. The weights themselves stay float32 (B. Jacob et al., Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2017, section 3, trains this way).
"""

import math
from collections.abc import Callable

from stages.lib.model.deterministic_tensorflow import tf
from stages.lib.model.order_free import add_up

# Of inputs, and of gradients at most: 512 steps up to the largest.
_BITS = 9
# In one sum of the gradient by a kernel, of at least an image: with more, fewer bits would be left to the slopes. 64
# squares of 9 bits have 24 together.
_PLACES_AT_ONCE, _IMAGES_AT_ONCE = 1 << 13, 1 << 6
# Of an image's pixels, and of a convolution's filters: twice as many might not be added up exactly.
MAX_PLACES, MAX_FILTERS = 1 << 15, 512
# Values below are as good as 0; grids of still smaller ones would need numbers that float32 rounds to 0.
_SMALLEST_VALUE, _SMALLEST_SLOPE = 2.0**-30, 2.0**-60
# What a shift computed in float64 may lose as it becomes float32.
_ABOVE = 1 + 2.0**-20


def apply_convolution(
    inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, largest_batch: int, *, is_first: bool
) -> tf.Tensor:
    """A 'valid' convolution float32 (N, H, W, C) to (N, H', W', filters), with a gradient of the same kind.

    kernel: (h, w, C, filters). bias: (filters,). largest_batch: what N is at most. is_first: whether the inputs are the
    images, by which there is no gradient.
    """

    @tf.custom_gradient
    def apply(inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, Callable[..., object]]:
        input_shift = _find_largest(inputs, _SMALLEST_VALUE) * 2.0 ** (25 - _BITS)
        inputs = _round(inputs, input_shift)
        kernel_shift = _choose_kernel_shift(kernel)
        kernel = _round(kernel, kernel_shift)
        outputs = tf.nn.conv2d(inputs, kernel, strides=1, padding="VALID") + bias

        def differentiate(slopes: tf.Tensor) -> tuple[tf.Tensor | None, tf.Tensor, tf.Tensor]:
            largest = _find_largest(slopes, _SMALLEST_SLOPE)
            shift = largest * 2.0 ** (25 - _BITS)
            if is_first:
                slopes, by_inputs = _round(slopes, shift), tf.zeros_like(inputs)
            else:
                slopes = _round(slopes, tf.maximum(shift, _choose_slope_shift(largest, kernel, kernel_shift)))
                by_inputs = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=tf.shape(inputs), filter=kernel, out_backprop=slopes, strides=[1] * 4, padding="VALID"
                )
            by_weights = _differentiate_by_weights(inputs, input_shift, slopes, kernel.shape, largest_batch)
            return by_inputs, *by_weights

        return outputs, differentiate

    return apply(inputs, kernel, bias)


def pool(values: tf.Tensor) -> tf.Tensor:
    """The largest of each 2 x 2 values: float32 (N, H, W, C) to (N, H // 2, W // 2, C).

    Equal largest values share the gradient, where Keras's pooling gives it to the first: on an even background, all
    four are equal.
    """
    _, height, width, channels = values.shape
    rows, columns = height // 2, width // 2
    if height % 2 or width % 2:
        values = values[:, : 2 * rows, : 2 * columns]

    def spread(pooled: tf.Tensor) -> tf.Tensor:
        return tf.reshape(pooled, [-1, rows, 1, columns, 1, channels])

    @tf.custom_gradient
    def apply(values: tf.Tensor) -> tuple[tf.Tensor, Callable[..., object]]:
        pooled = tf.nn.max_pool2d(values, 2, 2, "VALID")

        def differentiate(slopes: tf.Tensor) -> tf.Tensor:
            windows = tf.reshape(values, [-1, rows, 2, columns, 2, channels])
            is_largest = tf.cast(tf.equal(windows, spread(pooled)), tf.float32)
            # A quarter of 1 to 4, which float32 holds.
            shares = tf.nn.avg_pool2d(tf.reshape(is_largest, tf.shape(values)), 2, 2, "VALID")
            return tf.reshape(is_largest * spread(slopes / (4 * shares)), tf.shape(values))

        return pooled, differentiate

    return apply(values)


def _find_largest(values: tf.Tensor, smallest: float) -> tf.Tensor:
    """The largest magnitude, or `smallest`; in half the time that `tf.abs` would take."""
    return tf.maximum(tf.maximum(tf.reduce_max(values), -tf.reduce_min(values)), smallest)


def _round(values: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    return (values + shift) - shift


def _choose_kernel_shift(kernel: tf.Tensor) -> tf.Tensor:
    """The shift s such that sums of |k| of a filter's K weights are at most 2^(24 - bits of inputs) = b.

    With g > s 2^-25, and 1/2 a weight for rounding, they are below 2^25 (sum of |w|) / s + K / 2.
    """
    height, width, channels, filters = kernel.shape
    terms, most = height * width * channels, 2.0 ** (24 - _BITS)
    if terms >= most:
        raise ValueError(f"convolutions of {terms} terms cannot be added up exactly in float32")
    lengths = add_up(tf.reshape(tf.cast(tf.abs(kernel), tf.float64), [terms, filters]), terms)
    longest = tf.maximum(tf.reduce_max(lengths), _SMALLEST_VALUE)
    return tf.cast(longest * (_ABOVE * 2.0**25 / (most - terms / 2)), tf.float32)


def _choose_slope_shift(largest: tf.Tensor, kernel: tf.Tensor, kernel_shift: tf.Tensor) -> tf.Tensor:
    """The shift s such that (2^25 largest / s + 1/2) u <= 2^24, for u >= the sum of a channel's |k| in the kernel."""
    magnitudes = tf.cast(tf.abs(kernel), tf.float64)
    # Multiples of one power of two: the sum is exact.
    units = tf.reduce_max(tf.reduce_sum(magnitudes, axis=[0, 1, 3])) * (2.0**25 / tf.cast(kernel_shift, tf.float64))
    shift = 2 * tf.cast(largest, tf.float64) * tf.maximum(units, 1) / (1 - units * 2.0**-25)
    return tf.cast(shift * _ABOVE, tf.float32)


def _differentiate_by_weights(
    inputs: tf.Tensor, input_shift: tf.Tensor, slopes: tf.Tensor, shape: tf.TensorShape, largest_batch: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The gradients float32 by a kernel of that shape and by the biases, a bounded number of images at a time."""
    places = slopes.shape[1] * slopes.shape[2]
    most = max(1, min(_IMAGES_AT_ONCE, _PLACES_AT_ONCE // places))
    if largest_batch <= most:
        return _differentiate_shard(inputs, input_shift, slopes, shape)
    shards = [slice(start, start + most) for start in range(0, largest_batch, most)]
    gradients = [_differentiate_shard(inputs[shard], input_shift, slopes[shard], shape) for shard in shards]
    by_kernel, by_bias = (
        add_up(tf.cast(tf.stack(each), tf.float64), len(shards)) for each in zip(*gradients, strict=True)
    )
    return tf.cast(by_kernel, tf.float32), tf.cast(by_bias, tf.float32)


def _differentiate_shard(
    inputs: tf.Tensor, input_shift: tf.Tensor, slopes: tf.Tensor, shape: tf.TensorShape
) -> tuple[tf.Tensor, tf.Tensor]:
    rounded = _round(slopes, _choose_product_shift(inputs, input_shift, slopes))
    by_kernel = tf.raw_ops.Conv2DBackpropFilter(
        input=inputs, filter_sizes=shape, out_backprop=rounded, strides=[1] * 4, padding="VALID"
    )
    by_place = tf.reshape(slopes, [-1, shape[-1]])
    return by_kernel, tf.reshape(tf.matmul(tf.ones_like(by_place[:, :1]), by_place, transpose_a=True), [-1])


def _choose_product_shift(inputs: tf.Tensor, input_shift: tf.Tensor, slopes: tf.Tensor) -> tf.Tensor:
    """The shift s of slopes such that v (2^25 |slopes| / s + root(places) / 2) <= 2^24, for v >= |k| of the inputs.

    |x| is the root of the sum of squares of a channel, or of a filter, over all places. By Cauchy and Schwarz no sum of
    products of the two is larger than the product of their roots; nor is that of a part of them.
    """
    units = tf.sqrt(_add_up_squares(inputs)) * (2.0**25 / tf.cast(input_shift, tf.float64))
    length = tf.maximum(tf.sqrt(_add_up_squares(slopes)), _SMALLEST_SLOPE)
    # Above 0, for units <= 2^9 root(places).
    shift = 2 * tf.maximum(units, 1) * length / (1 - units * (MAX_PLACES**0.5 * 2.0**-25))
    return tf.cast(shift * _ABOVE, tf.float32)


def _add_up_squares(values: tf.Tensor) -> tf.Tensor:
    """The largest sum of squares over all but the last axis, float64, of at most 64 images (N, H, W, C) of 9 bits."""
    flat = tf.reshape(tf.square(values), [-1, math.prod(values.shape[1:])])
    by_place = tf.matmul(tf.ones_like(flat[:, :1]), flat, transpose_a=True)  # (1, H * W * C), exact in float32
    by_channel = tf.reshape(tf.cast(by_place, tf.float64), [-1, values.shape[-1]])
    return tf.reduce_max(tf.reduce_sum(by_channel, axis=0))

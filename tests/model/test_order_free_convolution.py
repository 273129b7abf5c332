"""Float32 sums of convolutions are exact, whatever their operands, and close to Keras's."""

import numpy as np
import pytest

from stages.lib.model import order_free_convolution
from stages.lib.model.deterministic_tensorflow import keras, tf
from stages.lib.model.order_free_convolution import apply_convolution, pool

GENERATOR = np.random.default_rng(0)
# Of operands with 8 bits or more, relative to the largest sum of magnitudes.
RTOL = 0.01
# Of slopes with 5 bits, as the gradient by inputs takes them where far more filters than channels meet.
INPUT_RTOL = 0.05
# images, height, width, channels, filters: one group of images, and several; the first has a single place for each.
SHAPES = [(2, 3, 3, 1, 1), (32, 28, 28, 1, 16), (32, 13, 13, 16, 32), (4, 20, 24, 3, 5), (70, 6, 5, 7, 4)]


def draw(kind, *shape):
    """Numbers of one size, of very different sizes, all the same, or none."""
    values = GENERATOR.normal(size=shape)
    if kind == "many sizes":
        values *= 10.0 ** GENERATOR.integers(-6, 3, size=shape)
    return tf.constant((np.ones(shape) if kind == "equal" else values * (kind != "zero")).astype(np.float32))


def differentiate(inputs, kernel, bias, slopes, *, is_first=False):
    """Outputs and gradients of a convolution."""
    with tf.GradientTape() as tape:
        tape.watch([inputs, kernel, bias])
        outputs = apply_convolution(inputs, kernel, bias, inputs.shape[0], is_first=is_first)
    return outputs, *tape.gradient(outputs, [inputs, kernel, bias], output_gradients=slopes)


def differentiate_by_keras(inputs, kernel, bias, slopes):
    """The same by TensorFlow's own convolution, in float64."""
    inputs, kernel, bias, slopes = (tf.cast(values, tf.float64) for values in (inputs, kernel, bias, slopes))
    with tf.GradientTape() as tape:
        tape.watch([inputs, kernel, bias])
        outputs = tf.nn.conv2d(inputs, kernel, 1, "VALID") + bias
    return outputs, *tape.gradient(outputs, [inputs, kernel, bias], output_gradients=slopes)


def draw_operands(kind, shape):
    images, height, width, channels, filters = shape
    return (
        tf.nn.relu(draw(kind, images, height, width, channels)),
        draw(kind, 3, 3, channels, filters),
        tf.zeros(filters),
        draw(kind, images, height - 2, width - 2, filters),
    )


@pytest.mark.parametrize("kind", ["one size", "many sizes", "equal", "zero"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_are_exact(monkeypatch, kind, shape):
    """Float64, which holds every partial sum of these operands, finds the same numbers to the last bit."""
    rounded, round_values = [], order_free_convolution._round  # noqa: SLF001  (what is rounded is what is to be added up)

    def record(values, shift):
        rounded.append(round_values(values, shift))
        return rounded[-1]

    monkeypatch.setattr(order_free_convolution, "_round", record)
    inputs, kernel, bias, slopes = draw_operands(kind, shape)

    outputs, by_inputs, by_kernel, by_bias = differentiate(inputs, kernel, bias, slopes)

    inputs, kernel, slopes, *shards = rounded  # the slopes of each group of images once more
    exact = differentiate_by_keras(inputs, kernel, bias, slopes)
    assert np.array_equal(outputs, exact[0])
    assert np.array_equal(by_inputs, exact[1])
    assert np.array_equal(by_bias, exact[3].numpy().astype(np.float32))
    by_kernel_exact = differentiate_by_keras(inputs, kernel, bias, tf.concat(shards, axis=0))[2]
    assert np.array_equal(by_kernel, by_kernel_exact.numpy().astype(np.float32))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_convolution_is_close_to_keras(shape):
    """Rounding to grids costs a hundredth of what is added up, at the most."""
    operands = draw_operands("one size", shape)
    found, expected = differentiate(*operands), differentiate_by_keras(*operands)
    added_up = differentiate_by_keras(*map(tf.abs, operands))

    for values, exact, largest, rtol in zip(found, expected, added_up, [RTOL, INPUT_RTOL, RTOL, RTOL], strict=True):
        assert np.abs(values.numpy() - exact.numpy()).max() <= rtol * largest.numpy().max()


def test_slopes_of_one_sign_are_not_rounded_away():
    """The gradient of an even background, whose sums are as long as can be, is not lost."""
    inputs, kernel, bias, slopes = draw_operands("equal", (32, 28, 28, 1, 2))

    by_kernel = differentiate(inputs, kernel, bias, slopes, is_first=True)[2]

    assert np.array_equal(by_kernel, np.full((3, 3, 1, 2), 32 * 26 * 26))


def test_too_long_convolution_is_refused():
    """Sums that float32 cannot hold are not tried."""
    with pytest.raises(ValueError, match="36000 terms cannot be added up exactly"):
        apply_convolution(tf.zeros((1, 3, 3, 4000)), tf.zeros((3, 3, 4000, 1)), tf.zeros(1), 1, is_first=True)


@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
def test_pooling_is_kerass(size):
    """Where the four values differ, values and gradient are those of Keras's layer."""
    images = tf.constant(GENERATOR.permutation(2 * size[0] * size[1] * 3).reshape(2, *size, 3).astype(np.float32))
    gradients = []
    for layer in (pool, keras.layers.MaxPooling2D(2)):
        with tf.GradientTape() as tape:
            tape.watch(images)
            pooled = layer(images)
        slopes = tf.reshape(tf.range(tf.size(pooled), dtype=tf.float32), pooled.shape)
        gradients.append((pooled, tape.gradient(pooled, images, output_gradients=slopes)))

    assert all(np.array_equal(one, other) for one, other in zip(*gradients, strict=True))


def test_equal_values_share_the_gradient():
    """On an even background there is no first among four."""
    images = tf.constant([[1.0, 2.0, 3.0, 3.0], [1.0, 2.0, 0.0, 3.0]])[tf.newaxis, :, :, tf.newaxis]
    with tf.GradientTape() as tape:
        tape.watch(images)
        pooled = pool(images)

    shares = tape.gradient(pooled, images, output_gradients=tf.fill(pooled.shape, 6.0))

    assert np.array_equal(shares[0, :, :, 0], [[0, 3, 2, 2], [0, 3, 0, 2]])

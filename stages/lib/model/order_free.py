"""Products, sums, exponentials and logarithms that are the same to the bit on every processor.

The sum of floats depends on the order of its terms, and the order on the processor: on its caches, the width of its
vectors, fused multiply-add, threads. Here every sum is exact, so that no order can matter:

- `round_to_grid` rounds an array to `bits` bits below its largest magnitude m. With s = m 2^(54 - bits) it computes
  (a + s) - s in float64. Let 2^e <= s < 2^(e+1). Since s - m > 2^(e-1), each a + s is rounded to a multiple of
  g = 2^(e-53), and the subtraction is exact: each result is g k for a whole number k. From
  m = s 2^(bits-54) < 2^(e+1) 2^(bits-54) = g 2^bits follows |k| <= 2^bits. It is off by at most 2 g <= m 2^(2-bits).
  In float32, whose numbers have 24 digits in place of 53, the same holds of s = m 2^(25 - bits) and g = 2^(e-24).
- A product of K terms of arrays on such grids is then g h times a sum of K whole numbers, none beyond
  2^(bits(A) + bits(B)). Every partial sum, in whatever order and fused or not, is at most 2^53 if
  bits(A) + bits(B) + ceil(log2 K) <= 53: a whole number that float64 holds. No addition rounds anything.
- A sum of K numbers on one grid is exact in the same way if bits + ceil(log2 K) <= 53.

Exponentials and logarithms are written out in +, -, * and /, which IEEE 754 defines to the bit. So are NumPy's and
TensorFlow's own elementwise operations of these four, square roots, comparisons and conversions.
"""

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import iterate_chunks
from stages.lib.model.deterministic_tensorflow import tf

Array = TypeVar("Array", bound=Any)  # of NumPy or TensorFlow
Floats = NDArray[np.float64]

# Binary digits, the leading one included.
_DIGITS, _FLOAT32_DIGITS = 53, 24
# Of inputs, activations and weights: as exact as sums of float32, whose products leave room for MAX_TERMS of them.
VALUE_BITS = 21
# Of a product without being split: 21 + 21 + 11 = 53.
MAX_TERMS = 1 << (_DIGITS - 2 * VALUE_BITS)
# An exponential is that of a 64th part, squared this often.
_SQUARINGS = 6
# e^-64 is no part of a sum with e^0 that float64 holds.
_SMALLEST_EXPONENT = -64.0
# Of the logarithm's series: z^2 is below 0.0295, so that the next one is below 2^-53 of the first.
_LOGARITHM_TERMS = 11
_LN_2 = float.fromhex("0x1.62e42fefa39efp-1")


def count_bits(terms: int) -> int:
    """ceil(log2 terms): the bits that a sum of as many terms needs beyond those of each.

    Raises:
        ValueError: so many that a float64 holds no bit of each.
    """
    bits = (terms - 1).bit_length()
    if terms < 1 or bits >= _DIGITS - 1:
        raise ValueError(f"{terms} terms cannot be added up exactly")
    return bits


def round_to_grid(values: Array, largest: Array, bits: int) -> Array:
    """Values, float64 or float32, as multiples of one power of two, at most 2^bits of it; see above.

    largest: their largest magnitude, which must be no constant: TensorFlow's compiler would fold (a + s) - s.
    """
    shift = _compute_shift(values, largest, bits)
    rounded: Array = (values + shift) - shift
    return rounded


def round_in_place(values: NDArray[np.float32], largest: np.float32, bits: int) -> None:
    """Round values as `round_to_grid` does, in their own memory."""
    shift: np.float32 = _compute_shift(values, largest, bits)
    values += shift
    values -= shift


def _compute_shift(values: Any, largest: Any, bits: int) -> Any:  # noqa: ANN401  (of NumPy or TensorFlow)
    digits = _FLOAT32_DIGITS if values.dtype == "float32" else _DIGITS
    return largest * 2.0 ** (digits + 1 - bits)


def multiply(
    one: tf.Tensor,
    other: tf.Tensor,
    terms: int,
    bits: int,
    *,
    transpose_one: bool = False,
    transpose_other: bool = False,
) -> tf.Tensor:
    """The product float64 (M, N) of matrices (M, K) and (K, N) that are on a grid each.

    terms: K, or what it is at most. bits: of both grids together. A product of more terms than one exact sum can have
    is split into exact sums, which are rounded to a grid of their own and added up.

    Raises:
        ValueError: the grids are too fine for a sum of two products.
    """
    longest = 1 << max(0, _DIGITS - bits)
    if terms <= longest:
        return tf.matmul(one, other, transpose_a=transpose_one, transpose_b=transpose_other)
    if longest < 2:
        raise ValueError(f"products of {bits} bits cannot be added up exactly")
    count = math.ceil(terms / longest)
    pieces = []
    for matrix, is_terms_first in ((one, transpose_one), (other, not transpose_other)):
        by_term = matrix if is_terms_first else tf.transpose(matrix)  # (K, M) or (K, N)
        missing = count * longest - tf.shape(by_term)[0]
        pieces.append(tf.reshape(tf.pad(by_term, [[0, missing], [0, 0]]), [count, longest, -1]))
    return add_up(tf.matmul(*pieces, transpose_a=True), count)  # of (count, M, N)


def convolve(images: tf.Tensor, kernel: tf.Tensor, bits: int) -> tf.Tensor:
    """The 'valid' convolution float64 (N, H', W', filters) of images (N, H, W, C) by a kernel (h, w, C, filters).

    Both are on a grid each. bits: of both grids together. A convolution of more terms than one exact sum can have is
    split by channels into exact ones, which are rounded to a grid of their own and added up.
    """
    height, width, channels, _ = kernel.shape
    most = (1 << (_DIGITS - bits)) // (height * width)
    if channels <= most:
        return tf.nn.conv2d(images, kernel, strides=1, padding="VALID")
    starts = range(0, channels, most)
    pieces = [
        tf.nn.conv2d(images[..., start : start + most], kernel[:, :, start : start + most], strides=1, padding="VALID")
        for start in starts
    ]
    return add_up(tf.stack(pieces), len(starts))


def add_up(values: tf.Tensor, terms: int) -> tf.Tensor:
    """The sum over the first axis of values float64 (K, ...), each of which is rounded to a grid of that sum.

    terms: K, or what it is at most.
    """
    largest = tf.reduce_max(tf.abs(values), axis=0, keepdims=True)
    rounded = round_to_grid(values, largest, _DIGITS - count_bits(terms))
    return tf.reduce_sum(rounded, axis=0)


def exponentiate(values: Array) -> Array:
    """e^x, float64, of x from -64 to 0; off by at most 2e-9.

    The Pade approximant (12 + 6 y + y^2) / (12 - 6 y + y^2) of e^y (error y^5 / 720; G. Baker and P. Graves-Morris,
    Pade Approximants, 1996, section 1.2) at y = x / 64, squared six times.
    """
    small = values / 2.0**_SQUARINGS
    even, odd = small * small + 12.0, 6.0 * small
    power: Array = (even + odd) / (even - odd)
    for _ in range(_SQUARINGS):
        power = power * power
    return power


def take_logarithm(values: Floats) -> Floats:
    """The natural logarithm, float64, of positive numbers; off by a few units in the last place.

    x = m 2^e with sqrt(1/2) <= m < sqrt(2), and ln m = 2 (z + z^3 / 3 + z^5 / 5 + ...) for z = (m - 1) / (m + 1)
    (M. Abramowitz and I. Stegun, Handbook of Mathematical Functions, 1964, 4.1.27).
    """
    mantissas, exponents = np.frexp(values)
    is_small = mantissas < math.sqrt(0.5)
    mantissas, exponents = np.where(is_small, 2 * mantissas, mantissas), exponents - is_small
    ratios = (mantissas - 1) / (mantissas + 1)
    squares, series = ratios * ratios, np.zeros_like(ratios)
    for term in reversed(range(_LOGARITHM_TERMS)):
        series = series * squares + 1 / (2 * term + 1)
    logarithms: Floats = exponents * _LN_2 + 2 * ratios * series
    return logarithms


def sum_exactly(values: Floats) -> float:
    """The sum of float64 numbers, rounded once (`math.fsum`)."""
    return math.fsum(value for chunk in iterate_chunks(len(values)) for value in values[chunk].tolist())


def compute_probabilities(logits: Floats) -> Floats:
    """The softmax of logits float64 (N, classes), off by at most 2e-9; NaN where a logit is not finite."""
    powers = exponentiate(np.maximum(_shift(logits), _SMALLEST_EXPONENT))
    probabilities: Floats = powers / _add_powers(powers)
    return probabilities


def _shift(logits: Floats) -> Floats:
    """Logits (N, classes) less the largest of each row; NaN where that is infinite."""
    with np.errstate(invalid="ignore"):  # the caller refuses NaN, in words of its own
        shifted: Floats = logits - logits.max(axis=1, keepdims=True)
    return shifted


def _add_powers(powers: Floats) -> Floats:
    """The sum (N, 1) of powers (N, classes) whose largest is 1."""
    bits = _DIGITS - count_bits(powers.shape[1])
    total: Floats = round_to_grid(powers, powers.max(), bits).sum(axis=1, keepdims=True)
    return total


def measure_cross_entropy(logits: Floats, labels: NDArray[np.integer]) -> tuple[float, int]:
    """The sum of -ln p(label) over images, in nats, and how many have their label as the most probable class.

    logits: float64 (N, classes). labels: class ids (N,).
    """
    losses, correct = np.empty(len(labels)), 0
    for chunk in iterate_chunks(len(labels)):
        shifted = _shift(logits[chunk])
        powers = exponentiate(np.maximum(shifted, _SMALLEST_EXPONENT))
        of_labels = np.take_along_axis(shifted, labels[chunk, np.newaxis].astype(np.int64), axis=1)
        losses[chunk] = (take_logarithm(_add_powers(powers)) - of_labels)[:, 0]
        correct += int((shifted.argmax(axis=1) == labels[chunk]).sum())
    return sum_exactly(losses), correct


def compute_slopes(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The gradient of the mean cross-entropy by the logits: (softmax - 1 at the label) / N.

    logits: float64 (N, classes). labels: class ids int32 (N,).
    """
    class_count = logits.shape[1]
    shifted = logits - tf.reduce_max(logits, axis=1, keepdims=True)
    powers = exponentiate(tf.maximum(shifted, _SMALLEST_EXPONENT))
    rounded = round_to_grid(powers, tf.reduce_max(powers), _DIGITS - count_bits(class_count))
    probabilities = powers / tf.reduce_sum(rounded, axis=1, keepdims=True)
    truth = tf.one_hot(labels, class_count, dtype=tf.float64)
    return (probabilities - truth) / tf.cast(tf.size(labels), tf.float64)

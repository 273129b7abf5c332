"""The answers of an integer network worked out in NumPy, by each of the ways in which runtimes round.

No kernel of any runtime takes part. Sums of products are exact: they are taken in floats, which is faster, but in such
as hold each of these whole numbers.
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import iterate_chunks
from stages.lib.microcontroller.integer_network import STEP, Layer, read_network

Integers = NDArray[np.int64]
# How a sum becomes an output: rounded once, as XNNPACK does; twice, as TensorFlow Lite's reference kernels do; or twice
# with the second time's halves upwards, as its optimized kernels do.
Rounding = Literal["single", "double", "double_upward"]
ROUNDINGS: tuple[Rounding, ...] = ("single", "double", "double_upward")

# Values of a layer that are computed with together, each in 4 or 8 bytes: a bound for memory.
_VALUES_AT_ONCE = 1 << 22
_LARGEST = 255  # of inputs and outputs
_FLOAT32_BITS, _FLOAT64_BITS = 24, 53  # below 2 to these, floats hold every whole number


class IntegerReference:
    """A fully quantized network of convolutions and dense layers, computed by hand."""

    def __init__(self, content: bytes, rounding: Rounding = "single") -> None:
        """Read a .tflite file.

        Raises:
            ExportError: it holds an operator or a type that no such network has.
        """
        self.network = read_network(content)
        self._rescale = _RESCALES[rounding]
        self._images_at_once = max(1, _VALUES_AT_ONCE // max(map(_count_values, self.network.layers)))

    def answer(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Probabilities uint8 (N, classes), in steps of 1/256, for images uint8 (N, H, W) or (N, H, W, 3)."""
        chunks = iterate_chunks(len(images), self._images_at_once)
        return np.concatenate([self._answer_together(images[rows]) for rows in chunks])

    def _answer_together(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        values = images
        for layer in self.network.layers:
            values = _apply_layer(layer, values.reshape(-1, *layer.input_shape), self._rescale)
        return _apply_softmax(values.reshape(len(images), -1), self.network.exponentials)

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32 (N, classes), as a runtime gives them."""
        return dequantize(self.answer(images))

    def bound_rounding(self, probabilities: NDArray[np.floating]) -> int:
        """By how many steps of the answers two runtimes may differ that round the logits differently.

        probabilities: (N, classes), the answers in question.

        With each logit off by at most d, probability p is off by at most 2 d p (1 - p), to first order: its derivative
        by logit j is p_j ((j is its own) - p). A step of the logits is taken for each layer, because what one rounds
        the other way the next ones pass on; the rounding of the answer itself adds a step.
        """
        layers = self.network.layers
        distance = len(layers) * layers[-1].output_scale
        steepest = (probabilities * (1 - probabilities)).max()
        return 1 + int(np.ceil(2 * distance * steepest / STEP))


def dequantize(answers: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities float32 of the same shape, as a runtime gives them."""
    return answers.astype(np.float32) * np.float32(STEP)


def _count_values(layer: Layer) -> int:
    """How many values are computed with together for an image: a kernel's for each output before the pooling."""
    height, width, _ = layer.input_shape
    return height * width * math.prod(layer.kernel.shape)


def _apply_layer(
    layer: Layer, values: NDArray[np.uint8], rescale: Callable[[Integers, Layer], Integers]
) -> NDArray[np.uint8]:
    """(N, H, W, C) to (N, H', W', units)."""
    rescaled = rescale(_add_products(values, layer.kernel) + layer.folded_biases, layer) + layer.output_zero
    outputs: NDArray[np.uint8] = rescaled.clip(layer.lowest, _LARGEST).astype(np.uint8)
    if layer.pool == 1:
        return outputs
    rows, columns, units = layer.output_shape
    whole = outputs[:, : rows * layer.pool, : columns * layer.pool]
    largest: NDArray[np.uint8] = whole.reshape(-1, rows, layer.pool, columns, layer.pool, units).max(axis=(2, 4))
    return largest


def _add_products(values: NDArray[np.uint8], kernel: NDArray[np.int8]) -> Integers:
    """(N, H, W, C) by (units, h, w, C), exact in any order of the sums.

    The floats are such as hold the largest sum that there can be.
    """
    by_unit = kernel.reshape(len(kernel), -1).astype(np.int64)
    largest = _LARGEST * int(np.abs(by_unit).sum(axis=1).max())
    assert largest < 1 << _FLOAT64_BITS
    dtype = np.float32 if largest < 1 << _FLOAT32_BITS else np.float64
    # (N, H', W', C, h, w), to (N, H', W', h * w * C)
    windows: NDArray[np.floating] = np.lib.stride_tricks.sliding_window_view(
        values.astype(dtype), kernel.shape[1:3], axis=(1, 2)
    )
    inputs = windows.transpose(0, 1, 2, 4, 5, 3).reshape(*windows.shape[:3], -1)
    sums: Integers = (inputs @ by_unit.T.astype(dtype)).astype(np.int64)
    return sums


def _apply_softmax(logits: NDArray[np.uint8], exponentials: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """(N, classes): each exponential by the sum of all, in 256ths, halves up; a whole is 255 of them."""
    distances = logits.max(axis=1, keepdims=True) - logits
    table = np.zeros(_LARGEST + 1, np.int64)
    table[: len(exponentials)] = exponentials
    powers = table[distances]
    sums = powers.sum(axis=1, keepdims=True)
    shares = (256 * powers + sums // 2) // sums
    answers: NDArray[np.uint8] = np.minimum(shares, _LARGEST).astype(np.uint8)
    return answers


def _rescale_once(sums: Integers, layer: Layer) -> Integers:
    """The sums times the layer's factors, in float32, rounded to the nearest whole number, halves to even.

    Source: XNNPACK's requantization in float32, src/qs8-gemm/MRx8c8-avx2.c.in. Each operation is one of IEEE 754's, so
    that any machine gives the same.
    """
    rescaled: Integers = np.rint(sums.astype(np.float32) * layer.factors).astype(np.int64)
    return rescaled


def _rescale_twice(sums: Integers, layer: Layer) -> Integers:
    """The same in whole numbers: the product is rounded, halves up, and shifted, halves away from 0.

    Source: MultiplyByQuantizedMultiplier of TensorFlow Lite's tensorflow/lite/kernels/internal/common.cc, which takes
    SaturatingRoundingDoublingHighMul and RoundingDivideByPOT of gemmlowp's fixedpoint/fixedpoint.h (B. Jacob et al.,
    Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2017, section 2.2).
    """
    products, shifts = _multiply(sums, layer)
    masks = (np.int64(1) << shifts) - 1
    thresholds = (masks >> 1) + (products < 0)
    rescaled: Integers = (products >> shifts) + ((products & masks) > thresholds)
    return rescaled


def _rescale_twice_upward(sums: Integers, layer: Layer) -> Integers:
    """The same with halves upwards in the shift, too.

    Found by comparison with what LiteRT's own kernels give for each layer on x86-64: no sum was another.
    """
    products, shifts = _multiply(sums, layer)
    rescaled: Integers = (products + ((np.int64(1) << shifts) >> 1)) >> shifts
    return rescaled


def _multiply(sums: Integers, layer: Layer) -> tuple[Integers, Integers]:
    """Products rounded to whole numbers, halves up, and by how many bits these are still to be shifted to the right.

    Each factor is taken as a fraction of 31 bits, for microcontrollers have no fast floats.
    """
    factors = layer.input_scale * layer.weight_scales / layer.output_scale
    mantissas, exponents = np.frexp(factors)  # factor = mantissa * 2**exponent, mantissa in 0.5..1
    multipliers, exponents = np.rint(mantissas * 2**31).astype(np.int64), exponents.astype(np.int64)
    products = ((sums << np.maximum(exponents, 0)) * multipliers + (np.int64(1) << 30)) >> 31
    return products, np.maximum(-exponents, 0)


_RESCALES: dict[Rounding, Callable[[Integers, Layer], Integers]] = {
    "single": _rescale_once,
    "double": _rescale_twice,
    "double_upward": _rescale_twice_upward,
}

"""What a fully quantized .tflite file means, worked out in NumPy from the scales and zero points in the file.

No kernel of any runtime takes part. Between layers there are whole numbers from the pixels to the logits; the softmax
is computed in float64. Sums of products are exact: they are taken in floats, which is faster, but in such as hold each
of these whole numbers.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools.flatbuffer_utils import convert_bytearray_to_object
from numpy.typing import NDArray

from stages.lib.core.arrays import iterate_chunks
from stages.lib.core.errors import ExportError
from stages.lib.model.order_free import compute_probabilities

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
# How a sum becomes an output: rounded once, as XNNPACK does; twice, as TensorFlow Lite's reference kernels do; or twice
# with the second time's halves upwards, as its optimized kernels do.
Rounding = Literal["single", "double", "double_upward"]
ROUNDINGS: tuple[Rounding, ...] = ("single", "double", "double_upward")
# From sums, and the scales of inputs, weights and outputs, to outputs before the zero point is added.
_Rescale = Callable[[Integers, Floats, Floats, Floats], Integers]

_TYPES: dict[int, np.dtype[np.integer[Any]]] = {
    schema.TensorType.UINT8: np.dtype(np.uint8),
    schema.TensorType.INT8: np.dtype(np.int8),
    schema.TensorType.INT32: np.dtype(np.int32),
}
# Values of a layer that are computed with together, each in 4 or 8 bytes: a bound for memory.
_VALUES_AT_ONCE = 1 << 22
_LARGEST_INPUT = 255  # of a layer, less its zero point
_FLOAT32_BITS, _FLOAT64_BITS = 24, 53  # below 2 to these, floats hold every whole number
_ALLOWED_ACTIVATIONS = (schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU)


class _Tensor:
    """A tensor of the file: its type, scales, zero point, and its values if they are constant."""

    def __init__(self, tensor: Any, buffers: Any) -> None:  # noqa: ANN401  (the schema's objects are untyped)
        self.dtype = _TYPES[tensor.type]
        self.scales: Floats = np.ones(1)  # (1,), or (units,) of a layer's weights
        self.zero_point = 0
        if tensor.quantization and tensor.quantization.scale is not None:
            self.scales = np.asarray(tensor.quantization.scale, np.float64)
            self.zero_point = int(tensor.quantization.zeroPoint[0])
        content = buffers[tensor.buffer].data
        self.values: Integers | None = None
        if content is not None and len(content):
            self.values = np.frombuffer(bytes(content), self.dtype).astype(np.int64).reshape(tensor.shape)

    def clamp(self, values: Integers) -> Integers:
        """The values, kept within what the type holds."""
        limits = np.iinfo(self.dtype)
        clamped: Integers = values.clip(int(limits.min), int(limits.max))
        return clamped


class IntegerReference:
    """A fully quantized network of convolutions and dense layers, computed by hand."""

    def __init__(self, content: bytes, rounding: Rounding = "single") -> None:
        """Read a .tflite file.

        Raises:
            ExportError: it holds an operator or a type that no such network has.
        """
        model = convert_bytearray_to_object(bytearray(content))
        (self._graph,) = model.subgraphs
        codes = [model.operatorCodes[step.opcodeIndex].builtinCode for step in self._graph.operators]
        strange = set(codes) - _OPERATORS.keys() | {tensor.type for tensor in self._graph.tensors} - _TYPES.keys()
        if strange:
            raise ExportError(
                "the integer reference",
                expected="a fully quantized network of convolutions and dense layers",
                got=f"an operator or a type of number {min(strange)}",
                hint="give it model_int8.tflite",
            )
        self._rescale = _RESCALES[rounding]
        self._tensors = [_Tensor(tensor, model.buffers) for tensor in self._graph.tensors]
        self._steps = [(_OPERATORS[code], step) for code, step in zip(codes, self._graph.operators, strict=True)]
        output = self._tensors[self._graph.outputs[0]]
        self.scale, self.zero_point = float(output.scales[0]), output.zero_point  # of the answers
        largest = max(self._count_values(step) for _, step in self._steps)
        self._images_at_once = max(1, _VALUES_AT_ONCE // largest)

    def _count_values(self, step: Any) -> int:  # noqa: ANN401
        """How many values are computed with together for an image: of a convolution, a kernel's for each output."""
        count = abs(math.prod(map(int, self._graph.tensors[step.outputs[0]].shape)))  # -1 is a batch of any size
        if _is_convolution(step):
            kernel = self._graph.tensors[step.inputs[1]].shape
            count = count * math.prod(map(int, kernel[1:]))
        return count

    def answer(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The output as it is, uint8 (N, classes), for images uint8 (N, H, W) or (N, H, W, 3)."""
        chunks = iterate_chunks(len(images), self._images_at_once)
        return np.concatenate([self._answer_together(images[rows]) for rows in chunks])

    def _answer_together(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        values = images.astype(np.int64)
        for operator, step in self._steps:  # each takes what the one before it gives
            values = operator(values, step, self._tensors, self._rescale)
        return values.astype(np.uint8)

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32 (N, classes), as a runtime gives them."""
        return (self.answer(images).astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)

    def bound_rounding(self, probabilities: NDArray[np.floating]) -> int:
        """By how many steps of the answers two runtimes may differ that round the logits differently.

        probabilities: (N, classes), the answers in question.

        With each logit off by at most d, probability p is off by at most 2 d p (1 - p), to first order: its derivative
        by logit j is p_j ((j is its own) - p). A step of the logits is taken for each layer, because what one rounds
        the other way the next ones pass on; the rounding of the answer itself adds a step.
        """
        ((_, softmax),) = [(operator, step) for operator, step in self._steps if operator is _apply_softmax]
        layers = sum(operator is _apply_weights for operator, _ in self._steps)
        distance = layers * self._tensors[softmax.inputs[0]].scales[0]
        steepest = (probabilities * (1 - probabilities)).max()
        return 1 + int(np.ceil(2 * distance * steepest / self.scale))


def _quantize(values: Integers, step: Any, tensors: list[_Tensor], rescale: _Rescale) -> Integers:  # noqa: ANN401
    before: _Tensor = tensors[step.inputs[0]]
    after: _Tensor = tensors[step.outputs[0]]
    rescaled = rescale(values - before.zero_point, before.scales, np.ones(1), after.scales)
    return after.clamp(rescaled + after.zero_point)


def _reshape(values: Integers, step: Any, tensors: list[_Tensor], _: _Rescale) -> Integers:  # noqa: ANN401
    shape = tensors[step.inputs[1]].values
    assert shape is not None
    return values.reshape(-1, *shape[1:])


def _apply_weights(values: Integers, step: Any, tensors: list[_Tensor], rescale: _Rescale) -> Integers:  # noqa: ANN401
    """A dense layer or a convolution: (N, inputs) to (N, units), or (N, H, W, C) to (N, H', W', filters)."""
    before: _Tensor = tensors[step.inputs[0]]
    after: _Tensor = tensors[step.outputs[0]]
    weights, options = tensors[step.inputs[1]], step.builtinOptions
    assert weights.values is not None
    assert options.fusedActivationFunction in _ALLOWED_ACTIVATIONS
    if _is_convolution(step):
        assert (options.padding, options.strideH, options.strideW) == (schema.Padding.VALID, 1, 1)
    sums = _add_products(values - before.zero_point, weights.values)
    if len(step.inputs) > 2 and step.inputs[2] >= 0:  # the converter leaves biases out that are all zero
        biases = tensors[step.inputs[2]].values
        assert biases is not None
        sums += biases
    rescaled = rescale(sums, before.scales, weights.scales, after.scales) + after.zero_point
    if options.fusedActivationFunction == schema.ActivationFunctionType.RELU:
        rescaled = np.maximum(rescaled, after.zero_point)
    return after.clamp(rescaled)


def _is_convolution(step: Any) -> bool:  # noqa: ANN401
    return isinstance(step.builtinOptions, schema.Conv2DOptionsT)


def _add_products(values: Integers, weights: Integers) -> Integers:
    """(N, inputs) by (units, inputs), or (N, H, W, C) by (filters, h, w, C), exact in any order of the sums.

    The floats are such as hold the largest sum that there can be.
    """
    by_unit = weights.reshape(len(weights), -1)
    largest = _LARGEST_INPUT * int(np.abs(by_unit).sum(axis=1).max())
    assert largest < 1 << _FLOAT64_BITS
    dtype = np.float32 if largest < 1 << _FLOAT32_BITS else np.float64
    inputs = values.astype(dtype)
    if values.ndim == weights.ndim > 2:
        # (N, H', W', C, h, w), to (N, H', W', h * w * C)
        windows = np.lib.stride_tricks.sliding_window_view(inputs, weights.shape[1:3], axis=(1, 2))
        inputs = windows.transpose(0, 1, 2, 4, 5, 3).reshape(*windows.shape[:3], -1)
    sums: Integers = (inputs @ by_unit.T.astype(dtype)).astype(np.int64)
    return sums


def _pool(values: Integers, step: Any, tensors: list[_Tensor], _: _Rescale) -> Integers:  # noqa: ANN401
    """The largest of each 2 x 2 or so pixels, which lie in one window only."""
    options, before, after = step.builtinOptions, tensors[step.inputs[0]], tensors[step.outputs[0]]
    height, width = options.filterHeight, options.filterWidth
    assert (options.padding, options.strideH, options.strideW) == (schema.Padding.VALID, height, width)
    assert (before.scales[0], before.zero_point) == (after.scales[0], after.zero_point)
    rows, columns = values.shape[1] // height, values.shape[2] // width
    whole = values[:, : rows * height, : columns * width]
    largest: Integers = whole.reshape(-1, rows, height, columns, width, values.shape[3]).max(axis=(2, 4))
    return largest


def _apply_softmax(values: Integers, step: Any, tensors: list[_Tensor], _: _Rescale) -> Integers:  # noqa: ANN401
    before: _Tensor = tensors[step.inputs[0]]
    after: _Tensor = tensors[step.outputs[0]]
    probabilities = compute_probabilities(values * before.scales * step.builtinOptions.beta)
    return after.clamp(np.rint(probabilities / after.scales).astype(np.int64) + after.zero_point)


_OPERATORS: dict[int, Callable[[Integers, Any, list[_Tensor], _Rescale], Integers]] = {
    schema.BuiltinOperator.QUANTIZE: _quantize,
    schema.BuiltinOperator.RESHAPE: _reshape,
    schema.BuiltinOperator.CONV_2D: _apply_weights,
    schema.BuiltinOperator.MAX_POOL_2D: _pool,
    schema.BuiltinOperator.FULLY_CONNECTED: _apply_weights,
    schema.BuiltinOperator.SOFTMAX: _apply_softmax,
}


def _rescale_once(sums: Integers, inputs: Floats, weights: Floats, outputs: Floats) -> Integers:
    """The sums times inputs * weights / outputs, in float32, rounded to the nearest whole number, halves to even.

    Source: XNNPACK's requantization in float32, src/qs8-gemm/MRx8c8-avx2.c.in, and its requantization_scale in
    src/operators/convolution-nhwc.c. Each operation is one of IEEE 754's, so that any machine gives the same.
    """
    one, other, after = (scales.astype(np.float32) for scales in (inputs, weights, outputs))
    return np.rint(sums.astype(np.float32) * (one * other / after)).astype(np.int64)


def _rescale_twice(sums: Integers, inputs: Floats, weights: Floats, outputs: Floats) -> Integers:
    """The same in whole numbers: the product is rounded, halves up, and shifted, halves away from 0.

    Source: MultiplyByQuantizedMultiplier of TensorFlow Lite's tensorflow/lite/kernels/internal/common.cc, which takes
    SaturatingRoundingDoublingHighMul and RoundingDivideByPOT of gemmlowp's fixedpoint/fixedpoint.h (B. Jacob et al.,
    Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2017, section 2.2).
    """
    products, shifts = _multiply(sums, inputs * weights / outputs)
    masks = (np.int64(1) << shifts) - 1
    thresholds = (masks >> 1) + (products < 0)
    rescaled: Integers = (products >> shifts) + ((products & masks) > thresholds)
    return rescaled


def _rescale_twice_upward(sums: Integers, inputs: Floats, weights: Floats, outputs: Floats) -> Integers:
    """The same with halves upwards in the shift, too.

    Found by comparison with what LiteRT's own kernels give for each layer on x86-64: no sum was another.
    """
    products, shifts = _multiply(sums, inputs * weights / outputs)
    rescaled: Integers = (products + ((np.int64(1) << shifts) >> 1)) >> shifts
    return rescaled


def _multiply(sums: Integers, factors: Floats) -> tuple[Integers, Integers]:
    """Products rounded to whole numbers, halves up, and by how many bits these are still to be shifted to the right.

    Each factor is taken as a fraction of 31 bits, for microcontrollers have no fast floats.
    """
    mantissas, exponents = np.frexp(factors)  # factor = mantissa * 2**exponent, mantissa in 0.5..1
    multipliers, exponents = np.rint(mantissas * 2**31).astype(np.int64), exponents.astype(np.int64)
    products = ((sums << np.maximum(exponents, 0)) * multipliers + (np.int64(1) << 30)) >> 31
    return products, np.maximum(-exponents, 0)


_RESCALES: dict[Rounding, _Rescale] = {
    "single": _rescale_once,
    "double": _rescale_twice,
    "double_upward": _rescale_twice_upward,
}

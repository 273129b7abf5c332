"""What a fully quantized .tflite file means, worked out in NumPy from the scales and zero points in the file.

No kernel of any runtime takes part: whole numbers from the pixels to the logits, float64 in the softmax.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools.flatbuffer_utils import convert_bytearray_to_object
from numpy.typing import NDArray

from stages.lib.core.errors import ExportError
from stages.lib.model.order_free import compute_probabilities

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

_TYPES: dict[int, np.dtype[np.integer[Any]]] = {
    schema.TensorType.UINT8: np.dtype(np.uint8),
    schema.TensorType.INT8: np.dtype(np.int8),
    schema.TensorType.INT32: np.dtype(np.int32),
}
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
    """A fully quantized dense network, computed by hand."""

    def __init__(self, content: bytes) -> None:
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
                expected="a fully quantized dense network",
                got=f"an operator or a type of number {min(strange)}",
                hint="give it model_int8.tflite",
            )
        self._tensors = [_Tensor(tensor, model.buffers) for tensor in self._graph.tensors]
        self._steps = [(_OPERATORS[code], step) for code, step in zip(codes, self._graph.operators, strict=True)]
        output = self._tensors[self._graph.outputs[0]]
        self.scale, self.zero_point = float(output.scales[0]), output.zero_point  # of the answers

    def answer(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The output as it is, uint8 (N, classes), for images uint8 (N, H, W)."""
        values = {int(self._graph.inputs[0]): images.astype(np.int64)}
        for operator, step in self._steps:
            values[int(step.outputs[0])] = operator(values[int(step.inputs[0])], step, self._tensors)
        return values[int(self._graph.outputs[0])].astype(np.uint8)

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
        layers = sum(operator is _fully_connect for operator, _ in self._steps)
        distance = layers * self._tensors[softmax.inputs[0]].scales[0]
        steepest = (probabilities * (1 - probabilities)).max()
        return 1 + int(np.ceil(2 * distance * steepest / self.scale))


def _quantize(values: Integers, step: Any, tensors: list[_Tensor]) -> Integers:  # noqa: ANN401
    before: _Tensor = tensors[step.inputs[0]]
    after: _Tensor = tensors[step.outputs[0]]
    rescaled = _rescale(values - before.zero_point, before.scales / after.scales)
    return after.clamp(rescaled + after.zero_point)


def _reshape(values: Integers, step: Any, tensors: list[_Tensor]) -> Integers:  # noqa: ANN401
    shape = tensors[step.inputs[1]].values
    assert shape is not None
    return values.reshape(shape)


def _fully_connect(values: Integers, step: Any, tensors: list[_Tensor]) -> Integers:  # noqa: ANN401
    before, weights = tensors[step.inputs[0]], tensors[step.inputs[1]]
    after: _Tensor = tensors[step.outputs[0]]
    assert weights.values is not None
    assert step.builtinOptions.fusedActivationFunction in _ALLOWED_ACTIVATIONS
    sums: Integers = (values - before.zero_point) @ weights.values.T  # (N, inputs) @ (inputs, units)
    if len(step.inputs) > 2 and step.inputs[2] >= 0:  # the converter leaves biases out that are all zero
        biases = tensors[step.inputs[2]].values
        assert biases is not None
        sums += biases
    rescaled = _rescale(sums, before.scales * weights.scales / after.scales) + after.zero_point
    if step.builtinOptions.fusedActivationFunction == schema.ActivationFunctionType.RELU:
        rescaled = np.maximum(rescaled, after.zero_point)
    return after.clamp(rescaled)


def _apply_softmax(values: Integers, step: Any, tensors: list[_Tensor]) -> Integers:  # noqa: ANN401
    before: _Tensor = tensors[step.inputs[0]]
    after: _Tensor = tensors[step.outputs[0]]
    probabilities = compute_probabilities(values * before.scales * step.builtinOptions.beta)
    return after.clamp(np.rint(probabilities / after.scales).astype(np.int64) + after.zero_point)


_OPERATORS: dict[int, Callable[[Integers, Any, list[_Tensor]], Integers]] = {
    schema.BuiltinOperator.QUANTIZE: _quantize,
    schema.BuiltinOperator.RESHAPE: _reshape,
    schema.BuiltinOperator.FULLY_CONNECTED: _fully_connect,
    schema.BuiltinOperator.SOFTMAX: _apply_softmax,
}


def _rescale(values: Integers, factors: NDArray[np.float64]) -> Integers:
    """`values` times `factors`, rounded to the nearest whole number, each factor as a fraction of 31 bits.

    Microcontrollers have no fast floats: they multiply by a whole number below 2**31 and shift
    (B. Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
    2017, section 2.2). Here the product is exact and rounded once, halves up; runtimes that multiply by a float round
    it once more before, and some of them halves to even.
    """
    mantissas, exponents = np.frexp(factors)  # factor = mantissa * 2**exponent, mantissa in 0.5..1
    multipliers = np.rint(mantissas * 2**31).astype(np.int64)
    shifts = 31 - exponents.astype(np.int64)
    rescaled: Integers = (values * multipliers + (np.int64(1) << (shifts - 1))) >> shifts
    return rescaled

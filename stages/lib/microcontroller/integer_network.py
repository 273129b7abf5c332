"""What a fully quantized .tflite file computes: layers of whole numbers, read once for all who compute them.

Every tensor of the file is int8 with a zero point. Here values are uint8, the file's plus 128, and so is what stands
for 0 among them: pixels are themselves then, and so is what a relu gives.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from stages.lib.core.errors import ExportError
from stages.lib.exports.canonical_tflite import read_tflite
from stages.lib.model.order_free import exponentiate

Floats = NDArray[np.float64]

# Of an answer: a byte is so many 256ths.
STEP = 1 / 256
_INT8_TO_UINT8 = 128
_LARGEST = 255
_BUILTIN = schema.BuiltinOperator
_ALLOWED_TYPES = (schema.TensorType.UINT8, schema.TensorType.INT8, schema.TensorType.INT32)
_ALLOWED_ACTIVATIONS = (schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU)
# An exponential times 256 and the sum of all, halved, fit into 32 bits together.
_EXPONENTIAL_BITS, _SUM_BITS = 22, 31
_SMALLEST_EXPONENT = -64.0  # below it, an exponential is 0 in so few bits


class Layer(NamedTuple):
    """A convolution or a dense layer, which is one of a single pixel, and a pooling after it."""

    input_shape: tuple[int, int, int]  # height, width, depth; (1, 1, inputs) of a dense layer
    input_zero: int  # the value 0..255 that stands for 0
    input_scale: float
    kernel: NDArray[np.int8]  # (units, height, width, depth)
    biases: NDArray[np.int32]  # (units,)
    weight_scales: Floats  # (units,)
    output_zero: int
    output_scale: float
    has_relu: bool
    pool: int  # height and width of a pooling's window; 1 if there is none

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """Height, width, and units, after the pooling."""
        height, width, _ = self.input_shape
        units, kernel_height, kernel_width, _ = self.kernel.shape
        return (height - kernel_height + 1) // self.pool, (width - kernel_width + 1) // self.pool, units

    @property
    def lowest(self) -> int:
        """The smallest value 0..255 of an output."""
        return self.output_zero if self.has_relu else 0

    @property
    def folded_biases(self) -> NDArray[np.int64]:
        """The biases (units,) for inputs as they are, from which their zero was not subtracted."""
        sums: NDArray[np.int64] = self.kernel.astype(np.int64).sum(axis=(1, 2, 3))
        folded: NDArray[np.int64] = self.biases - self.input_zero * sums
        return folded

    @property
    def factors(self) -> NDArray[np.float32]:
        """By which each unit's sum (units,) is multiplied, in float32 as XNNPACK computes it.

        Source: requantization_scale in XNNPACK's src/operators/convolution-nhwc.c.
        """
        inputs, outputs = np.float32(self.input_scale), np.float32(self.output_scale)
        factors: NDArray[np.float32] = inputs * self.weight_scales.astype(np.float32) / outputs
        return factors


class IntegerNetwork(NamedTuple):
    """Layers, then a softmax."""

    image_shape: tuple[int, ...]  # (H, W) or (H, W, 3)
    layers: tuple[Layer, ...]
    exponentials: NDArray[np.uint32]  # e^-d of logits d steps below the largest, in fixed point; 0 for more steps

    @property
    def class_count(self) -> int:
        """How many classes there are."""
        return len(self.layers[-1].biases)


def read_network(content: bytes) -> IntegerNetwork:
    """Read a fully quantized .tflite file.

    Raises:
        ExportError: it holds an operator or a type that no such network has.
    """
    model = read_tflite(content)
    (graph,) = model.subgraphs
    codes = [model.operatorCodes[operator.opcodeIndex].builtinCode for operator in graph.operators]
    strange = set(codes) - _READERS.keys() | {tensor.type for tensor in graph.tensors} - {*_ALLOWED_TYPES}
    if strange:
        raise ExportError(
            "the integer reference",
            expected="a fully quantized network of convolutions and dense layers",
            got=f"an operator or a type of number {min(strange)}",
            hint="give it model_int8.tflite",
        )
    reader = _Reader(model.buffers, graph.tensors)
    for code, operator in zip(codes, graph.operators, strict=True):  # each takes what the one before it gives
        _READERS[code](reader, operator)
    image_shape = tuple(map(int, graph.tensors[graph.inputs[0]].shape[1:]))
    return IntegerNetwork(image_shape, tuple(reader.layers), reader.exponentials)


class _Reader:
    """What was read so far of a graph."""

    def __init__(self, buffers: Any, tensors: Any) -> None:  # noqa: ANN401  (the schema's objects are untyped)
        self._buffers, self._tensors = buffers, tensors
        self.layers: list[Layer] = []
        self.exponentials = np.zeros(0, np.uint32)

    def read_quantization(self, operator: Any) -> None:  # noqa: ANN401
        """Pixels to int8, or probabilities to uint8: values are the same, less 128."""
        before, after = (self._tensors[index] for index in (operator.inputs[0], operator.outputs[0]))
        assert {before.type, after.type} == {schema.TensorType.UINT8, schema.TensorType.INT8}
        assert _read_scale(before) == _read_scale(after)
        assert _read_zero(before) == _read_zero(after)

    def read_shape(self, operator: Any) -> None:  # noqa: ANN401
        """A channel for grey images, or a row of what a convolution gave: the order of values does not change."""

    def read_layer(self, operator: Any) -> None:  # noqa: ANN401
        """A convolution or a dense layer."""
        inputs, weights = (self._tensors[index] for index in operator.inputs[:2])
        outputs, options = self._tensors[operator.outputs[0]], operator.builtinOptions
        assert options.fusedActivationFunction in _ALLOWED_ACTIVATIONS
        kernel = self._read_values(weights, np.int8)
        if isinstance(options, schema.Conv2DOptionsT):
            assert (options.padding, options.strideH, options.strideW) == (schema.Padding.VALID, 1, 1)
            height, width, depth = map(int, inputs.shape[1:])
        else:
            height, width, depth = 1, 1, kernel.shape[1]
            kernel = kernel.reshape(len(kernel), 1, 1, depth)
        biases = np.zeros(len(kernel), np.int32)
        if len(operator.inputs) > 2 and operator.inputs[2] >= 0:  # the converter leaves biases out that are all zero
            biases = self._read_values(self._tensors[operator.inputs[2]], np.dtype("<i4"))
        self.layers.append(
            Layer(
                (height, width, depth),
                _read_zero(inputs),
                _read_scale(inputs),
                kernel,
                biases,
                np.broadcast_to(np.asarray(weights.quantization.scale, np.float64), len(kernel)),
                _read_zero(outputs),
                _read_scale(outputs),
                options.fusedActivationFunction == schema.ActivationFunctionType.RELU,
                pool=1,
            )
        )

    def read_pooling(self, operator: Any) -> None:  # noqa: ANN401
        """The largest of windows that lie side by side."""
        options = operator.builtinOptions
        before, after = (self._tensors[index] for index in (operator.inputs[0], operator.outputs[0]))
        assert options.padding == schema.Padding.VALID
        assert options.filterHeight == options.filterWidth == options.strideH == options.strideW
        assert (_read_scale(before), _read_zero(before)) == (_read_scale(after), _read_zero(after))
        assert self.layers[-1].pool == 1
        self.layers[-1] = self.layers[-1]._replace(pool=int(options.filterHeight))

    def read_softmax(self, operator: Any) -> None:  # noqa: ANN401
        """The exponentials of all differences of two logits."""
        logits, answers = (self._tensors[index] for index in (operator.inputs[0], operator.outputs[0]))
        assert (_read_scale(answers), _read_zero(answers)) == (STEP, 0)
        self.exponentials = _tabulate_exponentials(
            _read_scale(logits) * operator.builtinOptions.beta, len(self.layers[-1].biases)
        )

    def _read_values(self, tensor: Any, dtype: Any) -> NDArray[Any]:  # noqa: ANN401
        return np.frombuffer(bytes(self._buffers[tensor.buffer].data), dtype).reshape(tensor.shape)


_READERS = {
    _BUILTIN.QUANTIZE: _Reader.read_quantization,
    _BUILTIN.RESHAPE: _Reader.read_shape,
    _BUILTIN.CONV_2D: _Reader.read_layer,
    _BUILTIN.MAX_POOL_2D: _Reader.read_pooling,
    _BUILTIN.FULLY_CONNECTED: _Reader.read_layer,
    _BUILTIN.SOFTMAX: _Reader.read_softmax,
}


def _read_scale(tensor: Any) -> float:  # noqa: ANN401
    return float(tensor.quantization.scale[0])


def _read_zero(tensor: Any) -> int:  # noqa: ANN401
    """The value 0..255 that stands for 0."""
    zero_point = int(tensor.quantization.zeroPoint[0])
    return zero_point + _INT8_TO_UINT8 if tensor.type == schema.TensorType.INT8 else zero_point


def _tabulate_exponentials(scale: float, class_count: int) -> NDArray[np.uint32]:
    """e^(-d * scale) of d = 0, 1, ..., at most 255, in fixed point, without the zeros at the end."""
    bits = min(_EXPONENTIAL_BITS, _SUM_BITS - math.ceil(math.log2(class_count)))
    exponents = np.maximum(-np.arange(_LARGEST + 1) * scale, _SMALLEST_EXPONENT)
    return np.trim_zeros(np.rint(exponentiate(exponents) * (1 << bits)).astype(np.uint32), "b")

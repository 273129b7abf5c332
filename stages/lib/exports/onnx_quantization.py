"""An ONNX model's int8 form, by ONNX Runtime's own quantizer."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from stages.lib.model.order_free_network import Range

# The first whose DequantizeLinear ONNX's reference evaluator knows.
_OPSET = 19
_PIXELS = Range(0, 255)


class _NoImages(CalibrationDataReader):  # type: ignore[misc]  # untyped
    """One blank image, which the quantizer wants to see before it takes the ranges that it is given."""

    def __init__(self, model: onnx.ModelProto) -> None:
        (pixels,) = model.graph.input
        shape = [1, *(dim.dim_value for dim in pixels.type.tensor_type.shape.dim[1:])]  # (1, H, W)
        self._feeds = iter([{pixels.name: np.zeros(shape, np.uint8)}])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The image; none at the end."""
        return next(self._feeds, None)


def quantize_onnx(model: onnx.ModelProto, ranges: Sequence[Range]) -> onnx.ModelProto:
    """The model in QDQ form, weights and activations of 8 bits; its inputs and outputs are as before.

    With convolutions, each filter's and each unit's weights have a scale of their own.

    ranges: of what each layer with weights gives before its activation, 0 included. The quantizer's own would be
    computed by a runtime whose sums differ in the last bits between processors.

    Weights are unsigned, as the activations are: on processors without VNNI, the sums of unsigned times signed bytes
    saturate at 16 bits, and the answers would depend on the processor
    (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "When and why do I need to try
    U8U8").
    The softmax stays float: it costs ten exponentials, and the answer keeps its resolution.
    """
    with TemporaryDirectory() as folder:
        path, prepared_path, quantized_path = (Path(folder, name) for name in ("float", "prepared", "quantized"))
        onnx.save(model, path)  # a file, for of a model in memory the tool would move the weights elsewhere
        # Joins each MatMul and its Add to one Gemm, whose bias then has 32 bits rather than 8.
        quant_pre_process(path, prepared_path, skip_symbolic_shape=True)
        quantize_static(
            prepared_path,
            quantized_path,
            _NoImages(model),
            quant_format=QuantFormat.QDQ,
            # A MatMul is left where all biases are zero.
            op_types_to_quantize=["Conv", "Gemm", "MatMul", "MaxPool", "Relu"],
            per_channel=any(node.op_type == "Conv" for node in model.graph.node),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QUInt8,
            extra_options={"TensorQuantOverrides": _name_ranges(onnx.load(prepared_path).graph, ranges)},
        )
        quantized = version_converter.convert_version(onnx.load(quantized_path), _OPSET)
    _feed_pixels_directly(quantized.graph)
    return quantized


def _name_ranges(graph: onnx.GraphProto, ranges: Sequence[Range]) -> dict[str, list[dict[str, np.float32]]]:
    """The range of each tensor that is quantized, as the quantizer takes it: of pixels, hidden layers and logits."""
    (softmax,) = [node for node in graph.node if node.op_type == "Softmax"]
    hidden = [node.output[0] for node in graph.node if node.op_type == "Relu"]
    named = {
        _find_arranged_pixels(graph).output[0]: _PIXELS,
        **{name: Range(0, high) for name, (_, high) in zip(hidden, ranges[:-1], strict=True)},
        softmax.input[0]: ranges[-1],
    }
    for node in graph.node:
        # What is pooled or flattened keeps its range.
        if node.op_type in {"MaxPool", "Reshape"} and node.input[0] in named:
            named[node.output[0]] = named[node.input[0]]
    return {name: [{"rmin": np.float32(low), "rmax": np.float32(high)}] for name, (low, high) in named.items()}


def _find_arranged_pixels(graph: onnx.GraphProto) -> onnx.NodeProto:
    """What brings the pixels, floats by then, into the first layer's form: a Reshape, or a Transpose of colours."""
    (cast,) = [node for node in graph.node if node.op_type == "Cast"]
    (arrange,) = [node for node in graph.node if node.input[0] == cast.output[0]]
    return arrange


def _feed_pixels_directly(graph: onnx.GraphProto) -> None:
    """Take out pixels -> float -> quantized pixels, which with a scale of 1 and a zero point of 0 changes nothing."""
    constants = {weights.name: onnx.numpy_helper.to_array(weights) for weights in graph.initializer}
    (cast,) = [node for node in graph.node if node.op_type == "Cast"]
    arrange = _find_arranged_pixels(graph)
    (quantize,) = [node for node in graph.node if node.input[0] == arrange.output[0]]
    (dequantize,) = [node for node in graph.node if node.input[0] == quantize.output[0]]
    assert [constants[name].item() for name in quantize.input[1:]] == [1, 0], "the range of pixels is 0..255"
    arrange.input[0] = cast.input[0]
    dequantize.input[0] = arrange.output[0]
    graph.node.remove(cast)
    graph.node.remove(quantize)

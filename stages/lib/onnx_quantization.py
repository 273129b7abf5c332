"""An ONNX model's int8 form, by ONNX Runtime's own quantizer."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

# The first whose DequantizeLinear ONNX's reference evaluator knows.
_OPSET = 19


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped
    """Calibration images one by one, as the quantizer asks for them."""

    def __init__(self, input_name: str, images: Iterable[NDArray[np.uint8]]) -> None:
        self._feeds = ({input_name: image[np.newaxis]} for image in images)  # (1, H, W)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next image; none at the end."""
        return next(self._feeds, None)


def quantize_onnx(model: onnx.ModelProto, calibration_images: NDArray[np.uint8]) -> onnx.ModelProto:
    """The model in QDQ form, weights and activations of 8 bits; its inputs and outputs are as before.

    calibration_images: uint8 (N, H, W), with 0 and 255 among the pixels of the first.

    Weights are unsigned, as the activations are: on processors without VNNI, the sums of unsigned times signed bytes
    saturate at 16 bits, and the answers would depend on the processor
    (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "When and why do I need to try
    U8U8").
    The softmax stays float: it costs ten exponentials, and the answer keeps its resolution.
    """
    reader = _Reader(model.graph.input[0].name, calibration_images)
    with TemporaryDirectory() as folder:
        path, prepared_path, quantized_path = (Path(folder, name) for name in ("float", "prepared", "quantized"))
        onnx.save(model, path)  # a file, for of a model in memory the tool would move the weights elsewhere
        # Joins each MatMul and its Add to one Gemm, whose bias then has 32 bits rather than 8.
        quant_pre_process(path, prepared_path, skip_symbolic_shape=True)
        quantize_static(
            prepared_path,
            quantized_path,
            reader,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Gemm", "MatMul", "Relu"],  # a MatMul is left where all biases are zero
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QUInt8,
        )
        quantized = version_converter.convert_version(onnx.load(quantized_path), _OPSET)
    _feed_pixels_directly(quantized.graph)
    return quantized


def _feed_pixels_directly(graph: onnx.GraphProto) -> None:
    """Take out pixels -> float -> quantized pixels, which with a scale of 1 and a zero point of 0 changes nothing."""
    constants = {weights.name: onnx.numpy_helper.to_array(weights) for weights in graph.initializer}
    (cast,) = [node for node in graph.node if node.op_type == "Cast"]
    (reshape,) = [node for node in graph.node if node.input[0] == cast.output[0]]
    (quantize,) = [node for node in graph.node if node.input[0] == reshape.output[0]]
    (dequantize,) = [node for node in graph.node if node.input[0] == quantize.output[0]]
    assert [constants[name].item() for name in quantize.input[1:]] == [1, 0], "calibration begins with 0 and 255"
    reshape.input[0] = cast.input[0]
    dequantize.input[0] = reshape.output[0]
    graph.node.remove(cast)
    graph.node.remove(quantize)

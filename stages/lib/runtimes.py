"""Runtimes that answer for an exported model: raw pixels in, probabilities out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, InvalidProtobuf
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotImplemented_

from stages.lib.errors import ExportError
from stages.lib.stderr import hold_back_stderr

# What ONNX Runtime raises on a file that it cannot load; they share no base class but Exception.
_ONNX_FAULTS = (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NotImplemented_)

# uint8 (N, H, W) to float32 (N, classes).
Predictor = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def load_predictor(path: Path) -> Predictor:
    """A function that predicts with the model in `path`, by the runtime that its ending tells.

    Raises:
        ExportError: the ending is unknown, or the runtime cannot load the file.
    """
    loaders = {".onnx": _load_onnx, ".tflite": _load_tflite}
    if path.suffix not in loaders:
        raise ExportError(str(path), expected="a .onnx or .tflite file", got=path.suffix or "no ending", do="name one")
    try:
        return loaders[path.suffix](path.read_bytes())
    except OSError as error:
        raise ExportError(str(path), expected="a file", got=error.strerror or str(error), do="name another") from None
    except (ValueError, RuntimeError, *_ONNX_FAULTS) as error:
        raise ExportError(str(path), expected="a whole model", got=str(error), do="export it again") from None


def _load_onnx(content: bytes) -> Predictor:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # such small networks gain nothing by more, and sums keep their order
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = session.run(None, {name: images})[0]
        return probabilities

    return predict


def _load_tflite(content: bytes) -> Predictor:
    runner = Interpreter(model_content=content, num_threads=1).get_signature_runner()
    ((input_name, pixels),) = runner.get_input_details().items()
    ((output_name, output),) = runner.get_output_details().items()
    scale, zero_point = output["quantization"]
    with hold_back_stderr():  # LiteRT announces its delegate at the first call
        runner(**{input_name: np.zeros(pixels["shape"], pixels["dtype"])})

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        values: NDArray[np.generic] = runner(**{input_name: images})[output_name]
        if scale == 0:  # not quantized
            return values.astype(np.float32, copy=False)
        return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)

    return predict

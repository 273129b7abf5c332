"""The runtimes that answer for an exported model: raw pixels in, probabilities out.

Each loader imports its runtime itself: who asks for one of them need not load the others.
"""

# ruff: noqa: PLC0415

import struct
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.errors import DataError, ExportError
from stages.lib.core.native_stderr import capture_native_stderr
from stages.lib.exports.checksums import read_whole
from stages.lib.exports.tflite_micro import HAS_MICRO, MISSING_MICRO, MicroInterpreter

# uint8 (N, H, W) or (N, H, W, 3) to float32 (N, classes).
Predictor = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class _Loaded(NamedTuple):
    """A model in a runtime: the images it takes, (H, W) or (H, W, 3), and how it answers."""

    image_shape: tuple[int, ...]
    predict: Predictor


class Runtime(NamedTuple):
    """A program that runs exported models."""

    title: str
    suffix: str  # of the files that it runs
    load: Callable[[bytes], _Loaded]  # raises one of _PROBLEMS on a file that it cannot load
    # Of a runtime that only some machines have: why this one does not have it, or "".
    missing_reason: str | None = None

    @property
    def is_everywhere(self) -> bool:
        """Whether every machine that the pipeline runs on has it."""
        return self.missing_reason is None


_PIXELS = {2: "grey levels", 3: "red, green and blue"}  # by the dimensions of an image
_PROBLEMS = (ValueError, RuntimeError, struct.error)
_MISSING_TRACT = "not installed: it is in the extra `runtimes`, where it has a wheel"


def load_predictor(path: Path, runtime: str | None = None) -> Predictor:
    """A function that predicts with the model in `path`, by the runtime of that name or the first for its kind.

    The file must be the one that was exported, as the digests beside it tell.

    Raises:
        ExportError: the file is missing or damaged, or the runtime cannot run it.
    """
    fitting = find_runtimes(path)
    if runtime is not None and runtime not in fitting:
        raise ExportError(
            str(path), expected=f"a runtime for it ({', '.join(fitting)})", got=str(runtime), hint="name one of these"
        )
    return load_content(read_whole(path), runtime or fitting[0], str(path))


def find_runtimes(path: Path) -> list[str]:
    """The names of the runtimes for a file's kind, the usual one first.

    Raises:
        ExportError: no runtime is for such a file.
    """
    fitting = [name for name, runtime in RUNTIMES.items() if runtime.suffix == path.suffix]
    if not fitting:
        raise ExportError(
            str(path),
            expected="a .onnx or .tflite file",
            got=path.suffix or "no ending",
            hint="name a model of models/export",
        )
    return fitting


def load_content(content: bytes, runtime: str, name: str) -> Predictor:
    """A function that predicts with a model's bytes; it refuses what is no raw images with a DataError.

    name: of the file, for messages.

    Raises:
        ExportError: the runtime cannot run it.
    """
    title, problem = RUNTIMES[runtime].title, RUNTIMES[runtime].missing_reason
    if not problem:
        try:
            loaded = RUNTIMES[runtime].load(content)
        except _PROBLEMS as error:
            problem = str(error)
    if problem:
        raise ExportError(name, f"{title} cannot run it: {problem}", "choose another runtime or file")

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        _require_raw_images(images, loaded.image_shape, name)
        return loaded.predict(images)

    return predict


def is_slow(content: bytes, runtime: str) -> bool:
    """Whether the runtime pools in Python, as ONNX's reference evaluator does: 10,000 images take it a minute."""
    import onnx

    return runtime == "onnx_reference" and any(
        node.op_type == "MaxPool" for node in onnx.load_from_string(content).graph.node
    )


def _require_raw_images(images: NDArray[np.uint8], image_shape: tuple[int, ...], name: str) -> None:
    """Refuse floats, other sizes and nothing at all: a runtime might take them and answer nonsense."""
    if images.dtype != np.uint8 or images.shape[1:] != image_shape or len(images) == 0:
        raise DataError(
            f"images for {name}",
            expected=f"uint8 of shape (N, {', '.join(map(str, image_shape))}), N at least 1",
            got=f"{images.dtype} of shape {images.shape}",
            hint=f"give {_PIXELS[len(image_shape)]} 0..255 of that size, not normalized",
        )


def _load_onnx_runtime(content: bytes) -> _Loaded:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as problems

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # such small networks gain nothing by more, and sums keep their order
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except (  # which share no base class but Exception
        problems.Fail,
        problems.InvalidArgument,
        problems.InvalidGraph,
        problems.InvalidProtobuf,
        problems.NotImplemented,
    ) as error:
        raise RuntimeError(str(error)) from None
    (pixels,) = session.get_inputs()

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = session.run(None, {pixels.name: images})[0]
        return probabilities

    return _Loaded(tuple(pixels.shape[1:]), predict)


def _load_onnx_reference(content: bytes) -> _Loaded:
    import onnx
    from google.protobuf.message import DecodeError
    from onnx.reference import ReferenceEvaluator

    try:
        model = onnx.load_from_string(content)
    except DecodeError as error:
        raise RuntimeError(str(error)) from None
    evaluator = ReferenceEvaluator(model)
    (pixels,) = model.graph.input

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = evaluator.run(None, {pixels.name: images})[0]
        return probabilities

    return _Loaded(tuple(dim.dim_value for dim in pixels.type.tensor_type.shape.dim[1:]), predict)


def _load_tract(content: bytes) -> _Loaded:
    import tract

    with NamedTemporaryFile(suffix=".onnx") as file:  # it reads files alone
        file.write(content)
        file.flush()
        try:
            model = tract.onnx().load(file.name).into_model()
            image_shape = tuple(int(str(dim)) for dim in model.input_fact(0).dims()[1:])
            runnable = model.into_runnable()
        except tract.TractError as error:
            problem, *_ = str(error).split("Stack backtrace:")
            raise RuntimeError(" ".join(problem.split())) from None

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = runnable.run([images])[0].to_numpy()
        return probabilities

    return _Loaded(image_shape, predict)


def _load_litert(content: bytes) -> _Loaded:
    return _run_litert(content, "AUTO")


def _load_litert_builtin(content: bytes) -> _Loaded:
    return _run_litert(content, "BUILTIN_WITHOUT_DEFAULT_DELEGATES")


def _run_litert(content: bytes, kernels: str) -> _Loaded:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content, num_threads=1, experimental_op_resolver_type=OpResolverType[kernels]
    )
    runner = interpreter.get_signature_runner()
    ((input_name, pixels),) = runner.get_input_details().items()
    ((output_name, output),) = runner.get_output_details().items()
    with capture_native_stderr():  # LiteRT announces its delegate at the first call
        runner(**{input_name: np.zeros(pixels["shape"], pixels["dtype"])})

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return _dequantize(runner(**{input_name: images})[output_name], *output["quantization"])

    return _Loaded(tuple(pixels["shape"][1:].tolist()), predict)


def _load_tflite_micro(content: bytes) -> _Loaded:
    interpreter = MicroInterpreter(content)

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return _dequantize(interpreter.answer(images), interpreter.scale, interpreter.zero_point)

    return _Loaded(interpreter.image_shape, predict)


def _dequantize(values: NDArray[np.generic], scale: float, zero_point: int) -> NDArray[np.float32]:
    if scale == 0:  # not quantized
        return values.astype(np.float32, copy=False)
    return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


RUNTIMES = {
    "onnx_runtime": Runtime("ONNX Runtime", ".onnx", _load_onnx_runtime),
    "onnx_reference": Runtime("ONNX reference evaluator", ".onnx", _load_onnx_reference),
    "tract": Runtime("tract", ".onnx", _load_tract, "" if find_spec("tract") else _MISSING_TRACT),
    "litert": Runtime("LiteRT", ".tflite", _load_litert),  # with XNNPACK, its default delegate
    "litert_builtin": Runtime("LiteRT without XNNPACK", ".tflite", _load_litert_builtin),
    "tflite_micro": Runtime("TensorFlow Lite Micro", ".tflite", _load_tflite_micro, "" if HAS_MICRO else MISSING_MICRO),
}

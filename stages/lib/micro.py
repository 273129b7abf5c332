"""TensorFlow Lite Micro, the runtime of microcontrollers, with its own kernels on this machine.

Its package is made for few platforms. Where it is missing, what it would measure is not measured.
"""

import re
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from stages.lib.stderr import hold_back_stderr

HAS_MICRO = find_spec("tflite_micro") is not None
if HAS_MICRO:
    from tflite_micro.python.tflite_micro import runtime

# Far above what such small networks need: what they need is measured.
_ARENA_BYTES = 1 << 20


class MicroInterpreter:
    """A .tflite model in TensorFlow Lite Micro, which takes one image at a time."""

    def __init__(self, content: bytes) -> None:
        """Load the model; raises RuntimeError on one that it cannot run."""
        with hold_back_stderr():
            self._interpreter = runtime.Interpreter.from_bytes(content, arena_size=_ARENA_BYTES)
        self.image_size = tuple(self._interpreter.get_input_details(0)["shape"][1:].tolist())
        quantization = self._interpreter.get_output_details(0)["quantization_parameters"]
        (self.scale,), (self.zero_point,) = quantization["scales"], quantization["zero_points"]

    def answer(self, images: NDArray[np.uint8]) -> NDArray[np.generic]:
        """The output as it is, (N, classes), for images uint8 (N, H, W)."""
        return np.concatenate([self._answer_one(images[row : row + 1]) for row in range(len(images))])

    def _answer_one(self, image: NDArray[np.uint8]) -> NDArray[np.generic]:
        self._interpreter.set_input(image, 0)
        self._interpreter.invoke()
        output: NDArray[np.generic] = self._interpreter.get_output(0)
        return output

    def measure_arena(self) -> int:
        """Bytes of the tensor arena that its allocator hands out: the smallest arena in which the model runs."""
        self.answer(np.zeros((1, *self.image_size), np.uint8))
        with hold_back_stderr() as read:
            self._interpreter.print_allocations()
            (total,) = re.findall(r"Arena allocation total (\d+) bytes", read())
        return int(total)

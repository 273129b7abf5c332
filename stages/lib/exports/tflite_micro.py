"""TensorFlow Lite Micro, the runtime of microcontrollers, with its own kernels on this machine.

Its package is made for few platforms. Where it is missing, what it would measure is not measured.
"""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.native_stderr import capture_native_stderr

HAS_MICRO = find_spec("tflite_micro") is not None
MISSING_MICRO = "not installed: no wheel for this platform"

# Far above what such small networks need: what they need is measured.
_AMPLE_ARENA = 1 << 20
# Tensors begin at multiples of this many bytes (MicroArenaBufferAlignment of TensorFlow Lite Micro).
_ALIGNMENT = 16


class MicroInterpreter:
    """A .tflite model in TensorFlow Lite Micro, which takes one image at a time."""

    def __init__(self, content: bytes, arena_bytes: int = _AMPLE_ARENA) -> None:
        """Load the model into an arena of that size and let it answer once.

        Raises:
            RuntimeError: it cannot be run, in such an arena or at all; why it says in its own words.
        """
        from tflite_micro.python.tflite_micro import runtime  # noqa: PLC0415  (who asks no such question need not load it)

        problem = None
        with capture_native_stderr() as read:
            try:
                self._interpreter = runtime.Interpreter.from_bytes(content, arena_size=arena_bytes)
                shape, dtype = (self._interpreter.get_input_details(0)[key] for key in ("shape", "dtype"))
                self._answer_one(np.zeros(shape, dtype))
            except RuntimeError as error:
                problem = f"{error} {read()}".strip()
        if problem:
            raise RuntimeError(problem)
        self.image_shape = tuple(shape[1:].tolist())
        quantization = self._interpreter.get_output_details(0)["quantization_parameters"]
        # Empty where the output is not quantized, which a scale of 0 stands for.
        self.scale = float(next(iter(quantization["scales"]), 0))
        self.zero_point = int(next(iter(quantization["zero_points"]), 0))

    def answer(self, images: NDArray[np.uint8]) -> NDArray[np.generic]:
        """The output as it is, (N, classes), for images uint8 (N, H, W) or (N, H, W, 3)."""
        return np.concatenate([self._answer_one(images[row : row + 1]) for row in range(len(images))])

    def _answer_one(self, image: NDArray[np.uint8]) -> NDArray[np.generic]:
        self._interpreter.set_input(image, 0)
        self._interpreter.invoke()
        output: NDArray[np.generic] = self._interpreter.get_output(0)
        return output

    def read_allocation(self) -> int:
        """Bytes of the arena that its allocator has handed out for good."""
        with capture_native_stderr() as read:
            self._interpreter.print_allocations()
            (total,) = re.findall(r"Arena allocation total (\d+) bytes", read())
        return int(total)


def measure_arena(content: bytes) -> int:
    """The smallest tensor arena, in bytes, in which a .tflite model answers.

    It is what the allocator hands out for good, and for a small network some more, which the kernels ask for while they
    are prepared. Arenas are tried in another process, for in one that is too small TensorFlow Lite Micro may abort.
    """
    size = MicroInterpreter(content).read_allocation()
    while True:
        command = [sys.executable, "-m", "stages.lib.exports.tflite_micro", str(size)]
        project_dir = Path(__file__).parents[3]
        done = subprocess.run(command, input=content, cwd=project_dir, capture_output=True, check=False)  # noqa: S603
        if not done.stdout:
            raise RuntimeError(f"no arena could be tried: {done.stderr.decode(errors='replace')}")
        size = int(done.stdout.split()[-1])
        if done.returncode == 0:
            return size
        size += _ALIGNMENT


def _grow_arena(content: bytes, size: int) -> None:
    """Print each size that is tried, the last of which is enough unless the process was aborted."""
    while True:
        print(size, flush=True)
        try:
            MicroInterpreter(content, size)
        except RuntimeError:
            size += _ALIGNMENT
        else:
            return


if __name__ == "__main__":
    _grow_arena(sys.stdin.buffer.read(), int(sys.argv[1]))

"""The C99 classifier compiled and run on this machine, where there is a compiler."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import iterate_chunks
from stages.lib.core.errors import ExportError
from stages.lib.microcontroller.device_sources import read_template

MISSING_COMPILER = "no C compiler: there is no `cc`, and CC names none"
_MAIN = "answer.c"
_FLAGS = ("-std=c99", "-O2")


def find_compiler() -> str | None:
    """The C compiler's path: what CC names, else `cc`; none if there is none."""
    return shutil.which(os.environ.get("CC") or "cc")


def run_classifier(
    compiler: str, sources: Mapping[str, str], images: NDArray[np.uint8], class_count: int
) -> NDArray[np.uint8]:
    """The probabilities uint8 (N, classes) in 256ths that the compiled classifier gives to images uint8.

    sources: `classifier.h` and `classifier.c` among them, by the file's name.

    Raises:
        ExportError: it does not compile, or does not answer for each image.
    """
    with TemporaryDirectory() as folder:
        for name, text in {**sources, _MAIN: read_template(_MAIN)}.items():
            (Path(folder) / name).write_text(text, encoding="ascii")
        program = f"{folder}/answer"
        _run([compiler, *_FLAGS, f"{folder}/{_MAIN}", f"{folder}/classifier.c", "-o", program], b"")
        answers = b"".join(_run([program], images[rows].tobytes()) for rows in iterate_chunks(len(images)))
    if len(answers) != len(images) * class_count:
        raise ExportError(
            "the C classifier",
            expected=f"{len(images) * class_count} bytes of answers",
            got=str(len(answers)),
            hint="set CC to another compiler",
        )
    return np.frombuffer(answers, np.uint8).reshape(len(images), class_count)


def _run(command: list[str], given: bytes) -> bytes:
    done = subprocess.run(command, input=given, capture_output=True, check=False)  # noqa: S603
    if done.returncode:
        said = [*done.stderr.decode(errors="replace").strip().splitlines(), f"exit code {done.returncode}"]
        reason = next((line for line in said if "error" in line), said[-1])
        problem = f"`{Path(command[0]).name}` failed: {reason}"
        raise ExportError("the C classifier", problem, "set CC to another compiler")
    return done.stdout

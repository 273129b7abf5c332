"""Which exports are tried in which runtimes, and what is skipped where TensorFlow Lite Micro is missing."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from stages.lib.exports.parity_matrix import NOT_FOR_MICRO
from stages.lib.exports.runtimes import find_runtimes
from stages.lib.exports.tflite_micro import HAS_MICRO

WITHOUT_MICRO = "needs TensorFlow Lite Micro, whose package tflite-micro is made for Linux on x86-64 alone"
needs_micro = pytest.mark.skipif(not HAS_MICRO, reason=WITHOUT_MICRO)


def list_runs(names: Iterable[str]) -> list:
    """Each of the exported files with each runtime that can run it, as parameters of a test."""
    return [
        pytest.param(name, runtime, marks=[needs_micro] if runtime == "tflite_micro" else [])
        for name in names
        for runtime in find_runtimes(Path(name))
        if runtime != "tflite_micro" or name not in NOT_FOR_MICRO
    ]

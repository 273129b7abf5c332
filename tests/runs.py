"""Which exports are tried in which runtimes, and what is skipped where one of these is missing."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from stages.lib.exports.parity_matrix import NOT_FOR_MICRO
from stages.lib.exports.runtimes import RUNTIMES, find_runtimes


def describe_need(runtime: str) -> str:
    """Why a test is skipped that needs a runtime."""
    return f"needs {RUNTIMES[runtime].title}, which is {RUNTIMES[runtime].missing_reason}"


def needs(runtime: str) -> pytest.MarkDecorator:
    """Skip a test where this runtime is missing, and say why."""
    return pytest.mark.skipif(bool(RUNTIMES[runtime].missing_reason), reason=describe_need(runtime))


needs_micro = needs("tflite_micro")


def list_runs(names: Iterable[str]) -> list:
    """Each of the exported files with each runtime that can run it, as parameters of a test."""
    return [
        pytest.param(name, runtime, marks=needs(runtime))
        for name in names
        for runtime in find_runtimes(Path(name))
        if runtime != "tflite_micro" or name not in NOT_FOR_MICRO
    ]

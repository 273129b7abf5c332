"""The int8 export on a microcontroller: what it asks for, whether that fits, and the C source of it."""

import platform
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stages.lib.core.arrays import iterate_chunks
from stages.lib.core.errors import ExportError
from stages.lib.core.params import Section
from stages.lib.exports.golden import Golden
from stages.lib.exports.parity import measure_steps
from stages.lib.exports.runtimes import RUNTIMES
from stages.lib.exports.tflite_micro import HAS_MICRO, measure_arena
from stages.lib.exports.withholding import Refusal
from stages.lib.microcontroller.arena import bound_arena
from stages.lib.microcontroller.c_classifier import render_classifier
from stages.lib.microcontroller.c_program import MISSING_COMPILER, find_compiler, run_classifier
from stages.lib.microcontroller.c_source import list_operators, render_c_golden, render_c_model
from stages.lib.microcontroller.device_sources import render_device_sources
from stages.lib.microcontroller.integer_network import STEP, IntegerNetwork
from stages.lib.microcontroller.integer_reference import IntegerReference, Rounding, dequantize
from stages.lib.model.boards import Limits
from stages.lib.model.int8_footprint import INT8_NAME, Sizes, describe_misfit
from stages.lib.model.prediction import predict_in_batches

REFERENCE = "integer_reference"
# How often each runtime's kernels round a sum on its way to an output byte; LiteRT's own are others on AArch64, which
# tests/machines/test_processors.py measures.
RUNTIME_ROUNDINGS: dict[str, Rounding] = {
    "litert": "single",
    "litert_builtin": "single" if platform.machine() in ("aarch64", "arm64") else "double_upward",
    "tflite_micro": "double",
}
# By how many steps LiteRT with XNNPACK may differ from the integer reference: it computes the softmax in floats, the
# reference in fixed point, and next to half a step one of them may be on the other side.
_SOFTMAX_STEPS = 1
_INSTALL = "install the tested version of this runtime: `python -m pip install -r requirements.txt`"
_BYTES = "a whole number of bytes, at least 1, or null for half of what export.board has"


class MicrocontrollerBudget(Section):
    """What the int8 export may ask for."""

    max_arena_bytes: Annotated[int, Field(ge=1)] | None = Field(description=_BYTES)
    max_file_bytes: Annotated[int, Field(ge=1)] | None = Field(description=_BYTES)
    operators: list[str] = Field(description="a list of TFLite's operator names, such as FULLY_CONNECTED")


class Agreement(NamedTuple):
    """How far a runtime's answers are from the integer reference's of the same rounding, over the test split."""

    rounding: Rounding
    different_images: int  # with at least one other output byte
    different_bytes: int
    largest: int  # difference, in steps of the output


class Firmware(NamedTuple):
    """The int8 export, what it asks for, and what it must answer."""

    content: bytes
    network: IntegerNetwork
    arena_bytes: int  # surely enough, as computed from the file
    measured_arena_bytes: int | None  # just enough, none where TensorFlow Lite Micro is missing
    operators: list[str]
    answers: NDArray[np.uint8]  # (N, classes), the integer reference's to the test split, in 256ths
    outputs: NDArray[np.uint8]  # (G, classes), those of them for the golden images
    tolerance: int  # by how many steps of its scale an output may differ
    steps: dict[str, int]  # largest difference between each two runtimes over the test split, in steps of the output
    agreements: dict[str, Agreement]  # by the runtime


def examine_firmware(
    content: bytes, golden: Golden, images: NDArray[np.uint8], probabilities: Mapping[str, NDArray[np.float32]]
) -> Firmware:
    """The int8 export's bytes, examined.

    images: the test split, raw. probabilities: each runtime's answers to them, (N, classes).
    """
    reference = IntegerReference(content)
    answers = predict_in_batches(reference.answer, images)
    expected: dict[Rounding, NDArray[np.float32]] = {
        rounding: predict_in_batches(IntegerReference(content, rounding).predict, images)
        for rounding in {RUNTIME_ROUNDINGS[runtime] for runtime in probabilities} - {"single"}
    }
    expected["single"] = predict_in_batches(dequantize, answers)
    by_name = {**probabilities, REFERENCE: expected["single"]}
    return Firmware(
        content,
        reference.network,
        arena_bytes=bound_arena(content),
        measured_arena_bytes=measure_arena(content) if HAS_MICRO else None,
        operators=list_operators(content),
        answers=answers,
        outputs=answers[golden.rows],
        tolerance=reference.bound_rounding(golden.probabilities),
        steps={
            f"{one}_to_{other}": measure_steps(by_name[one], by_name[other], STEP)
            for one, other in combinations(by_name, 2)
        },
        agreements={
            runtime: _compare_bytes(answer, expected[RUNTIME_ROUNDINGS[runtime]], RUNTIME_ROUNDINGS[runtime])
            for runtime, answer in probabilities.items()
        },
    )


def _compare_bytes(answers: NDArray[np.float32], expected: NDArray[np.float32], rounding: Rounding) -> Agreement:
    """How far a runtime's probabilities (N, classes) are from those of the integer reference."""
    counts = [np.count_nonzero(answers[rows] != expected[rows], axis=1) for rows in iterate_chunks(len(answers))]
    by_image = np.concatenate(counts)
    largest = measure_steps(answers, expected, STEP)
    return Agreement(rounding, int(np.count_nonzero(by_image)), int(by_image.sum()), largest)


def describe_firmware(firmware: Firmware, limits: Limits, operators: Collection[str]) -> dict[str, Any]:
    """What the int8 export asks for, and whether that fits: the same on every machine.

    operators: that the firmware links.
    """
    return {
        "arena_bytes": firmware.arena_bytes,
        "operators": firmware.operators,
        "within_budget": (
            firmware.arena_bytes <= limits.max_arena_bytes
            and len(firmware.content) <= limits.max_file_bytes
            and set(firmware.operators) <= set(operators)
        ),
    }


def summarize_firmware(firmware: Firmware) -> str:
    """The same in a line for a person, with how far runtimes are apart."""
    measured = "not measured" if firmware.measured_arena_bytes is None else f"{firmware.measured_arena_bytes} measured"
    steps = ", ".join(f"{steps} {pair.replace('_', ' ')}" for pair, steps in firmware.steps.items())
    agreements = "; ".join(
        f"{RUNTIMES[runtime].title} {found.different_bytes} bytes, at most {found.largest} steps"
        for runtime, found in firmware.agreements.items()
    )
    return (
        f"On a microcontroller: arena {firmware.arena_bytes} bytes ({measured}), file {len(firmware.content)} bytes, "
        f"{', '.join(firmware.operators)}.\n"
        f"Largest differences in steps of the output: {steps}.\n"
        f"Unlike the integer reference of the same rounding: {agreements}."
    )


def judge_firmware(
    firmware: Firmware, sizes: Sizes, limits: Limits, operators: Collection[str], golden_steps: Mapping[str, int]
) -> list[Refusal]:
    """Why the int8 export is withheld from a microcontroller.

    operators: that the firmware links. golden_steps: as `measure_golden_steps` gives them.
    """
    found = []
    if misfit := describe_misfit(firmware.arena_bytes, len(firmware.content), sizes, limits):
        found.append(Refusal({INT8_NAME: ""}, f"too large for {limits.where}: it {misfit.problem}", misfit.hint))
    if strange := [operator for operator in firmware.operators if operator not in operators]:
        hint = "add them to export.microcontroller.operators, and to the firmware"
        found.append(Refusal({INT8_NAME: ""}, f"operators that the firmware does not link: {', '.join(strange)}", hint))
    for runtime, steps in golden_steps.items():
        if RUNTIMES[runtime].is_everywhere and steps > firmware.tolerance:
            reason = f"its golden answers are further off in {RUNTIMES[runtime].title} than rounding explains"
            figures = f"{steps} steps of at most {firmware.tolerance}"
            found.append(Refusal({INT8_NAME: figures}, reason, _INSTALL))
    return found


def require_arena(firmware: Firmware) -> None:
    """Refuse an arena that TensorFlow Lite Micro, where it is installed, finds too small.

    Raises:
        ExportError: saying both sizes.
    """
    if (firmware.measured_arena_bytes or 0) > firmware.arena_bytes:
        raise ExportError(
            "the int8 export on a microcontroller",
            expected=f"at most the {firmware.arena_bytes} bytes of arena that were computed for it",
            got=f"{firmware.measured_arena_bytes} measured",
            hint="raise the sizes of TensorFlow Lite Micro's records in stages/lib/microcontroller/arena.py",
        )


def measure_golden_steps(
    firmware: Firmware, golden: Golden, probabilities: Mapping[str, NDArray[np.float32]]
) -> dict[str, int]:
    """By how many steps each runtime's golden answers are off what the file's own numbers say.

    probabilities: each runtime's answers to the test split, (N, classes).
    """
    expected = dequantize(firmware.outputs)
    return {runtime: measure_steps(answers[golden.rows], expected, STEP) for runtime, answers in probabilities.items()}


def require_golden_here(firmware: Firmware, golden_steps: Mapping[str, int]) -> None:
    """Refuse golden vectors that a runtime would not pass which only some machines have.

    Raises:
        ExportError: it is further from what the file's own numbers say than rounding explains.
    """
    for runtime, steps in golden_steps.items():
        if not RUNTIMES[runtime].is_everywhere and steps > firmware.tolerance:
            raise ExportError(
                f"the int8 export in {RUNTIMES[runtime].title}",
                expected=f"the golden answers within {firmware.tolerance} steps",
                got=f"{steps} steps",
                hint=_INSTALL,
            )


def require_reference_here(firmware: Firmware) -> None:
    """Refuse an int8 file to whose test images LiteRT with XNNPACK answers otherwise than the integer reference.

    Which kernels it has depends on the machine, and which files are written must not.

    Raises:
        ExportError: a byte differs by more than a step.
    """
    found = firmware.agreements["litert"]
    if found.largest > _SOFTMAX_STEPS:
        raise ExportError(
            f"the int8 export in {RUNTIMES['litert'].title}",
            expected=f"the integer reference's answers to the test images within {_SOFTMAX_STEPS} step",
            got=f"{found.different_bytes} other bytes, at most {found.largest} steps off",
            hint=_INSTALL,
        )


def render_firmware(
    firmware: Firmware, golden: Golden, class_names: Sequence[str], background: str | None
) -> dict[str, str]:
    """The C source of the network, of the file for TensorFlow Lite Micro, and of golden vectors, by the file's name.

    With what firmware needs beside them.

    background: `dark` or `light`, of the training images; none for colour.
    """
    return {
        **render_classifier(firmware.network, class_names, background),
        **render_device_sources(background),
        **render_c_model(firmware.content, class_names, background, firmware.arena_bytes),
        **render_c_golden(golden.images, firmware.outputs, firmware.tolerance),
    }


def check_c_classifier(firmware: Firmware, sources: Mapping[str, str], images: NDArray[np.uint8]) -> str:
    """Compare the compiled C classifier with the integer reference over the test split; what was found, in a line.

    sources: as `render_firmware` gives them. images: the test split, raw.

    Raises:
        ExportError: a byte differs, or it does not compile.
    """
    compiler = find_compiler()
    if compiler is None:
        return f"The C classifier was not run: {MISSING_COMPILER}."
    answers = run_classifier(compiler, sources, images, firmware.answers.shape[1])
    different = int(np.count_nonzero(answers != firmware.answers))
    if different:
        raise ExportError(
            "the C classifier",
            expected=f"the {answers.size:,} bytes that the integer reference answers to the test images",
            got=f"{different:,} others",
            hint="set CC to another compiler; `export` writes nothing that answers otherwise",
        )
    return f"The C classifier's {answers.size:,} bytes of answers are the integer reference's."

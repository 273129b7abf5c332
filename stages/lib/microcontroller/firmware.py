"""The int8 export on a microcontroller: what it asks for, whether that fits, and the C source of it."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stages.lib.core.errors import ExportError
from stages.lib.core.params import Section
from stages.lib.exports.golden import Golden
from stages.lib.exports.parity import measure_steps
from stages.lib.exports.runtimes import RUNTIMES
from stages.lib.exports.tflite_micro import HAS_MICRO, measure_arena
from stages.lib.microcontroller.arena import bound_arena
from stages.lib.microcontroller.c_source import list_operators, render_c_golden, render_c_model
from stages.lib.microcontroller.integer_reference import IntegerReference
from stages.lib.model.prediction import predict_in_batches

REFERENCE = "integer_reference"


class MicrocontrollerBudget(Section):
    """What the int8 export may ask for."""

    max_arena_bytes: int = Field(ge=1, description="a whole number of bytes, at least 1")
    max_file_bytes: int = Field(ge=1, description="a whole number of bytes, at least 1")
    operators: list[str] = Field(description="a list of TFLite's operator names, such as FULLY_CONNECTED")


class Firmware(NamedTuple):
    """The int8 export, what it asks for, and what it must answer."""

    content: bytes
    arena_bytes: int  # surely enough, as computed from the file
    measured_arena_bytes: int | None  # just enough, none where TensorFlow Lite Micro is missing
    operators: list[str]
    outputs: NDArray[np.uint8]  # (G, classes), for the golden images
    tolerance: int  # by how many steps of its scale an output may differ
    steps: dict[str, int]  # largest difference between each two runtimes over the test split, in steps of the output


def examine_firmware(
    content: bytes, golden: Golden, images: NDArray[np.uint8], probabilities: Mapping[str, NDArray[np.float32]]
) -> Firmware:
    """The int8 export's bytes, examined.

    images: the test split, uint8 (N, H, W). probabilities: each runtime's answers to them, (N, classes).
    """
    reference = IntegerReference(content)
    answers = {**probabilities, REFERENCE: predict_in_batches(reference.predict, images)}
    return Firmware(
        content,
        arena_bytes=bound_arena(content),
        measured_arena_bytes=measure_arena(content) if HAS_MICRO else None,
        operators=list_operators(content),
        outputs=reference.answer(golden.images),
        tolerance=reference.bound_rounding(golden.probabilities),
        steps={
            f"{one}_to_{other}": measure_steps(answers[one], answers[other], reference.scale)
            for one, other in combinations(answers, 2)
        },
    )


def describe_firmware(firmware: Firmware, budget: MicrocontrollerBudget) -> dict[str, Any]:
    """What the int8 export asks for, and whether that fits: the same on every machine."""
    return {
        "arena_bytes": firmware.arena_bytes,
        "operators": firmware.operators,
        "within_budget": (
            firmware.arena_bytes <= budget.max_arena_bytes
            and len(firmware.content) <= budget.max_file_bytes
            and set(firmware.operators) <= set(budget.operators)
        ),
    }


def summarize_firmware(firmware: Firmware) -> str:
    """The same in a line for a person, with how far runtimes are apart."""
    measured = "not measured" if firmware.measured_arena_bytes is None else f"{firmware.measured_arena_bytes} measured"
    steps = ", ".join(f"{steps} {pair.replace('_', ' ')}" for pair, steps in firmware.steps.items())
    return (
        f"On a microcontroller: arena {firmware.arena_bytes} bytes ({measured}), file {len(firmware.content)} bytes, "
        f"{', '.join(firmware.operators)}.\n"
        f"Largest differences in steps of the output: {steps}."
    )


def require_fit(firmware: Firmware, budget: MicrocontrollerBudget) -> None:
    """Refuse an int8 export that asks too much of a microcontroller.

    Raises:
        ExportError: saying all that it asks and all that it may.
    """
    if not describe_firmware(firmware, budget)["within_budget"]:
        raise ExportError(
            "the int8 export on a microcontroller",
            expected=(
                f"an arena of at most {budget.max_arena_bytes} bytes, a file of at most {budget.max_file_bytes}, "
                f"no operators but {', '.join(budget.operators)}"
            ),
            got=f"{firmware.arena_bytes}, {len(firmware.content)}, {', '.join(firmware.operators)}",
            hint="lower train.hidden_units, or raise the limits in export.microcontroller",
        )


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


def require_golden(firmware: Firmware, golden: Golden, probabilities: Mapping[str, NDArray[np.float32]]) -> None:
    """Refuse golden vectors that the runtimes here would not pass.

    probabilities: each runtime's answers to the test split, (N, classes).

    Raises:
        ExportError: a runtime is further from what the file's own numbers say than rounding explains.
    """
    reference = IntegerReference(firmware.content)
    for runtime, answers in probabilities.items():
        steps = measure_steps(answers[golden.rows], reference.predict(golden.images), reference.scale)
        if steps > firmware.tolerance:
            raise ExportError(
                f"the int8 export in {RUNTIMES[runtime].title}",
                expected=f"the golden answers within {firmware.tolerance} steps",
                got=f"{steps} steps",
                hint="install the tested version of this runtime: `python -m pip install -r requirements.txt`",
            )


def render_firmware(firmware: Firmware, golden: Golden, class_names: Sequence[str], background: str) -> dict[str, str]:
    """The C source of the model and of its golden vectors, by the file's name.

    background: `dark` or `light`, of the training images.
    """
    return {
        **render_c_model(firmware.content, class_names, background, firmware.arena_bytes),
        **render_c_golden(golden.images, firmware.outputs, firmware.tolerance),
    }

"""The int8 export fits a microcontroller or is refused, and its golden answers are those that the runtimes give."""

from typing import NamedTuple

import numpy as np
import pytest
from pydantic import ValidationError
from runs import needs_micro
from samples import CLASS_NAMES

from stages.lib.core.errors import ExportError
from stages.lib.exports.golden import Golden, find_golden
from stages.lib.exports.runtimes import load_content
from stages.lib.exports.tflite_micro import HAS_MICRO, measure_arena
from stages.lib.microcontroller.arena import bound_arena
from stages.lib.microcontroller.firmware import (
    REFERENCE,
    Firmware,
    MicrocontrollerBudget,
    describe_firmware,
    examine_firmware,
    render_firmware,
    require_arena,
    require_fit,
    require_golden,
    summarize_firmware,
)
from stages.lib.microcontroller.integer_reference import IntegerReference

INT8 = "model_int8.tflite"
RUNTIMES = ["litert", "litert_builtin", *(["tflite_micro"] if HAS_MICRO else [])]
OPERATORS = ["QUANTIZE", "RESHAPE", "FULLY_CONNECTED", "SOFTMAX"]
ARENA_BYTES, MEASURED_ARENA_BYTES, FILE_BYTES = 2048, 1984, 5000
BUDGET = MicrocontrollerBudget(max_arena_bytes=ARENA_BYTES, max_file_bytes=FILE_BYTES, operators=OPERATORS)
# All that a microcontroller is asked for, exactly.
FITTING = Firmware(
    bytes(FILE_BYTES),
    ARENA_BYTES,
    MEASURED_ARENA_BYTES,
    OPERATORS,
    np.zeros((1, 3), np.uint8),
    2,
    {"litert_to_tflite_micro": 1},
)


class Examined(NamedTuple):
    """The small network's int8 export, examined with its answers to the test images in each runtime."""

    firmware: Firmware
    golden: Golden
    answers: dict[str, np.ndarray]
    reference: IntegerReference


@pytest.fixture(scope="module")
def examined(small_model):
    content, images = small_model.exports[INT8], small_model.test.images
    answers = {runtime: load_content(content, runtime, INT8)(images) for runtime in RUNTIMES}
    golden = find_golden(small_model.probabilities, small_model.test)
    return Examined(examine_firmware(content, golden, images, answers), golden, answers, IntegerReference(content))


@pytest.mark.parametrize(
    ("budget", "fits"),
    [
        pytest.param({}, True, id="exactly"),
        pytest.param({"max_arena_bytes": ARENA_BYTES - 1}, False, id="arena one byte too large"),
        pytest.param({"max_file_bytes": FILE_BYTES - 1}, False, id="file one byte too large"),
        pytest.param({"operators": OPERATORS[:-1]}, False, id="one operator too many"),
        pytest.param({"operators": []}, False, id="no operator"),
        pytest.param({"operators": [*reversed(OPERATORS), "CONV_2D"]}, True, id="others in another order"),
    ],
)
def test_export_fits_up_to_the_whole_budget(budget, fits):
    """Arena, file and operators may each be the whole of what is allowed; one more is refused."""
    allowed = BUDGET.model_copy(update=budget)
    described = describe_firmware(FITTING, allowed)

    assert described == {"arena_bytes": ARENA_BYTES, "operators": OPERATORS, "within_budget": fits}
    if fits:
        require_fit(FITTING, allowed)
    else:
        with pytest.raises(ExportError):
            require_fit(FITTING, allowed)


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ({"arena_bytes": 2049}, "2049, 5000, QUANTIZE, RESHAPE, FULLY_CONNECTED, SOFTMAX"),
        ({"content": bytes(5001)}, "2048, 5001, QUANTIZE, RESHAPE, FULLY_CONNECTED, SOFTMAX"),
        ({"operators": ["CAST", "SOFTMAX"]}, "2048, 5000, CAST, SOFTMAX"),
    ],
)
def test_refusal_tells_all_three_limits(asked, got):
    """Whatever is too much, one line says arena, file and operators, both asked and allowed, and what to do."""
    with pytest.raises(ExportError) as refusal:
        require_fit(FITTING._replace(**asked), BUDGET)

    assert (refusal.value.where, refusal.value.got) == ("the int8 export on a microcontroller", got)
    assert refusal.value.expected == (
        "an arena of at most 2048 bytes, a file of at most 5000, "
        "no operators but QUANTIZE, RESHAPE, FULLY_CONNECTED, SOFTMAX"
    )
    assert refusal.value.hint == "lower train.hidden_units, or raise the limits in export.microcontroller"


@pytest.mark.parametrize("measured", [None, 1, ARENA_BYTES, ARENA_BYTES + 1])
def test_verdict_does_not_depend_on_what_was_measured(measured):
    """Where TensorFlow Lite Micro has no wheel, the same is told and decided as where it has one."""
    assert describe_firmware(FITTING._replace(measured_arena_bytes=measured), BUDGET) == describe_firmware(
        FITTING, BUDGET
    )


def test_arena_that_is_measured_larger_than_computed_is_refused():
    """A number that would not do must not get into the C header; where nothing was measured there is no doubt."""
    for measured in (None, ARENA_BYTES):
        require_arena(FITTING._replace(measured_arena_bytes=measured))
    with pytest.raises(ExportError) as refusal:
        require_arena(FITTING._replace(measured_arena_bytes=ARENA_BYTES + 16))

    assert refusal.value.expected == "at most the 2048 bytes of arena that were computed for it"
    assert refusal.value.got == "2064 measured"
    assert "stages/lib/microcontroller/arena.py" in refusal.value.hint


@pytest.mark.parametrize("key", ["max_arena_bytes", "max_file_bytes"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "1024", None])
def test_limit_is_a_whole_number_of_bytes(key, value):
    """A limit that nothing fits, or that is no number of bytes, is refused."""
    with pytest.raises(ValidationError, match=key):
        MicrocontrollerBudget(**(BUDGET.model_dump() | {key: value}))


def test_summary_tells_what_it_asks_and_how_far_runtimes_are_apart():
    """A person reads bytes, computed and measured, operators and steps."""
    assert summarize_firmware(FITTING) == (
        "On a microcontroller: arena 2048 bytes (1984 measured), file 5000 bytes, "
        "QUANTIZE, RESHAPE, FULLY_CONNECTED, SOFTMAX.\n"
        "Largest differences in steps of the output: 1 litert to tflite micro."
    )
    assert "arena 2048 bytes (not measured)," in summarize_firmware(FITTING._replace(measured_arena_bytes=None))


def test_export_is_examined_as_its_file_says(small_model, examined):
    """Arena and operators come from the file, the answers to golden images from its numbers."""
    firmware, golden, _, reference = examined

    assert firmware.arena_bytes == bound_arena(firmware.content)
    assert type(firmware.arena_bytes) is int  # as JSON takes it
    assert firmware.content == small_model.exports[INT8]
    assert firmware.operators == OPERATORS
    np.testing.assert_array_equal(firmware.outputs, reference.answer(golden.images), strict=True)
    assert firmware.tolerance == reference.bound_rounding(golden.probabilities)


@needs_micro
def test_arena_is_that_which_tensorflow_lite_micro_measures(examined):
    """The measured arena is what the runtime of microcontrollers asked for, and the computed one is enough."""
    assert examined.firmware.measured_arena_bytes == measure_arena(examined.firmware.content)
    require_arena(examined.firmware)


def test_each_two_runtimes_are_compared(examined):
    """Runtimes and reference are each compared with every other, in steps of the output, over the test split."""
    names = [*RUNTIMES, REFERENCE]
    pairs = [f"{one}_to_{other}" for place, one in enumerate(names) for other in names[place + 1 :]]

    assert list(examined.firmware.steps) == pairs
    assert examined.firmware.steps[f"litert_to_{REFERENCE}"] == 0
    assert all(0 <= steps <= examined.firmware.tolerance for steps in examined.firmware.steps.values())


def test_differences_are_in_steps_of_the_output(small_model, examined):
    """Answers that are five 256ths off in one image are five steps off."""
    moved = examined.answers["litert"].copy()
    moved[7, 1] -= 5 / 256
    firmware = examine_firmware(
        small_model.exports[INT8],
        examined.golden,
        small_model.test.images,
        {"litert": examined.answers["litert"], "litert_builtin": moved},
    )

    assert firmware.steps["litert_to_litert_builtin"] == 5


def test_golden_answers_pass_in_every_runtime(examined):
    """The answers that firmware is to check itself by are those of the runtimes here."""
    require_golden(examined.firmware, examined.golden, examined.answers)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("runtime", ["litert", "litert_builtin", pytest.param("tflite_micro", marks=needs_micro)])
def test_golden_answers_off_by_more_than_the_tolerance_are_refused(examined, runtime, sign):
    """An answer to a golden image may be the tolerance off the file's numbers, and no step more."""
    firmware, golden, answers, reference = examined
    row = golden.rows[1]
    exact = reference.predict(golden.images[1:2])[0]

    def shift(steps):
        moved = answers[runtime].copy()
        moved[row] = exact + np.float32(sign * steps / 256)
        return answers | {runtime: moved}

    require_golden(firmware, golden, shift(firmware.tolerance))
    with pytest.raises(ExportError) as refusal:
        require_golden(firmware, golden, shift(firmware.tolerance + 1))

    assert refusal.value.where.startswith("the int8 export in ")
    assert refusal.value.expected == f"the golden answers within {firmware.tolerance} steps"
    assert refusal.value.got == f"{firmware.tolerance + 1} steps"
    assert "\n" not in str(refusal.value)


def test_other_test_images_are_no_matter_of_the_golden_answers(examined):
    """What counts is the golden images' rows of the test split."""
    answers = {runtime: probabilities.copy() for runtime, probabilities in examined.answers.items()}
    for probabilities in answers.values():
        others = np.setdiff1d(np.arange(len(probabilities)), examined.golden.rows)
        probabilities[others] = 0

    require_golden(examined.firmware, examined.golden, answers)


def test_source_holds_the_model_and_its_golden_answers(examined):
    """The C files are those of the model and of the vectors; a second time they are the same."""
    sources = render_firmware(examined.firmware, examined.golden, CLASS_NAMES, "dark")

    assert set(sources) == {"model_int8.h", "model_int8.c", "golden.h"}
    assert f"#define MODEL_INT8_BYTES {len(examined.firmware.content)}\n" in sources["model_int8.h"]
    assert f"#define MODEL_INT8_ARENA_BYTES {examined.firmware.arena_bytes}\n" in sources["model_int8.h"]
    assert f"#define GOLDEN_IMAGE_COUNT {len(examined.golden.images)}\n" in sources["golden.h"]
    assert f"#define GOLDEN_TOLERANCE {examined.firmware.tolerance}\n" in sources["golden.h"]
    assert sources == render_firmware(examined.firmware, examined.golden, CLASS_NAMES, "dark")

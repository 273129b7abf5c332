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
from stages.lib.microcontroller.c_program import MISSING_COMPILER, find_compiler
from stages.lib.microcontroller.firmware import (
    REFERENCE,
    RUNTIME_ROUNDINGS,
    Agreement,
    Firmware,
    MicrocontrollerBudget,
    check_c_classifier,
    describe_firmware,
    examine_firmware,
    judge_firmware,
    measure_golden_steps,
    render_firmware,
    require_arena,
    require_golden_here,
    require_reference_here,
    summarize_firmware,
)
from stages.lib.microcontroller.integer_network import IntegerNetwork
from stages.lib.microcontroller.integer_reference import IntegerReference
from stages.lib.model.boards import Limits
from stages.lib.model.int8_footprint import Sizes

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason=MISSING_COMPILER)
INT8 = "model_int8.tflite"
RUNTIMES = ["litert", "litert_builtin", *(["tflite_micro"] if HAS_MICRO else [])]
OPERATORS = ["QUANTIZE", "RESHAPE", "FULLY_CONNECTED", "SOFTMAX"]
ARENA_BYTES, MEASURED_ARENA_BYTES, FILE_BYTES = 2048, 1984, 5000
LIMITS = Limits("a_board", ARENA_BYTES, FILE_BYTES, is_of_board=False)
SIZES = Sizes((6, 8), (4,), 3)
# All that a microcontroller is asked for, exactly.
FITTING = Firmware(
    bytes(FILE_BYTES),
    IntegerNetwork((6, 8), (), np.zeros(0, np.uint32)),
    ARENA_BYTES,
    MEASURED_ARENA_BYTES,
    OPERATORS,
    np.zeros((5, 3), np.uint8),
    np.zeros((1, 3), np.uint8),
    2,
    {"litert_to_tflite_micro": 1},
    {"litert": Agreement("single", 0, 0, 0), "tflite_micro": Agreement("double", 1, 3, 2)},
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
    ("limits", "operators", "fits"),
    [
        pytest.param({}, OPERATORS, True, id="exactly"),
        pytest.param({"max_arena_bytes": ARENA_BYTES - 1}, OPERATORS, False, id="arena one byte too large"),
        pytest.param({"max_file_bytes": FILE_BYTES - 1}, OPERATORS, False, id="file one byte too large"),
        pytest.param({}, OPERATORS[:-1], False, id="one operator too many"),
        pytest.param({}, [], False, id="no operator"),
        pytest.param({}, [*reversed(OPERATORS), "CONV_2D"], True, id="others in another order"),
    ],
)
def test_export_fits_up_to_the_whole_of_its_limits(limits, operators, fits):
    """Arena, file and operators may each be the whole of what is allowed; one more withholds the file."""
    allowed = LIMITS._replace(**limits)

    assert describe_firmware(FITTING, allowed, operators) == {
        "arena_bytes": ARENA_BYTES,
        "operators": OPERATORS,
        "within_budget": fits,
    }
    assert (judge_firmware(FITTING, SIZES, allowed, operators, {}) == []) is fits


@pytest.mark.parametrize(
    ("asked", "reason", "hint"),
    [
        (
            {"arena_bytes": 2049},
            "too large for a_board: it needs 2,049 bytes of RAM, where 2,048 are allowed",
            "raise the limits in export.microcontroller",
        ),
        (
            {"content": bytes(5001)},
            "too large for a_board: it needs 5,001 bytes of flash, where 5,000 are allowed",
            "raise the limits in export.microcontroller",
        ),
        (
            {"operators": ["CAST", "SOFTMAX"]},
            "operators that the firmware does not link: CAST",
            "add them to export.microcontroller.operators, and to the firmware",
        ),
    ],
)
def test_each_limit_has_its_reason_and_its_hint(asked, reason, hint):
    """What is too much is told with what is allowed, and what helps against it."""
    (refusal,) = judge_firmware(FITTING._replace(**asked), SIZES, LIMITS, OPERATORS, {})

    assert list(refusal.measured) == [INT8]
    assert refusal.reason == reason
    assert refusal.hint.endswith(hint)


@pytest.mark.parametrize("measured", [None, 1, ARENA_BYTES, ARENA_BYTES + 1])
def test_verdict_does_not_depend_on_what_was_measured(measured):
    """Where TensorFlow Lite Micro has no wheel, the same is told and decided as where it has one."""
    changed = FITTING._replace(measured_arena_bytes=measured)

    assert describe_firmware(changed, LIMITS, OPERATORS) == describe_firmware(FITTING, LIMITS, OPERATORS)
    assert judge_firmware(changed, SIZES, LIMITS, OPERATORS, {}) == []


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
@pytest.mark.parametrize("value", [0, -1, 1.5, "1024"])
def test_limit_is_a_whole_number_of_bytes(key, value):
    """A limit that nothing fits, or that is no number of bytes, is refused; null stands for half of the board's."""
    section = {"max_arena_bytes": None, "max_file_bytes": None, "operators": OPERATORS}
    MicrocontrollerBudget(**section)
    with pytest.raises(ValidationError, match=key):
        MicrocontrollerBudget(**(section | {key: value}))


def test_summary_tells_what_it_asks_and_how_far_runtimes_are_apart():
    """A person reads bytes, computed and measured, operators and steps."""
    assert summarize_firmware(FITTING) == (
        "On a microcontroller: arena 2048 bytes (1984 measured), file 5000 bytes, "
        "QUANTIZE, RESHAPE, FULLY_CONNECTED, SOFTMAX.\n"
        "Largest differences in steps of the output: 1 litert to tflite micro.\n"
        "Unlike the integer reference of the same rounding: "
        "LiteRT 0 bytes, at most 0 steps; TensorFlow Lite Micro 3 bytes, at most 2 steps."
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


def test_each_runtime_is_compared_with_the_reference_of_its_own_rounding(examined):
    """XNNPACK rounds once and gives the reference's bytes; the others are a step off at the most."""
    agreements = examined.firmware.agreements

    assert list(agreements) == RUNTIMES
    assert agreements["litert"] == Agreement("single", 0, 0, 0)
    assert {runtime: found.rounding for runtime, found in agreements.items()} == {
        runtime: RUNTIME_ROUNDINGS[runtime] for runtime in RUNTIMES
    }
    assert all(agreements[runtime].largest <= 1 for runtime in RUNTIMES[1:])


def test_other_bytes_are_counted_by_image_and_by_byte(small_model, examined):
    """Two other bytes of one image and one of another are three bytes of two images."""
    moved = examined.answers["litert"].copy()
    moved[7, :2] += 3 / 256
    moved[9, 1] -= 1 / 256
    firmware = examine_firmware(small_model.exports[INT8], examined.golden, small_model.test.images, {"litert": moved})

    assert firmware.agreements == {"litert": Agreement("single", 2, 3, 3)}


def test_golden_answers_pass_in_every_runtime(examined):
    """The answers that firmware is to check itself by are those of the runtimes here."""
    firmware, golden, answers, _ = examined
    steps = measure_golden_steps(firmware, golden, answers)

    assert list(steps) == RUNTIMES
    assert max(steps.values()) <= firmware.tolerance
    require_golden_here(firmware, steps)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_golden_answers_are_measured_in_steps(examined, runtime, sign):
    """An answer to a golden image that is so many 256ths off is so many steps off, in that runtime alone."""
    firmware, golden, answers, reference = examined
    moved = answers[runtime].copy()
    moved[golden.rows[1]] = reference.predict(golden.images[1:2])[0] + np.float32(sign * 7 / 256)

    assert measure_golden_steps(firmware, golden, answers | {runtime: moved})[runtime] == 7


def test_golden_answers_that_are_too_far_off_withhold_the_file():
    """In a runtime that every machine has; the tolerance itself is allowed."""
    assert judge_firmware(FITTING, SIZES, LIMITS, OPERATORS, {"litert": 2, "tflite_micro": 9}) == []
    (refusal,) = judge_firmware(FITTING, SIZES, LIMITS, OPERATORS, {"litert_builtin": 3})

    assert refusal.measured == {INT8: "3 steps of at most 2"}
    assert refusal.reason == "its golden answers are further off in LiteRT without XNNPACK than rounding explains"
    assert "requirements.txt" in refusal.hint


def test_golden_answers_that_are_too_far_off_on_some_machines_are_an_error():
    """Which files are written must not depend on the machine."""
    require_golden_here(FITTING, {"litert": 9, "tflite_micro": 2})
    with pytest.raises(ExportError) as refusal:
        require_golden_here(FITTING, {"tflite_micro": 3})

    assert refusal.value.where == "the int8 export in TensorFlow Lite Micro"
    assert refusal.value.expected == "the golden answers within 2 steps"
    assert refusal.value.got == "3 steps"


def test_step_of_litert_off_the_reference_is_allowed_and_two_are_an_error():
    """A step is what the softmax in floats may be off by; the files that are written must be those of any machine."""
    for largest in (0, 1):
        require_reference_here(FITTING._replace(agreements={"litert": Agreement("single", 4, 7, largest)}))
    with pytest.raises(ExportError) as refusal:
        require_reference_here(FITTING._replace(agreements={"litert": Agreement("single", 4, 7, 2)}))

    assert refusal.value.where == "the int8 export in LiteRT"
    assert refusal.value.expected == "the integer reference's answers to the test images within 1 step"
    assert refusal.value.got == "7 other bytes, at most 2 steps off"
    assert "requirements.txt" in refusal.value.hint


def test_other_test_images_are_no_matter_of_the_golden_answers(examined):
    """What counts is the golden images' rows of the test split."""
    firmware, golden, answers, _ = examined
    others = {runtime: probabilities.copy() for runtime, probabilities in answers.items()}
    for probabilities in others.values():
        probabilities[np.setdiff1d(np.arange(len(probabilities)), golden.rows)] = 0

    assert measure_golden_steps(firmware, golden, others) == measure_golden_steps(firmware, golden, answers)


def test_source_holds_the_model_and_its_golden_answers(examined):
    """The C files are those of the model and of the vectors; a second time they are the same."""
    sources = render_firmware(examined.firmware, examined.golden, CLASS_NAMES, "dark")

    assert set(sources) == {
        *("classifier.h", "classifier.c", "model_int8.h", "model_int8.c", "golden.h", "camera.h", "camera.c"),
        *("replay.h", "replay.c", "check_golden.c", "CMakeLists.txt"),
    }
    assert f"#define MODEL_INT8_BYTES {len(examined.firmware.content)}\n" in sources["model_int8.h"]
    assert f"#define MODEL_INT8_ARENA_BYTES {examined.firmware.arena_bytes}\n" in sources["model_int8.h"]
    assert f"#define GOLDEN_IMAGE_COUNT {len(examined.golden.images)}\n" in sources["golden.h"]
    assert f"#define GOLDEN_TOLERANCE {examined.firmware.tolerance}\n" in sources["golden.h"]
    assert sources == render_firmware(examined.firmware, examined.golden, CLASS_NAMES, "dark")


@needs_compiler
def test_c_classifier_is_compared_with_the_reference_over_the_test_split(small_model, examined):
    """All its bytes are the reference's, and that is told; one other byte ends the stage."""
    sources = render_firmware(examined.firmware, examined.golden, CLASS_NAMES, "dark")
    images = small_model.test.images
    changed = examined.firmware.answers.copy()
    changed[3, 1] ^= 1

    assert check_c_classifier(examined.firmware, sources, images) == (
        f"The C classifier's {images.shape[0] * 3:,} bytes of answers are the integer reference's."
    )
    with pytest.raises(ExportError) as refusal:
        check_c_classifier(examined.firmware._replace(answers=changed), sources, images)
    assert refusal.value.got == "1 others"


def test_machine_without_a_compiler_says_so(small_model, examined, monkeypatch):
    """The exports are written all the same."""
    monkeypatch.setenv("CC", "no-such-compiler")

    assert check_c_classifier(examined.firmware, {}, small_model.test.images) == (
        "The C classifier was not run: no C compiler: there is no `cc`, and CC names none."
    )

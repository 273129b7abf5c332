"""An export that is beyond its limits is withheld by itself: one cause, one line, and a hint for that cause."""

import numpy as np
import pytest

from stages.lib.core.errors import ExportError
from stages.lib.exports.conversion import calibrate, convert_to_dynamic_range_tflite, convert_to_int8_tflite
from stages.lib.exports.parity import Budget, compare
from stages.lib.exports.parity_matrix import Comparison, compare_exports
from stages.lib.exports.runtimes import load_content
from stages.lib.exports.withholding import Refusal, judge, list_withheld, require_exports, require_parity_here
from stages.lib.model.deterministic_tensorflow import keras
from stages.lib.model.network import Architecture, build_network

# Ten images of three classes: of the last two the reference is unsure.
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
REFERENCE = np.full((10, 3), 0.01, np.float32)
REFERENCE[np.arange(10), LABELS] = 0.98
REFERENCE[8], REFERENCE[9] = [0.1, 0.44, 0.46], [0.46, 0.44, 0.1]
BUDGET = Budget(max_abs_error=0.05, min_same_class=0.8, max_accuracy_drop=20.0)
KINDS = {
    "model.onnx": "onnx_float32",
    "model_int8.onnx": "onnx_int8",
    "model.tflite": "tflite_float32",
    "model_float16.tflite": "tflite_float16",
    "model_dynamic_range.tflite": "tflite_dynamic_range",
    "model_int8.tflite": "tflite_int8",
}
UNSURE, SURE = {8: [0.1, 0.3, 0.6]}, {0: [0.5, 0.5, 0.0]}


def make_comparison(export, runtime, moves=None, *, budget=BUDGET):
    """A comparison whose answers are the reference's, but in the rows of `moves`, where they are these."""
    probabilities = REFERENCE.copy()
    for row, answer in (moves or {}).items():
        probabilities[row] = answer
    return Comparison(export, runtime, budget, "", probabilities, compare(REFERENCE, probabilities, LABELS, budget))


def judge_without_files(comparisons):
    """The refusals of files whose bytes do not matter."""
    return judge(comparisons, {}, KINDS)


@pytest.mark.parametrize("limit", [{"max_abs_error": 0.0199}, {"min_same_class": 0.81}, {"max_accuracy_drop": 19.9}])
def test_each_limit_alone_withholds(limit):
    """A larger difference, too many other classes, too much accuracy lost: each is enough, and the line tells all."""
    moves = {8: [0.1, 0.46, 0.44], 9: [0.44, 0.46, 0.1]}
    tight = BUDGET.model_copy(update=limit)

    assert judge_without_files([make_comparison("model_int8.tflite", "litert_builtin", moves)]) == []
    (refusal,) = judge_without_files([make_comparison("model_int8.tflite", "litert_builtin", moves, budget=tight)])
    assert refusal.measured == {
        "model_int8.tflite": (
            f"in LiteRT without XNNPACK |Δp| 0.02 of at most {tight.max_abs_error:g}, Keras's class for 80.00% of at "
            f"least {tight.min_same_class:.2%}, 20.00 points of accuracy lost of at most {tight.max_accuracy_drop:g}"
        )
    }


def test_other_exports_are_not_withheld():
    """An export stands or falls by itself."""
    refusals = judge_without_files(
        [make_comparison("model.onnx", "onnx_runtime"), make_comparison("model_int8.onnx", "onnx_runtime", UNSURE)]
    )

    assert list(list_withheld(refusals)) == ["model_int8.onnx"]


def test_one_cause_is_one_line():
    """Several files and runtimes that fail for one reason are one line, with the worst runtime of each file."""
    worse = {8: [0.1, 0.2, 0.7]}
    refusals = judge_without_files(
        [
            make_comparison("model_int8.onnx", "onnx_runtime", UNSURE),
            make_comparison("model_int8.onnx", "onnx_reference", worse),
            make_comparison("model_int8.tflite", "litert", UNSURE),
            make_comparison("model_int8.tflite", "litert_builtin", UNSURE),
        ]
    )
    (line,) = [str(refusal.describe()) for refusal in refusals]

    assert line.startswith("model_int8.onnx, model_int8.tflite: further from Keras than its budget allows, on images")
    assert line.count("|Δp|") == 2
    assert "model_int8.onnx in ONNX reference evaluator |Δp| 0.24" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("export", "moves", "reason", "hint"),
    [
        ("model_int8.tflite", UNSURE, "unsure of", "train.epochs"),
        ("model_float16.tflite", UNSURE, "unsure of", "train.epochs"),
        ("model_int8.tflite", SURE, "calibrated ranges", "export.representative_samples"),
        ("model_int8.onnx", SURE, "calibrated ranges", "export.representative_samples"),
        ("model_float16.tflite", SURE, "too few bits", "export.budgets.tflite_float16"),
        ("model.tflite", UNSURE, "for rounding alone", "export.budgets.tflite_float32"),
        ("model.onnx", SURE, "for rounding alone", "export.budgets.onnx_float32"),
    ],
)
def test_hint_depends_on_the_cause(export, moves, reason, hint):
    """An unsure network, ranges, bits and rounding each have a reason and a hint of their own."""
    runtime = "onnx_runtime" if export.endswith(".onnx") else "litert"
    (refusal,) = judge_without_files([make_comparison(export, runtime, moves)])

    assert reason in refusal.reason
    assert hint in refusal.hint


def test_reasons_are_the_same_on_another_machine():
    """What goes into hashed reports holds no figure that differs in its last bits."""
    here, there = (
        judge_without_files([make_comparison("model_int8.tflite", "litert", {8: [0.1, 0.3 + nudge, 0.6 - nudge]})])
        for nudge in (0, 1e-3)
    )

    assert here[0].measured != there[0].measured
    assert list_withheld(here) == list_withheld(there)


def test_answer_that_is_no_number_is_withheld():
    """A runtime that answers NaN is beyond any budget, and worse than one that is merely wrong."""
    (refusal,) = judge_without_files(
        [
            make_comparison("model.onnx", "onnx_runtime", {3: [np.nan] * 3}),
            make_comparison("model.onnx", "onnx_reference", SURE),
        ]
    )

    assert "in ONNX Runtime |Δp| nan of at most" in refusal.measured["model.onnx"]


def test_runtime_that_was_not_run_withholds_nothing():
    """A runtime that cannot run a file says nothing against it."""
    not_run = Comparison("model.tflite", "tflite_micro", BUDGET, "its CAST takes no uint8", REFERENCE[:0], None)

    assert judge_without_files([make_comparison("model.tflite", "litert"), not_run]) == []
    require_parity_here([not_run])


def test_runtime_of_some_machines_ends_the_stage_and_withholds_nothing():
    """Which files are written must not depend on the machine: there the difference is an error."""
    comparisons = [
        make_comparison("model_int8.tflite", "litert"),
        make_comparison("model_int8.tflite", "tflite_micro", SURE),
    ]
    with pytest.raises(ExportError) as refusal:
        require_parity_here(comparisons)

    assert judge_without_files(comparisons) == []
    assert refusal.value.where == "model_int8.tflite in TensorFlow Lite Micro"
    assert "requirements.txt" in refusal.value.hint


@pytest.mark.parametrize(("weight", "is_named"), [(0.5, True), (0.0, False)])
def test_rows_that_literts_own_kernels_cannot_sum_are_named(weight, is_named):
    """Weights of one sign on many pixels: LiteRT without XNNPACK answers nonsense, and the reason says so."""
    network = build_network((64, 64), Architecture((4,)), 3, "softmax")
    # Alike they quantize to the same large number; with both signs a row's sum is small.
    kernel = np.full((64 * 64, 4), 1e-3, np.float32)
    kernel[: int(64 * 64 * (0.5 - weight))] *= -1
    network.layers[1].set_weights([kernel, np.zeros(4, np.float32)])
    content = convert_to_dynamic_range_tflite(network)
    images = np.random.default_rng(0).integers(0, 256, (10, 64, 64), np.uint8)
    one, other = (load_content(content, runtime, "it")(images) for runtime in ("litert", "litert_builtin"))
    comparisons = [
        make_comparison("model_dynamic_range.tflite", "litert"),
        make_comparison("model_dynamic_range.tflite", "litert_builtin", SURE),
    ]
    (refusal,) = judge(comparisons, {"model_dynamic_range.tflite": content}, KINDS)

    assert (np.abs(one - other).max() > 0.2) is np.bool_(is_named)
    assert ("LiteRT's own kernels" in refusal.reason) is is_named
    assert ("ingest.image_size" in refusal.hint) is is_named


def test_required_export_that_is_withheld_is_an_error_with_each_cause():
    """Only causes that concern a required file end the stage."""
    refusals = [
        Refusal({"model.onnx": "0.5", "model.tflite": "0.4"}, "too far", "raise it"),
        Refusal({"model_int8.tflite": ""}, "too large", "lower it"),
    ]
    require_exports(refusals, [])
    require_exports(refusals, ["model_float16.tflite"])
    with pytest.raises(ExportError) as refusal:
        require_exports(refusals, ["model.tflite"])

    assert refusal.value.where == "model.onnx, model.tflite"
    assert refusal.value.problem == "too far (model.onnx 0.5; model.tflite 0.4)"
    assert refusal.value.hint == "raise it"


def test_file_with_two_causes_tells_both():
    """A file may be too large and too far from Keras."""
    refusals = [Refusal({"a": "1"}, "too far", "raise it"), Refusal({"a": ""}, "too large", "lower it")]

    assert list_withheld(refusals) == {"a": "too far; raise it; also too large; lower it"}


def test_file_that_a_runtime_cannot_run_is_withheld(small_model):
    """What a runtime says of a file that it refuses is told, and counts as no answer at all."""
    name = "model.tflite"
    comparisons = compare_exports({name: b"no model"}, {name: BUDGET}, small_model.reference, small_model.test)
    (refusal,) = judge(comparisons, {name: b"no model"}, KINDS)

    assert [comparison.parity and comparison.parity.same_class for comparison in comparisons] == [0, None, None]
    assert comparisons[1].unsupported_reason == "LiteRT refuses it"  # where another might end the process
    assert refusal.reason == "LiteRT refuses it"
    assert refusal.measured[name].startswith("LiteRT cannot run it: ")
    assert "export.artifacts" in refusal.hint


def test_network_that_gives_only_zeros_has_its_int8_file_withheld(small_model):
    """A hidden layer without a range quantizes to what LiteRT refuses: the hint is a network that learns."""
    name = "model_int8.tflite"
    keras.utils.set_random_seed(0)
    network = build_network((6, 8), Architecture((4,)), 3, "softmax")
    kernel, bias, *others = network.get_weights()
    network.set_weights([kernel, bias - 100, *others])  # no image lifts a unit above 0
    images = small_model.test.images
    content = convert_to_int8_tflite(network, calibrate(network, np.zeros_like(images)))
    comparisons = compare_exports({name: content}, {name: BUDGET}, small_model.reference, small_model.test)
    (refusal,) = judge(comparisons, {name: content}, KINDS)

    assert refusal.reason == "LiteRT refuses it"
    assert "normalize.method" in refusal.hint

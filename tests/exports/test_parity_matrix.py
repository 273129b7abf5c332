"""Every export in every runtime is counted against Keras, told the same on every machine, and judged."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from samples import CLASS_NAMES, NORMALIZATION, make_split

from stages.lib.core.arrays import Split
from stages.lib.exports.canonical_onnx import canonicalize_onnx
from stages.lib.exports.conversion import convert_to_onnx, fold_normalization
from stages.lib.exports.parity import Budget, compare
from stages.lib.exports.parity_matrix import (
    NOT_FOR_MICRO,
    Comparison,
    compare_exports,
    describe_exports,
    describe_others,
    draw_disagreements,
    draw_matrix,
    find_unsupported_reason,
    list_portable,
    measure_errors,
    tabulate,
)
from stages.lib.exports.runtimes import RUNTIMES, find_runtimes
from stages.lib.model.deterministic_tensorflow import keras
from stages.lib.model.network import Architecture, build_network

# Wider than any export of the small network needs, and unlike one another, so that a mix-up shows.
BUDGETS = {
    "model.onnx": Budget(max_abs_error=1e-5, min_same_class=1.0, max_accuracy_drop=0.0),
    "model_int8.onnx": Budget(max_abs_error=0.021, min_same_class=0.92, max_accuracy_drop=2.0),
    "model.tflite": Budget(max_abs_error=2e-5, min_same_class=1.0, max_accuracy_drop=0.0),
    "model_float16.tflite": Budget(max_abs_error=0.003, min_same_class=0.94, max_accuracy_drop=4.0),
    "model_dynamic_range.tflite": Budget(max_abs_error=0.025, min_same_class=0.95, max_accuracy_drop=5.0),
    "model_int8.tflite": Budget(max_abs_error=0.026, min_same_class=0.96, max_accuracy_drop=6.0),
}
MISSING = "not installed: no wheel for this platform"
# Ten images of three classes, two of them undecided, and what a reference answers.
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
REFERENCE = np.full((10, 3), 0.1, np.float32)
REFERENCE[np.arange(10), LABELS] = 0.8
REFERENCE[8], REFERENCE[9] = [0.1, 0.44, 0.46], [0.46, 0.44, 0.1]
TEST = Split(np.random.default_rng(0).integers(0, 256, (10, 6, 8), np.uint8), LABELS)
BUDGET = Budget(max_abs_error=0.05, min_same_class=0.8, max_accuracy_drop=20.0)
# Another machine's last bits.
NUDGE = 1e-7


def make_comparison(export, runtime, moves=None, *, budget=BUDGET, nudge=0.0):
    """A comparison whose answers are the reference's, but in the rows of `moves`, where they are these."""
    probabilities = REFERENCE + np.float32(nudge)
    for row, answer in (moves or {}).items():
        probabilities[row] = answer
    return Comparison(export, runtime, budget, "", probabilities, compare(REFERENCE, probabilities, LABELS, budget))


def make_obstacle(export, runtime="tflite_micro", unsupported_reason="its CAST takes no uint8"):
    """A comparison that was not run."""
    return Comparison(export, runtime, BUDGET, unsupported_reason, REFERENCE[:0], None)


def make_comparisons(nudge=0.0):
    """An export that one runtime answers worse than the others, and one that is beyond its budget."""
    return [
        make_comparison("model.tflite", "litert", {9: [0.44, 0.46, 0.1]}, nudge=nudge),
        make_comparison("model.tflite", "litert_builtin", {8: [0.1, 0.46, 0.44], 9: [0.44, 0.46, 0.1]}, nudge=nudge),
        make_obstacle("model.tflite"),
        make_comparison("model.onnx", "onnx_runtime", {0: [0.1, 0.8, 0.1]}, nudge=nudge),
        make_comparison("model.onnx", "onnx_reference", nudge=nudge),
    ]


@pytest.fixture(scope="module")
def comparisons(small_model):
    """The small network's exports, each in every runtime for its kind."""
    return compare_exports(small_model.exports, BUDGETS, small_model.reference, small_model.test)


def test_every_export_is_tried_in_every_runtime_for_its_kind(comparisons, small_model):
    """No cell of the matrix is left out: exports in their order, each with its own budget."""
    cells = [(name, runtime) for name in small_model.exports for runtime in find_runtimes(Path(name))]

    assert [(comparison.export, comparison.runtime) for comparison in comparisons] == cells
    assert len(cells) == 2 * 3 + 4 * 3
    assert all(comparison.budget is BUDGETS[comparison.export] for comparison in comparisons)


def test_cells_hold_answers_or_a_reason(comparisons, small_model):
    """Where a runtime can run an export there are answers to all images and their parity; elsewhere, why not."""
    for comparison in comparisons:
        if comparison.unsupported_reason:
            assert (comparison.parity, comparison.probabilities.shape) == (None, (0, 3))
        else:
            assert comparison.parity == compare(
                small_model.reference, comparison.probabilities, small_model.test.labels, comparison.budget
            )
            assert comparison.probabilities.shape == (150, 3)


def test_only_tensorflow_lite_micro_and_what_is_missing_has_an_obstacle(comparisons):
    """The runtime of microcontrollers refuses files, another may not be installed; each has its reason."""
    for comparison in comparisons:
        refused = NOT_FOR_MICRO.get(comparison.export) if comparison.runtime == "tflite_micro" else None
        missing_reason = RUNTIMES[comparison.runtime].missing_reason
        assert comparison.unsupported_reason == (refused or missing_reason or "")


@pytest.mark.parametrize("runtime", [name for name, runtime in RUNTIMES.items() if runtime.is_everywhere])
def test_runtimes_that_every_machine_has_have_no_obstacle(runtime):
    """What can be installed everywhere runs everything of its kind."""
    assert find_unsupported_reason("model.tflite", runtime) == ""


@pytest.mark.parametrize("name", ["model.onnx", "model_int8.onnx"])
def test_runtime_that_is_missing_says_why_it_was_not_run(small_model, monkeypatch, name):
    """Its cell of the matrix holds that reason, and the others hold what they hold with it."""
    monkeypatch.setitem(RUNTIMES, "tract", RUNTIMES["tract"]._replace(missing_reason=MISSING))
    compared = compare_exports({name: small_model.exports[name]}, BUDGETS, small_model.reference, small_model.test)

    assert {comparison.runtime: comparison.unsupported_reason for comparison in compared} == {
        "onnx_runtime": "",
        "onnx_reference": "",
        "tract": MISSING,
    }
    assert f"{name} is not run by tract: {MISSING}." in tabulate(compared, is_measured=True)


def test_exports_of_the_small_network_are_within_budget(comparisons):
    """Valid exports pass in every runtime."""
    assert all(comparison.parity.within_budget for comparison in comparisons if comparison.parity)


def test_description_covers_the_matrix(comparisons, small_model):
    """Each export's size, budget, verdict and every runtime's counts are told, as JSON takes them."""
    sizes = {name: len(content) for name, content in small_model.exports.items()}
    described = describe_exports(comparisons, sizes)

    assert json.loads(json.dumps(described)) == described
    assert list(described) == list(BUDGETS)
    for name, report in described.items():
        assert (report["bytes"], report["budget"]) == (sizes[name], BUDGETS[name].model_dump())
        assert list(report["runtimes"]) == find_runtimes(Path(name))
        assert report["within_budget"] is True
    assert described["model.tflite"]["runtimes"]["tflite_micro"] == {"not_run": "its CAST takes no uint8"}


def test_description_shows_the_worst_runtime_at_the_top():
    """An export's own counts are those of the runtime that gives Keras's class least often."""
    described = describe_exports(make_comparisons(), {"model.tflite": 7, "model.onnx": 8})["model.tflite"]

    assert described == {
        "accuracy": 0.8,
        "budget": {"max_abs_error": 0.05, "max_accuracy_drop": 20.0, "min_same_class": 0.8},
        "bytes": 7,
        "different": [8, 9],
        "images": 10,
        "runtimes": {
            "litert": {
                "accuracy": 0.9,
                "different": [9],
                "images": 10,
                "same_class": 9,
                "ties": 1,
                "within_budget": True,
            },
            "litert_builtin": {
                "accuracy": 0.8,
                "different": [8, 9],
                "images": 10,
                "same_class": 8,
                "ties": 2,
                "within_budget": True,
            },
            "tflite_micro": {"not_run": "its CAST takes no uint8"},
        },
        "same_class": 8,
        "ties": 2,
        "within_budget": True,
    }


def test_one_runtime_beyond_the_budget_is_enough():
    """An export is within budget if it is in every runtime, even where another runtime has fewer of Keras's classes."""
    comparisons = [
        make_comparison("model.tflite", "litert", {8: [0.1, 0.46, 0.44], 9: [0.44, 0.46, 0.1]}),
        make_comparison("model.tflite", "litert_builtin", {0: [0.7, 0.2, 0.1]}),
    ]
    described = describe_exports(comparisons, {"model.tflite": 7})["model.tflite"]

    assert (described["same_class"], described["runtimes"]["litert"]["within_budget"]) == (8, True)
    assert described["within_budget"] is False


def test_description_holds_nothing_that_differs_between_machines():
    """Other last bits of the probabilities are the same counts and verdicts: the report is the same."""
    sizes = {"model.tflite": 7, "model.onnx": 8}

    assert measure_errors(make_comparisons()) != measure_errors(make_comparisons(NUDGE))
    assert describe_exports(make_comparisons(), sizes) == describe_exports(make_comparisons(NUDGE), sizes)


@pytest.mark.parametrize(
    "other",
    [
        make_comparison("model_int8.tflite", "tflite_micro"),
        make_comparison("model_int8.tflite", "tflite_micro", {0: [0.1, 0.8, 0.1]}),
        make_obstacle("model_int8.tflite", unsupported_reason=MISSING),
        make_comparison("model_int8.onnx", "tract", {0: [0.1, 0.8, 0.1]}),
        make_obstacle("model_int8.onnx", "tract", unsupported_reason=MISSING),
    ],
    ids=["as Keras", "beyond the budget", "not installed", "tract beyond the budget", "tract not installed"],
)
def test_runtime_that_not_every_machine_has_leaves_no_trace(tmp_path, other):
    """Whether such a runtime is installed and what it answers does not get into what is hashed."""
    usual = "onnx_runtime" if other.runtime == "tract" else "litert"
    without = [make_comparison(other.export, usual, {9: [0.44, 0.46, 0.1]})]
    comparisons = list_portable([*without, other])
    sizes = {other.export: 7}
    for name, drawn in (("here.png", comparisons), ("there.png", without)):
        draw_matrix(tmp_path / name, drawn)

    assert describe_exports(comparisons, sizes) == describe_exports(without, sizes)
    assert tabulate(comparisons, is_measured=False) == tabulate(without, is_measured=False)
    assert (tmp_path / "here.png").read_bytes() == (tmp_path / "there.png").read_bytes()


def test_what_such_a_runtime_answers_is_described_apart():
    """The counts of a runtime that not every machine has, or why it was not run, by export."""
    comparisons = [*make_comparisons(), make_comparison("model_int8.tflite", "tflite_micro", {9: [0.44, 0.46, 0.1]})]

    assert describe_others(comparisons) == {
        "model.tflite": {"tflite_micro": {"not_run": "its CAST takes no uint8"}},
        "model_int8.tflite": {
            "tflite_micro": {
                "accuracy": 0.9,
                "different": [9],
                "images": 10,
                "same_class": 9,
                "ties": 1,
                "within_budget": True,
            }
        },
    }


@pytest.fixture(scope="module")
def sampled():
    """A network with pooling, as ONNX, compared on 1,500 images, of which rows 0, 3 and 1,499 get another class.

    Which is the reference's doing: of a class that the network does not give.
    """
    keras.utils.set_random_seed(0)
    network = build_network((6, 8), Architecture((), ((2,),)), 3, "softmax")
    pixel_network = fold_normalization(network, NORMALIZATION)
    content = canonicalize_onnx(convert_to_onnx(pixel_network, 18))
    split = make_split(1500, seed=2)
    reference = np.array(pixel_network(split.images.astype(np.float32)))
    for row in (0, 3, 1499):
        reference[row] = np.roll(reference[row], 1)
    compared = compare_exports({"model.onnx": content}, {"model.onnx": BUDGET}, reference, split)
    return list_portable(compared), reference, split


def test_slow_evaluator_answers_for_evenly_spaced_images(sampled):
    """ONNX Runtime answers for all; the reference evaluator, which pools in Python, for 1,000, the ends among them."""
    (whole, sample), reference, _ = sampled

    assert whole.sample is None
    assert whole.probabilities.shape == (1500, 3)
    assert (len(np.unique(sample.sample)), sample.sample[0], sample.sample[-1]) == (1000, 0, 1499)
    assert set(np.diff(sample.sample)) == {1, 2}
    assert (sample.parity.images, len(sample.probabilities)) == (1000, 1000)
    others = np.setdiff1d(np.arange(1500), [0, 3, 1499])
    np.testing.assert_allclose(whole.probabilities[others], reference[others], rtol=0, atol=1e-5)
    np.testing.assert_allclose(sample.probabilities, whole.probabilities[sample.sample], rtol=0, atol=1e-5)


def test_images_of_a_sample_are_told_by_their_place_in_the_split(sampled):
    """What differs is the same image, whichever runtime found it."""
    (whole, sample), _, _ = sampled

    assert whole.parity.different == [0, 3, 1499]
    assert sample.parity.different == [row for row in (0, 3, 1499) if row in sample.sample]


def test_sample_is_told_beside_the_table_and_never_at_the_top(sampled):
    """Counts over the whole split are the export's; the runtime's own say of how many images they are."""
    described = describe_exports(sampled[0], {"model.onnx": 1})["model.onnx"]
    table = tabulate(sampled[0], is_measured=False)

    assert described["images"] == 1500
    assert described["runtimes"]["onnx_reference"]["images"] == 1000
    assert "of 1000" in next(line for line in table if "ONNX reference evaluator |" in line)
    assert "ONNX reference evaluator answers for 1,000 of 1,500 images for model.onnx, evenly spaced." in table


def test_disagreements_of_a_sample_are_drawn_with_their_own_answers(sampled, tmp_path):
    """The same picture as of a runtime that answered for all."""
    (whole, sample), reference, split = sampled
    answered = whole.probabilities.copy()
    answered[sample.sample] = sample.probabilities
    different = [row for row in whole.parity.different if row in sample.sample]
    spread = whole._replace(
        runtime="onnx_reference", probabilities=answered, parity=whole.parity._replace(different=different)
    )
    for name, comparison in (("sample", sample), ("all", spread)):
        draw_disagreements(tmp_path / name, [comparison], reference, split, CLASS_NAMES)

    assert (tmp_path / "sample").read_bytes() == (tmp_path / "all").read_bytes()


def test_few_images_are_answered_by_all(small_model):
    """A thousand images or fewer, and networks without pooling, are nothing to wait for."""
    split = make_split(1200, seed=2)
    reference = np.zeros((1200, 3), np.float32)
    name = "model.onnx"
    compared = list_portable(compare_exports({name: small_model.exports[name]}, {name: BUDGET}, reference, split))

    assert [comparison.sample for comparison in compared] == [None, None]
    assert [comparison.parity.images for comparison in compared] == [1200, 1200]


def test_errors_are_told_for_each_runtime_that_ran():
    """The largest |Δp| is measured by export and runtime; what was not run has none."""
    errors = measure_errors(make_comparisons())

    assert {name: list(by_runtime) for name, by_runtime in errors.items()} == {
        "model.tflite": ["litert", "litert_builtin"],
        "model.onnx": ["onnx_runtime", "onnx_reference"],
    }
    assert errors["model.tflite"]["litert_builtin"] == pytest.approx(0.02)
    assert errors["model.onnx"] == pytest.approx({"onnx_runtime": 0.7, "onnx_reference": 0.0})


def test_table_for_all_machines_holds_counts_and_verdicts():
    """The table that is hashed has the budget in place of what was measured, and notes on what was not run."""
    header, rule, *rows = tabulate(make_comparisons(), is_measured=False)
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in (header, *rows[:5])]

    assert set(rule) == set("|-: ")
    assert cells == [
        ["export", "runtime", "Keras's class", "ties among others", "accuracy", r"largest \|Δp\|"],
        ["model.tflite", "LiteRT", "9 of 10", "1 of 1", "0.9000", "≤ 0.05"],
        ["model.tflite", "LiteRT without XNNPACK", "8 of 10", "2 of 2", "0.8000", "≤ 0.05"],
        ["model.tflite", "TensorFlow Lite Micro", "not run", "", "", ""],
        ["model.onnx", "ONNX Runtime", "9 of 10", "0 of 1", "0.9000", "BEYOND BUDGET"],
        ["model.onnx", "ONNX reference evaluator", "10 of 10", "0 of 0", "1.0000", "≤ 0.05"],
    ]
    assert rows[5:] == ["", "model.tflite is not run by TensorFlow Lite Micro: its CAST takes no uint8."]


def test_table_for_all_machines_is_the_same_on_another():
    """Other last bits of the probabilities are the same table, unless what was measured is asked for."""
    here, there = make_comparisons(), make_comparisons(NUDGE)

    assert tabulate(here, is_measured=False) == tabulate(there, is_measured=False)
    assert tabulate(here, is_measured=True) != tabulate(there, is_measured=True)


def test_measured_table_has_the_largest_difference():
    """A person at the machine sees the figure beside its limit; beyond the budget, the words stand out."""
    lines = tabulate(make_comparisons(), is_measured=True)

    assert [line.split("|")[-2].strip() for line in lines[2:7]] == [
        *("2.0e-02 ≤ 0.05", "2.0e-02 ≤ 0.05", "", "BEYOND BUDGET", "0.0e+00 ≤ 0.05"),
    ]


def test_table_of_the_small_network_is_the_same_again(comparisons, small_model):
    """A second run of all exports in all runtimes gives the same table."""
    again = compare_exports(small_model.exports, BUDGETS, small_model.reference, small_model.test)

    assert tabulate(again, is_measured=False) == tabulate(comparisons, is_measured=False)


def read_picture(path):
    """A chart's pixels; PNG it is."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def test_matrix_is_drawn_as_the_same_bytes_on_another_machine(tmp_path):
    """What is drawn are counts and verdicts; other last bits are the same chart."""
    draw_matrix(tmp_path / "here.png", make_comparisons())
    draw_matrix(tmp_path / "there.png", make_comparisons(NUDGE))

    assert (tmp_path / "here.png").read_bytes() == (tmp_path / "there.png").read_bytes()


def test_matrix_shows_what_was_found(tmp_path):
    """Another count is another chart, and so is another verdict on the same count."""
    worse = {0: [0.1, 0.8, 0.1], 1: [0.8, 0.1, 0.1]}
    tight = BUDGET.model_copy(update={"max_abs_error": 1e-4})
    drawn = []
    for comparison in (
        make_comparison("model.onnx", "onnx_runtime", {8: [0.1, 0.46, 0.44]}),
        make_comparison("model.onnx", "onnx_runtime", {8: [0.1, 0.46, 0.44]}, budget=tight),
        make_comparison("model.onnx", "onnx_runtime", worse),
        make_obstacle("model.tflite"),
    ):
        draw_matrix(tmp_path / "matrix.png", [comparison])
        drawn.append((tmp_path / "matrix.png").read_bytes())

    assert len(set(drawn)) == len(drawn)


def test_matrix_is_red_where_classes_differ(tmp_path):
    """A twentieth of the images with another class is as red as can be; none is white."""
    reddest, whitest = [127, 0, 0], [255, 247, 236]  # the ends of matplotlib's colours `OrRd`
    found = []
    for moves in ({8: [0.1, 0.46, 0.44]}, {}):
        draw_matrix(tmp_path / "matrix.png", [make_comparison("model.onnx", "onnx_runtime", moves)])
        pixels = read_picture(tmp_path / "matrix.png")
        found.append([(pixels == colour).all(axis=2).any() for colour in (reddest, whitest)])

    assert found == [[True, False], [False, True]]


def test_disagreements_are_drawn_as_the_same_bytes_again(tmp_path):
    """The chart of the images that are answered otherwise depends on the answers alone."""
    for name in ("one.png", "other.png"):
        draw_disagreements(tmp_path / name, make_comparisons(), REFERENCE, TEST, CLASS_NAMES)

    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()


def test_each_disagreement_is_drawn_once(tmp_path):
    """An image that several runtimes answer otherwise is one image: five fill a row, six need another."""
    heights = []
    for count in (5, 6):
        moves = {row: REFERENCE[row, [1, 2, 0]] for row in range(count)}
        comparisons = [make_comparison("model.tflite", runtime, moves) for runtime in ("litert", "litert_builtin")]
        draw_disagreements(tmp_path / "chart.png", comparisons, REFERENCE, TEST, CLASS_NAMES)
        heights.append(read_picture(tmp_path / "chart.png").shape[0])

    assert heights == [290, 520]


def test_no_disagreement_is_a_picture_that_says_so(tmp_path):
    """Where all exports give Keras's class, and some were not run, a line of text is what is drawn."""
    comparisons = [make_comparison("model.tflite", "litert"), make_obstacle("model.tflite")]
    draw_disagreements(tmp_path / "chart.png", comparisons, REFERENCE, TEST, CLASS_NAMES)

    assert read_picture(tmp_path / "chart.png").shape == (60, 950, 3)


@pytest.mark.filterwarnings("error:Glyph")
def test_disagreement_about_a_class_that_charts_cannot_write_is_told_by_number(tmp_path):
    """The chart is that of a class which is called by its number."""
    for name, class_name in (("name.png", "猫"), ("number.png", "class 0")):
        draw_disagreements(tmp_path / name, make_comparisons(), REFERENCE, TEST, [class_name, *CLASS_NAMES[1:]])

    assert (tmp_path / "name.png").read_bytes() == (tmp_path / "number.png").read_bytes()


def test_at_most_twenty_five_disagreements_are_drawn(tmp_path):
    """Of many, the first are shown: five rows of five."""
    reference = np.tile(REFERENCE[:1], (40, 1))
    labels = np.zeros(40, np.int64)
    answers = reference[:, [1, 0, 2]]
    comparison = Comparison(
        "model.onnx", "onnx_runtime", BUDGET, "", answers, compare(reference, answers, labels, BUDGET)
    )
    test = Split(np.zeros((40, 6, 8), np.uint8), labels)
    draw_disagreements(tmp_path / "chart.png", [comparison], reference, test, CLASS_NAMES)

    assert read_picture(tmp_path / "chart.png").shape[0] == 60 + 5 * 230


def test_class_names_may_hold_what_looks_like_a_formula(tmp_path):
    """A class whose name TeX would choke on is drawn as it is."""
    draw_disagreements(tmp_path / "chart.png", make_comparisons(), REFERENCE, TEST, [r"$\frac$", "$", "_{"])

    assert read_picture(tmp_path / "chart.png").shape[0] == 290

"""Every export in every runtime against Keras, over the whole test split: counted, tabulated, drawn and judged."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import Split
from stages.lib.core.errors import ExportError
from stages.lib.core.markdown import format_table
from stages.lib.exports.parity import Budget, Parity, compare
from stages.lib.exports.runtimes import RUNTIMES, find_runtimes, is_slow, load_content
from stages.lib.model.prediction import predict_in_batches
from stages.lib.plotting.class_labels import label_classes
from stages.lib.plotting.heat_map import Cell, draw_heat_map
from stages.lib.plotting.image_grid import draw_images

# TensorFlow Lite Micro has kernels for few types. A test holds that it refuses these files.
NOT_FOR_MICRO = {
    "model.tflite": "its CAST takes no uint8",
    "model_float16.tflite": "its DEQUANTIZE takes no float16",
    "model_dynamic_range.tflite": "its FULLY_CONNECTED takes no int8 weights with float32 activations",
}
_SHOWN_IMAGES = 25
# Answered by a runtime that is slow at such a network.
_SAMPLED_IMAGES = 1000
# Share of images with another class than Keras's that is drawn as red as can be.
_RED = 0.05


class Comparison(NamedTuple):
    """One export in one runtime for its kind, compared with Keras."""

    export: str  # the file's name
    runtime: str
    budget: Budget
    unsupported_reason: str  # why the runtime cannot run it; empty if it can
    probabilities: NDArray[np.float32]  # (rows, classes); (0, classes) if it was not run
    parity: Parity | None  # with Keras; none if it was not run
    failure: str = ""  # what the runtime said that could not run it, though it should
    sample: NDArray[np.int64] | None = None  # rows of the test split that were answered; none if all were


def compare_exports(
    contents: Mapping[str, bytes], budgets: Mapping[str, Budget], reference: NDArray[np.float32], test: Split
) -> list[Comparison]:
    """Each export's bytes in each runtime for its kind, on raw test images.

    reference: the network's exact probabilities for the same images, float32 (N, classes); Keras's own differ from them
    by float32's rounding. A runtime that cannot run a file of its kind answers NaN; one that is slow at it answers for
    evenly spaced images.
    """
    comparisons = []
    for name, content in contents.items():
        refused = ""
        for runtime in find_runtimes(Path(name)):
            # On what one runtime refuses, another may end the whole process.
            if unsupported_reason := find_unsupported_reason(name, runtime) or refused:
                comparisons.append(Comparison(name, runtime, budgets[name], unsupported_reason, reference[:0], None))
                continue
            failure = ""
            sample = _choose_sample(len(test.images)) if is_slow(content, runtime) else None
            rows = slice(None) if sample is None else sample
            expected, images, labels = reference[rows], test.images[rows], test.labels[rows]
            try:
                probabilities = predict_in_batches(load_content(content, runtime, name), images)
            except ExportError as error:
                failure, probabilities = error.problem, np.full_like(expected, np.nan)
                refused = f"{RUNTIMES[runtime].title} refuses it"
            parity = compare(expected, probabilities, labels, budgets[name])
            if sample is not None:
                parity = parity._replace(different=sample[parity.different].tolist())
            comparisons.append(Comparison(name, runtime, budgets[name], "", probabilities, parity, failure, sample))
    return comparisons


def _choose_sample(image_count: int) -> NDArray[np.int64] | None:
    """Evenly spaced rows of so many images; none if all are few enough."""
    if image_count <= _SAMPLED_IMAGES:
        return None
    return np.linspace(0, image_count - 1, _SAMPLED_IMAGES).astype(np.int64)


def find_unsupported_reason(name: str, runtime: str) -> str:
    """Why a runtime cannot run an export of its kind; empty if it can."""
    refused = NOT_FOR_MICRO.get(name, "") if runtime == "tflite_micro" else ""
    return refused or RUNTIMES[runtime].missing_reason or ""


def list_portable(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons in runtimes that every machine has: what is hashed must not depend on the machine."""
    return [comparison for comparison in comparisons if RUNTIMES[comparison.runtime].is_everywhere]


def describe_exports(comparisons: Sequence[Comparison], sizes: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Counts and verdicts by export, the worst runtime's at the top: the same on every machine for `list_portable`.

    A runtime that answered for a sample only is not at the top.

    sizes: bytes of each file by its name.
    """
    return {
        name: {
            **_describe_parity(min(_list_whole(group), key=lambda parity: parity.same_class)),
            "budget": group[0].budget.model_dump(),
            "bytes": sizes[name],
            "runtimes": _describe_runtimes(group),
            "within_budget": all(parity.within_budget for _, parity in _list_run(group)),
        }
        for name, group in _iterate_exports(comparisons)
    }


def describe_others(comparisons: Sequence[Comparison]) -> dict[str, dict[str, Any]]:
    """Counts and verdicts by export and runtime, of runtimes that only some machines have."""
    others = [comparison for comparison in comparisons if not RUNTIMES[comparison.runtime].is_everywhere]
    return {name: _describe_runtimes(group) for name, group in _iterate_exports(others)}


def measure_errors(comparisons: Sequence[Comparison]) -> dict[str, dict[str, float | None]]:
    """The largest |Δp| by export and runtime, none if it is no number: it differs between machines in its last bits."""
    return {
        name: {
            comparison.runtime: parity.max_abs_error if math.isfinite(parity.max_abs_error) else None
            for comparison, parity in _list_run(group)
        }
        for name, group in _iterate_exports(comparisons)
    }


def tabulate(comparisons: Sequence[Comparison], *, is_measured: bool) -> list[str]:
    """The matrix as a table and notes below it; what differs between machines is in it only if `is_measured`."""
    rows, notes = [], []
    for comparison in comparisons:
        parity = comparison.parity
        verdict, title = f"≤ {comparison.budget.max_abs_error:g}", RUNTIMES[comparison.runtime].title
        if parity is None:
            rows.append([comparison.export, title, "not run", "", "", ""])
            notes.append(f"{comparison.export} is not run by {title}: {comparison.unsupported_reason}.")
            continue
        if comparison.sample is not None:
            notes.append(_describe_sample(comparison, comparisons))
        if is_measured:
            verdict = f"{parity.max_abs_error:.1e} {verdict}"
        rows.append(
            [
                comparison.export,
                title,
                f"{parity.same_class} of {parity.images}",
                f"{parity.ties} of {len(parity.different)}",
                f"{parity.accuracy:.4f}",
                verdict if parity.within_budget else "BEYOND BUDGET",
            ]
        )
    header = ["export", "runtime", "Keras's class", "ties among others", "accuracy", "largest \\|Δp\\|"]
    return [*format_table(header, rows), "", *notes]


def draw_matrix(path: Path, comparisons: Sequence[Comparison]) -> None:
    """Draw the matrix as a heat map: the more test images get another class than from Keras, the redder."""
    runtimes = [runtime for runtime in RUNTIMES if any(comparison.runtime == runtime for comparison in comparisons)]
    cells = {}
    for comparison in comparisons:
        if comparison.parity is None:
            cells[comparison.export, comparison.runtime] = Cell(None, "not run")
            continue
        verdict = f"|Δp| ≤ {comparison.budget.max_abs_error:g}" if comparison.parity.within_budget else "BEYOND BUDGET"
        counts = f"{comparison.parity.same_class} of {comparison.parity.images}"
        heat = len(comparison.parity.different) / comparison.parity.images / _RED
        cells[comparison.export, comparison.runtime] = Cell(min(heat, 1), f"{counts}\n{verdict}")
    exports = [name for name, _ in _iterate_exports(comparisons)]
    draw_heat_map(
        path,
        "Test images that get Keras's class",
        exports,
        [RUNTIMES[runtime].title for runtime in runtimes],
        [[cells.get((name, runtime), Cell(None, "")) for runtime in runtimes] for name in exports],
    )


def draw_disagreements(
    path: Path,
    comparisons: Sequence[Comparison],
    reference: NDArray[np.float32],
    test: Split,
    class_names: Sequence[str],
) -> None:
    """Draw the test images to which an export gives another class than Keras, with both answers."""
    class_names = label_classes(class_names)

    def describe(answer: NDArray[np.float32]) -> str:
        return f"{class_names[int(answer.argmax())]} ({answer.max():.2f})"

    def find_answer(row: int) -> NDArray[np.float32]:
        sample, probabilities = first[row].sample, first[row].probabilities
        answer: NDArray[np.float32] = probabilities[row if sample is None else np.searchsorted(sample, row)]
        return answer

    first: dict[int, Comparison] = {}  # the first comparison that differs, by row
    for comparison, parity in _list_run(comparisons):
        for row in parity.different:
            first.setdefault(row, comparison)
    shown = sorted(first)[:_SHOWN_IMAGES]
    captions = [
        f"test[{row}], a {class_names[test.labels[row]]}\nKeras: {describe(reference[row])}\n"
        f"{first[row].export}:\n{describe(find_answer(row))}"
        for row in shown
    ]
    title = f"{len(first)} of {len(reference)} test images get another class from an export than from Keras"
    more = f"; the first {len(shown)}" if len(first) > len(shown) else ""
    draw_images(path, title + more, test.images[shown], captions)


def _list_run(comparisons: Sequence[Comparison]) -> list[tuple[Comparison, Parity]]:
    """The comparisons that were run, with their parity."""
    return [(comparison, comparison.parity) for comparison in comparisons if comparison.parity]


def _list_whole(comparisons: Sequence[Comparison]) -> list[Parity]:
    """The parity over the whole test split."""
    return [parity for comparison, parity in _list_run(comparisons) if comparison.sample is None]


def _describe_sample(comparison: Comparison, comparisons: Sequence[Comparison]) -> str:
    """For how many of the test images a runtime answered, in a sentence."""
    answered, images = len(comparison.probabilities), max(parity.images for parity in _list_whole(comparisons))
    title = RUNTIMES[comparison.runtime].title
    return f"{title} answers for {answered:,} of {images:,} images for {comparison.export}, evenly spaced."


def _iterate_exports(comparisons: Sequence[Comparison]) -> Iterator[tuple[str, list[Comparison]]]:
    """Each export's name with its comparisons."""
    for name, group in groupby(comparisons, key=lambda comparison: comparison.export):
        yield name, list(group)


def _describe_runtimes(comparisons: Sequence[Comparison]) -> dict[str, dict[str, Any]]:
    """The counts of each runtime, or why it was not run."""
    return {
        comparison.runtime: _describe_parity(comparison.parity)
        if comparison.parity
        else {"not_run": comparison.unsupported_reason}
        for comparison in comparisons
    }


def _describe_parity(parity: Parity) -> dict[str, Any]:
    described = parity._asdict()
    del described["max_abs_error"], described["accuracy_drop"], described["is_reference_sure"]
    return {**described, "accuracy": round(parity.accuracy, 4)}

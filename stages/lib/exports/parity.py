"""Does a model give the answers that the reference gives?"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stages.lib.core.arrays import iterate_chunks
from stages.lib.core.params import Section

# Probabilities that the reference holds no further apart than this are told apart by rounding alone, which differs
# between processors: both classes are its answer. Float32 runtimes are off by 5e-6 at most.
_ROUNDING = 1e-5
# A class to which the reference gives more than this is no matter of taste: a model that differs there is wrong.
_SURE = 0.9


class Budget(Section):
    """How far a model's answers may be from the reference's."""

    max_abs_error: float = Field(gt=0, le=1, description="a difference of probabilities above 0, at most 1")
    min_same_class: float = Field(ge=0, le=1, description="a share of images from 0 to 1")
    max_accuracy_drop: float = Field(ge=0, le=100, description="points of accuracy from 0 to 100")


class Parity(NamedTuple):
    """How one model's probabilities compare with the reference's on the same images."""

    images: int
    same_class: int
    different: list[int]  # rows whose class differs by more than rounding, ties included
    ties: int  # of these, rows whose two best classes the reference holds apart by at most twice the budget
    accuracy: float  # of the model, 0..1
    accuracy_drop: float  # points (hundredths) below the reference's accuracy; negative above it
    max_abs_error: float  # largest |Δp|
    within_budget: bool
    is_reference_sure: bool  # of most of the images that are beyond the budget


def compare(
    reference: NDArray[np.floating], actual: NDArray[np.floating], labels: NDArray[np.integer], budget: Budget
) -> Parity:
    """Compare probabilities (N, classes) of a model with those of the reference; NaN is never within budget."""
    different: list[int] = []
    max_abs_errors: list[float] = []
    hits = reference_hits = beyond = sure = 0
    for chunk in iterate_chunks(len(reference)):
        expected = reference[chunk].argmax(axis=1)
        got = _find_classes(reference[chunk], actual[chunk], expected)
        different += (chunk.start + np.flatnonzero(expected != got)).tolist()
        hits += int((got == labels[chunk]).sum())
        reference_hits += int((expected == labels[chunk]).sum())
        distances = _measure_distances(actual[chunk], reference[chunk])
        max_abs_errors.append(distances.max())
        is_beyond = ~(distances <= budget.max_abs_error) | (expected != got)
        beyond += int(is_beyond.sum())
        sure += int((is_beyond & (reference[chunk].max(axis=1) > _SURE)).sum())
    best_two = np.sort(reference[different], axis=1)[:, -2:]
    same_class = len(reference) - len(different)
    accuracy_drop = 100 * (reference_hits - hits) / len(labels)
    max_abs_error = float(np.max(max_abs_errors))
    return Parity(
        images=len(reference),
        same_class=same_class,
        different=different,
        ties=int((best_two[:, 1] - best_two[:, 0] <= 2 * budget.max_abs_error).sum()),
        accuracy=hits / len(labels),
        accuracy_drop=accuracy_drop,
        max_abs_error=max_abs_error,
        within_budget=(
            max_abs_error <= budget.max_abs_error
            and same_class >= budget.min_same_class * len(reference)
            and accuracy_drop <= budget.max_accuracy_drop
        ),
        is_reference_sure=2 * sure > beyond,
    )


def _find_classes(
    reference: NDArray[np.floating], actual: NDArray[np.floating], expected: NDArray[np.integer]
) -> NDArray[np.integer]:
    """The model's classes (N,); the reference's own where it holds the two apart by rounding alone; -1 where NaN is."""
    rows, got = np.arange(len(actual)), actual.argmax(axis=1)
    distances = reference[rows, expected] - reference[rows, got]
    return np.where(np.isnan(actual).any(axis=1), -1, np.where(distances <= _ROUNDING, expected, got))


def measure_steps(one: NDArray[np.floating], other: NDArray[np.floating], step: float) -> int:
    """The largest difference of two models' quantized probabilities (N, classes), in steps of their scale."""
    largest = np.max([_measure_distances(one[rows], other[rows]).max() for rows in iterate_chunks(len(one))])
    return int(np.rint(largest / step))


def _measure_distances(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    """Each row's largest absolute difference (N,), computed in float64; NaN if there is one."""
    distances: NDArray[np.float64] = np.abs(one.astype(np.float64) - other).max(axis=1)
    return distances

"""Does a model give the answers that the reference gives?"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Parity(NamedTuple):
    """How one model's probabilities compare with the reference's on the same images."""

    images: int
    same_class: int
    different: list[int]  # rows whose class differs, ties included
    ties: int  # of these, rows whose two best classes the reference holds apart by at most twice the budget
    accuracy: float  # of the model, 0..1
    max_abs_error: float  # largest |Δp|
    budget: float  # what |Δp| may be at most
    within_budget: bool


def compare(
    reference: NDArray[np.floating], actual: NDArray[np.floating], labels: NDArray[np.integer], budget: float
) -> Parity:
    """Compare probabilities (N, classes) of a model with those of the reference; NaN is never within budget."""
    rows = np.flatnonzero(reference.argmax(axis=1) != actual.argmax(axis=1))
    best_two = np.sort(reference[rows], axis=1)[:, -2:]
    max_abs_error = float(np.abs(actual.astype(np.float64) - reference).max())
    return Parity(
        images=len(reference),
        same_class=len(reference) - len(rows),
        different=rows.tolist(),
        ties=int((best_two[:, 1] - best_two[:, 0] <= 2 * budget).sum()),
        accuracy=float((actual.argmax(axis=1) == labels).mean()),
        max_abs_error=max_abs_error,
        budget=budget,
        within_budget=max_abs_error <= budget,
    )

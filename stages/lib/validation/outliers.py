"""How far a value is from what its class has."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import allocate, count_labels, iterate_chunks

# A normal distribution's standard deviation over its median absolute deviation: B. Iglewicz, D. Hoaglin, How to Detect
# and Handle Outliers (1993).
_DEVIATION_OF_MAD = 1.4826
# No spread counts as less than this share of the median: of values that are all but equal none is far away.
_LEAST_SPREAD = 0.05
# Nobody needs to know more exactly how far away a value is.
_FAR = 1000.0


def measure_robust_z(values: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.int16]:
    """How many tenths of a robust standard deviation each value (N,), at least 0, is from its class's median: 0..10000.

    The square root comes first, so that values of a skewed distribution count on both sides alike. Order statistics,
    square roots and divisions alone: the same on every processor.
    """
    robust_z = allocate((len(values),), np.int16)
    for class_id, count in count_labels(classes).items():
        middle, spread = _measure_spread(values, classes, class_id, count)
        for chunk in iterate_chunks(len(values)):
            members = classes[chunk] == class_id
            distances = np.abs(np.sqrt(values[chunk][members], dtype=np.float64) - middle)
            robust_z[chunk][members] = np.round(10 * np.minimum(distances / spread, _FAR))
    return robust_z


def _measure_spread(values: NDArray[Any], classes: NDArray[Any], class_id: int, count: int) -> tuple[float, float]:
    """The median of the square roots of a class's values, `count` of them, and their standard deviation from it."""
    roots, start = allocate((count,), np.float64), 0
    for chunk in iterate_chunks(len(values)):
        members = values[chunk][classes[chunk] == class_id]
        np.sqrt(members, out=roots[start : start + len(members)], dtype=np.float64)
        start += len(members)
    middle = float(np.median(roots, overwrite_input=True))  # reordered where they are, not copied
    distances = np.abs(np.subtract(roots, middle, out=roots), out=roots)
    deviation = _DEVIATION_OF_MAD * float(np.median(distances, overwrite_input=True))
    return middle, max(deviation, _LEAST_SPREAD * middle, 1 / _FAR)

"""How far a value is from what its class has."""

import numpy as np
from numpy.typing import NDArray

# A normal distribution's standard deviation over its median absolute deviation: B. Iglewicz, D. Hoaglin, How to Detect
# and Handle Outliers (1993).
_DEVIATION_OF_MAD = 1.4826
# No spread counts as less than this share of the median: of values that are all but equal none is far away.
_LEAST_SPREAD = 0.05
# Nobody needs to know more exactly how far away a value is.
_FAR = 1000.0


def measure_deviations(values: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """How many robust standard deviations each value (N,), at least 0, is from its class's median: 0..1000.

    The square root comes first, so that values of a skewed distribution count on both sides alike. Order statistics,
    square roots and divisions alone: the same on every processor. One decimal.
    """
    roots = np.sqrt(values)
    deviations = np.zeros(len(values))
    for class_id in np.unique(classes):
        members = classes == class_id
        distance = np.abs(roots[members] - np.median(roots[members]))
        spread = max(_DEVIATION_OF_MAD * np.median(distance), _LEAST_SPREAD * np.median(roots[members]), 1 / _FAR)
        deviations[members] = np.minimum(distance / spread, _FAR)
    return np.round(deviations, 1)

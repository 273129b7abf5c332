"""How far a value is from what its class has."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# A normal distribution's standard deviation over its median absolute deviation: B. Iglewicz, D. Hoaglin, How to Detect
# and Handle Outliers (1993).
_DEVIATION_OF_MAD = 1.4826
# No spread counts as less than this share of the median: of values that are all but equal none is far away.
_LEAST_SPREAD = 0.05
# Nobody needs to know more exactly how far away a value is.
_FAR = 1000.0


def measure_deviations(values: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.int16]:
    """How many tenths of a robust standard deviation each value (N,), at least 0, is from its class's median: 0..10000.

    The square root comes first, so that values of a skewed distribution count on both sides alike. Order statistics,
    square roots and divisions alone: the same on every processor.
    """
    deviations = np.zeros(len(values), np.int16)
    for class_id in np.unique(classes):
        members = classes == class_id
        roots = np.sqrt(values[members], dtype=np.float64)
        distance = np.abs(roots - np.median(roots))
        spread = max(_DEVIATION_OF_MAD * np.median(distance), _LEAST_SPREAD * np.median(roots), 1 / _FAR)
        deviations[members] = np.round(10 * np.minimum(distance / spread, _FAR))
    return deviations

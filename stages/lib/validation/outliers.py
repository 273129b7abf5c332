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


def measure_robust_z(values: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.int16]:
    """Measure how many tenths of a robust standard deviation each value (N,) is from its class's median: 0..10000.

    Values are at least 0. The square root comes first, so that values of a skewed distribution count on both sides
    alike. Order statistics, square roots and divisions alone: the same on every processor.
    """
    robust_z = np.zeros(len(values), np.int16)
    for class_id in np.unique(classes):
        members = classes == class_id
        roots = np.sqrt(values[members], dtype=np.float64)
        middle = float(np.median(roots))
        distances = np.abs(roots - middle)
        spread = max(_DEVIATION_OF_MAD * float(np.median(distances)), _LEAST_SPREAD * middle, 1 / _FAR)
        robust_z[members] = np.round(10 * np.minimum(distances / spread, _FAR))
    return robust_z

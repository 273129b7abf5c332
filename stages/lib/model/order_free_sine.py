"""Sines that are the same to the bit on every processor: written out in +, - and *, as `order_free` has it."""

import math
from typing import Any, TypeVar

import numpy as np

Values = TypeVar("Values", bound=Any)  # float64, one or an array of them

# Of the series, up to x^21: the next one is below 2^-53 for x up to pi / 2.
_TERMS = 11
_PI = float.fromhex("0x1.921fb54442d18p+1")


def compute_sine(half_turns: Values) -> Values:
    """The sine, float64, of an angle in half turns of a circle: sin(pi x); off by less than 1e-15.

    x - x^3 / 3! + x^5 / 5! - ... (M. Abramowitz and I. Stegun, Handbook of Mathematical Functions, 1964, 4.3.65) of the
    distance to the nearest whole number of half turns, each of which changes the sign.
    """
    whole = np.rint(half_turns)
    angle = (half_turns - whole) * _PI
    square, series = angle * angle, 0.0 * angle
    for term in reversed(range(_TERMS)):
        series = series * square + (-1) ** term / math.factorial(2 * term + 1)
    sign = 1 - 2 * (whole % 2)
    sine: Values = sign * angle * series
    return sine

"""A value is judged by what its own class has."""

import numpy as np
import pytest

from stages.lib.validation.outliers import measure_robust_z


def measure(values, classes):
    """The deviations of plain numbers, in tenths as they are counted."""
    return (measure_robust_z(np.array(values, float), np.array(classes)) / 10).tolist()


def test_deviation_is_in_robust_standard_deviations_of_the_root():
    """Roots 8 to 12 have median 10 and median absolute deviation 1: 24 is 14 / 1.4826 away."""
    assert measure([64, 81, 100, 121, 144, 576], [0] * 6)[-1] == pytest.approx(13.5 / (1.4826 * 1.5), abs=0.05)


def test_each_class_is_its_own_measure():
    """What is usual in one class may be far out in another."""
    ones, eights = [9, 16, 25, 16, 16], [900, 961, 1024, 961, 961]
    robust_z = measure([*ones, *eights, 961], [0] * 5 + [1] * 5 + [0])

    assert max(robust_z[:-1]) < 8
    assert robust_z[-1] > 8


def test_values_that_are_all_but_equal_have_no_outlier():
    """Where most values are the same, a difference of a few per cent is not a hundred deviations."""
    assert max(measure([255] * 20 + [245], [0] * 21)) < 1


def test_many_values_are_those_of_the_formula():
    """Each value is judged by the median and the spread of its class, bit for bit."""
    generator = np.random.default_rng(0)
    values, classes = generator.integers(0, 10**6, 20_000), generator.integers(0, 2, 20_000)
    robust_z = measure_robust_z(values, classes)

    for label in range(2):
        roots = np.sqrt(values[classes == label])
        distances = np.abs(roots - np.median(roots))
        spread = max(1.4826 * np.median(distances), 0.05 * np.median(roots))
        np.testing.assert_array_equal(robust_z[classes == label], np.round(10 * distances / spread))


def test_missing_is_as_far_out_as_much():
    """An image without foreground is an outlier as one with four times the usual foreground is."""
    robust_z = measure([0, 400, *[100, 96, 104, 98, 102] * 4], [0] * 22)

    assert robust_z[0] > 8
    assert robust_z[1] > 8


def test_distance_has_an_end():
    """No number in a report is without bounds, whatever the data."""
    assert measure([0, 0, 0, 1e12], [0] * 4) == [0, 0, 0, 1000]

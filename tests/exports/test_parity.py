"""Parity says whether a model's probabilities are the reference's, and whose difference is a tie."""

import math

import numpy as np
import pytest

from stages.lib.core.arrays import CHUNK_ROWS
from stages.lib.exports.parity import Budget, compare, measure_steps

REFERENCE = np.array([[0.75, 0.25], [0.5625, 0.4375], [0.25, 0.75]], np.float32)
LABELS = np.array([0, 1, 1])
# A sum of powers of two, as are the probabilities above: exact in float32 and float64.
LARGEST = 0.125


def allow(max_abs_error, min_same_class=0.0, max_accuracy_drop=100.0):
    """A budget that is tight in what is given alone."""
    return Budget(max_abs_error=max_abs_error, min_same_class=min_same_class, max_accuracy_drop=max_accuracy_drop)


BUDGET = allow(LARGEST)


def change(row, by):
    """The reference, with `by` moved from one row's first class to its second."""
    actual = REFERENCE.copy()
    actual[row] += np.array([-by, by], np.float32)
    return actual


def test_equal_probabilities_are_within_budget():
    """A model that answers as the reference has no difference; its accuracy is its own."""
    parity = compare(REFERENCE, REFERENCE.copy(), LABELS, BUDGET)

    assert parity._asdict() == {
        "images": 3,
        "same_class": 3,
        "different": [],
        "ties": 0,
        "accuracy": 2 / 3,
        "accuracy_drop": 0.0,
        "max_abs_error": 0.0,
        "within_budget": True,
        "is_reference_sure": False,
    }


@pytest.mark.parametrize(
    ("by", "within_budget"), [(LARGEST, True), (-LARGEST, True), (LARGEST + 2**-20, False), (-LARGEST - 2**-20, False)]
)
def test_difference_of_the_whole_budget_is_within(by, within_budget):
    """A difference of exactly the budget is allowed, more is not, in either direction."""
    parity = compare(REFERENCE, change(0, by), LABELS, BUDGET)

    assert parity.max_abs_error == abs(by)
    assert parity.within_budget is within_budget


def test_images_of_any_number_are_compared():
    """Rows that differ are told by their own number, however many images there are."""
    count = 2 * CHUNK_ROWS + 3
    reference = np.tile(REFERENCE[:1], (count, 1))
    actual, labels = reference.copy(), np.zeros(count, np.uint8)
    different = [0, CHUNK_ROWS - 1, CHUNK_ROWS, count - 1]
    actual[different] = actual[different, ::-1]
    parity = compare(reference, actual, labels, BUDGET)

    assert parity.different == different
    assert (parity.images, parity.same_class, parity.ties) == (count, count - 4, 0)
    assert parity.accuracy == (count - 4) / count


def test_one_row_is_enough_to_be_out_of_budget():
    """The largest difference decides, not the mean."""
    many = np.repeat(REFERENCE, 1000, axis=0)
    actual = many.copy()
    actual[2999] = [0.5, 0.5]

    assert not compare(many, actual, np.repeat(LABELS, 1000), BUDGET).within_budget


@pytest.mark.parametrize(
    ("row", "by", "ties"),
    [(1, 0.25, 1), (0, 0.5, 0)],
)
def test_other_class_is_a_tie_where_the_reference_is_undecided(row, by, ties):
    """Classes that the reference holds apart by at most twice the budget may swap: 0.125 is a tie, 0.5 is not."""
    parity = compare(REFERENCE, change(row, by), LABELS, BUDGET)

    assert (parity.different, parity.same_class, parity.ties) == ([row], 2, ties)


@pytest.mark.parametrize(("distance", "same_class"), [(0.0, 1), (2.0**-17, 1), (2.0**-16, 0)])
def test_classes_that_rounding_alone_tells_apart_are_both_right(distance, same_class):
    """Up to 1e-5 apart in the reference, either class is its answer: another processor may round to either."""
    reference = np.array([[0.5 + distance, 0.5]], np.float32)
    parity = compare(reference, reference[:, ::-1], np.array([0]), BUDGET)

    assert (parity.same_class, parity.accuracy) == (same_class, same_class)


@pytest.mark.parametrize(("budget", "ties"), [(0.0625, 1), (0.0624, 0)])
def test_tie_ends_at_twice_the_budget(budget, ties):
    """A distance of 0.125 is a tie for a budget of half of it, and for no smaller one."""
    assert compare(REFERENCE, change(1, 0.25), LABELS, allow(budget)).ties == ties


def test_tie_is_of_the_two_best_classes():
    """A third class, far behind, does not matter."""
    reference = np.array([[0.0625, 0.5, 0.4375]], np.float32)

    assert compare(reference, reference[:, [0, 2, 1]], np.array([1]), BUDGET).ties == 1


@pytest.mark.parametrize("values", [[math.nan, 0.25], [0.25, math.nan], [math.nan, math.nan], [math.inf, 0.0]])
def test_what_is_no_number_is_never_within_budget(values):
    """NaN and infinity are refused by any budget."""
    actual = REFERENCE.copy()
    actual[1] = values

    assert compare(REFERENCE, actual, LABELS, allow(1.0)).within_budget is False


def test_accuracy_is_that_of_the_model():
    """Accuracy is measured against the labels, not against the reference."""
    assert compare(REFERENCE, change(1, 0.25), LABELS, BUDGET).accuracy == 1.0


@pytest.mark.parametrize(("min_same_class", "within_budget"), [(2 / 3, True), (0.67, False), (1.0, False)])
def test_share_of_same_class_is_part_of_the_budget(min_same_class, within_budget):
    """Two of three images with the reference's class are two thirds; ties count as different."""
    parity = compare(REFERENCE, change(1, 0.125), LABELS, allow(0.125, min_same_class=min_same_class))

    assert (parity.same_class, parity.ties) == (2, 1)
    assert parity.within_budget is within_budget


@pytest.mark.parametrize(
    ("labels", "drop", "within_budget"), [([0, 1, 1], -100 / 3, True), ([0, 0, 1], 100 / 3, False)]
)
def test_lost_accuracy_is_part_of_the_budget(labels, drop, within_budget):
    """Accuracy lost is told in points and held to the budget; accuracy won is negative and always within it."""
    parity = compare(REFERENCE, change(1, 0.125), np.array(labels), allow(0.125, max_accuracy_drop=33.0))

    assert parity.accuracy_drop == pytest.approx(drop)
    assert parity.within_budget is within_budget


def test_steps_are_counted_in_the_scale():
    """The largest difference of quantized probabilities is told in steps of their scale."""
    one = np.array([[10, 246], [128, 128]]) / 256

    assert measure_steps(one, one, 1 / 256) == 0
    assert measure_steps(one, one + np.array([[3, -3], [0, 7]]) / 256, 1 / 256) == 7


@pytest.mark.parametrize(
    ("rows", "is_sure"), [([], False), ([0], False), ([1], False), ([2, 3], True), ([0, 2], False), ([1, 2, 3], True)]
)
def test_reference_is_sure_where_most_images_beyond_the_budget_are_decided(rows, is_sure):
    """An image that is beyond the budget counts as decided where the reference gives its class more than 0.9."""
    reference = np.array([[0.6, 0.4], [0.9, 0.1], [0.95, 0.05], [1.0, 0.0]], np.float32)
    actual = reference.copy()
    actual[rows] = actual[rows, ::-1]

    assert compare(reference, actual, np.zeros(4, np.int64), allow(0.01)).is_reference_sure is is_sure


def test_answer_that_is_no_number_counts_as_beyond_the_budget():
    """NaN is no distance within the budget: the reference was sure of that image."""
    reference = np.array([[0.95, 0.05], [0.6, 0.4]], np.float32)
    actual = reference.copy()
    actual[0] = np.nan

    assert compare(reference, actual, np.zeros(2, np.int64), BUDGET).is_reference_sure is True

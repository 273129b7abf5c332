"""Metrics are those of scikit-learn, and those that it does not have are those of their definition."""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support

from stages.lib.core.arrays import CHUNK_ROWS
from stages.lib.model.metrics import (
    compute_accuracy,
    compute_calibration_error,
    compute_class_metrics,
    compute_loss,
    count_confusions,
    find_classes,
)

# Both compute in float64 and may sum in another order.
FLOAT64_RTOL = 1e-12
CLASSES = 5
MANY = 2 * CHUNK_ROWS + 1  # read in three pieces


def draw(seed, labelled=CLASSES, predicted=CLASSES, count=200):
    """Labels of the first `labelled` classes, and probabilities that favour one of the first `predicted`."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, labelled, count).astype(np.uint8)
    logits = generator.normal(size=(count, CLASSES))
    logits[:, predicted:] -= 8  # seldom enough, yet above the floor under a probability
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


CASES = pytest.mark.parametrize(
    ("probabilities", "labels"),
    [draw(0), draw(1, predicted=3), draw(2, labelled=3), draw(3, labelled=1, predicted=2), draw(4, count=MANY)],
    ids=["all classes", "classes never predicted", "classes without images", "one class", "many images"],
)


@CASES
def test_classes_are_the_most_probable(probabilities, labels):
    """A class id for each image, of equals the lower."""
    probabilities = probabilities.round(1)

    np.testing.assert_array_equal(find_classes(probabilities), probabilities.argmax(axis=1), strict=True)
    assert find_classes(probabilities).shape == labels.shape


@CASES
def test_accuracy_is_scikit_learns(probabilities, labels):
    """The share of images whose predicted class is the true one."""
    predictions = probabilities.argmax(axis=1)

    assert compute_accuracy(predictions, labels) == accuracy_score(labels, predictions)


@CASES
def test_confusions_are_scikit_learns(probabilities, labels):
    """True classes are rows, predicted ones columns, also those that do not occur."""
    predictions = probabilities.argmax(axis=1)

    np.testing.assert_array_equal(
        count_confusions(predictions, labels, CLASSES), confusion_matrix(labels, predictions, labels=range(CLASSES))
    )


@CASES
def test_class_metrics_are_scikit_learns(probabilities, labels):
    """Precision, recall and F1 of each class, 0 where there is nothing to divide by."""
    predictions = probabilities.argmax(axis=1)
    metrics = compute_class_metrics(count_confusions(predictions, labels, CLASSES))
    expected = precision_recall_fscore_support(labels, predictions, labels=range(CLASSES), zero_division=0)

    for name, values in zip(("precision", "recall", "f1"), expected[:3], strict=True):
        np.testing.assert_allclose(metrics[name], values, rtol=FLOAT64_RTOL, err_msg=name)


@CASES
def test_loss_is_scikit_learns(probabilities, labels):
    """Mean cross-entropy of the true class."""
    expected = log_loss(labels, probabilities, labels=range(CLASSES))

    assert compute_loss(probabilities, labels) == pytest.approx(expected, rel=FLOAT64_RTOL)


def test_loss_of_an_impossible_truth_is_finite():
    """A probability of 0 counts as Keras's epsilon of 1e-7."""
    assert compute_loss(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(-math.log(1e-7))


def test_calibration_error_of_a_computed_example():
    """With bins of a fifteenth: 0.62 (wrong) and 0.66 (right) share one, 0.68 and 0.98 (right) have one each.

    |1/2 - 0.64| * 2/4 + |1 - 0.68| * 1/4 + |1 - 0.98| * 1/4 = 0.07 + 0.08 + 0.005.
    """
    probabilities = np.array([[0.62, 0.38], [0.66, 0.34], [0.68, 0.32], [0.98, 0.02]])
    labels = np.array([1, 0, 0, 0])

    assert compute_calibration_error(probabilities, labels) == pytest.approx(0.155)


def test_perfect_calibration_has_no_error():
    """Of the images with confidence 0.8, four in five are right; those with confidence 1 are all right."""
    probabilities = np.array([[0.8, 0.2]] * 5 + [[0.0, 1.0]] * 3)
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])

    # 0.8 is no sum of powers of two: four additions of it round in the last bits.
    assert compute_calibration_error(probabilities, labels) == pytest.approx(0, abs=1e-15)


def test_confident_and_wrong_has_the_largest_calibration_error():
    """An error of 1 is as bad as it gets."""
    assert compute_calibration_error(np.array([[1.0, 0.0]] * 3), np.array([1, 1, 1])) == 1.0


def test_bins_are_open_below_and_closed_above():
    """The confidence 0.6, an edge, belongs to the bin below it, as in equation 3 of the paper.

    Apart, the images of 0.6 (wrong) and 0.63 (right) have errors of 0.6 and 0.37; in one bin they would make up for
    each other.
    """
    probabilities = np.array([[0.6, 0.4], [0.63, 0.37]])

    assert compute_calibration_error(probabilities, np.array([1, 0])) == pytest.approx((0.6 + 0.37) / 2)

"""Metrics of a classifier from its probabilities."""

import numpy as np
from numpy.typing import NDArray

from stages.lib.core.arrays import iterate_chunks
from stages.lib.model.order_free import sum_exactly, take_logarithm

Probabilities = NDArray[np.floating]  # (N, classes), each row sums to 1
Labels = NDArray[np.integer]  # (N,), class ids

# Keras's own floor under a probability whose logarithm is taken (keras.config.epsilon()).
_EPSILON = 1e-7
# C. Guo et al., On Calibration of Modern Neural Networks (2017), section 5, uses 15 bins.
_CALIBRATION_BINS = 15


def find_classes(probabilities: Probabilities) -> NDArray[np.int64]:
    """The most probable class of each image, the first of equals; class ids (N,)."""
    predictions: NDArray[np.int64] = probabilities.argmax(axis=1)
    return predictions


def compute_accuracy(predictions: Labels, labels: Labels) -> float:
    """The share of images whose predicted class is the true one, 0..1."""
    return float((predictions == labels).mean())


def compute_loss(probabilities: Probabilities, labels: Labels) -> float:
    """Mean sparse categorical cross-entropy in nats."""
    logarithms = np.empty(len(labels))
    for chunk in iterate_chunks(len(labels)):
        of_truth = np.take_along_axis(probabilities[chunk], labels[chunk, np.newaxis].astype(np.int64), axis=1)[:, 0]
        logarithms[chunk] = take_logarithm(np.clip(of_truth.astype(np.float64), _EPSILON, 1))
    return -sum_exactly(logarithms) / len(labels)


def count_confusions(predictions: Labels, labels: Labels, class_count: int) -> NDArray[np.int64]:
    """How often each true class (rows) was predicted as each class (columns)."""
    cells = labels.astype(np.int64) * class_count + predictions
    return np.bincount(cells, minlength=class_count**2).reshape(class_count, class_count)


def compute_class_metrics(confusions: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Precision, recall and F1 of each class, 0 where a ratio is 0 / 0.

    With tp, fp, fn as true positives, false positives and false negatives: precision = tp / (tp + fp),
    recall = tp / (tp + fn), F1 = 2 tp / (2 tp + fp + fn) (C. van Rijsbergen, Information Retrieval, 1979).
    """
    hits, predicted, actual = np.diag(confusions), confusions.sum(axis=0), confusions.sum(axis=1)
    return {
        "precision": _divide(hits, predicted),
        "recall": _divide(hits, actual),
        "f1": _divide(2 * hits, predicted + actual),
    }


def _divide(numerator: NDArray[np.int64], denominator: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator != 0)


def compute_calibration_error(probabilities: Probabilities, labels: Labels) -> float:
    """Expected calibration error, 0..1: the mean distance of accuracy from confidence over bins of equal width.

    ECE = sum over bins of (images in bin / N) |accuracy(bin) - confidence(bin)|
    (C. Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3).
    """
    edges = np.linspace(0, 1, _CALIBRATION_BINS + 1)
    gaps = np.zeros(_CALIBRATION_BINS)
    for chunk in iterate_chunks(len(labels)):
        confidences = probabilities[chunk].max(axis=1).astype(np.float64)
        is_correct = probabilities[chunk].argmax(axis=1) == labels[chunk]
        bins = np.clip(np.digitize(confidences, edges, right=True) - 1, 0, _CALIBRATION_BINS - 1)
        gaps += np.bincount(bins, is_correct - confidences, _CALIBRATION_BINS)
    return sum_exactly(np.abs(gaps)) / len(labels)

"""Measure the network on the test split.

Reads   models/model.keras, data/normalized/test, data/normalized/dataset.json
Writes  reports/metrics.json                   accuracy, loss and expected calibration error (ece)
        reports/classes.csv                    each class's test images, precision, recall and F1
        reports/evaluation/evaluation.json     both, and the verdict
        reports/evaluation/predictions.csv     true and predicted class of each test image
        reports/evaluation/confusion.png       the confusion matrix
        reports/evaluation/misclassified.png   the test images that the network got wrong with the most confidence
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stages.lib.core.arrays import iterate_chunks, load_split
from stages.lib.core.errors import TrainingError
from stages.lib.core.files import read_json, write_csv, write_json
from stages.lib.core.params import Section
from stages.lib.model.metrics import (
    compute_accuracy,
    compute_calibration_error,
    compute_class_metrics,
    compute_loss,
    count_confusions,
    find_classes,
)
from stages.lib.model.network import load_network
from stages.lib.model.order_free_network import compile_probabilities
from stages.lib.model.prediction import predict_in_batches
from stages.lib.plotting.class_labels import explain_numbered, label_classes
from stages.lib.plotting.confusion_matrix import draw_confusions
from stages.lib.plotting.image_grid import draw_images
from stages.lib.runner.stage import main

_DECIMALS = 4
_SHOWN_IMAGES = 25


class EvaluateParams(Section):
    """The `evaluate` section of params.yaml."""

    min_accuracy: float = Field(ge=0, le=1, description="a number from 0 to 1")


def measure(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.integer],
    class_names: Sequence[str],
    min_accuracy: float,
) -> dict[str, Any]:
    """The metrics of probabilities (N, classes) against labels (N,), and whether the accuracy is accepted.

    min_accuracy is held against the accuracy that is reported, at four decimals, so that all who read it find the same.
    """
    predictions = find_classes(probabilities)
    confusions = count_confusions(predictions, labels, len(class_names))
    by_metric = compute_class_metrics(confusions)
    accuracy = round(compute_accuracy(predictions, labels), _DECIMALS)
    return {
        "accepted": accuracy >= min_accuracy,
        "accuracy": accuracy,
        "classes": {
            name: {
                "images": int(confusions[label].sum()),
                **{metric: round(float(values[label]), _DECIMALS) for metric, values in by_metric.items()},
            }
            for label, name in enumerate(class_names)
        },
        "ece": round(compute_calibration_error(probabilities, labels), _DECIMALS),
        "images": len(labels),
        "loss": round(compute_loss(probabilities, labels), _DECIMALS),
    }


def find_misclassified(probabilities: NDArray[np.float64], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Rows whose predicted class is wrong, the most confident first."""
    wrong = np.flatnonzero(find_classes(probabilities) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]


def restore_pixels(features: NDArray[np.float32], normalization: Mapping[str, Sequence[float]]) -> NDArray[np.uint8]:
    """The pixels uint8 that became these features: (N, H, W), or (N, H, W, 3) with constants for each channel.

    normalization: `shift` and `divisor`, as data/normalized/dataset.json has them.
    """
    shift, divisor = (np.array(normalization[name], np.float64) for name in ("shift", "divisor"))
    return np.clip(np.round(features * divisor + shift), 0, 255).astype(np.uint8)


def draw_misclassified(
    path: Path,
    features: NDArray[np.float32],
    normalization: Mapping[str, Sequence[float]],
    labels: NDArray[np.integer],
    probabilities: NDArray[np.float64],
    class_names: Sequence[str],
) -> None:
    """Draw the most confidently wrong test images as they were before normalization, with both classes."""
    rows = find_misclassified(probabilities, labels)
    shown = rows[:_SHOWN_IMAGES]
    shown_names = label_classes(class_names)
    captions = [
        f"test[{row}]: {shown_names[labels[row]]}\n"
        f"taken for {shown_names[probabilities[row].argmax()]} ({probabilities[row].max():.2f})"
        for row in shown
    ]
    title = f"{len(rows)} of {len(labels)} test images are misclassified"
    draw_images(
        path,
        f"{title}; the most confident {len(shown)}" if len(rows) > len(shown) else title,
        restore_pixels(features[shown], normalization),
        captions,
    )


def run(
    params: EvaluateParams,
    data_dir: Path = Path("data/normalized"),
    model_path: Path = Path("models/model.keras"),
    reports_dir: Path = Path("reports"),
) -> None:
    """Predict the test split and write what came of it; a network below the floor is not accepted, yet reported."""
    dataset = read_json(data_dir / "dataset.json")
    class_names = dataset["class_names"]
    test = load_split(data_dir / "test")
    network = load_network(model_path)
    probabilities = predict_in_batches(compile_probabilities(network), test.images)
    if not all(np.isfinite(probabilities[chunk]).all() for chunk in iterate_chunks(len(probabilities))):
        raise TrainingError(str(model_path), "its probabilities are not finite numbers", "lower train.learning_rate")
    predictions = find_classes(probabilities)
    metrics = measure(probabilities, test.labels, class_names, params.min_accuracy)
    write_csv(
        reports_dir / "evaluation/predictions.csv",
        ["actual", "predicted"],
        ((class_names[label], class_names[guess]) for label, guess in zip(test.labels, predictions, strict=True)),
    )
    draw_confusions(
        reports_dir / "evaluation/confusion.png",
        count_confusions(predictions, test.labels, len(class_names)),
        class_names,
    )
    draw_misclassified(
        reports_dir / "evaluation/misclassified.png",
        test.images,
        dataset["normalization"],
        test.labels,
        probabilities,
        class_names,
    )
    write_json(reports_dir / "evaluation/evaluation.json", metrics)
    columns = ("images", "precision", "recall", "f1")
    write_csv(
        reports_dir / "classes.csv",
        ["class", *columns],
        ([name, *(of_class[column] for column in columns)] for name, of_class in metrics["classes"].items()),
    )
    # DVC makes a column of each number in it, as wide as its name.
    write_json(reports_dir / "metrics.json", {key: metrics[key] for key in ("accuracy", "ece", "loss")})
    if explained := explain_numbered(class_names):
        print(f"evaluate: {explained}")
    verdict = "accepted" if metrics["accepted"] else "NOT accepted"
    print(f"evaluate: test accuracy {metrics['accuracy']:.4f}: {verdict} (at least {params.min_accuracy} is wanted)")


if __name__ == "__main__":
    main("evaluate", EvaluateParams, run)

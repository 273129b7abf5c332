"""The test split is measured, and what the network got wrong is shown."""

import math
import shutil

import numpy as np
import pytest
from imports import ROOT
from PIL import Image
from samples import CLASS_NAMES, IMAGE_SIZE, list_files, make_colour_dataset, write_normalized, write_raw

from stages import evaluate, train
from stages.evaluate import EvaluateParams, find_misclassified, measure, restore_pixels
from stages.lib.core.arrays import load_split
from stages.lib.core.errors import TrainingError
from stages.lib.core.files import read_csv, read_json, write_json
from stages.lib.core.params import load_section
from stages.lib.model.deterministic_tensorflow import keras
from stages.lib.model.network import Architecture, build_network
from stages.train import TrainParams

PROBABILITIES = np.array(
    [[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.9, 0.0]], np.float32
)
LABELS = np.array([0, 1, 1, 2, 0], np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with normalized data and a network that is not yet good."""
    root = tmp_path_factory.mktemp("trained")
    params = load_section("train", TrainParams, ROOT / "params.yaml").model_copy(
        update={"hidden_units": [8], "epochs": 4, "batch_size": 16, "learning_rate": 0.01}
    )
    train.run(params, write_normalized(root), root / "model.keras", root / "history.csv")
    return root


def run(trained, reports_dir, min_accuracy=0.5):
    """Evaluate the trained network: the metrics that are reported."""
    params = EvaluateParams(min_accuracy=min_accuracy)
    evaluate.run(params, trained / "data/normalized", trained / "model.keras", reports_dir)
    return read_json(reports_dir / "evaluation/evaluation.json")


def predict(trained):
    """The probabilities of the test split."""
    network = keras.saving.load_model(trained / "model.keras", compile=False)
    return network(np.array(load_split(trained / "data/normalized/test").images)).numpy()


def test_measure_counts_by_hand():
    """Two of five are right; metrics have four decimals, a class that is never predicted zeros."""
    metrics = measure(PROBABILITIES, LABELS, CLASS_NAMES, min_accuracy=0.4)
    loss = -sum(map(math.log, (0.9, 0.8, 0.2, 0.1, 0.1))) / 5

    assert metrics == {
        "accepted": True,
        "accuracy": 0.4,
        "classes": {
            "left": {"images": 2, "precision": 0.3333, "recall": 0.5, "f1": 0.4},
            "middle": {"images": 2, "precision": 0.5, "recall": 0.5, "f1": 0.5},
            "right": {"images": 1, "precision": 0.0, "recall": 0.0, "f1": 0.0},
        },
        # Bins of a fifteenth: 0.5 (wrong), 0.7 (wrong), 0.8 (right), and both of 0.9 (one right).
        "ece": pytest.approx((0.5 + 0.7 + 0.2 + abs(1 - 1.8)) / 5),
        "images": 5,
        "loss": round(loss, 4),
    }


@pytest.mark.parametrize(("min_accuracy", "accepted"), [(0.0, True), (0.4, True), (0.4001, False), (1.0, False)])
def test_accuracy_at_the_floor_is_accepted(min_accuracy, accepted):
    """The floor is the lowest accuracy that is accepted; it is not rounded itself."""
    assert measure(PROBABILITIES, LABELS, CLASS_NAMES, min_accuracy)["accepted"] is accepted


def test_verdict_follows_from_the_reported_accuracy():
    """Two of three are reported as 0.6667, and that is accepted where 0.6667 is wanted."""
    metrics = measure(PROBABILITIES[[0, 1, 2]], LABELS[[0, 1, 2]], CLASS_NAMES, 0.6667)

    assert (metrics["accuracy"], metrics["accepted"]) == (0.6667, True)


def test_most_confident_mistake_comes_first():
    """Wrong rows alone, by the probability of the wrong class."""
    assert find_misclassified(PROBABILITIES, LABELS).tolist() == [4, 2, 3]


def test_no_mistake_is_no_row():
    """A network that is always right has no misclassified image."""
    assert find_misclassified(PROBABILITIES, PROBABILITIES.argmax(axis=1)).tolist() == []


def test_run_writes_its_reports(trained, tmp_path):
    """Metrics, classes, predictions and both charts, and nothing else."""
    run(trained, tmp_path)

    assert sorted(list_files(tmp_path)) == [
        "classes.csv",
        "evaluation/confusion.png",
        "evaluation/evaluation.json",
        "evaluation/misclassified.png",
        "evaluation/predictions.csv",
        "metrics.json",
    ]


def test_metrics_of_a_table_are_three(trained, tmp_path):
    """DVC makes a column of each number in metrics.json: it holds three, the same as the whole report has."""
    evaluation = run(trained, tmp_path)

    assert read_json(tmp_path / "metrics.json") == {key: evaluation[key] for key in ("accuracy", "ece", "loss")}


def test_classes_are_a_table(trained, tmp_path):
    """Each class has a row with what the whole report has of it."""
    evaluation = run(trained, tmp_path)
    rows = read_csv(tmp_path / "classes.csv")

    assert [row.pop("class") for row in rows] == list(evaluation["classes"])
    assert [{key: float(value) for key, value in row.items()} for row in rows] == list(evaluation["classes"].values())


def test_run_measures_the_networks_own_answers(trained, tmp_path):
    """The metrics are those of the saved network's probabilities on the test split."""
    labels = load_split(trained / "data/normalized/test").labels

    assert run(trained, tmp_path) == measure(predict(trained), labels, list(CLASS_NAMES), 0.5)


def test_predictions_are_by_class_name(trained, tmp_path):
    """One row per test image, with its true and its predicted class's name."""
    run(trained, tmp_path)
    labels = load_split(trained / "data/normalized/test").labels
    rows = read_csv(tmp_path / "evaluation/predictions.csv")

    assert [row["actual"] for row in rows] == [CLASS_NAMES[label] for label in labels]
    assert [row["predicted"] for row in rows] == [CLASS_NAMES[label] for label in predict(trained).argmax(axis=1)]


def test_network_below_the_floor_is_reported(trained, tmp_path, capsys):
    """A network that is not accepted is measured all the same, and the line says so."""
    metrics = run(trained, tmp_path, min_accuracy=1.0)

    assert metrics["accuracy"] < 1.0
    assert metrics["accepted"] is False
    assert "NOT accepted (at least 1.0 is wanted)" in capsys.readouterr().out


def test_reports_are_the_same_bytes_again(trained, tmp_path):
    """Evaluating again writes the same files."""
    run(trained, tmp_path / "one")
    run(trained, tmp_path / "two")

    assert list_files(tmp_path / "one") == list_files(tmp_path / "two")


def test_network_without_a_mistake_is_drawn(trained, tmp_path):
    """Where no test image is misclassified the chart is still there."""
    test = load_split(trained / "data/normalized/test")
    probabilities = np.eye(3, dtype=np.float32)[test.labels]
    scaled = {"shift": [0.0], "divisor": [255.0]}
    evaluate.draw_misclassified(tmp_path / "none.png", test.images, scaled, test.labels, probabilities, CLASS_NAMES)

    assert (tmp_path / "none.png").stat().st_size > 0


@pytest.fixture(scope="module", params=["scale", "standardize"])
def colourful(tmp_path_factory, request):
    """A folder with normalized images in colour and a convolutional network that has not learnt anything."""
    root = tmp_path_factory.mktemp("colourful")
    write_raw(root, make_colour_dataset())
    write_normalized(root, method=request.param)
    keras.utils.set_random_seed(0)
    build_network((*IMAGE_SIZE, 3), Architecture((), ((4,),)), len(CLASS_NAMES), "softmax").save(root / "model.keras")
    return root


def test_network_for_colours_is_measured(colourful, tmp_path):
    """By its own answers; the reports are the same bytes again."""
    labels = load_split(colourful / "data/normalized/test").labels

    assert run(colourful, tmp_path / "one") == measure(predict(colourful), labels, list(CLASS_NAMES), 0.5)
    run(colourful, tmp_path / "two")
    assert list_files(tmp_path / "one") == list_files(tmp_path / "two")


def test_features_become_the_pixels_that_they_were(colourful):
    """Of every image and channel, whatever the normalization."""
    data_dir = colourful / "data/normalized"
    pixels = restore_pixels(load_split(data_dir / "test").images, read_json(data_dir / "dataset.json")["normalization"])

    assert np.array_equal(pixels, load_split(colourful / "data/raw/test").images)


def test_misclassified_images_have_their_own_colours(colourful, tmp_path):
    """What is drawn is what a camera saw, not what normalization made of it."""
    run(colourful, tmp_path)
    test = load_split(colourful / "data/raw/test")
    row = find_misclassified(predict(colourful), test.labels)[0]
    with Image.open(tmp_path / "evaluation/misclassified.png") as chart:
        shown = {color for _, color in chart.convert("RGB").getcolors(chart.width * chart.height)}

    assert set(map(tuple, test.images[row].reshape(-1, 3).tolist())) <= shown


def test_network_that_answers_nan_is_refused(trained, tmp_path):
    """A network whose weights training has blown up is an error of training, in one line."""
    network = build_network(IMAGE_SIZE, Architecture(()), len(CLASS_NAMES), "softmax")
    network.set_weights([np.full_like(weights, 3e38) for weights in network.get_weights()])
    network.save(tmp_path / "model.keras")
    params = EvaluateParams(min_accuracy=0.5)

    with pytest.raises(TrainingError) as refusal:
        evaluate.run(params, trained / "data/normalized", tmp_path / "model.keras", tmp_path / "reports")

    assert refusal.value.args == (
        str(tmp_path / "model.keras"),
        "its probabilities are not finite numbers",
        "lower train.learning_rate",
    )
    assert not (tmp_path / "reports").exists()


@pytest.mark.filterwarnings("error:Glyph")
def test_classes_that_charts_cannot_write_are_numbered_and_told(trained, tmp_path, capsys):
    """Both charts are those of classes which are called by their numbers; a line says which number is which."""
    charts = []
    for name, class_names in (("names", ["猫", "middle", "犬"]), ("numbers", ["class 0", "middle", "class 2"])):
        shutil.copytree(trained, tmp_path / name)
        dataset_path = tmp_path / name / "data/normalized/dataset.json"
        write_json(dataset_path, {**read_json(dataset_path), "class_names": class_names})
        run(tmp_path / name, tmp_path / name / "reports")
        files = list_files(tmp_path / name / "reports/evaluation")
        charts.append((files["confusion.png"], files["misclassified.png"]))

    assert charts[0] == charts[1]
    assert (
        "evaluate: the charts' font lacks letters of these names: class 0 is 猫, class 2 is 犬\n"
        in capsys.readouterr().out
    )
    assert {row["actual"] for row in read_csv(tmp_path / "names/reports/evaluation/predictions.csv")} == {
        "猫",
        "middle",
        "犬",
    }

"""One version for each run, and one champion: the alias moves by the decision, and the reason is recorded."""

import json
import shutil

import mlflow
import numpy as np
import pytest
from stores import GOOD, get_champion, make_contender, remove_for_good, track


@pytest.mark.parametrize(
    ("challenger", "champion", "reason"),
    [
        (make_contender(*range(4)), "2", "better than champion version 1 (of 100 test images"),
        (GOOD, "2", "right on the same images as champion version 1"),
        (
            make_contender(*range(5, 10)),
            "2",
            "as good as champion version 1 (of 100 test images",
        ),
        (make_contender(*range(9)), "2", "not significantly worse than champion version 1"),
        (
            make_contender(*range(10)),
            "1",
            "significantly worse than champion version 1 (of 100 test images, only the champion got 5",
        ),
        (make_contender(*range(50), test_data="b2"), "2", "first champion on changed test data"),
        (GOOD._replace(accepted=False), "1", "test accuracy 0.9500 is below evaluate.min_accuracy"),
        (GOOD._replace(recalls={"left": 0.6}), "1", "recall of class 'left' is 0.6000, below track.min_recall 0.7"),
        (GOOD._replace(has_parity=False), "1", "an export is not within its budget"),
    ],
    ids=[
        "better",
        "the same",
        "as good",
        "worse by chance",
        "worse",
        "other test data",
        "below the floor",
        "a class is lost",
        "without parity",
    ],
)
def test_alias_follows_the_decision_and_the_reason_is_recorded(root, challenger, champion, reason):
    """The champion's alias moves or stays, and run and version tell why."""
    track(root)
    store, run, version, _ = track(root, "s2", challenger)

    assert get_champion(store) == champion
    assert store.client.get_run(run.info.run_id).data.tags["promotion"].startswith(reason)
    assert store.client.get_model_version("digits", version.version).description.startswith(reason)


def remove_file(path):
    path.unlink()


def write_nonsense(path):
    path.write_bytes(b"\xff\xfe,\n")


def drop_last_row(path):
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (remove_file, "are gone"),
        (write_nonsense, "cannot be read"),
        (drop_last_row, "are of 99 images instead of 100"),
    ],
)
@pytest.mark.parametrize(
    ("challenger", "champion", "verdict"),
    [
        (make_contender(*range(5, 10)), "2", "0.9500 is not lower than the champion's 0.9500"),
        (make_contender(*range(6)), "1", "0.9400 is lower than the champion's 0.9500"),
    ],
    ids=["as good", "worse"],
)
def test_champion_without_its_predictions_is_compared_by_accuracy(root, spoil, problem, challenger, champion, verdict):
    """When the champion's run has lost its predictions, the accuracies decide, and the reason says so."""
    _, first, _, _ = track(root)
    spoil(root / "mlartifacts/digits" / first.info.run_id / "artifacts/reports/evaluation/predictions.csv")
    store, _, _, decision = track(root, "s2", challenger)

    assert get_champion(store) == champion
    assert decision.reason == f"the predictions of champion version 1 {problem}, so accuracy alone decides: {verdict}"


def test_champion_whose_run_is_gone_is_compared_by_accuracy(root):
    """A champion outlives its run: MLflow deletes runs for good without their registered models."""
    _, first, _, _ = track(root)
    remove_for_good(root, first)
    store, _, _, decision = track(root, "s2", make_contender(*range(6)))

    assert get_champion(store) == "1"
    assert decision.reason.startswith("the predictions of champion version 1 are gone")


def test_champion_that_was_registered_by_hand_is_replaced(root):
    """A champion of which no test data is recorded cannot have been measured on the same."""
    store, _, version, _ = track(root, challenger=GOOD._replace(accepted=False))
    by_hand = store.client.create_model_version("digits", version.source)
    store.client.set_registered_model_alias("digits", "champion", by_hand.version)
    _, _, _, decision = track(root, "s2")

    assert get_champion(store) == "3"
    assert decision.reason.startswith("first champion on changed test data")


def test_decision_is_not_taken_again(root):
    """Tracking an old state once more leaves a later champion in place."""
    track(root)
    track(root, "s2", make_contender(*range(4)))
    store, _, _, decision = track(root)

    assert get_champion(store) == "2"
    assert decision.is_promoted
    assert "first champion" in decision.reason


def test_champion_without_files_is_replaced(root):
    """When the champion's files are gone, the next sound model takes over."""
    _, run, _, _ = track(root)
    shutil.rmtree(root / "mlartifacts" / "digits" / "models")
    store, _, _, decision = track(root, "s2", make_contender(*range(6)))

    assert run.info.status == "FINISHED"
    assert get_champion(store) == "2"
    assert decision.reason == "first champion, test accuracy 0.9400"


def test_registered_model_answers_on_raw_pixels(root):
    """The champion loads as a Python function that takes uint8 images."""
    track(root)
    images = np.array([[[0, 2], [10, 30]]], np.uint8)
    mlflow.set_tracking_uri(f"sqlite:///{root / 'mlflow.db'}")
    answer = mlflow.pyfunc.load_model("models:/digits@champion").predict(images)

    assert json.loads(json.dumps(answer["probabilities"].tolist())) == [[1.0, 20.0]]

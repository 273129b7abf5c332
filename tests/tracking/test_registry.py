"""One version for each run, and one champion: the alias moves by the decision, and the reason is recorded."""

import shutil

import pytest
from stores import CRITERIA, GOOD, get_champion, make_candidate, remove_for_good, track

# Of one image in a hundred more no model is significantly worse.
STRICT = CRITERIA._replace(max_accuracy_drop=0.015)


@pytest.mark.parametrize(
    ("candidate", "champion", "reason"),
    [
        (make_candidate(*range(4)), "2", "better than champion version 1 (of 100 test images"),
        (GOOD, "2", "right on the same images as champion version 1"),
        (
            make_candidate(*range(5, 10)),
            "2",
            "as good as champion version 1 (of 100 test images",
        ),
        (make_candidate(*range(9)), "2", "not significantly worse than champion version 1"),
        (
            make_candidate(*range(10)),
            "1",
            "significantly worse than champion version 1 (of 100 test images, only the champion got 5",
        ),
        (make_candidate(*range(4), test_data="b2"), "1", "its test images are not those of champion version 1"),
        (GOOD._replace(task="cats"), "1", "champion version 1 answers another task"),
        (make_candidate(*range(4, 30)), "1", "significantly worse than champion version 1"),
        (GOOD._replace(accepted=False), "1", "test accuracy 0.9500 is below evaluate.min_accuracy"),
        (
            GOOD._replace(lowest_recall=(0.6, "left")),
            "1",
            "recall of class 'left' is 0.6000, below track.min_recall 0.7",
        ),
        (GOOD._replace(has_parity=False), "1", "a required export is not within its budget"),
    ],
    ids=[
        "better",
        "the same",
        "as good",
        "worse by chance",
        "worse",
        "other test data",
        "another task",
        "far worse",
        "below the floor",
        "a class is lost",
        "without parity",
    ],
)
def test_alias_follows_the_decision_and_the_reason_is_recorded(root, candidate, champion, reason):
    """The champion's alias moves or stays, and run and version tell why."""
    track(root)
    store, run, version, _ = track(root, "s2", candidate)

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
    ("candidate", "champion", "verdict"),
    [
        (make_candidate(*range(5, 10)), "2", "0.9500 is not lower than the champion's 0.9500"),
        (make_candidate(*range(6)), "1", "0.9400 is lower than the champion's 0.9500"),
    ],
    ids=["as good", "worse"],
)
def test_champion_without_its_predictions_is_compared_by_accuracy(root, spoil, problem, candidate, champion, verdict):
    """When the champion's run has lost its predictions, the accuracies decide, and the reason says so."""
    _, first, _, _ = track(root)
    spoil(root / "mlartifacts/digits" / first.info.run_id / "artifacts/reports/evaluation/predictions.csv")
    store, _, _, decision = track(root, "s2", candidate)

    assert get_champion(store) == champion
    assert decision.reason == f"the predictions of champion version 1 {problem}, so accuracy alone decides: {verdict}"


def test_champion_whose_run_is_gone_is_compared_by_accuracy(root):
    """A champion outlives its run: MLflow deletes runs for good without their registered models."""
    _, first, _, _ = track(root)
    remove_for_good(root, first)
    store, _, _, decision = track(root, "s2", make_candidate(*range(6)))

    assert get_champion(store) == "1"
    assert decision.reason.startswith("the predictions of champion version 1 are gone")


def test_champion_that_was_registered_by_hand_stays(root):
    """A champion of which no task is recorded may answer any other question: it is not replaced without being asked."""
    store, _, version, _ = track(root, candidate=GOOD._replace(accepted=False))
    by_hand = store.client.create_model_version("digits", version.source)
    store.client.set_registered_model_alias("digits", "champion", by_hand.version)
    _, _, _, decision = track(root, "s2")

    assert get_champion(store) == "2"
    assert decision.reason.startswith("champion version 2 has no tag 'task'")


def test_old_decision_is_not_taken_again(root):
    """Tracking an old state once more leaves a later champion in place, and tells what is true now."""
    track(root)
    track(root, "s2", make_candidate(*range(4)))
    store, _, _, decision = track(root)

    assert get_champion(store) == "2"
    assert decision == (False, "was promoted earlier; the champion is version 2")


def test_old_refusal_is_told_with_its_reason(root):
    """What was refused stays refused, for the reason that it was."""
    track(root)
    for _ in range(2):
        store, _, _, decision = track(root, "s2", GOOD._replace(accepted=False))

    assert get_champion(store) == "1"
    assert decision.reason == (
        "was refused earlier: test accuracy 0.9500 is below evaluate.min_accuracy; the champion is version 1"
    )


def test_experiment_is_registered_and_not_promoted(root):
    """However good it is, and even where there is no champion; the pipeline itself may promote it later."""
    store, _, version, decision = track(root, is_experiment=True)
    before = store.client.get_registered_model("digits").aliases
    _, _, _, later = track(root)

    assert decision == (False, "it is an experiment; `pipeline promote 1` compares it with the champion")
    assert before == {"challenger": int(version.version)}
    assert later.is_promoted
    assert store.client.get_registered_model("digits").aliases == {"champion": int(version.version)}


def test_challenger_stays_with_its_task(root):
    """A model of another task is registered, and no alias moves to it."""
    track(root)
    store, *_ = track(root, "s2", make_candidate(*range(12)))
    track(root, "s3", GOOD._replace(task="cats"))

    assert store.client.get_registered_model("digits").aliases == {"champion": 1, "challenger": 2}


def test_best_champion_so_far_sets_the_floor(root):
    """Small losses do not add up."""
    track(root, candidate=make_candidate())
    for state, wrong in (("s2", 1), ("s3", 2)):
        _, _, _, decision = track(root, state, make_candidate(*range(wrong)), criteria=STRICT)
        assert decision.is_promoted is (wrong == 1), decision.reason

    assert decision.reason == (
        "test accuracy 0.9800: the best champion so far on these test images had 1.0000, and track.max_accuracy_drop "
        "is 0.015"
    )


def test_champion_without_files_is_replaced(root):
    """When the champion's files are gone, the next sound model takes over."""
    _, run, _, _ = track(root)
    shutil.rmtree(root / "mlartifacts" / "digits" / "models")
    store, _, _, decision = track(root, "s2", make_candidate(*range(6)))

    assert run.info.status == "FINISHED"
    assert get_champion(store) == "2"
    assert decision.reason == "first champion, test accuracy 0.9400"

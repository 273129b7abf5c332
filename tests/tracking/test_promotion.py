"""A sound model becomes the champion unless it is significantly worse on the same test images."""

import time
from fractions import Fraction

import numpy as np
import pytest
from imports import ROOT
from scipy.stats import binomtest  # comes with scikit-learn

from stages.lib.core.errors import DataError
from stages.lib.core.files import read_csv, write_csv
from stages.lib.core.params import load_params
from stages.lib.tracking.promotion import (
    Candidate,
    Champion,
    Criteria,
    compute_p_value,
    decide,
    describe_task,
    read_predictions,
)
from stages.track import TrackParams, collect_recalls

CRITERIA = Criteria(significance=0.05, max_accuracy_drop=0.015, min_recall=0.7)
# Images that both models get right and images that both get wrong: they must not matter.
SHARED = [("a", "a")] * 10 + [("c", "a")] * 2
COMMITTED = TrackParams(**load_params(ROOT / "params.yaml")["track"]).criteria
RIGHT, WRONG = ("b", "b"), ("b", "a")
# It takes 0.05 s; a sum of fractions, or of binomials computed one by one, would take minutes.
SECONDS_FOR_TEN_THOUSAND = 5


def make_candidate(only_champion=0, only_candidate=0, **changes):
    """A sound candidate that differs from the champion of these counts."""
    candidate = Candidate(
        task="digits",
        accuracy=0.95,
        test_data="a1",
        accepted=True,
        has_parity=True,
        lowest_recall=(0.7, "b"),
        predictions=SHARED + [WRONG] * only_champion + [RIGHT] * only_candidate,
    )
    return candidate._replace(**changes)


def make_champion(only_champion=0, only_candidate=0, **changes):
    """The champion of these counts, version 3."""
    predictions = SHARED + [RIGHT] * only_champion + [WRONG] * only_candidate
    champion = Champion(3, "digits", 0.95, "a1", predictions, best_accuracy=0.95)
    return champion._replace(**changes)


@pytest.mark.parametrize(("channels", "pixels"), [({}, "grey"), ({"channels": 1}, "grey"), ({"channels": 3}, "colour")])
def test_task_is_told_by_its_pixels(channels, pixels):
    """A network for colours answers another question; that of grey ones is what it was before there was colour."""
    dataset = {"name": "digits", "class_names": ["0", "1"], "image_size": [28, 32], **channels}

    assert describe_task(dataset) == f"digits, 28x32 {pixels} pixels 0..255, 2 classes from '0' to '1' (b35800e6)"


@pytest.mark.parametrize(
    ("only_champion", "only_candidate", "is_promoted", "verdict", "p_value"),
    [
        (0, 6, True, "better than", "1.0000"),
        (5, 6, True, "better than", "0.7256"),
        (2, 2, True, "as good as", "0.6875"),
        (0, 0, True, "right on the same images as", "1.0000"),
        (4, 0, True, "not significantly worse than", "0.0625"),
        (20, 11, True, "not significantly worse than", "0.0748"),
        (5, 0, False, "significantly worse than", "0.0312"),
        (30, 10, False, "significantly worse than", "0.0011"),
    ],
)
def test_only_the_significantly_worse_is_refused(only_champion, only_candidate, is_promoted, verdict, p_value):
    """On the same test images each outcome has a reason of its own, with the counts and the p-value."""
    counts = {"only_champion": only_champion, "only_candidate": only_candidate}
    images = len(SHARED) + only_champion + only_candidate

    assert decide(make_candidate(**counts), make_champion(**counts), CRITERIA) == (
        is_promoted,
        (
            f"{verdict} champion version 3 (of {images} test images, only the champion got {only_champion} right, "
            f"only the candidate {only_candidate}; p = {p_value}, track.significance 0.05)"
        ),
    )


@pytest.mark.parametrize(
    ("significance", "is_promoted"),
    [(0.0624, True), (0.0625, False), (0.0626, False)],
    ids=["p above", "p equal", "p below"],
)
def test_level_itself_counts_as_significant(significance, is_promoted):
    """A p-value of exactly the level, here 1/16, refuses; one just above it does not."""
    decision = decide(
        make_candidate(only_champion=4), make_champion(only_champion=4), CRITERIA._replace(significance=significance)
    )

    assert decision.is_promoted is is_promoted


@pytest.mark.parametrize(
    ("only_champion", "only_candidate", "is_promoted"), [(501, 500, False), (1, 0, False), (7, 7, True), (0, 1, True)]
)
def test_largest_level_refuses_any_with_fewer_images_right(only_champion, only_candidate, is_promoted):
    """At a level of 0.5 one image fewer refuses, and a tie does not."""
    counts = {"only_champion": only_champion, "only_candidate": only_candidate}
    decision = decide(make_candidate(**counts), make_champion(**counts), CRITERIA._replace(significance=0.5))

    assert decision.is_promoted is is_promoted


def test_images_with_other_wrong_answers_are_no_disagreement():
    """Where both are wrong it does not matter how."""
    champion = make_champion(predictions=[*SHARED[:-2], ("c", "b"), ("c", "b")])

    assert decide(make_candidate(), champion, CRITERIA).reason.startswith("right on the same images as champion")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"accepted": False}, "test accuracy 0.9500 is below evaluate.min_accuracy"),
        ({"has_parity": False}, "a required export is not within its budget against Keras"),
        ({"lowest_recall": (0.6999, "b")}, "recall of class 'b' is 0.6999, below track.min_recall 0.7"),
    ],
    ids=["below the floor", "without parity", "a class is lost"],
)
@pytest.mark.parametrize(
    "champion",
    [None, make_champion(only_candidate=9), make_champion(test_data="b2"), make_champion(predictions="are gone")],
    ids=["no champion", "weak champion", "other test data", "champion without predictions"],
)
def test_unsound_model_is_refused_whatever_the_champion(changes, reason, champion):
    """Accuracy, each class's recall and parity are asked first, also of one that is better than the champion."""
    assert decide(make_candidate(only_candidate=9, **changes), champion, CRITERIA) == (False, reason)


def test_recall_at_its_floor_passes():
    """A class that is recognized just as often as the floor wants is no error."""
    candidate = make_candidate(lowest_recall=(0.7, "a"))

    assert decide(candidate, None, CRITERIA).is_promoted


def test_first_model_is_promoted():
    """Without a champion there is nothing to compare with."""
    assert decide(make_candidate(), None, CRITERIA) == (True, "first champion, test accuracy 0.9500")


def test_other_test_images_do_not_compare():
    """Results on other test images are refused, however good, unless a person accepts the change."""
    candidate, champion = make_candidate(only_candidate=9), make_champion(only_candidate=9, test_data="b2")
    reason = "its test images are not those of champion version 3 (accuracy 0.9500, before 0.9500)"
    accepted = decide(candidate, champion, CRITERIA, is_data_change_accepted=True)

    assert decide(candidate, champion, CRITERIA) == (False, f"{reason}, so they do not compare")
    assert accepted == (True, f"{reason}, which a person accepts")


def test_accepted_change_of_test_data_does_not_excuse_an_invalid_model():
    """What a model must meet by itself it must meet on any test images."""
    decision = decide(
        make_candidate(accepted=False), make_champion(test_data="b2"), CRITERIA, is_data_change_accepted=True
    )

    assert not decision.is_promoted


def test_model_of_another_task_is_refused_even_by_hand():
    """Who loads the champion gets answers to one question."""
    decision = decide(
        make_candidate(task="cats and dogs", test_data="b2"), make_champion(), CRITERIA, is_data_change_accepted=True
    )

    assert decision == (
        False,
        (
            "champion version 3 answers another task (digits), this model cats and dogs: give each task a name of its "
            "own in track.registered_model"
        ),
    )


@pytest.mark.parametrize(
    ("accuracy", "best_accuracy", "is_promoted"),
    [
        (0.935, 0.95, True),
        (0.9349, 0.95, False),
        (0.94, 0.955, True),
        (0.94, 0.9551, False),
    ],
    ids=["at the limit", "beyond it", "at the limit of the best", "beyond that"],
)
def test_accuracy_may_not_drop_too_far(accuracy, best_accuracy, is_promoted):
    """Neither below the champion nor below the best champion on these images, whatever chance may explain."""
    champion = make_champion(best_accuracy=best_accuracy)
    decision = decide(make_candidate(accuracy=accuracy), champion, CRITERIA)

    assert decision.is_promoted is is_promoted
    assert is_promoted or decision.reason.endswith("track.max_accuracy_drop is 0.015")


def test_eight_wrong_for_two_is_refused():
    """On 359 images that is 1.67 points: not significant, p = 0.0547, and yet too much for one promotion."""
    candidate, champion = make_candidate(8, 2, accuracy=0.9415), make_champion(8, 2, accuracy=0.9582)

    assert not decide(candidate, champion._replace(best_accuracy=0.9582), CRITERIA).is_promoted


# Of twelve networks that were trained on digits from other seeds, each two disagreed on 11.4 of 359 images in the mean.
SHARED_ERRORS = 0.6


def draw_answers(draws, accuracy, image_count):
    """Predictions with this accuracy in the mean: some of the errors are on the same images for all models."""
    errors = image_count * (1 - accuracy)
    own = draws.random(image_count) < (1 - SHARED_ERRORS) * errors / image_count
    wrong = own | (np.arange(image_count) < SHARED_ERRORS * errors)
    return [RIGHT if not is_wrong else WRONG for is_wrong in wrong]


def make_drawn(draws, accuracy, image_count=1000):
    """A candidate that was drawn."""
    predictions = draw_answers(draws, accuracy, image_count)
    return make_candidate(predictions=predictions, accuracy=round(predictions.count(RIGHT) / len(predictions), 4))


def make_standing(candidate, best_accuracy):
    """The champion that a candidate has become."""
    return Champion(3, candidate.task, candidate.accuracy, candidate.test_data, candidate.predictions, best_accuracy)


@pytest.mark.parametrize("image_count", [359, 1000])  # as many as digits have, and more
def test_model_as_good_as_the_champion_passes_95_times_in_100(image_count):
    """The gate refuses few that only had bad luck."""
    passed = 0
    for seed in range(1000):
        draws = np.random.default_rng(seed)
        champion, candidate = make_drawn(draws, 0.96, image_count), make_drawn(draws, 0.96, image_count)
        passed += decide(candidate, make_standing(champion, champion.accuracy), COMMITTED).is_promoted

    assert passed >= 950


def test_losses_of_a_point_each_do_not_add_up():
    """Of twenty models, each a point worse than the one before, none is promoted once the floor is reached."""
    for seed in range(10):
        draws = np.random.default_rng(seed)
        first = make_drawn(draws, 0.96)
        champion, best = first, first.accuracy
        for step in range(1, 21):
            candidate = make_drawn(draws, 0.96 - step / 100)
            if decide(candidate, make_standing(champion, best), COMMITTED).is_promoted:
                champion, best = candidate, max(best, candidate.accuracy)

        assert champion.accuracy >= best - COMMITTED.max_accuracy_drop


@pytest.mark.parametrize(
    ("predictions", "problem"),
    [
        ("are gone", "are gone"),
        ("cannot be read", "cannot be read"),
        (SHARED[1:], "are of 11 images instead of 12"),
        ([], "are of 0 images instead of 12"),
        ([("b", "a"), *SHARED[1:]], "have other true classes"),
    ],
    ids=["gone", "unreadable", "one too few", "none", "other classes"],
)
@pytest.mark.parametrize(
    ("accuracy", "is_promoted", "verdict"),
    [
        (0.9499, True, "0.9500 is not lower than the champion's 0.9499"),
        (0.95, True, "0.9500 is not lower than the champion's 0.9500"),
        (0.9501, False, "0.9500 is lower than the champion's 0.9501"),
    ],
    ids=["better", "as good", "worse"],
)
def test_accuracy_decides_where_predictions_do_not_compare(predictions, problem, accuracy, is_promoted, verdict):
    """A champion without usable predictions is replaced unless its accuracy was higher: nothing shows it was luck."""
    champion = make_champion(accuracy=accuracy, predictions=predictions)

    assert decide(make_candidate(), champion, CRITERIA) == (
        is_promoted,
        f"the predictions of champion version 3 {problem}, so accuracy alone decides: {verdict}",
    )


@pytest.mark.parametrize(
    ("only_champion", "only_candidate", "p_value"),
    [
        (0, 0, Fraction(1)),
        (1, 0, Fraction(1, 2)),
        (0, 1, Fraction(1)),
        (5, 0, Fraction(1, 32)),
        (3, 1, Fraction(4 + 1, 16)),
        (2, 2, Fraction(6 + 4 + 1, 16)),
    ],
)
def test_p_value_is_the_tail_counted_by_hand(only_champion, only_candidate, p_value):
    """The ways in which the champion gets at least so many of the disagreements, of all ways there are."""
    assert compute_p_value(only_champion, only_candidate) == p_value


@pytest.mark.parametrize("count", [1, 2, 9, 40, 1001])
def test_p_value_is_that_of_scipy(count):
    """Every split of the disagreements has the p-value of scipy's exact binomial test."""
    step = max(1, count // 20)
    ours = [float(compute_p_value(right, count - right)) for right in range(0, count + 1, step)]
    theirs = [binomtest(right, count, alternative="greater").pvalue for right in range(0, count + 1, step)]

    assert ours == pytest.approx(theirs, rel=1e-9)


def test_p_value_of_ten_thousand_disagreements_is_exact_and_quick():
    """Numbers far beyond a float's range neither overflow nor take long."""
    start = time.perf_counter()
    p_value, counterpart = compute_p_value(5100, 4900), compute_p_value(4901, 5099)
    seconds = time.perf_counter() - start

    assert p_value + counterpart == 1  # at least 5,100 heads, or at least 4,901 tails
    assert float(p_value) == pytest.approx(binomtest(5100, 10_000, alternative="greater").pvalue, rel=1e-9)
    assert seconds < SECONDS_FOR_TEN_THOUSAND


def test_ten_thousand_images_that_only_the_champion_got_right_are_told():
    """A p-value below the smallest float is refused and told as 0."""
    counts = {"only_champion": 10_000}
    decision = decide(make_candidate(**counts), make_champion(**counts), CRITERIA)

    assert not decision.is_promoted
    assert "only the champion got 10000 right, only the candidate 0; p = 0.0000" in decision.reason


def test_predictions_are_read_as_evaluate_wrote_them(tmp_path):
    """True and predicted class of each image, in their order, whatever the class names."""
    predictions = [("1", "1"), ("a, b", 'quoted "c"'), ("ä", "1")]
    write_csv(tmp_path / "predictions.csv", ["actual", "predicted"], predictions)

    assert read_predictions(tmp_path / "predictions.csv") == predictions


@pytest.mark.parametrize(
    "content",
    [b"actual,guess\n1,1\n", b"actual,predicted\n1,1\n1", b"actual,predicted\n\xff,1\n", b"\x00\x01\x02\n1\n"],
    ids=["other columns", "cut off", "no text", "binary"],
)
def test_file_that_is_no_table_of_predictions_is_refused(tmp_path, content):
    """A damaged file is an error, not a shorter list."""
    path = tmp_path / "predictions.csv"
    path.write_bytes(content)

    with pytest.raises(DataError) as refusal:
        read_predictions(path)

    assert (refusal.value.where, refusal.value.hint) == (str(path), "run `dvc repro`")


def test_class_without_test_images_has_no_recall():
    """What was not measured cannot be below a floor."""
    metrics = {"classes": {"a": {"images": 4, "recall": 0.75}, "b": {"images": 0, "recall": 0.0}}}

    assert collect_recalls(metrics) == {"a": 0.75}


def test_committed_network_meets_the_committed_recall():
    """The recall that params.yaml asks for leaves room below the lowest class of the committed metrics."""
    floor = load_params(ROOT / "params.yaml")["track"]["min_recall"]

    assert min(float(row["recall"]) for row in read_csv(ROOT / "reports/classes.csv")) > floor

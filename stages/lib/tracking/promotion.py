"""Which model becomes the champion: a valid one that is not significantly worse than the champion."""

import csv
import math
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from stages.lib.core.errors import DataError
from stages.lib.core.files import iterate_csv

PREDICTIONS_PATH = Path("reports/evaluation/predictions.csv")

# True and predicted class of each test image, in the order of the images.
Predictions = list[tuple[str, str]]


class Criteria(NamedTuple):
    """What a model must meet beside its accuracy and its parity: `track` of params.yaml."""

    significance: float  # level of the test against the champion, above 0, at most 0.5
    min_recall: float  # of every class, 0..1


class Challenger(NamedTuple):
    """A model as it stands for promotion."""

    accuracy: float  # on its test split, 0..1
    test_data: str  # digest of that split
    accepted: bool  # accuracy is at least evaluate.min_accuracy
    has_parity: bool  # every export answers as Keras does
    recalls: Mapping[str, float]  # of each class that has test images, 0..1
    predictions: Predictions


class Champion(NamedTuple):
    """The model that a challenger would replace."""

    version: int  # in the model registry
    accuracy: float  # on its test split, 0..1
    test_data: str  # digest of that split
    predictions: Predictions | str  # or what became of them: "are gone"


class Decision(NamedTuple):
    """Whether a model becomes the champion, and why."""

    is_promoted: bool
    reason: str


def decide(candidate: Challenger, champion: Champion | None, criteria: Criteria) -> Decision:
    """A sound candidate takes over unless it is significantly worse than the champion on the same test images.

    Other test images start a new line of champions: results on different data do not compare. Where the champion's
    predictions cannot be compared image by image, the accuracies decide, and a lower one is refused.
    """
    problem = _find_problem(candidate, criteria)
    if problem:
        return Decision(False, problem)
    if champion is None:
        return Decision(True, f"first champion, test accuracy {candidate.accuracy:.4f}")
    if champion.test_data != candidate.test_data:
        return Decision(True, f"first champion on changed test data, accuracy {candidate.accuracy:.4f}")
    mismatch = _find_mismatch(candidate.predictions, champion.predictions)
    if mismatch or isinstance(champion.predictions, str):
        return _compare_accuracies(candidate, champion, mismatch)
    return _compare_predictions(candidate.predictions, champion.predictions, champion.version, criteria.significance)


def _find_problem(candidate: Challenger, criteria: Criteria) -> str:
    """Why the candidate is not sound; empty if it is."""
    if not candidate.accepted:
        return f"test accuracy {candidate.accuracy:.4f} is below evaluate.min_accuracy"
    low = sorted((recall, name) for name, recall in candidate.recalls.items() if recall < criteria.min_recall)
    if low:
        recall, name = low[0]
        others = f", and {len(low) - 1} more" if low[1:] else ""
        return f"recall of class {name!r} is {recall:.4f}, below track.min_recall {criteria.min_recall}{others}"
    return "" if candidate.has_parity else "an export is not within its budget against Keras"


def _find_mismatch(candidate: Predictions, champion: Predictions | str) -> str:
    """Why the champion's predictions cannot be compared with the candidate's, as a verb; empty if they can."""
    if isinstance(champion, str):
        return champion
    if len(champion) != len(candidate):
        return f"are of {len(champion)} images instead of {len(candidate)}"
    if any(ours[0] != theirs[0] for ours, theirs in zip(candidate, champion, strict=True)):
        return "have other true classes"
    return ""


def _compare_accuracies(candidate: Challenger, champion: Champion, mismatch: str) -> Decision:
    is_lower = candidate.accuracy < champion.accuracy
    return Decision(
        not is_lower,
        f"the predictions of champion version {champion.version} {mismatch}, so accuracy alone decides: "
        f"{candidate.accuracy:.4f} is {'' if is_lower else 'not '}lower than the champion's {champion.accuracy:.4f}",
    )


def _compare_predictions(candidate: Predictions, champion: Predictions, version: int, significance: float) -> Decision:
    hits = Counter(
        (actual == by_candidate, actual == by_champion)
        for (actual, by_candidate), (_, by_champion) in zip(candidate, champion, strict=True)
    )
    only_champion, only_candidate = hits[False, True], hits[True, False]
    p_value = compute_p_value(only_champion, only_candidate)
    is_worse = p_value <= significance
    if is_worse:
        verdict = "significantly worse than"
    elif only_champion > only_candidate:
        verdict = "not significantly worse than"
    elif only_champion < only_candidate:
        verdict = "better than"
    else:
        verdict = "as good as" if only_champion else "right on the same images as"
    return Decision(
        not is_worse,
        f"{verdict} champion version {version} (of {len(candidate)} test images, only the champion got {only_champion} "
        f"right, only the candidate {only_candidate}; p = {float(p_value):.4f}, track.significance {significance})",
    )


def compute_p_value(only_champion: int, only_candidate: int) -> Fraction:
    """The probability that a candidate as good as the champion does at least this badly against it by chance.

    McNemar's test in its exact form: if both are equally good, then of the n images that just one of the two got right,
    the champion's share is Binomial(n, 1/2), and p = P(X >= only_champion). Images that both got right, or both wrong,
    say nothing. One-sided, because only a worse candidate is refused: the level is then the share of equally good
    candidates that bad luck refuses. p is at most 0.5 just where the candidate got fewer images right, so that a level
    of 0.5 refuses every such candidate.
    Sources: Q. McNemar, Note on the sampling error of the difference between correlated proportions or percentages,
    Psychometrika 12 (1947) 153-157; for classifiers: T. G. Dietterich, Approximate statistical tests for comparing
    supervised classification learning algorithms, Neural Computation 10 (1998) 1895-1923. As the latter says, the test
    knows of the test images alone, not of what another seed would have trained.

    Whole numbers, so exact at any size: 0.05 s for 10,000 images. scipy.stats.binomtest would take 2 s to import.
    """
    count = only_champion + only_candidate
    ways = total = math.comb(count, only_champion)
    for right in range(only_champion, count):
        ways = ways * (count - right) // (right + 1)  # math.comb(count, right + 1)
        total += ways
    return Fraction(total, 2**count)


def read_predictions(path: Path) -> Predictions:
    """The true and the predicted class of each test image, from a file that `evaluate` wrote.

    Raises:
        DataError: it is not such a table.
    """
    try:
        pairs = ((row["actual"], row["predicted"]) for row in iterate_csv(path))
        # Equal pairs are one object, for there are few and the images may be many.
        known: dict[tuple[str, str], tuple[str, str]] = {}
        predictions = [known.setdefault(pair, pair) for pair in pairs]
    except (KeyError, ValueError, csv.Error) as error:
        raise DataError(
            str(path), f"no table with the columns actual and predicted: {error!r}", "run `dvc repro`"
        ) from None
    # csv gives None for a cell that is not there, as at the end of a file that was cut off.
    if any(cell is None for pair in known for cell in pair):
        raise DataError(str(path), "a row ends before its second cell", "run `dvc repro`")
    return predictions

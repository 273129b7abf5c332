"""Which model becomes the champion: a valid one that is not worse than the champion, by significance and by points."""

import csv
import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from stages.lib.core.errors import DataError
from stages.lib.core.files import iterate_csv

PREDICTIONS_PATH = Path("reports/evaluation/predictions.csv")

# Of accuracies in reports and tags.
_DECIMALS = 4

# True and predicted class of each test image, in the order of the images.
Predictions = list[tuple[str, str]]


class Criteria(NamedTuple):
    """What a model must meet beside its accuracy and its parity: `track` of params.yaml."""

    significance: float  # level of the test against the champion, above 0, at most 0.5
    max_accuracy_drop: float  # below the champion and below the best champion so far on the same test images, 0..1
    min_recall: float  # of every class, 0..1


class Candidate(NamedTuple):
    """A model as it stands for promotion."""

    task: str  # what it answers, see `describe_task`
    accuracy: float  # on its test split, 0..1
    test_data: str  # digest of that split
    accepted: bool  # accuracy is at least evaluate.min_accuracy
    has_parity: bool  # every required export answers as Keras does
    lowest_recall: tuple[float, str] | None  # 0..1, and whose it is; none if no class has test images
    predictions: Predictions


class Champion(NamedTuple):
    """The model that a candidate would replace."""

    version: int  # in the model registry
    task: str | None  # none of one that was registered by hand
    accuracy: float  # on its test split, 0..1
    test_data: str  # digest of that split
    predictions: Predictions | str  # or what became of them: "are gone"
    best_accuracy: float  # of all champions so far, this one included, on that split


class Decision(NamedTuple):
    """Whether a model becomes the champion, and why."""

    is_promoted: bool
    reason: str


def describe_task(dataset: Mapping[str, Any]) -> str:
    """What a network answers: the data set's name, image size, kind of pixels and classes, in order.

    Models of different tasks have no common champion: a service that loads it would get answers to another question.

    dataset: dataset.json, as `ingest` or `normalize` wrote it.
    """
    names = dataset["class_names"]
    digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:8]
    size = "x".join(map(str, dataset["image_size"]))
    pixels = "colour" if dataset.get("channels", 1) == 3 else "grey"  # data from before there was colour do not tell
    classes = f"{len(names)} classes from {names[0]!r} to {names[-1]!r} ({digest})"
    return f"{dataset['name']}, {size} {pixels} pixels 0..255, {classes}"


def decide(
    candidate: Candidate, champion: Champion | None, criteria: Criteria, *, is_data_change_accepted: bool = False
) -> Decision:
    """Decide whether a candidate takes over from the champion.

    It must be valid by itself, and of the champion's task. On the same test images it may be neither significantly
    worse than the champion, nor further below it, or below the best champion so far, than the largest drop. Where the
    champion's predictions cannot be compared image by image, the accuracies decide, and a lower one is refused. Results
    on different test images do not compare: then a person must accept the change.
    """
    problem = _find_problem(candidate, criteria)
    if problem:
        return Decision(False, problem)
    if champion is None:
        return Decision(True, f"first champion, test accuracy {candidate.accuracy:.4f}")
    if champion.task is None:
        problem = f"champion version {champion.version} has no tag 'task'"
        return Decision(False, f"{problem}: if it answers the same question, set it to {candidate.task!r} in MLflow")
    if champion.task != candidate.task:
        return Decision(
            False,
            f"champion version {champion.version} answers another task ({champion.task}), this model {candidate.task}: "
            "give each task a name of its own in track.registered_model",
        )
    if champion.test_data != candidate.test_data:
        accuracies = f"accuracy {candidate.accuracy:.4f}, before {champion.accuracy:.4f}"
        problem = f"its test images are not those of champion version {champion.version} ({accuracies})"
        verdict = "which a person accepts" if is_data_change_accepted else "so they do not compare"
        return Decision(is_data_change_accepted, f"{problem}, {verdict}")
    mismatch = _find_mismatch(candidate.predictions, champion.predictions)
    if mismatch or isinstance(champion.predictions, str):
        decision = _compare_accuracies(candidate, champion, mismatch)
    else:
        decision = _compare_predictions(
            candidate.predictions, champion.predictions, champion.version, criteria.significance
        )
    drop = _find_drop(candidate, champion, criteria.max_accuracy_drop)
    return Decision(False, drop) if drop and decision.is_promoted else decision


def _find_problem(candidate: Candidate, criteria: Criteria) -> str:
    """Why the candidate is not valid by itself; empty if it is."""
    if not candidate.accepted:
        return f"test accuracy {candidate.accuracy:.4f} is below evaluate.min_accuracy"
    if candidate.lowest_recall and candidate.lowest_recall[0] < criteria.min_recall:
        recall, name = candidate.lowest_recall
        return f"recall of class {name!r} is {recall:.4f}, below track.min_recall {criteria.min_recall}"
    return "" if candidate.has_parity else "a required export is not within its budget against Keras"


def _find_drop(candidate: Candidate, champion: Champion, max_drop: float) -> str:
    """Why the candidate's accuracy is too far below a champion's; empty if it is not."""
    best = f"the best champion so far on these test images had {champion.best_accuracy:.4f}"
    own = f"champion version {champion.version} has {champion.accuracy:.4f}"
    for accuracy, whose in ((champion.accuracy, own), (champion.best_accuracy, best)):
        if round(accuracy - candidate.accuracy, _DECIMALS) > max_drop:
            return f"test accuracy {candidate.accuracy:.4f}: {whose}, and track.max_accuracy_drop is {max_drop}"
    return ""


def _find_mismatch(candidate: Predictions, champion: Predictions | str) -> str:
    """Why the champion's predictions cannot be compared with the candidate's, as a verb; empty if they can."""
    if isinstance(champion, str):
        return champion
    if len(champion) != len(candidate):
        return f"are of {len(champion)} images instead of {len(candidate)}"
    if any(ours[0] != theirs[0] for ours, theirs in zip(candidate, champion, strict=True)):
        return "have other true classes"
    return ""


def _compare_accuracies(candidate: Candidate, champion: Champion, mismatch: str) -> Decision:
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

"""Which model is the champion."""

from typing import NamedTuple


class Contender(NamedTuple):
    """A model as it stands for promotion."""

    accuracy: float  # on its test split, 0..1
    test_data: str  # digest of that split
    accepted: bool  # accuracy is at least evaluate.min_accuracy
    has_parity: bool  # every export answers as Keras does


class Decision(NamedTuple):
    """Whether a model becomes the champion, and why."""

    is_promoted: bool
    reason: str


def decide(candidate: Contender, champion: Contender | None) -> Decision:
    """A sound candidate takes over unless the champion did better on the same test images.

    Other test images start a new line of champions: accuracies on different data do not compare.
    """
    if not candidate.accepted:
        return Decision(False, f"test accuracy {candidate.accuracy:.4f} is below evaluate.min_accuracy")
    if not candidate.has_parity:
        return Decision(False, "an export is not within its budget against Keras")
    if champion is None:
        return Decision(True, f"first champion, test accuracy {candidate.accuracy:.4f}")
    if champion.test_data != candidate.test_data:
        return Decision(True, f"first champion on changed test data, accuracy {candidate.accuracy:.4f}")
    if candidate.accuracy < champion.accuracy:
        return Decision(
            False,
            f"test accuracy {candidate.accuracy:.4f} is lower than the champion's {champion.accuracy:.4f}",
        )
    return Decision(
        True,
        f"test accuracy {candidate.accuracy:.4f} is not lower than the champion's {champion.accuracy:.4f}",
    )

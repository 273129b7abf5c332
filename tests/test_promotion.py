"""A sound model becomes the champion unless the champion did better on the same test images."""

import pytest

from stages.lib.promotion import Contender, decide

CANDIDATE = Contender(accuracy=0.95, test_data="a", accepted=True, has_parity=True)


@pytest.mark.parametrize(
    ("candidate", "champion", "is_promoted", "reason"),
    [
        ({}, None, True, "first champion, test accuracy 0.9500"),
        ({}, {"accuracy": 0.94}, True, "test accuracy 0.9500 is not lower than the champion's 0.9400"),
        ({}, {}, True, "test accuracy 0.9500 is not lower than the champion's 0.9500"),
        ({}, {"accuracy": 0.96}, False, "test accuracy 0.9500 is lower than the champion's 0.9600"),
        (
            {},
            {"accuracy": 0.99, "test_data": "b"},
            True,
            "first champion on changed test data, accuracy 0.9500",
        ),
        ({"accepted": False}, None, False, "test accuracy 0.9500 is below evaluate.min_accuracy"),
        ({"has_parity": False}, None, False, "an export is not within its budget against Keras"),
        ({"accepted": False}, {"accuracy": 0.1}, False, "test accuracy 0.9500 is below evaluate.min_accuracy"),
        ({"has_parity": False}, {"test_data": "b"}, False, "an export is not within its budget against Keras"),
    ],
    ids=[
        "no champion",
        "better",
        "as good",
        "worse",
        "other test data",
        "below the floor",
        "without parity",
        "below the floor, yet better",
        "without parity on other test data",
    ],
)
def test_decision_has_its_reason(candidate, champion, is_promoted, reason):
    """Every outcome is a verdict with the accuracies or the fault that decided it."""
    decision = decide(CANDIDATE._replace(**candidate), None if champion is None else CANDIDATE._replace(**champion))

    assert decision == (is_promoted, reason)

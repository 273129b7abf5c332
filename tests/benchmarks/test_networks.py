"""`python -m benchmarks.networks` trains one network in two ways, which learn the same."""

import pytest
from samples import write_normalized, write_raw

from benchmarks.networks import measure, tabulate

RESULT = {
    "date": "2026-11-28",
    "processor": "A processor",
    "cores": 2,
    "python": "3.11.7",
    "packages": {"tensorflow": "2.21.0", "keras": "3.15.1"},
    "network": {"conv_blocks": [[16]], "hidden_units": []},
    "dataset": "digits",
    "images": 1294,
    "epochs": 3,
    "times_as_fast": {"median": 1.444, "min": 1.1, "max": 2.0},
    "of_each": {
        "pipeline": {
            "epoch_seconds": {"median": 0.36, "min": 0.21, "max": 0.51},
            "last_loss": [0.3, 0.4],
            "test_accuracy": [0.91, 0.92],
        },
        "keras": {
            "epoch_seconds": {"median": 0.4, "min": 0.34, "max": 0.46},
            "last_loss": [0.35],
            "test_accuracy": [0.93],
        },
    },
}


def test_table_has_times_losses_and_accuracies():
    """A row for each way, and how many times as fast the pipeline is."""
    lines = tabulate(RESULT)

    assert "| the pipeline  |       0.36 |  0.21 | 0.51 |    0.3500 | 0.9150 ± 0.0071 |" in lines
    assert "| Keras's `fit` |       0.40 |  0.34 | 0.46 |    0.3500 |          0.9300 |" in lines
    assert lines[-1].startswith("The pipeline is 1.44 ")


@pytest.mark.slow
def test_both_learn_the_same_from_the_same_weights(tmp_path):
    """After the first epoch their losses differ by what rounding and the order of images make of them."""
    write_raw(tmp_path)
    data_dir = write_normalized(tmp_path)
    found = measure(data_dir, {"conv_blocks": [[4]], "hidden_units": []}, seeds=1, epochs=2)["of_each"]

    assert found["pipeline"]["last_loss"] == pytest.approx(found["keras"]["last_loss"], rel=0.05)

"""Where nobody has tried the committed bytes, that is said and the run is marked, and all goes on."""

import platform

import pytest
from samples import write_normalized

from stages import train
from stages.lib.core.params import load_section
from stages.lib.runner.tested_machines import find_untested


@pytest.mark.parametrize(
    ("machine", "untested"),
    [
        (("Linux", "x86_64", (3, 11)), ""),
        (("Linux", "aarch64", (3, 13)), ""),
        (("Darwin", "arm64", (3, 12)), "Darwin on arm64"),
        (("Windows", "AMD64", (3, 11)), "Windows on AMD64"),
        (("Linux", "x86_64", (3, 14)), "Python 3.14"),
    ],
)
def test_machines_that_were_tried_are_told_from_others(machine, untested):
    """Linux on x86-64 and AArch64, Python 3.11 to 3.13."""
    assert find_untested(*machine) == untested


@pytest.mark.heavy
@pytest.mark.parametrize(("system", "lines"), [("Linux", 0), ("Plan 9", 1)])
def test_training_says_so_once_and_goes_on(tmp_path, monkeypatch, capsys, system, lines):
    """One line on standard error, where the bytes were not tried; the network is trained all the same."""
    data_dir = write_normalized(tmp_path)
    monkeypatch.setattr(platform, "system", lambda: system)
    params = load_section("train", train.TrainParams).model_copy(update={"epochs": 1})
    train.run(params, data_dir, tmp_path / "model.keras", tmp_path / "history.csv")

    assert capsys.readouterr().err.count("dvc.lock may get other bytes here") == lines
    assert (tmp_path / "model.keras").exists()

"""DVC's tables fit a terminal of 120 columns: two experiments, what they measured, and the param that they change."""

import re

import pytest
from project import Project

pytestmark = pytest.mark.slow

COLUMNS = 120
SHOWN = ["accuracy", "ece", "loss", "int8_acc", "int8_bytes"]
# Columns of hashes, whose names are paths.
HASHES = ".*/"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A clone in which two experiments ran, its workspace as committed."""
    project = Project.clone(tmp_path_factory.mktemp("clone"))
    for units in (8, 64):
        project.run("dvc", "exp", "run", "--name", f"units-{units}", "-S", f"train.hidden_units=[{units}]")
    project.run("git", "checkout", "--quiet", "--", ".")
    return project


def show(project, *command):
    """The lines that a command prints in a terminal of 120 columns, and that each of them fits."""
    lines = project.run("env", f"COLUMNS={COLUMNS}", "dvc", *command).splitlines()
    assert [line for line in lines if len(line) > COLUMNS] == []
    return lines


@pytest.mark.parametrize("options", [[], ["--drop", HASHES]], ids=["with hashes", "without"])
def test_experiments_fit_with_metrics_and_changed_params(project, options):
    """Name, time, five metrics and the changed param of each experiment stand in one line, none of them cut."""
    lines = show(project, "exp", "show", "--no-pager", "--only-changed", *options)
    (header,) = [line.split() for line in lines if "Experiment" in line]
    rows = {name: line.split() for line in lines for name in re.findall(r"\[(units-\d+)\]", line)}

    assert header[:8] == ["Experiment", "Created", *SHOWN, "train.hidden_units"]
    assert {name: row[-1 - (not options)] for name, row in rows.items()} == {"units-8": "[8]", "units-64": "[64]"}
    assert all(len(re.findall(r"\d\.\d{4}", " ".join(row))) == 4 for row in rows.values())


def test_long_name_of_an_experiment_fits_without_hashes(project):
    """The names that DVC makes up itself have room, too."""
    project.run("dvc", "exp", "rename", "units-64", "unhinged-lynx")
    lines = show(project, "exp", "show", "--no-pager", "--only-changed", "--drop", HASHES)
    project.run("dvc", "exp", "rename", "unhinged-lynx", "units-64")

    assert any("train.hidden_units" in line for line in lines)
    assert any(re.search(r"\[unhinged-lynx\].* \[64\]", line) for line in lines)


def test_metrics_fit(project):
    """`dvc metrics show` is a line for each file."""
    header, *rows = (line.split() for line in show(project, "metrics", "show"))

    assert header == ["Path", "accuracy", "ece", "int8_acc", "int8_bytes", "loss"]
    assert [row[0] for row in rows] == ["reports/metrics.json", "reports/exports.json"]


def test_difference_of_metrics_fits(project):
    """`dvc metrics diff` is a line for each of the five numbers."""
    lines = show(project, "metrics", "diff", "HEAD", "units-8")

    assert {line.split()[1] for line in lines[1:]} == set(SHOWN)


def test_withheld_export_leaves_its_cells_empty(project):
    """An int8 file that is not there has neither accuracy nor bytes, and the table says so."""
    settings = ("-S", "export.microcontroller.max_file_bytes=1000")
    project.run("dvc", "exp", "run", "--name", "tiny", *settings)
    lines = show(project, "exp", "show", "--no-pager", "--only-changed", "--drop", HASHES)
    project.run("git", "checkout", "--quiet", "--", ".")
    (row,) = [line.split() for line in lines if "[tiny]" in line]

    assert row.count("-") >= 2

"""The README says what is so."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from imports import ROOT
from ruamel.yaml import YAML

from benchmarks.pipeline import tabulate

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_picture_of_the_dag_has_its_edges():
    """The README's chart shows each stage's upstream stages, as dvc.yaml has them."""
    stages = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    owners = {
        path if isinstance(path, str) else next(iter(path)): name
        for name, stage in stages.items()
        for path in stage.get("outs", []) + stage.get("metrics", [])
    }
    edges = {
        (owner, name)
        for name, stage in stages.items()
        for dep in stage["deps"]
        for output, owner in owners.items()
        if Path(dep).is_relative_to(output)
    }

    assert set(re.findall(r"^    (\w+) --> (\w+)$", README, re.MULTILINE)) == edges


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", "SECURITY.md", ".github/SWEEPS.md", ".github/TEAM.md"]
)
def test_named_modules_and_links_exist(document):
    """Each module and each file that a document names is there."""
    text = (ROOT / document).read_text(encoding="utf-8")
    named = re.findall(r"`((?:stages|tests)/[\w/]+\.py)`", text) + re.findall(r"\]\(([\w./-]+)\)", text)

    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "SECURITY.md"])
def test_named_tests_exist(document):
    """Each test that a document names as the one that holds a rule or a promise is there."""
    named = set(re.findall(r"`(test_\w+)`", (ROOT / document).read_text(encoding="utf-8")))
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }

    assert len(named) > 10
    assert named <= defined


def test_each_promise_of_safety_names_its_tests():
    """No row of SECURITY.md's table stands without a test that holds it."""
    rows = re.findall(r"^\| (.+) \| (.+) \|$", (ROOT / "SECURITY.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert len(rows) > 10
    assert [promise for promise, tests in rows[1:] if not re.fullmatch(r"`test_\w+`(, `test_\w+`)*", tests)] == []


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_named_make_targets_exist(document):
    """Each `make` target that a document names is one."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE))

    assert named <= targets


def test_times_are_those_of_the_newest_measurement():
    """The README's tables of how long the pipeline takes are those that `make bench` printed with its newest result."""
    newest = max((ROOT / "benchmarks/results").glob("pipeline-*.json"))
    tables = [line for line in tabulate(json.loads(newest.read_text(encoding="utf-8"))) if line.startswith("|")]

    assert f"({newest.relative_to(ROOT)})" in README
    assert "\n".join(tables) in README.replace("\n\n|", "\n|")


def test_costs_are_those_of_the_newest_measurement():
    """The README's table of what an answer costs has each row and ratio of the newest result of `make bench`."""
    newest = max((ROOT / "benchmarks/results").glob("predictions-*.json"))
    costs = json.loads(newest.read_text(encoding="utf-8"))["costs"]
    rows = {
        (cost["file"], cost["title"]): [
            *(cost["single"][f"times_as_fast_as_{key}"] for key in ("predict", "call")),
            *(cost["batch"][f"times_as_fast_as_{key}"] for key in ("predict", "call")),
        ]
        for cost in costs
    }
    shown = {
        (file, title): [float(cell.replace(",", "")) for cell in cells.split(" | ")[:4]]
        for file, title, cells in re.findall(r"^\| `(model\S*)` \| ([\w ]+) \| ([\d,. |]+) \|$", README, re.MULTILINE)
    }

    assert f"({newest.relative_to(ROOT)})" in README
    assert shown.keys() == rows.keys()
    assert all(np.allclose(shown[key], rows[key], rtol=0.01) for key in rows)

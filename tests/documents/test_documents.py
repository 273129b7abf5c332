"""The documents say what is so."""

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import groupby, pairwise
from pathlib import Path

import click
import numpy as np
import pytest
from imports import ROOT, STAGES
from pages import PAGES, list_anchors, read_blocks
from pydantic import ValidationError
from ruamel.yaml import YAML

from benchmarks.c_classifier import tabulate as tabulate_c_classifier
from benchmarks.pipeline import tabulate
from stages.commands.main import main
from stages.lib.core.files import read_json
from stages.lib.validation.expectations import Finding
from stages.validate import explain

README, BENCHMARKS = PAGES["README.md"], PAGES["docs/benchmarks.md"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
# What a page may name in code that looks like a parameter of these sections.
SECTIONS = "|".join(STAGES)
# Of the lines that the page of troubleshooting quotes, those of other programs and of the system.
OTHERS_WORDS = {
    "Connection refused",
    "ERROR: failed to transfer",
    "LexerNoViableAltException",
    "No such file or directory",
    "No space left on device",
    "Read timed out",
    "Read-only file system",
    "Unable to read RWLock-file",
    "database or disk is full",
    "detected dubious ownership",
    "file is not a database",
}
each_page = pytest.mark.parametrize("page", PAGES)


def load_params():
    return YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def list_commands() -> Iterator[list[str]]:
    """Each command line of the shell blocks, in words."""
    for block in read_blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for is_between, command in groupby(words, lambda word: word == "&&"):
                if not is_between:
                    yield list(command)


# --- the whole ----------------------------------------------------------------------------------------------------


def test_pages_build_without_a_warning(tmp_path):
    """Sphinx builds all pages as `make docs` does: each link, heading, table and generated part is in order."""
    (command,) = re.findall(r"^\tpython (-m sphinx .+) docs/_build/html$", MAKEFILE, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, *command.split(), str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "max_label_conflict_fraction" in (tmp_path / "reference/params.html").read_text(encoding="utf-8")
    assert "--emulate" in (tmp_path / "reference/commands.html").read_text(encoding="utf-8")
    assert "load_split" in (tmp_path / "reference/api.html").read_text(encoding="utf-8")


def test_readme_is_one_page():
    """README.md has at most 200 lines."""
    assert len(README.splitlines()) <= 200


@each_page
def test_links_lead_somewhere(page):
    """Each relative link of a document leads to a file that is there, and to a heading that it has."""
    broken = []
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", PAGES[page]):
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        if not path.exists() or (anchor and anchor not in list_anchors(path)):
            broken.append(target)

    assert broken == []


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ("citation-file-format", "CITATION.cff"),
        ("github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/bug.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/feature.yml"),
    ],
)
def test_forms_are_valid(schema, name):
    """The citation and the forms for issues are valid by the schemas that check-jsonschema ships."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


# --- names --------------------------------------------------------------------------------------------------------


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


@each_page
def test_named_modules_exist(page):
    """Each module and folder of code that a document names is there."""
    named = re.findall(r"`((?:stages|tests|benchmarks|docs)/[\w/.-]+)`", PAGES[page])

    assert [path for path in named if not (ROOT / path).exists() and "_build" not in path] == []


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/explanation/determinism.md"])
def test_named_tests_exist(page):
    """Each test that a document names as the one that holds a rule or a promise is there."""
    named = set(re.findall(r"`(test_\w+)`", PAGES[page]))
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }

    assert len(named) > 10
    assert named - defined == set()


def test_each_promise_of_safety_names_its_tests():
    """No row of SECURITY.md's table stands without a test that holds it."""
    rows = re.findall(r"^\| (.+) \| (.+) \|$", PAGES["SECURITY.md"], re.MULTILINE)

    assert len(rows) > 10
    assert [promise for promise, tests in rows[1:] if not re.fullmatch(r"`test_\w+`(, `test_\w+`)*", tests)] == []


def test_packages_of_the_architecture_are_those_of_the_library():
    """The table of packages names each package of stages/lib, once."""
    named = re.findall(r"^\| `(\w+)` \|", PAGES["docs/explanation/architecture.md"], re.MULTILINE)

    assert sorted(named) == sorted(path.parent.name for path in (ROOT / "stages/lib").glob("*/__init__.py"))


# --- commands -----------------------------------------------------------------------------------------------------


@each_page
def test_named_make_targets_exist(page):
    """Each `make` target that a document names is one, its hyphens included."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)", PAGES[page], re.MULTILINE))

    assert named - targets == set()


def test_readme_names_all_make_targets():
    """The README's table has each target that the Makefile offers, and so has the Makefile's own head."""
    (offered,) = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    head = MAKEFILE[: MAKEFILE.index("PYTHON ?=")]

    assert set(offered.split()) - set(re.findall(r"`make ([a-z-]+)`", README)) == set()
    assert set(offered.split()) - set(re.findall(r"make ([a-z-]+)", head)) == {"repro", "setup"}


def test_readme_names_all_commands_of_pipeline():
    """The README's table has each command of `pipeline`."""
    named = re.findall(r"^\| `pipeline (\w+)` \|", README, re.MULTILINE)

    assert named == main.list_commands(click.Context(main))


def test_shown_commands_of_pipeline_take_their_options():
    """Each `pipeline` command in a block of shell lines is one, and has the options that it is shown with."""
    context = click.Context(main)
    shown = [words for words in list_commands() if words[0] == "pipeline"]
    wrong = []
    for words in shown:
        command = main.get_command(context, words[1])
        known = {option for parameter in command.params for option in parameter.opts} if command else set()
        wrong += [words for word in words[2:] if command is None or (word.startswith("--") and word not in known)]

    assert len(shown) > 10
    assert wrong == []


def test_shell_blocks_are_shell():
    """Each block of shell lines is one that bash can read."""
    blocks = read_blocks("sh")
    refused = [
        block
        for block in blocks
        if subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True, check=False).returncode
    ]

    assert len(blocks) > 20
    assert refused == []


def test_python_blocks_are_python():
    """Each block of Python is one; other tests run those that use what is installed, the team's server and arrays."""
    blocks = read_blocks("python")
    for block in blocks:
        ast.parse(block)

    assert len(blocks) == 6


def test_shown_modules_exist():
    """Each module of this project that a block of shell lines starts with `python -m` is there."""
    shown = {words[2] for words in list_commands() if words[:2] == ["python", "-m"]} - {"pip"}

    assert len(shown) > 1
    assert [name for name in shown if not (ROOT / f"{name.replace('.', '/')}.py").exists()] == []


def list_strings() -> str:
    """All strings in the code of `stages`, a line for each."""
    return "\n".join(
        node.value
        for path in (ROOT / "stages").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def test_shown_lines_of_check_end_in_the_hints_of_the_code():
    """What the page on own images shows of `pipeline check` has the hints that it prints, word for word."""
    hints = re.findall(r"^(?:stops|warns): .+; (.+)$", PAGES["docs/how-to/own-images.md"], re.MULTILINE)
    of_rules = {hint: rule[1] for hint in hints if (rule := re.search(r"validate\.(\w+)$", hint))}
    others = [piece.strip() for hint in hints if hint not in of_rules for piece in re.split(r"/\S+", hint)]
    strings = list_strings()

    assert len(of_rules) > 1
    assert len(others) > 2
    for hint, rule in of_rules.items():
        finding = Finding("images", "", {"column": "x", "max_value": 0}, False, 1, 1, [], rule, True)
        assert explain(finding, "images").hint == hint
    assert [piece for piece in others if piece not in strings] == []


def test_quoted_lines_are_those_of_the_code():
    """What the page of troubleshooting quotes of the pipeline's own lines is in the code, word for word."""
    page = PAGES["docs/troubleshooting.md"]
    cells = re.findall(r"^\| (.+?) \|", page[: page.index("## When it is interrupted")], re.MULTILINE)
    quoted = {quote for cell in cells for quote in re.findall(r"`([^`]+)`", cell)}
    # Names and figures are put in as the line is made; so are most values behind "expected" and "got".
    pieces = {
        re.sub(r"^(\w+: |: )?(expected |got )?", "", piece).strip(" :")
        for quote in quoted
        if not any(words in quote for words in OTHERS_WORDS)
        for piece in re.split(r"…|[\d,]{2,}|dvc\.lock: |numpy", quote)
    }
    own = {piece for piece in pieces if " " in piece}
    strings = list_strings()

    assert len(own) > 10
    assert {piece for piece in own if piece not in strings} == set()


# --- parameters ---------------------------------------------------------------------------------------------------


@each_page
def test_named_params_exist(page):
    """Each parameter that a document names by section and key is one of params.yaml."""
    params = load_params()
    named = re.findall(rf"`((?:{SECTIONS})\.[a-z_.]+)(?::[^`]*)?`", PAGES[page])
    unknown = []
    for name in named:
        value = params
        for key in name.split("."):
            value = value.get(key, ...) if isinstance(value, dict) else ...  # null is a value
        if value is ... and not re.search(r"\.(md|py)$", name):
            unknown.append(name)

    assert unknown == []


def test_shown_settings_are_allowed():
    """What a document sets with `-S` or writes as `section.key: value` is what that parameter may be."""
    settings = [value for words in list_commands() for word, value in pairwise(words) if word == "-S"]
    for text in PAGES.values():
        settings += [f"{key}={value}" for key, value in re.findall(rf"`((?:{SECTIONS})\.\w+): ([^`]+)`", text)]
    refused = []
    for setting in settings:
        key, _, value = setting.partition("=")
        stage, name = key.split(".")
        section = getattr(import_module(f"stages.{stage}"), f"{stage.capitalize()}Params")
        changed = {**load_params()[stage], name: YAML(typ="safe", pure=True).load(value)}
        try:
            section.model_validate(changed)
        except ValidationError:
            refused.append(setting)

    assert len(settings) > 5
    assert refused == []


# --- figures ------------------------------------------------------------------------------------------------------


def find_newest(kind: str) -> Path:
    """The newest result of a benchmark, which the page of benchmarks links."""
    newest = max((ROOT / "benchmarks/results").glob(f"{kind}-*.json"))
    assert f"(../{newest.relative_to(ROOT)})" in BENCHMARKS
    return newest


def read_rows(opening: str) -> dict[str, list[float]]:
    """The numbers in each row of the benchmarks' table whose head begins so, by the row's first cells."""
    table = BENCHMARKS[BENCHMARKS.index(opening) :].split("\n\n", maxsplit=1)[0]
    rows = {}
    for line in table.splitlines()[2:]:
        cells = [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        numbers = [cell for cell in cells if re.match(r"[\d,.]+( ±.*)?$", cell)]
        title = " ".join(cell for cell in cells if cell not in numbers)
        rows[title.strip()] = [float(number.split(" ")[0].replace(",", "")) for number in numbers]
    return rows


def test_times_are_those_of_the_newest_measurement():
    """The tables of how long the pipeline takes are those that `make bench` printed with its newest result."""
    tables = [line for line in tabulate(read_json(find_newest("pipeline"))) if line.startswith("|")]

    assert "\n".join(tables) in BENCHMARKS.replace("\n\n|", "\n|")


def test_costs_are_those_of_the_newest_measurement():
    """The table of what an answer costs has each row and ratio of the newest result of `make bench`."""
    measured = {
        f"{cost['file']} {cost['title']}": [
            *(cost["single"][f"times_as_fast_as_{key}"] for key in ("predict", "call")),
            *(cost["batch"][f"times_as_fast_as_{key}"] for key in ("predict", "call")),
        ]
        for cost in read_json(find_newest("predictions"))["costs"]
    }
    shown = read_rows("| file | runtime | 1 image")

    assert shown.keys() == measured.keys()
    assert all(np.allclose(shown[key][:4], measured[key], rtol=0.01) for key in measured)


def test_costs_on_microcontrollers_are_those_of_the_newest_measurement():
    """The table of what the C file costs is the one that `make bench-c` printed with its newest result, for GCC."""
    table = tabulate_c_classifier(read_json(find_newest("c-classifier"))["networks"], "GCC")

    assert "\n".join(table) in BENCHMARKS


def test_pace_of_training_is_that_of_the_newest_measurement():
    """The table of how fast training is has each row of the newest result of `make bench`."""
    measured = {
        entry["title"].replace("`", ""): [
            entry["epochs_per_second"]["median"],
            entry["times_as_fast_as_lecture"]["median"],
            entry["times_as_fast_as_pipeline"]["median"],
            entry["epoch_processor_seconds"]["median"],
            entry["first_epoch_seconds"]["median"],
            entry["test_accuracy"]["mean"],
        ]
        for entry in read_json(find_newest("training"))["contenders"]
    }
    shown = read_rows("| | epochs a second")

    assert shown.keys() == measured.keys()
    assert all(np.allclose(shown[key], measured[key], rtol=0.01, atol=0.006) for key in measured)


def test_growth_is_that_of_the_newest_measurement():
    """The table of time and memory by the number of images has each stage's seconds of the newest result."""
    sizes = read_json(find_newest("scale"))["sizes"]
    shown = read_rows("| stage | 70,000 images: s")

    assert list(shown) == STAGES
    assert all(
        np.allclose(shown[stage][: len(sizes)], [size["stages"][stage]["seconds"] for size in sizes], atol=0.06)
        for stage in STAGES
    )


def test_accuracy_of_the_first_run_is_the_committed_one():
    """What the README shows of the first run has the committed accuracy."""
    accuracy = f"{read_json(ROOT / 'reports/metrics.json')['accuracy']:.4f}"
    limit = load_params()["evaluate"]["min_accuracy"]

    assert f"evaluate: test accuracy {accuracy}: accepted (at least {limit} is wanted)" in README
    assert f"first champion, test accuracy {accuracy}" in README

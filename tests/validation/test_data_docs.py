"""Data Docs: what the data's rules found, on pages for people that are the same bytes at every run."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pandas as pd
import pytest
from imports import ROOT

from stages.lib.validation.data_docs import write_data_docs
from stages.lib.validation.expectations import check, describe, gxe

# A class that somebody has named so, and a folder with the sign that templates are filled in by.
SCRIPT, DOLLARS = "<script>alert(1)</script>", "$column {{ 7 * 7 }} & co"


def find(parts=1):
    """Findings on two tables: one that stops, one that warns, and one that holds though a row breaks it."""
    classes = pd.DataFrame({"class": [SCRIPT, DOLLARS, "sound"], "images": [3, 4, 99]})
    images = pd.DataFrame(
        {"split": "train", "index": range(90), "contrast": [0] * 12 + [99] * 78, "leaks": [1] + [0] * 89}
    )
    rows = len(images) // parts
    few = gxe.ExpectColumnValuesToBeBetween(
        column="images", min_value=5, severity="warning", meta={"rule": "images_per_class <5>"}
    )
    stops = {"severity": "critical"}
    of_classes = check("classes", [classes], [few], ["class"])
    of_images = check(
        "images",
        [images[first : first + rows] for first in range(0, len(images), rows)],
        [
            gxe.ExpectColumnValuesToBeBetween(
                column="contrast", min_value=32, meta={"rule": "rule of contrast"}, **stops
            ),
            gxe.ExpectColumnValuesToBeInSet(
                column="leaks", value_set=[0], mostly=0.9, meta={"rule": "rule of leaks"}, **stops
            ),
        ],
        ["split", "index"],
    )
    return [*of_classes, *of_images]


class Texts(HTMLParser):
    """The texts of a page as a person reads them, and its elements."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.tags = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        """Keep an element."""
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text):
        """Keep a text, its blanks as a browser shows them."""
        if text.strip() and self.lasttag != "style":
            self.texts.append(" ".join(text.split()))


@pytest.fixture(scope="module")
def docs(tmp_path_factory):
    """The pages of `find`, by name."""
    folder = tmp_path_factory.mktemp("docs") / "data_docs"
    write_data_docs(find(), folder)
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_each_table_has_a_page_that_every_page_links(docs):
    """A person who opens one page finds the others."""
    assert set(docs) == {"index.html", "classes.html", "images.html"}
    for page in docs.values():
        links = [attributes["href"] for tag, attributes in Texts(page).tags if tag == "a"]
        assert set(docs) == set(links)


def test_index_says_first_whether_the_data_passed(docs):
    """Then what stops, what warns and how many expectations each table has."""
    texts = Texts(docs["index.html"]).texts[4:]  # after the title and the links

    assert texts[0] == "Failed: 1 of 3 expectations broken that stop the pipeline; 1 warning"
    stops, warns, tables = (
        texts.index(text) for text in ("What stops the pipeline", "What only warns", "What was looked at")
    )
    assert texts[stops + 4 : warns] == ["images", "rule of contrast", "12 of 90 rows"]
    assert texts[warns + 4 : tables] == ["classes", "images_per_class <5>", "2 of 3 rows"]
    assert texts[tables + 6 :] == ["classes", "3", "1", "0", "1", "images", "90", "2", "1", "0"]


@pytest.mark.parametrize(
    ("broken", "verdict"),
    [
        ([False, False, False], "Passed: all 3 expectations hold"),
        ([True, False, False], "Passed, with 1 warning; all other of 3 expectations hold"),
        ([False, True, True], "Failed: 2 of 3 expectations broken that stop the pipeline; 0 warnings"),
    ],
)
def test_verdict_is_that_of_the_expectations_that_stop(tmp_path, broken, verdict):
    """A warning does not fail the data."""
    findings = [finding._replace(holds=not is_broken) for finding, is_broken in zip(find(), broken, strict=True)]
    write_data_docs(findings, tmp_path / "docs")

    assert verdict in Texts((tmp_path / "docs/index.html").read_text(encoding="utf-8")).texts


def test_broken_expectation_is_shown_with_its_rows(docs):
    """In Great Expectations' words, with which rows break it first, how many do, and the rule."""
    texts = Texts(docs["images.html"]).texts
    start = texts.index("contrast values must be greater than or equal to 32.0.")

    assert texts[start + 1 : start + 5] == ["The first 10 of 12:", "split", "index", "contrast"]
    assert texts[start + 5 : start + 35] == [cell for row in range(10) for cell in ("train", str(row), "0")]
    assert texts[start + 35 : start + 38] == ["12 of 90 rows", "rule of contrast", "stops the pipeline"]


def test_rows_within_what_is_allowed_are_shown(docs):
    """An expectation that holds for most rows names those it does not hold for."""
    texts = Texts(docs["images.html"]).texts
    start = texts.index("leaks values must belong to this set: 0, at least 90 % of the time.")

    assert texts[start + 1 : start + 7] == ["split", "index", "leaks", "train", "0", "1"]


def test_warning_has_a_sign_of_its_own(docs):
    """A person tells what holds, warns and stops at a glance."""
    signs = {name: [text for text in Texts(page).texts if text in "✔⚠✘"] for name, page in docs.items()}

    assert signs == {"index.html": [], "classes.html": ["⚠"], "images.html": ["✘", "✔"]}


def test_names_of_the_data_are_text(docs):
    """What looks like HTML or like a template is shown as it is."""
    page = Texts(docs["classes.html"])

    assert {SCRIPT, DOLLARS, "images_per_class <5>"} <= set(page.texts)
    assert "script" not in [tag for tag, _ in page.tags]


def test_pages_need_nothing_but_themselves(docs):
    """No style, image, script or letter comes from elsewhere: a folder on a disk without a network is enough."""
    for page in docs.values():
        assert {tag for tag, _ in Texts(page).tags}.isdisjoint({"script", "img", "link", "iframe"})
        assert not re.search(r"https?:|url\(|@import", page)


def test_table_that_was_checked_in_parts_is_shown_as_one(tmp_path, docs):
    """However many rows Great Expectations saw at a time, the pages are those of the whole."""
    write_data_docs(find(parts=3), tmp_path / "docs")

    assert {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "docs").iterdir()} == docs


def test_pages_are_the_same_bytes_in_another_process(tmp_path, docs):
    """Neither ids, times, versions, places nor the order of a hash table are in them."""
    code = "from pathlib import Path; import test_data_docs as t; t.write_data_docs(t.find(), Path('docs'))"
    environment = {
        "PYTHONHASHSEED": "7",
        "TZ": "Asia/Tokyo",
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "tests", ROOT / "tests/validation"])),
    }
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | environment, check=True)

    assert {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "docs").iterdir()} == docs


def test_page_of_a_table_that_is_gone_is_gone(tmp_path):
    """The folder holds the pages of this run and no other."""
    write_data_docs(find(), tmp_path / "docs")
    write_data_docs([finding for finding in find() if finding.table == "classes"], tmp_path / "docs")

    assert {path.name for path in (tmp_path / "docs").iterdir()} == {"index.html", "classes.html"}


def test_expectation_of_two_columns_is_in_words():
    """Not only values of a column, also a pair of columns that must be equal."""
    counts = pd.DataFrame({"split": ["train"], "images": [3], "labels": [2]})
    equal = gxe.ExpectColumnPairValuesToBeEqual(column_A="images", column_B="labels", meta={"rule": "structure"})
    (finding,) = check("splits", [counts], [equal], ["split"])

    assert describe(finding) == "Values in images and labels must always be equal."

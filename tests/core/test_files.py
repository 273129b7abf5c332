"""Files and folders are written whole or not at all, and JSON and CSV are byte-stable."""

import math

import pytest
from samples import list_files, run_python

from stages.lib.core.errors import DataError
from stages.lib.core.files import atomic_write, read_csv, read_json, remove, write_csv, write_json


def write_file(place, content):
    place.write_text(content, encoding="utf-8")


def write_folder(place, content):
    place.mkdir()
    (place / "inner").write_text(content, encoding="utf-8")


KINDS = pytest.mark.parametrize("write", [write_file, write_folder])


def write_all(path, write, content):
    """Write a file or a folder whole."""
    with atomic_write(path) as partial:
        write(partial, content)


def write_half(path, write, problem):
    """Fail after a part of a file or a folder is written."""
    with atomic_write(path) as partial:
        write(partial, "half")
        raise problem


@KINDS
def test_whole_output_takes_its_name(tmp_path, write):
    """After the block the output is there with its content, in a folder that is made for it, and nothing else."""
    write_all(tmp_path / "deep" / "out", write, "new")

    assert list(list_files(tmp_path / "deep").values()) == [b"new"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


@KINDS
def test_output_is_not_seen_before_the_block_ends(tmp_path, write):
    """Inside the block the old output is still in its place."""
    write_all(tmp_path / "out", write, "old")
    with atomic_write(tmp_path / "out") as partial:
        write(partial, "new")
        seen = list(list_files(tmp_path / "out" if write is write_folder else tmp_path).values())

    assert b"old" in seen


@KINDS
@pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt, SystemExit])
def test_failed_block_leaves_the_old_output_and_nothing_else(tmp_path, write, problem):
    """Whatever ends the block early, what was there before is there afterwards."""
    write_all(tmp_path / "out", write, "old")
    before = list_files(tmp_path)
    with pytest.raises(problem):
        write_half(tmp_path / "out", write, problem)

    assert list_files(tmp_path) == before


@KINDS
@pytest.mark.parametrize("half", ['partial.write_text("half")', 'partial.mkdir(); (partial / "x").write_text("half")'])
def test_leftover_of_a_killed_attempt_is_replaced(tmp_path, write, half):
    """What a killed process left, file or folder, is gone after the next attempt."""
    code = f"""
import os
from pathlib import Path
from stages.lib.core.files import atomic_write
with atomic_write(Path("out")) as partial:
    {half}
    os._exit(9)
"""
    assert run_python("-c", code, cwd=tmp_path).returncode == 9
    assert list(list_files(tmp_path).values()) == [b"half"]
    write_all(tmp_path / "out", write, "new")

    assert list(list_files(tmp_path).values()) == [b"new"]


@KINDS
@pytest.mark.parametrize("write_before", [write_file, write_folder])
def test_output_replaces_one_of_another_kind(tmp_path, write, write_before):
    """A folder may take a file's place, and the other way round."""
    write_all(tmp_path / "out", write_before, "old")
    write_all(tmp_path / "out", write, "new")

    assert list(list_files(tmp_path).values()) == [b"new"]


def test_remove_takes_a_link_and_not_what_it_points_to(tmp_path):
    """A link to a folder, as DVC may put in an output's place, is removed alone."""
    write_folder(tmp_path / "folder", "kept")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    remove(tmp_path / "link")

    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (tmp_path / "folder" / "inner").exists()


def test_json_is_sorted_and_ends_with_a_line_end(tmp_path):
    """Keys are in order at every depth, umlauts as they are."""
    write_json(tmp_path / "a.json", {"b": {"d": 1, "c": [2, None]}, "a": "ü"})

    assert (tmp_path / "a.json").read_text(encoding="utf-8") == (
        '{\n  "a": "ü",\n  "b": {\n    "c": [\n      2,\n      null\n    ],\n    "d": 1\n  }\n}\n'
    )


def test_json_bytes_do_not_depend_on_the_order_of_keys(tmp_path):
    """Equal values are equal bytes."""
    write_json(tmp_path / "a.json", {"a": 1, "b": 2})
    write_json(tmp_path / "b.json", {"b": 2, "a": 1})

    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_refuses_what_is_no_json_number(tmp_path, value):
    """NaN and infinity are refused, and the file is as it was."""
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": [value]})

    assert read_json(tmp_path / "a.json") == {"a": 1}


@pytest.mark.parametrize(
    ("content", "reported"),
    [(None, "no such file"), ("{", "not JSON: Expecting"), ("[1]", "expected a JSON object, got list")],
)
def test_json_that_is_no_object_is_refused(tmp_path, content, reported):
    """A missing file, broken JSON and JSON of another kind are errors of the data."""
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")

    with pytest.raises(DataError) as refusal:
        read_json(path)

    assert (refusal.value.where, refusal.value.hint) == (str(path), "run `dvc repro`")
    assert refusal.value.problem.startswith(reported)


def test_csv_has_one_line_end_on_every_system(tmp_path):
    """Lines end with a line feed alone; what needs quotes has them."""
    write_csv(tmp_path / "a.csv", ["name", "size"], [("a,b", 1), ('"c"', 2.5)])

    assert (tmp_path / "a.csv").read_bytes() == b'name,size\n"a,b",1\n"""c""",2.5\n'


def test_csv_round_trip_gives_texts(tmp_path):
    """What was written comes back by column, as text."""
    write_csv(tmp_path / "a.csv", ["name", "size"], [("a,\nb", 1)])

    assert read_csv(tmp_path / "a.csv") == [{"name": "a,\nb", "size": "1"}]

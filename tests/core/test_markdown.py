"""A table reads well in a terminal and is one in Markdown."""

import pytest

from stages.lib.core.markdown import format_table


def test_columns_are_padded_to_their_widest_cell():
    """The first column is flush left, the others right, each as wide as its widest cell or title."""
    assert format_table(["export", "n"], [["a", "1234"], ["model.onnx", "5"]]) == [
        "| export     |    n |",
        "| ---------- | ---: |",
        "| a          | 1234 |",
        "| model.onnx |    5 |",
    ]


def test_rule_has_three_signs_at_least():
    """Narrow columns are as wide as the shortest rule that all readers of Markdown know."""
    assert format_table(["a", "b"], [["1", "2"]]) == ["| a   |   b |", "| --- | --: |", "| 1   |   2 |"]


def test_table_without_rows_is_its_header():
    """With nothing to tell, header and rule remain."""
    assert format_table(["export", "accuracy"], []) == ["| export | accuracy |", "| ------ | -------: |"]


def test_empty_cells_keep_their_place():
    """An empty cell is spaces: columns stay below one another."""
    lines = format_table(["export", "class", "ties"], [["a", "", ""], ["", "12", "3"]])

    assert {len(line) for line in lines} == {len(lines[0])}
    assert [[place for place, sign in enumerate(line) if sign == "|"] for line in lines] == [[0, 9, 17, 24]] * 4


def test_characters_count_not_bytes():
    """Signs outside ASCII, such as those of |Δp| ≤, are as wide as others."""
    assert {len(line) for line in format_table(["Größe", "Δp"], [["≤", "é"]])} == {len("| Größe |  Δp |")}


def test_row_of_another_length_is_an_error():
    """A cell too many or too few would shift all that follow: it is an error of the code."""
    with pytest.raises(ValueError, match="zip"):
        format_table(["a", "b"], [["1"]])

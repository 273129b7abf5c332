"""Charts call a class by its number where their font lacks a letter of its name, and a line says which it is."""

import pytest

from stages.lib.plotting.class_labels import explain_numbered, find_numbered, label_classes

NAMES = ["naïve", "猫", "кошка", "<3 … “quoted”", "日本", "γάτα", "😀", "🦄"]


def test_names_stay_where_the_font_has_their_letters():
    """Latin, Cyrillic and Greek letters, signs and the oldest emoji are drawn; the others are numbered from 0."""
    assert label_classes(NAMES) == ["naïve", "class 1", "кошка", "<3 … “quoted”", "class 4", "γάτα", "😀", "class 7"]
    assert find_numbered(NAMES) == {"猫": "class 1", "日本": "class 4", "🦄": "class 7"}


def test_line_says_which_number_is_which():
    """One line for all of them, and none where there are none."""
    assert explain_numbered(NAMES) == (
        "the charts' font lacks letters of these names: class 1 is 猫, class 4 is 日本, class 7 is 🦄"
    )
    assert explain_numbered(["left", "right"]) == ""


@pytest.mark.parametrize(("count", "ending"), [(20, "class 19 is 字19"), (21, "as data/raw/dataset.json lists them")])
def test_line_of_very_many_names_is_cut(count, ending):
    """Twenty are named; the file that has all of them is named in place of the others."""
    assert explain_numbered([f"字{number}" for number in range(count)]).endswith(ending)

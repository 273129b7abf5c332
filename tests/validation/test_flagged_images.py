"""Whatever breaks a rule is named and shown, with its reasons."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from samples import CLASS_NAMES, make_colour_dataset, make_dataset, write_raw

from stages.lib.core.files import read_csv, write_csv
from stages.lib.validation import flagged_images
from stages.lib.validation.flagged_images import (
    STRUCTURE,
    Offender,
    Rule,
    load_source,
    name_flagged_images,
    note_offenders,
    write_flagged_images,
)

FAINT = Rule("min_contrast", "contrast", least=32)
WRONG = Rule(STRUCTURE, "label", 0, 2)
CONFLICT = Rule("max_label_conflict_fraction", "label_conflicts", most=0)
NO_TWINS = np.full(90, -1)


@pytest.fixture
def source(tmp_path):
    """60 training and 30 test images, each of which was an image."""
    raw_dir = write_raw(tmp_path)
    for split, count in (("train", 60), ("test", 30)):
        rows = [[f"{split} {index}.png", 20, 30] for index in range(count)]
        write_csv(raw_dir / split / "files.csv", ["file", "height", "width"], rows)
    return load_source(raw_dir, CLASS_NAMES)


def write(folder, named, source):
    """The rows of flagged_images.csv."""
    write_flagged_images(named, source, folder)
    return read_csv(folder / "flagged_images.csv")


def test_offenders_of_all_parts_of_a_table_are_noted():
    """A row counts among all rows, whatever part of the table it came in; the parts pass through as they are."""
    parts = [pd.DataFrame({"contrast": [200, 31, 32]}), pd.DataFrame({"contrast": [0, 255]})]
    offenders = {FAINT: []}
    passed = list(note_offenders(parts, offenders))

    assert offenders[FAINT] == [Offender(1, 31), Offender(3, 0)]
    assert [len(part) for part in passed] == [3, 2]


def test_no_more_offenders_are_kept_than_anyone_reads(monkeypatch):
    """Where all images break a rule, memory does not grow with them."""
    monkeypatch.setattr(flagged_images, "_NAMED", 5)
    offenders = {FAINT: []}
    for _ in note_offenders([pd.DataFrame({"contrast": [0] * 4})] * 3, offenders):
        pass

    assert [offender.row for offender in offenders[FAINT]] == [0, 1, 2, 3, 4]


def test_suspect_has_all_its_reasons_and_whether_one_stops(source):
    """An image that breaks two rules is one flagged image; it stops the pipeline if one of the rules does."""
    offenders = {FAINT: [Offender(3, 7), Offender(61, 9)], WRONG: [Offender(3, 12)]}
    first, second = name_flagged_images(offenders, source, NO_TWINS, fail_on=[])

    assert first == (3, True, ["contrast 7", "label 12 has no class"])
    assert second == (61, False, ["contrast 9"])


def test_copy_is_told_with_the_image_that_it_is_like(source):
    """Of two images with the same pixels each names the other, and its class."""
    duplicate_of = NO_TWINS.copy()
    duplicate_of[4] = 60
    (flagged_image,) = name_flagged_images({CONFLICT: [Offender(4, 1)]}, source, duplicate_of, fail_on=[CONFLICT.name])

    assert flagged_image == (4, True, ["same pixels as test[0] test 0.png, a left"])


def test_list_says_where_each_suspect_is(tmp_path, source):
    """flagged_images.csv has split, index, class, file and reasons of each."""
    named = name_flagged_images({FAINT: [Offender(3, 7), Offender(61, 9)]}, source, NO_TWINS, fail_on=[FAINT.name])
    rows = write(tmp_path / "flagged_images", named, source)

    assert rows == [
        {
            "split": "train",
            "index": "3",
            "class": "left",
            "file": "train 3.png",
            "stops": "true",
            "reasons": "contrast 7",
        },
        {
            "split": "test",
            "index": "1",
            "class": "middle",
            "file": "test 1.png",
            "stops": "true",
            "reasons": "contrast 9",
        },
    ]


def test_image_without_a_file_is_told_by_its_index(tmp_path):
    """Data that never was images has flagged images, too."""
    source = load_source(write_raw(tmp_path), CLASS_NAMES)
    named = name_flagged_images({FAINT: [Offender(61, 9)]}, source, NO_TWINS, fail_on=[])

    assert source.name_row(61) == "test[1]"
    assert write(tmp_path / "flagged_images", named, source)[0]["file"] == ""


def test_without_suspects_there_is_no_picture(tmp_path, source):
    """An empty list stands for itself."""
    write_flagged_images([], source, tmp_path / "flagged_images")

    assert [path.name for path in (tmp_path / "flagged_images").iterdir()] == ["flagged_images.csv"]


def test_sheet_is_the_same_bytes_again(tmp_path, source):
    """List and image depend on the flagged images alone."""
    named = name_flagged_images({FAINT: [Offender(row, row) for row in range(12)]}, source, NO_TWINS, fail_on=[])
    for name in ("one", "two"):
        write_flagged_images(named, source, tmp_path / name)

    for name in ("flagged_images.csv", "contact_sheet.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_sheet_shows_grey_levels_as_they_are(tmp_path):
    """A blank image of a light grey is drawn in that grey, not stretched to black or white."""
    dataset = make_dataset()
    dataset.train.images[0] = 200
    source = load_source(write_raw(tmp_path, dataset), CLASS_NAMES)
    write_flagged_images(
        [flagged_images.FlaggedImage(0, stops=True, reasons=["contrast 0"])], source, tmp_path / "flagged_images"
    )
    sheet = np.asarray(Image.open(tmp_path / "flagged_images/contact_sheet.png").convert("L"))

    assert (sheet == 200).sum() > 10_000


def test_sheet_shows_colours_as_they_are(tmp_path):
    """An image of one colour is drawn in that colour."""
    dataset = make_colour_dataset()
    dataset.train.images[0] = (200, 100, 30)
    source = load_source(write_raw(tmp_path, dataset), CLASS_NAMES)
    write_flagged_images(
        [flagged_images.FlaggedImage(0, stops=True, reasons=["contrast 0"])], source, tmp_path / "flagged_images"
    )
    sheet = np.asarray(Image.open(tmp_path / "flagged_images/contact_sheet.png").convert("RGB"))

    assert (sheet == (200, 100, 30)).all(axis=-1).sum() > 10_000


def test_sheet_shows_those_who_stop_first_and_some_of_each_kind():
    """Of many flagged images the sheet has some of each reason, not only the first reason's."""
    many = [flagged_images.FlaggedImage(row, stops=False, reasons=["foreground on 0.0%"]) for row in range(200)]
    few = [
        flagged_images.FlaggedImage(300, stops=False, reasons=["contrast 3"]),
        flagged_images.FlaggedImage(301, stops=True, reasons=["label"]),
    ]
    shown = flagged_images.choose_shown([*many, *few])

    assert len(shown) == 40
    assert [flagged_image.row for flagged_image in shown[:3]] == [301, 0, 300]


def test_long_names_are_wrapped_and_cut(source):
    """No caption is wider than its image or pushes others away."""
    caption = flagged_images.write_caption(
        flagged_images.FlaggedImage(0, stops=False, reasons=["a reason of many words " * 20]), source, {}
    )

    assert max(map(len, caption.splitlines())) <= 31
    assert len(caption.splitlines()) == 5
    assert caption.endswith("…")


def test_name_that_charts_cannot_show_is_numbered_throughout_a_caption(source):
    """In the file's name, as the class and in a reason its number stands for it, before lines are wrapped."""
    source = source._replace(class_names=["猫", "犬", "鳥"], files=["猫/0.png", *source.files[1:]])
    flagged_image = flagged_images.FlaggedImage(0, stops=False, reasons=["same pixels as test[0] 犬/1.png, a 犬"])
    caption = flagged_images.write_caption(flagged_image, source, {"猫": "class 0", "犬": "class 1", "鳥": "class 2"})

    assert caption.split("\n") == [
        "train[0] class 0/0.png",
        "class 0",
        "same pixels as test[0] class",
        "1/1.png, a class 1",
    ]

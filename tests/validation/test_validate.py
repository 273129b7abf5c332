"""Bad data stops at `validate`: each rule is broken once, and the error says where."""

import json
import re
import shutil
from typing import get_args

import numpy as np
import pytest
from imports import ROOT
from samples import CLASS_NAMES, make_colour_dataset, make_dataset, write_raw

from stages.ingest import write_dataset
from stages.lib.core.errors import DataError
from stages.lib.core.files import read_json, write_csv, write_json
from stages.lib.core.params import load_section
from stages.lib.validation import drift, image_features, image_tables
from stages.lib.validation.flagged_images import load_source
from stages.validate import RuleName, ValidateParams, run

pytestmark = pytest.mark.heavy

RULES = get_args(RuleName)
# All rules stop here, so that each can be seen to break.
PARAMS = ValidateParams(
    fail_on=list(RULES),
    min_images_per_class=1,
    max_class_ratio=2.0,
    min_contrast=32,
    min_foreground_fraction=0.005,
    max_foreground_fraction=0.5,
    max_duplicate_fraction=0.01,
    max_leaked_fraction=0.0,
    max_near_leaked_fraction=0.0,
    max_label_conflict_fraction=0.0,
    max_robust_z=1000.0,  # no deviation is larger
    max_mixed_polarity_fraction=0.1,
    max_mixed_resolution_fraction=0.0,
    max_class_drift=0.1,
    max_grey_level_drift=0.1,
)


def make_drawings(dataset=None):
    """Images that have a plain background, which is dark: their border."""
    dataset = dataset or make_dataset()
    for split in (dataset.train, dataset.test):
        split.images[:, [0, -1]] = split.images[:, :, [0, -1]] = 0
    return dataset


def write_drawings(root, dataset=None):
    """The folder data/raw in `root` with drawings."""
    return write_raw(root, make_drawings(dataset))


def change_array(name, change):
    """Break an array of data/raw: `change` may return another or edit it in place."""

    def break_data(raw_dir):
        path = raw_dir / name
        array = np.load(path)
        changed = change(array)
        np.save(path, array if changed is None else changed)

    return break_data


def change_pixels(change):
    """Break training images."""
    return change_array("train/images.npy", change)


def change_labels(change):
    """Break training labels."""
    return change_array("train/labels.npy", change)


def assign(index, value):
    """Put a value at an index of an array."""

    def change(array):
        array[index] = value

    return change


def make_gradient(contrast):
    """An image of grey levels from 110 up; up to 127 it has no foreground."""
    return np.linspace(110, 110 + contrast, 48).astype(np.uint8).reshape(6, 8)


def leak(raw_dir):
    """Put a training image into the test split."""
    images = np.load(raw_dir / "train/images.npy")
    change_array("test/images.npy", assign(4, images[7]))(raw_dir)


def repeat(images):
    """Repeat an image of the training split."""
    images[9] = images[3]


def mislabel(images):
    """Give an image of the training split to another class, too."""
    images[10] = images[3]


def invert(images):
    """Make the background of ten images light."""
    images[:10] = 255 - images[:10]


def nearly_leak(raw_dir):
    """Put a training image that is a little brighter into the test split, all images being four times as large."""
    for split in ("train", "test"):
        enlarge = change_array(f"{split}/images.npy", lambda images: images.repeat(4, axis=1).repeat(4, axis=2))
        enlarge(raw_dir)
    dataset = read_json(raw_dir / "dataset.json")
    write_json(raw_dir / "dataset.json", {**dataset, "image_size": [24, 32]})
    brighter = np.load(raw_dir / "train/images.npy")[7] + 1
    change_array("test/images.npy", assign(4, brighter))(raw_dir)


def turn_test_images(raw_dir):
    """Swap height and width of the test images."""
    change_array("test/images.npy", lambda images: images.transpose(0, 2, 1))(raw_dir)


def promise_more(raw_dir):
    """Promise one image more than there is."""
    dataset = read_json(raw_dir / "dataset.json")
    dataset["expected"]["test"] += 1
    (raw_dir / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")


def drop_last_image(raw_dir):
    """Leave the last training image out of images and labels."""
    for name in ("train/images.npy", "train/labels.npy"):
        change_array(name, lambda array: array[:-1])(raw_dir)


def empty_test_split(raw_dir):
    """Leave no test image, as expected."""
    for name in ("test/images.npy", "test/labels.npy"):
        change_array(name, lambda array: array[:0])(raw_dir)
    dataset = read_json(raw_dir / "dataset.json")
    dataset["expected"]["test"] = 0
    (raw_dir / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")


# What is broken: how, and the table, what was expected of it and the rows that the error must name.
BROKEN = {
    "pixel type": (
        change_pixels(lambda images: images.astype(np.float32)),
        *("splits", "pixel_type uint8"),
        "1 of 2 otherwise (train pixel_type=float32)",
    ),
    "image dimensions": (
        change_pixels(lambda images: images[..., np.newaxis]),
        *("splits", "image_dimensions 3"),
        "1 of 2 otherwise (train image_dimensions=4)",
    ),
    "label dimensions": (
        change_labels(lambda labels: labels[:, np.newaxis]),
        *("splits", "label_dimensions 1"),
        "1 of 2 otherwise (train label_dimensions=2)",
    ),
    "label kind": (
        change_labels(lambda labels: labels.astype(np.float64)),
        *("splits", "label_kind integer"),
        "1 of 2 otherwise (train label_kind=other)",
    ),
    "label missing": (
        change_labels(lambda labels: labels[:-1]),
        *("splits", "as many images as labels"),
        "1 of 2 otherwise (train images=60 labels=59)",
    ),
    "image missing": (
        drop_last_image,
        *("splits", "as many images as expected"),
        "1 of 2 otherwise (train images=59 expected=60)",
    ),
    "more images expected": (
        promise_more,
        *("splits", "as many images as expected"),
        "1 of 2 otherwise (test images=30 expected=31)",
    ),
    "class without images": (
        change_labels(lambda labels: np.where(labels == 2, 1, labels)),
        *("classes", "images of at least 1"),
        "1 of 6 otherwise (train images=0 class=right)",
    ),
    "split without images": (
        empty_test_split,
        *("classes", "images of at least 1"),
        "3 of 6 otherwise (test images=0 class=left; test images=0 class=middle; test images=0 class=right)",
    ),
    "unbalanced classes": (
        change_labels(assign(np.s_[0:36:3], 1)),
        *("classes", "ratio_to_largest of at least 0.5"),
        "1 of 6 otherwise (train ratio_to_largest=0.25 class=left)",
    ),
    "unknown class": (
        change_labels(assign(5, 3)),
        *("images", "label of 0 to 2"),
        "1 of 90 otherwise (train[5] label=3)",
    ),
    "negative class": (
        change_labels(lambda labels: np.where(np.arange(60) == 5, -1, labels.astype(int))),
        *("images", "label of 0 to 2"),
        "1 of 90 otherwise (train[5] label=-1)",
    ),
    "blank image": (
        change_pixels(assign(3, 200)),
        *("images", "contrast of at least 32"),
        "1 of 90 otherwise (train[3] contrast=0)",
    ),
    "faint image": (
        change_pixels(assign(3, make_gradient(31))),
        *("images", "contrast of at least 32"),
        "1 of 90 otherwise (train[3] contrast=31)",
    ),
    "image without foreground": (
        change_pixels(assign(3, make_gradient(32) - 50)),
        *("images", "foreground_fraction of at least 0.005"),
        "1 of 90 otherwise (train[3] foreground_fraction=0)",
    ),
    "inverted images": (
        change_pixels(invert),
        *("images", "other_polarity of at most 0 in 0.9 of all rows"),
        "10 of 90 otherwise (train[0] other_polarity=1; train[1] other_polarity=1; train[2] other_polarity=1)",
    ),
    "image full of foreground": (
        change_pixels(assign(np.s_[4, :-1, 1:-1], 200)),
        *("images", "foreground_fraction of at most 0.5"),
        "1 of 90 otherwise (train[4] foreground_fraction=0.625)",
    ),
    "image under another label": (
        change_pixels(mislabel),
        *("images", "label_conflicts of at most 0"),
        "2 of 90 otherwise (train[3] label_conflicts=1; train[10] label_conflicts=1)",
    ),
    "repeated image": (
        change_pixels(repeat),
        *("images", "repeats of at most 0 in 0.99 of all rows"),
        "1 of 90 otherwise (train[9] repeats=1)",
    ),
    "leaked image": (
        leak,
        *("images", "leaks of at most 0"),
        "1 of 90 otherwise (test[4] leaks=1)",
    ),
    "other height": (
        turn_test_images,
        *("images", "height of 6"),
        "30 of 90 otherwise (test[0] height=8; test[1] height=8; test[2] height=8)",
    ),
    "other width": (
        turn_test_images,
        *("images", "width of 8"),
        "30 of 90 otherwise (test[0] width=6; test[1] width=6; test[2] width=6)",
    ),
}


def accept(raw_dir, change):
    """Have the data accepted as they were before a change of their profile."""
    source = load_source(raw_dir, CLASS_NAMES)
    profile = drift.describe_profile(source.rows.splits, CLASS_NAMES)
    write_json(raw_dir.parent / "accepted.json", {"made up": change(profile)._asdict()})


def write_sizes(raw_dir):
    """Let the images have come as images, one of them of other proportions, every fifth of another size."""
    for split, count in (("train", 60), ("test", 30)):
        rows = [[f"{split}/{index}.png", 20, 20 if index % 5 else 80] for index in range(count)]
        write_csv(raw_dir / split / "files.csv", ["file", "height", "width"], rows)


# Above what noise does in these small images, and a threshold that can be lowered.
LIMITS = {"max_robust_z": 10.0, "min_images_per_class": 2}
# How each rule is broken; an error may break others, too.
BREAKING = {
    "min_images_per_class": change_labels(lambda labels: np.where(labels == 2, 1, labels)),
    "max_class_ratio": BROKEN["unbalanced classes"][0],
    "min_contrast": BROKEN["faint image"][0],
    "min_foreground_fraction": BROKEN["image without foreground"][0],
    "max_foreground_fraction": BROKEN["image full of foreground"][0],
    "max_robust_z": BROKEN["faint image"][0],
    "max_mixed_polarity_fraction": change_pixels(invert),
    "max_mixed_resolution_fraction": write_sizes,
    "max_duplicate_fraction": change_pixels(repeat),
    "max_leaked_fraction": leak,
    "max_near_leaked_fraction": nearly_leak,
    "max_label_conflict_fraction": change_pixels(mislabel),
    "max_class_drift": lambda raw_dir: accept(raw_dir, lambda old: old._replace(classes={"left": 70, "middle": 10})),
    "max_grey_level_drift": lambda raw_dir: accept(
        raw_dir, lambda old: old._replace(grey_levels=old.grey_levels[::-1])
    ),
}


def validate(raw_dir, **thresholds):
    """Validate data/raw, the reports beside it: what validation.json says."""
    accepted_path = raw_dir.parent / "accepted.json"
    if not accepted_path.exists():
        write_json(accepted_path, {})
    run(PARAMS.model_copy(update=thresholds), raw_dir, accepted_path, raw_dir.parent)
    return read_json(raw_dir.parent / "validation.json")


@pytest.mark.parametrize(("break_data", "table", "expected", "found"), BROKEN.values(), ids=BROKEN)
def test_broken_data_is_refused_with_its_place(tmp_path, break_data, table, expected, found):
    """The error names what was expected, how many are otherwise, and split, index and value of the first three."""
    raw_dir = write_drawings(tmp_path)
    break_data(raw_dir)
    with pytest.raises(DataError) as caught:
        validate(raw_dir)
    told = [(cause.where, cause.expected, cause.got) for cause in caught.value.causes]

    assert (f"{raw_dir} {table}", expected, found) in told
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("broken", "hint"),
    [
        ("pixel type", "run `dvc repro --force ingest`, which writes data/raw again"),
        ("class without images", "add images to these classes, or leave the classes out"),
        ("unbalanced classes", "add images to these classes, or raise validate.max_class_ratio"),
        ("faint image", "remove, replace or move these images, or lower validate.min_contrast"),
        ("repeated image", "remove, replace or move these images, or raise validate.max_duplicate_fraction"),
    ],
)
def test_broken_rule_is_told_with_what_to_do(tmp_path, broken, hint):
    """The hint says which images to change, or which threshold and in which direction."""
    raw_dir = write_drawings(tmp_path)
    BROKEN[broken][0](raw_dir)
    with pytest.raises(DataError) as caught:
        validate(raw_dir)

    assert hint in [cause.hint for cause in caught.value.causes]


def test_broken_expectation_is_reported(tmp_path):
    """The report has the verdict, and of the broken expectation how many and which images break it."""
    raw_dir = write_drawings(tmp_path)
    change_pixels(assign(np.s_[3:15], 200))(raw_dir)
    with pytest.raises(DataError):
        validate(raw_dir, fail_on=["min_contrast"])
    report = read_json(tmp_path / "data/validation.json")
    (broken,) = [finding for finding in report["expectations"] if finding["stops"] and not finding["holds"]]

    assert report["success"] is False
    assert report["statistics"] == {"broken": 5, "checked": 24, "stopping": 1, "flagged_images": 12}
    assert broken["rule"] == "min_contrast"
    assert (broken["table"], broken["arguments"]) == ("images", {"column": "contrast", "min_value": 32.0})
    assert (broken["checked"], broken["unexpected"]) == (90, 12)
    assert broken["first_unexpected"] == [{"contrast": 0, "index": index, "split": "train"} for index in range(3, 13)]


def test_several_broken_expectations_are_told_in_one_line(tmp_path):
    """All that is wrong is said at once."""
    raw_dir = write_drawings(tmp_path)
    change_labels(assign(5, 3))(raw_dir)
    change_pixels(assign(3, 200))(raw_dir)

    with pytest.raises(DataError) as refusal:
        validate(raw_dir)

    assert re.search(r"contrast=0.+; also .+foreground_fraction=0.+; also .+label=3", str(refusal.value))


def test_arrays_of_another_kind_are_not_looked_into(tmp_path):
    """Where an array itself is wrong, its images are not asked about."""
    raw_dir = write_drawings(tmp_path)
    change_pixels(lambda images: images.astype(np.float32))(raw_dir)
    with pytest.raises(DataError):
        validate(raw_dir)

    assert {finding["table"] for finding in read_json(tmp_path / "data/validation.json")["expectations"]} == {"splits"}


def test_sound_data_passes(tmp_path):
    """Of sound data every expectation holds."""
    report = validate(write_drawings(tmp_path))

    assert report["success"] is True
    assert report["statistics"] == {"broken": 0, "checked": 24, "stopping": 0, "flagged_images": 0}
    assert {finding["unexpected"] for finding in report["expectations"]} == {0}


@pytest.mark.parametrize(
    ("break_data", "thresholds"),
    [
        (change_pixels(assign(3, make_gradient(32))), {"min_contrast": 32}),
        (change_pixels(repeat), {"max_duplicate_fraction": 1 / 90}),
        (leak, {"max_leaked_fraction": 1 / 90}),
        (change_labels(assign(np.s_[0:36:3], 1)), {"max_class_ratio": 4.0}),
        (change_pixels(mislabel), {"max_label_conflict_fraction": 2 / 90, "max_duplicate_fraction": 1.0}),
        (change_pixels(invert), {"max_mixed_polarity_fraction": 10 / 90}),
        (change_pixels(assign(np.s_[4, :-1, 1:-1], 200)), {"max_foreground_fraction": 0.625}),
        (change_pixels(assign(3, make_gradient(32) - 50)), {"min_foreground_fraction": 0.0}),
        (lambda _: None, {"min_images_per_class": 10}),
    ],
    ids=[
        "contrast",
        "repeats",
        "leaks",
        "class ratio",
        "label_conflicts",
        "polarity",
        "much foreground",
        "little foreground",
        "images per class",
    ],
)
def test_data_at_the_threshold_passes(tmp_path, break_data, thresholds):
    """A threshold is what is still allowed."""
    raw_dir = write_drawings(tmp_path)
    break_data(raw_dir)

    assert validate(raw_dir, **thresholds)["success"] is True


def test_one_image_less_than_the_threshold_is_refused(tmp_path):
    """A class of ten images is too small where eleven are wanted."""
    with pytest.raises(DataError) as refusal:
        validate(write_drawings(tmp_path), min_images_per_class=11)

    assert refusal.value.expected == "images of at least 11"
    assert refusal.value.got.startswith("3 of 6 otherwise (test images=10 class=left")
    assert refusal.value.hint == "add images to these classes, or lower validate.min_images_per_class"


def test_report_is_the_same_bytes_again(tmp_path):
    """Neither ids nor times of a run are in the report."""
    reports = []
    for name in ("one", "two"):
        validate(write_drawings(tmp_path / name))
        reports.append((tmp_path / name / "data/validation.json").read_bytes())

    assert reports[0] == reports[1]


@pytest.mark.parametrize("make", [make_dataset, make_colour_dataset], ids=["grey", "colour"])
def test_chunk_size_does_not_change_the_report(tmp_path, monkeypatch, make):
    """Images are read a bounded number at a time, and the findings are the same."""
    raw_dir = write_drawings(tmp_path, make(61, 29))
    whole = validate(raw_dir)
    monkeypatch.setattr(image_features, "CHUNK_BYTES", 7 * 6 * 8)

    assert validate(raw_dir) == whole


def test_image_that_an_earlier_chunk_has_is_a_repetition(tmp_path, monkeypatch):
    """Copies are found however far apart they are."""
    monkeypatch.setattr(image_features, "CHUNK_BYTES", 4 * 6 * 8)
    raw_dir = write_drawings(tmp_path)
    change_pixels(repeat)(raw_dir)

    with pytest.raises(DataError) as refusal:
        validate(raw_dir)

    assert "train[9] repeats=1" in str(refusal.value)


@pytest.mark.parametrize("rows", [7, 30, 89])
def test_table_that_is_checked_in_parts_gives_the_same_report(tmp_path, monkeypatch, rows):
    """However many images Great Expectations sees at a time, its findings together are those of the whole."""
    raw_dir = write_drawings(tmp_path)
    change_pixels(repeat)(raw_dir)
    change_pixels(assign(np.s_[3:13], 0))(raw_dir)
    leak(raw_dir)
    reports = []
    for table_rows in (image_tables.TABLE_ROWS, rows):
        monkeypatch.setattr(image_tables, "TABLE_ROWS", table_rows)
        with pytest.raises(DataError):
            validate(raw_dir)
        reports.append((tmp_path / "data/validation.json").read_bytes())

    assert reports[0] == reports[1]


@pytest.mark.parametrize("allowed", [1 / 91, 1 / 90, 1 / 89])
def test_share_that_is_allowed_is_that_of_all_parts(tmp_path, monkeypatch, allowed):
    """One repeated image of 90 is judged against all 90, not against those of its part."""
    raw_dir = write_drawings(tmp_path)
    change_pixels(repeat)(raw_dir)
    verdicts = []
    for table_rows in (image_tables.TABLE_ROWS, 10):
        monkeypatch.setattr(image_tables, "TABLE_ROWS", table_rows)
        try:
            verdicts.append(validate(raw_dir, max_duplicate_fraction=allowed)["success"])
        except DataError:
            verdicts.append(False)

    assert verdicts == [allowed >= 1 / 90] * 2


@pytest.mark.parametrize("rule", RULES)
def test_rule_stops_or_warns_as_params_say(tmp_path, capsys, rule):
    """A broken rule that is not among those that stop is told, and the data goes on."""
    raw_dir = write_drawings(tmp_path)
    BREAKING[rule](raw_dir)
    with pytest.raises(DataError) as refusal:
        validate(raw_dir, fail_on=[rule], **LIMITS)
    change = f"or {'lower' if rule.startswith('min_') else 'raise'} validate.{rule}"
    refused = read_json(tmp_path / "data/validation.json")
    report = validate(raw_dir, fail_on=[], **LIMITS)
    reported = capsys.readouterr().out

    assert [change in cause.hint for cause in refusal.value.causes] == [True] * len(refusal.value.causes)
    assert refused["success"] is False
    assert report["success"] is True
    assert re.search(rf"validate: warning: .+validate\.{rule}\b", reported)
    assert {f["rule"]: f["stops"] for f in report["expectations"] if not f["holds"]}[rule] is False


def test_default_rules_pass_what_only_warns(tmp_path):
    """With the committed params, what does not make a model wrong goes on: repetitions, imbalance, inverted images."""
    params = load_section("validate", ValidateParams, ROOT / "params.yaml")
    raw_dir = write_drawings(tmp_path)
    change_pixels(repeat)(raw_dir)
    change_pixels(invert)(raw_dir)
    report = validate(raw_dir, **params.model_dump())

    assert report["success"] is True
    assert {f["rule"] for f in report["expectations"] if not f["holds"]} == {
        "max_duplicate_fraction",
        "max_mixed_polarity_fraction",
    }


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_sound_data_sets_have_no_suspects(tmp_path, request, name):
    """The committed params find nothing in what people drew one by one, and no drift from what was accepted."""
    params = load_section("validate", ValidateParams, ROOT / "params.yaml")
    raw_dir = tmp_path / "data/raw"
    write_dataset(request.getfixturevalue(name), name, raw_dir)
    shutil.copy(ROOT / "data/accepted.json", tmp_path / "data")
    report = validate(raw_dir, **params.model_dump())

    assert report["statistics"] == {"broken": 0, "checked": 26, "stopping": 0, "flagged_images": 0}


@pytest.mark.parametrize("make", [make_dataset, make_colour_dataset], ids=["grey", "colour"])
def test_photographs_are_not_asked_about_a_background(tmp_path, capsys, make):
    """Where most images have no plain background, nothing is foreground: these rules are left out, and a line says so.

    All others hold, though most images would break the rules that are left out.
    """
    params = load_section("validate", ValidateParams, ROOT / "params.yaml")
    report = validate(write_raw(tmp_path, make()), **params.model_dump() | {"max_foreground_fraction": 0.01})
    asked = {finding["arguments"].get("column") for finding in report["expectations"]}

    assert report["statistics"]["broken"] == 0
    assert "contrast_robust_z" in asked
    assert not asked & {"foreground_fraction", "foreground_robust_z", "other_polarity"}
    assert "validate: most images have no plain background, so other_polarity, " in capsys.readouterr().out


def test_rule_that_shall_stop_is_asked_of_photographs(tmp_path):
    """Who says that a rule stops the pipeline means it."""
    with pytest.raises(DataError) as refusal:
        validate(write_raw(tmp_path), fail_on=["max_foreground_fraction"], max_foreground_fraction=0.01)

    assert refusal.value.expected == "foreground_fraction of at most 0.01"


def test_drawings_in_colour_are_asked_what_grey_ones_are(tmp_path):
    """Of sound coloured drawings every expectation holds; that they have three channels is one more."""
    report = validate(write_drawings(tmp_path, make_colour_dataset()))

    assert report["statistics"] == {"broken": 0, "checked": 25, "stopping": 0, "flagged_images": 0}


def colour_pixels(value):
    """An image in colour with a bar of these values on black."""
    image = np.zeros((6, 8, 3), np.uint8)
    image[1:5, 3:5] = value
    return image


@pytest.mark.parametrize(
    ("image", "column", "found"),
    [
        (np.full((6, 8, 3), (200, 10, 60)), "contrast", "train[3] contrast=0"),
        (255 - colour_pixels(255), "other_polarity", "train[3] other_polarity=1"),
        # Blue's luma is 29 of 255.
        (colour_pixels((0, 0, 255)), "foreground_fraction", "train[3] foreground_fraction=0"),
    ],
    ids=["one colour", "light background", "dark blue on black"],
)
def test_features_of_colours_are_told_by_their_luma(tmp_path, image, column, found):
    """An image of one colour is blank; a light background and a foreground are what is light in grey, too."""
    raw_dir = write_drawings(tmp_path, make_colour_dataset())
    change_pixels(assign(3, image))(raw_dir)
    with pytest.raises(DataError) as refusal:
        validate(raw_dir, max_mixed_polarity_fraction=0.0)
    told = {cause.expected.split()[0]: cause.got for cause in refusal.value.causes}

    assert found in told[column]


def test_image_in_two_colours_of_one_luma_is_not_blank(tmp_path):
    """A red and a green that are the same grey make a contrast."""
    image = np.tile(np.array([[200, 0, 0], [0, 102, 0]], np.uint8), (6, 4, 1))
    raw_dir = write_raw(tmp_path, make_colour_dataset())
    change_pixels(assign(3, image))(raw_dir)

    assert len(np.unique(image_features.to_grey(image[np.newaxis]))) == 1
    assert validate(raw_dir, fail_on=["min_contrast"])["success"] is True


@pytest.mark.parametrize(
    ("change", "expected", "found"),
    [
        (lambda images: images[..., 0], "image_dimensions 4", "1 of 2 otherwise (train image_dimensions=3)"),
        (lambda images: images[..., :2], "channels 3", "1 of 2 otherwise (train channels=2)"),
    ],
    ids=["grey", "two channels"],
)
def test_colours_that_are_none_are_refused(tmp_path, change, expected, found):
    """What dataset.json calls colour has three channels in every split."""
    raw_dir = write_raw(tmp_path, make_colour_dataset())
    change_pixels(change)(raw_dir)
    with pytest.raises(DataError) as refusal:
        validate(raw_dir)

    assert (expected, found) in [(cause.expected, cause.got) for cause in refusal.value.causes]


def test_accepted_version_of_another_data_set_is_not_compared(tmp_path):
    """Drift is measured from what was accepted under the same name, if anything was."""
    raw_dir = write_drawings(tmp_path)
    write_json(tmp_path / "data/accepted.json", {"another": {}})

    assert "drift" not in {finding["table"] for finding in validate(raw_dir)["expectations"]}


def test_damaged_accepted_version_is_refused(tmp_path):
    """A profile that was edited by hand into something else is named with the way back."""
    raw_dir = write_drawings(tmp_path)
    write_json(tmp_path / "data/accepted.json", {"made up": {"classes": {"left": -1}, "grey_levels": []}})

    with pytest.raises(DataError) as refusal:
        validate(raw_dir)

    assert refusal.value.where == f"{tmp_path / 'data/accepted.json'}: made up"
    assert refusal.value.hint == "run `pipeline accept`, which writes it anew"

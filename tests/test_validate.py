"""Bad data stops at `validate`: each rule is broken once, and the error says where."""

import json

import numpy as np
import pytest
from samples import make_dataset, write_raw

from stages.lib import image_tables
from stages.lib.errors import DataError
from stages.lib.files import read_json
from stages.validate import ValidateParams, run

PARAMS = ValidateParams(
    min_images_per_class=1,
    max_class_ratio=2.0,
    min_contrast=32,
    min_ink_fraction=0.005,
    max_ink_fraction=0.5,
    max_duplicate_fraction=0.01,
    max_leaked_fraction=0.0,
)


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
    """An image of grey levels from 110 up; up to 127 it has no ink."""
    return np.linspace(110, 110 + contrast, 48).astype(np.uint8).reshape(6, 8)


def leak(raw_dir):
    """Put a training image into the test split."""
    images = np.load(raw_dir / "train/images.npy")
    change_array("test/images.npy", assign(4, images[7]))(raw_dir)


def repeat(images):
    """Repeat an image of the training split."""
    images[9] = images[3]


def turn_test_images(raw_dir):
    """Swap height and width of the test images."""
    change_array("test/images.npy", lambda images: images.transpose(0, 2, 1))(raw_dir)


def promise_more(raw_dir):
    """Promise one image more than there is."""
    dataset = read_json(raw_dir / "dataset.json")
    dataset["promised"]["test"] += 1
    (raw_dir / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")


def drop_last_image(raw_dir):
    """Leave the last training image out of images and labels."""
    for name in ("train/images.npy", "train/labels.npy"):
        change_array(name, lambda array: array[:-1])(raw_dir)


def empty_test_split(raw_dir):
    """Leave no test image, as promised."""
    for name in ("test/images.npy", "test/labels.npy"):
        change_array(name, lambda array: array[:0])(raw_dir)
    dataset = read_json(raw_dir / "dataset.json")
    dataset["promised"]["test"] = 0
    (raw_dir / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")


IN_SET = "expect_column_values_to_be_in_set"
BETWEEN = "expect_column_values_to_be_between"
PAIR = "expect_column_pair_values_to_be_equal"
# What is broken: how, and the table, expectation, arguments and rows that the error must name.
BROKEN = {
    "pixel type": (
        change_pixels(lambda images: images.astype(np.float32)),
        *("splits", IN_SET, "column=pixel_type, value_set=['uint8']"),
        "1 of 2 otherwise (train pixel_type=float32)",
    ),
    "image dimensions": (
        change_pixels(lambda images: images[..., np.newaxis]),
        *("splits", IN_SET, "column=image_dimensions, value_set=[3]"),
        "1 of 2 otherwise (train image_dimensions=4)",
    ),
    "label dimensions": (
        change_labels(lambda labels: labels[:, np.newaxis]),
        *("splits", IN_SET, "column=label_dimensions, value_set=[1]"),
        "1 of 2 otherwise (train label_dimensions=2)",
    ),
    "label kind": (
        change_labels(lambda labels: labels.astype(np.float64)),
        *("splits", IN_SET, "column=label_kind, value_set=['integer']"),
        "1 of 2 otherwise (train label_kind=other)",
    ),
    "label missing": (
        change_labels(lambda labels: labels[:-1]),
        *("splits", PAIR, "column_A=images, column_B=labels"),
        "1 of 2 otherwise (train images=60 labels=59)",
    ),
    "image missing": (
        drop_last_image,
        *("splits", PAIR, "column_A=images, column_B=promised"),
        "1 of 2 otherwise (train images=59 promised=60)",
    ),
    "more images promised": (
        promise_more,
        *("splits", PAIR, "column_A=images, column_B=promised"),
        "1 of 2 otherwise (test images=30 promised=31)",
    ),
    "class without images": (
        change_labels(lambda labels: np.where(labels == 2, 1, labels)),
        *("classes", BETWEEN, "column=images, min_value=1.0"),
        "1 of 6 otherwise (train images=0 label=2)",
    ),
    "split without images": (
        empty_test_split,
        *("classes", BETWEEN, "column=images, min_value=1.0"),
        "3 of 6 otherwise (test images=0 label=0; test images=0 label=1; test images=0 label=2)",
    ),
    "unbalanced classes": (
        change_labels(assign(np.s_[0:36:3], 1)),
        *("classes", BETWEEN, "column=ratio_to_largest, min_value=0.5"),
        "1 of 6 otherwise (train ratio_to_largest=0.25 label=0)",
    ),
    "unknown class": (
        change_labels(assign(5, 3)),
        *("images", IN_SET, "column=label, value_set=[0, 1, 2]"),
        "1 of 90 otherwise (train[5] label=3)",
    ),
    "negative class": (
        change_labels(lambda labels: np.where(np.arange(60) == 5, -1, labels.astype(int))),
        *("images", IN_SET, "column=label, value_set=[0, 1, 2]"),
        "1 of 90 otherwise (train[5] label=-1)",
    ),
    "blank image": (
        change_pixels(assign(3, 200)),
        *("images", BETWEEN, "column=contrast, min_value=32.0"),
        "1 of 90 otherwise (train[3] contrast=0)",
    ),
    "faint image": (
        change_pixels(assign(3, make_gradient(31))),
        *("images", BETWEEN, "column=contrast, min_value=32.0"),
        "1 of 90 otherwise (train[3] contrast=31)",
    ),
    "image without ink": (
        change_pixels(assign(3, make_gradient(32) - 50)),
        *("images", BETWEEN, "column=ink_fraction, max_value=0.5, min_value=0.005"),
        "1 of 90 otherwise (train[3] ink_fraction=0.0)",
    ),
    "inverted images": (
        change_pixels(lambda images: 255 - images),
        *("images", BETWEEN, "column=ink_fraction, max_value=0.5, min_value=0.005"),
        "60 of 90 otherwise (train[0] ink_fraction=0.75; train[1] ink_fraction=0.75; train[2] ink_fraction=0.75)",
    ),
    "repeated image": (
        change_pixels(repeat),
        *("images", IN_SET, "column=repeats, mostly=0.99, value_set=[0]"),
        "1 of 90 otherwise (train[9] repeats=1)",
    ),
    "leaked image": (
        leak,
        *("images", IN_SET, "column=leaks, value_set=[0]"),
        "1 of 90 otherwise (test[4] leaks=1)",
    ),
    "other height": (
        turn_test_images,
        *("images", IN_SET, "column=height, value_set=[6]"),
        "30 of 90 otherwise (test[0] height=8; test[1] height=8; test[2] height=8)",
    ),
    "other width": (
        turn_test_images,
        *("images", IN_SET, "column=width, value_set=[8]"),
        "30 of 90 otherwise (test[0] width=6; test[1] width=6; test[2] width=6)",
    ),
}


def validate(raw_dir, **thresholds):
    """Validate data/raw, its report beside it: what the report says."""
    report_path = raw_dir.parent / "validation.json"
    run(PARAMS.model_copy(update=thresholds), raw_dir, report_path)
    return read_json(report_path)


@pytest.mark.parametrize(("break_data", "table", "expectation", "arguments", "found"), BROKEN.values(), ids=BROKEN)
def test_broken_data_is_refused_with_its_place(tmp_path, break_data, table, expectation, arguments, found):
    """The error names the expectation, how many break it, and split, index and value of the first three."""
    raw_dir = write_raw(tmp_path)
    break_data(raw_dir)
    with pytest.raises(DataError) as caught:
        validate(raw_dir)
    message = str(caught.value)

    assert (
        f"{raw_dir} {table}: expected {expectation}({arguments}), got {found}; correct the data or the threshold"
        in message
    )
    assert len(message.splitlines()) == 1


def test_broken_expectation_is_reported(tmp_path):
    """The report has the verdict, and of the broken expectation how many and which images break it."""
    raw_dir = write_raw(tmp_path)
    change_pixels(assign(np.s_[3:15], 200))(raw_dir)
    with pytest.raises(DataError):
        validate(raw_dir, max_duplicate_fraction=1.0, max_ink_fraction=1.0)
    report = read_json(tmp_path / "data/validation.json")
    (broken,) = [finding for finding in report["expectations"] if not finding["holds"]]

    assert report["success"] is False
    assert report["statistics"] == {"broken": 1, "checked": 15}
    assert (broken["table"], broken["arguments"]) == ("images", {"column": "contrast", "min_value": 32.0})
    assert (broken["checked"], broken["unexpected"]) == (90, 12)
    assert broken["first_unexpected"] == [{"contrast": 0, "index": index, "split": "train"} for index in range(3, 13)]


def test_several_broken_expectations_are_told_in_one_line(tmp_path):
    """All that is wrong is said at once."""
    raw_dir = write_raw(tmp_path)
    change_labels(assign(5, 3))(raw_dir)
    change_pixels(assign(3, 200))(raw_dir)

    with pytest.raises(DataError, match=r"contrast=0.+; also .+ink_fraction=1.0.+; also .+label=3"):
        validate(raw_dir)


def test_arrays_of_another_kind_are_not_looked_into(tmp_path):
    """Where an array itself is wrong, its images are not asked about."""
    raw_dir = write_raw(tmp_path)
    change_pixels(lambda images: images.astype(np.float32))(raw_dir)
    with pytest.raises(DataError):
        validate(raw_dir)

    assert {finding["table"] for finding in read_json(tmp_path / "data/validation.json")["expectations"]} == {"splits"}


def test_sound_data_passes(tmp_path):
    """Of sound data every expectation holds."""
    report = validate(write_raw(tmp_path))

    assert report["success"] is True
    assert report["statistics"] == {"broken": 0, "checked": 15}
    assert {finding["unexpected"] for finding in report["expectations"]} == {0}


@pytest.mark.parametrize(
    ("break_data", "thresholds"),
    [
        (change_pixels(assign(3, make_gradient(32))), {"min_contrast": 32}),
        (change_pixels(repeat), {"max_duplicate_fraction": 1 / 90}),
        (leak, {"max_leaked_fraction": 1 / 90}),
        (change_labels(assign(np.s_[0:36:3], 1)), {"max_class_ratio": 4.0}),
        (change_pixels(lambda images: 255 - images), {"max_ink_fraction": 0.75}),
        (change_pixels(assign(3, make_gradient(32) - 50)), {"min_ink_fraction": 0.0}),
        (lambda _: None, {"min_images_per_class": 10}),
    ],
    ids=["contrast", "repeats", "leaks", "class ratio", "much ink", "little ink", "images per class"],
)
def test_data_at_the_threshold_passes(tmp_path, break_data, thresholds):
    """A threshold is what is still allowed."""
    raw_dir = write_raw(tmp_path)
    break_data(raw_dir)

    assert validate(raw_dir, **thresholds)["success"] is True


def test_one_image_less_than_the_threshold_is_refused(tmp_path):
    """A class of ten images is too small where eleven are wanted."""
    with pytest.raises(DataError, match=r"min_value=11\.0\), got 3 of 6 otherwise \(test images=10 label=0"):
        validate(write_raw(tmp_path), min_images_per_class=11)


def test_report_is_the_same_bytes_again(tmp_path):
    """Neither ids nor times of a run are in the report."""
    reports = []
    for name in ("one", "two"):
        validate(write_raw(tmp_path / name))
        reports.append((tmp_path / name / "data/validation.json").read_bytes())

    assert reports[0] == reports[1]


def test_chunk_size_does_not_change_the_report(tmp_path, monkeypatch):
    """Images are read a bounded number at a time, and the findings are the same."""
    raw_dir = write_raw(tmp_path, make_dataset(61, 29))
    whole = validate(raw_dir)
    monkeypatch.setattr(image_tables, "CHUNK_ROWS", 7)

    assert validate(raw_dir) == whole


def test_image_that_an_earlier_chunk_has_is_a_repetition(tmp_path, monkeypatch):
    """Copies are found however far apart they are."""
    monkeypatch.setattr(image_tables, "CHUNK_ROWS", 4)
    raw_dir = write_raw(tmp_path)
    change_pixels(repeat)(raw_dir)

    with pytest.raises(DataError, match=r"train\[9\] repeats=1"):
        validate(raw_dir)


@pytest.mark.parametrize("rows", [7, 30, 89])
def test_table_that_is_checked_in_parts_gives_the_same_report(tmp_path, monkeypatch, rows):
    """However many images Great Expectations sees at a time, its findings together are those of the whole."""
    raw_dir = write_raw(tmp_path)
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
    raw_dir = write_raw(tmp_path)
    change_pixels(repeat)(raw_dir)
    verdicts = []
    for table_rows in (image_tables.TABLE_ROWS, 10):
        monkeypatch.setattr(image_tables, "TABLE_ROWS", table_rows)
        try:
            verdicts.append(validate(raw_dir, max_duplicate_fraction=allowed)["success"])
        except DataError:
            verdicts.append(False)

    assert verdicts == [allowed >= 1 / 90] * 2


@pytest.mark.parametrize("sorted_rows", [1, 5, 90])
def test_copies_are_found_however_few_digests_are_sorted_at_once(monkeypatch, sorted_rows):
    """An image of each kind: repeated, leaked, leaked and repeated, alone."""
    train, test = make_dataset()[:2]
    train.images[20] = train.images[10]
    test.images[[5, 7]] = train.images[10]
    test.images[9] = train.images[11]
    monkeypatch.setattr(image_tables, "_SORTED_ROWS", sorted_rows)
    copies = image_tables.find_copies({"train": train, "test": test})

    assert [np.flatnonzero(flags).tolist() for flags in copies["train"]] == [[20], []]
    assert [np.flatnonzero(flags).tolist() for flags in copies["test"]] == [[7], [5, 7, 9]]


def test_images_that_share_a_digest_are_no_copies(monkeypatch):
    """Where digests collide, the pixels decide."""
    train, test = make_dataset()[:2]
    train.images[20] = train.images[10]
    monkeypatch.setattr(image_tables, "_digest_images", lambda images: np.zeros(len(images), np.uint64))
    copies = image_tables.find_copies({"train": train, "test": test})

    assert np.flatnonzero(copies["train"].repeats).tolist() == [20]
    assert not copies["test"].leaks.any()

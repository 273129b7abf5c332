"""A new version of a data set is compared with the one that was accepted."""

import numpy as np
import pytest

from stages.lib.core.arrays import Split
from stages.lib.core.errors import DataError
from stages.lib.core.files import write_json
from stages.lib.validation import image_features
from stages.lib.validation.drift import Drift, Profile, describe_profile, load_accepted, measure_drift, save_accepted

PROFILE = Profile({"a": 30, "b": 10}, [60, 40] + [0] * 14)
DARK, LIGHT = [100] + [0] * 15, [0] * 15 + [100]


def test_profile_counts_images_by_class_and_pixels_by_sixteenths():
    """All splits together; a class without images counts as one with none."""
    train = Split(np.array([[[0, 15, 16, 255]], [[0, 0, 0, 0]]], np.uint8), np.array([0, 2], np.uint8))
    test = Split(np.array([[[240, 239, 0, 0]]], np.uint8), np.array([2], np.uint8))

    assert describe_profile({"train": train, "test": test}, ["a", "b", "c"]) == Profile(
        {"a": 1, "b": 0, "c": 2}, [8, 1, *[0] * 12, 1, 2]
    )


def test_profile_of_colours_counts_each_channel():
    """Red first, then green, then blue; each has as many pixels as the images."""
    images = np.array([[[[0, 255, 16], [0, 0, 255]]]], np.uint8)  # 1 x 2 pixels
    profile = describe_profile({"train": Split(images, np.zeros(1, np.uint8))}, ["a"])

    assert profile.grey_levels == [2, *[0] * 15, 1, *[0] * 14, 1, 0, 1, *[0] * 13, 1]


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (DARK + DARK + DARK, 0.0),
        (DARK + [75, 25] + [0] * 14 + [50, 50] + [0] * 14, 0.5),
        (LIGHT + DARK + DARK, 1.0),
        (DARK, 1.0),
    ],
    ids=["the same", "two channels", "red alone", "grey now"],
)
def test_colours_have_moved_as_far_as_the_channel_that_moved_most(present, expected):
    """One channel that is off counts in full; images that have lost their colours are others altogether."""
    accepted = PROFILE._replace(grey_levels=DARK + DARK + DARK)

    assert measure_drift(accepted, PROFILE._replace(grey_levels=present)) == Drift(0.0, expected)


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (PROFILE, Drift(0.0, 0.0)),
        (Profile({"a": 60, "b": 20}, [600, 400] + [0] * 14), Drift(0.0, 0.0)),
        (Profile({"a": 10, "b": 30}, [0] * 14 + [40, 60]), Drift(0.5, 1.0)),
        (Profile({"a": 20, "c": 20}, [50, 50] + [0] * 14), Drift(0.5, 0.1)),
    ],
    ids=["the same", "more of the same", "turned round", "another class"],
)
def test_drift_is_the_share_that_would_have_to_move(present, expected):
    """The total variation distance, whatever the number of images."""
    assert measure_drift(PROFILE, present) == expected
    assert measure_drift(present, PROFILE) == expected


def test_accepting_leaves_other_data_sets(tmp_path):
    """Each data set has its own accepted version."""
    path = tmp_path / "accepted.json"
    write_json(path, {})
    save_accepted("one", PROFILE, path)
    save_accepted("two", PROFILE._replace(classes={"x": 1, "y": 1}), path)

    save_accepted("colours", PROFILE._replace(grey_levels=DARK * 3), path)

    assert load_accepted("one", path) == PROFILE
    assert load_accepted("colours", path) == PROFILE._replace(grey_levels=DARK * 3)
    assert load_accepted("three", path) is None


@pytest.mark.parametrize(
    "value",
    [7, {}, {"classes": {"a": 1}}, {"classes": {"a": 1.5}, "grey_levels": [0] * 16}, PROFILE._asdict() | {"more": 1}],
)
def test_what_is_no_profile_is_refused(tmp_path, value):
    """A file that was edited into something else is told with the way back."""
    path = tmp_path / "accepted.json"
    write_json(path, {"one": value})

    with pytest.raises(DataError) as refusal:
        load_accepted("one", path)

    assert (refusal.value.where, refusal.value.hint) == (
        f"{path}: one",
        "run `pipeline accept`, which writes it anew",
    )


def test_profile_does_not_depend_on_the_chunks(monkeypatch):
    """Images are counted a bounded number at a time."""
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), np.uint8)
    splits = {"train": Split(images, np.zeros(20, np.uint8))}
    whole = describe_profile(splits, ["a"])
    monkeypatch.setattr(image_features, "CHUNK_BYTES", 3 * images[0].size)

    assert describe_profile(splits, ["a"]) == whole

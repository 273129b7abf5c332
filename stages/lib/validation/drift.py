"""A data set in a few numbers, and how far it has moved from a version that was accepted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stages.lib.core.arrays import Split, count_channels
from stages.lib.core.errors import DataError
from stages.lib.core.files import read_json, write_json
from stages.lib.validation.image_features import read_chunks

# Profiles of accepted versions, by the data set's name; a person's decision, and so in git.
ACCEPTED_PATH = Path("data/accepted.json")
# Of the histogram of grey levels 0..255.
_BINS = 16


class Profile(NamedTuple):
    """What is compared of two versions of a data set; all splits together."""

    classes: dict[str, int]  # images by class name
    grey_levels: list[int]  # pixels in each sixteenth of the range; of colours in red, then in green, then in blue


class Drift(NamedTuple):
    """How far a data set has moved: total variation distances, 0 (nowhere) to 1, at 4 decimals."""

    classes: float  # the share of images that would have to change their class
    grey_levels: float  # the share of pixels that would have to change their sixteenth, in the channel that moved most


def describe_profile(splits: Mapping[str, Split], class_names: Sequence[str]) -> Profile:
    """The profile of splits with images uint8 (N, H, W) or (N, H, W, 3) and class ids below the number of names."""
    counts = np.zeros(len(class_names), np.int64)
    channels = 1
    levels = np.zeros((3, 256), np.int64)
    for split in splits.values():
        counts += np.bincount(split.labels, minlength=len(counts))
        channels = count_channels(split.images)
        for images in read_chunks(split.images):
            for channel, pixels in enumerate(images.reshape(-1, channels).T):
                levels[channel] += np.bincount(pixels, minlength=256)
    grey_levels = levels[:channels].reshape(channels * _BINS, -1).sum(axis=1)
    return Profile(dict(zip(class_names, counts.tolist(), strict=True)), grey_levels.tolist())


def measure_drift(accepted: Profile, present: Profile) -> Drift:
    """The total variation distance of two profiles: half the sum of the absolute differences between their shares.

    A. Gibbs, F. Su, On Choosing and Bounding Probability Metrics (2002). A class that one of them lacks counts as one
    without images. Of colours the channel counts that has moved most: a camera that sees all too blue is not made up
    for by its red and green. Where one is grey and the other in colour, all pixels have moved.
    """
    names = sorted({*accepted.classes, *present.classes})
    of_classes = [[profile.classes.get(name, 0) for name in names] for profile in (accepted, present)]
    return Drift(
        classes=_measure_distance(*of_classes),
        grey_levels=max(map(_measure_distance, _split_channels(accepted), _split_channels(present)))
        if len(accepted.grey_levels) == len(present.grey_levels)
        else 1.0,
    )


def _split_channels(profile: Profile) -> list[list[int]]:
    levels = profile.grey_levels
    return [levels[first : first + _BINS] for first in range(0, len(levels), _BINS)]


def _measure_distance(counts: Sequence[int], others: Sequence[int]) -> float:
    # Whole numbers until the one division.
    total, other_total = max(sum(counts), 1), max(sum(others), 1)
    moved = sum(abs(count * other_total - other * total) for count, other in zip(counts, others, strict=True))
    return round(moved / (2 * total * other_total), 4)


def load_accepted(name: str, path: Path = ACCEPTED_PATH) -> Profile | None:
    """The profile of the accepted version of the data set of that name; none if there is none.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    profiles = read_json(path)
    if name not in profiles:
        return None
    value = profiles[name]
    if not _is_profile(value):
        raise DataError(
            f"{path}: {name}",
            expected=f"counts of images by class and of pixels in {_BINS} parts of each channel's range",
            got=str(value)[:80],
            hint="run `pipeline accept`, which writes it anew",
        )
    return Profile(**value)


def _is_profile(value: Any) -> bool:  # noqa: ANN401  (a file may hold anything)
    def is_count(item: object) -> bool:
        return isinstance(item, int) and not isinstance(item, bool) and item >= 0

    return (
        isinstance(value, dict)
        and set(value) == set(Profile._fields)
        and isinstance(value["classes"], dict)
        and isinstance(value["grey_levels"], list)
        and len(value["grey_levels"]) in (_BINS, 3 * _BINS)
        and all(map(is_count, [*value["classes"].values(), *value["grey_levels"]]))
    )


def save_accepted(name: str, profile: Profile, path: Path = ACCEPTED_PATH) -> None:
    """Make this the accepted version of the data set of that name; others stay as they are."""
    write_json(path, {**read_json(path), name: profile._asdict()})

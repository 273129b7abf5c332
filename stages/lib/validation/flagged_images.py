"""Images that break a rule of validation: which, why, and a sheet of images of the first of them."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.lib.core.arrays import Split, load_array
from stages.lib.core.files import atomic_write, iterate_csv, write_csv
from stages.lib.validation.image_features import Rows

# Arrays that fit together: what every other rule takes for granted, and so no threshold of params.yaml.
STRUCTURE = "structure"
# Images of one rule that are named, and images that are drawn in all.
_NAMED = 1000
_DRAWN = 40
# Characters in a line below an image, and lines.
_CAPTION_WIDTH = 31
_CAPTION_LINES = 5
# A column of the image table in words; `duplicate` is the image that this one is like.
_REASONS = {
    "label": "label {value} has no class",
    "contrast": "contrast {value}",
    "label_conflicts": "same pixels as {duplicate}, a {duplicate_class}",
    "leaks": "same pixels as {duplicate}",
    "near_leaks": "nearly the same as {duplicate}",
    "repeats": "same pixels as {duplicate}",
    "other_polarity": "background unlike most",
    "other_resolution": "{size} pixels, unlike most",
    "foreground_fraction": "foreground on {value:.1%}",
    "foreground_robust_z": "foreground {value} deviations off",
    "contrast_robust_z": "contrast {value} deviations off",
    "size_robust_z": "{size} pixels, {value} deviations off",
    "aspect_robust_z": "{size} pixels, proportions {value} deviations off",
}


class Rule(NamedTuple):
    """Between which values a column of a table should be."""

    name: str  # of params.yaml, or STRUCTURE
    column: str
    least: float | None = None
    most: float | None = None
    allowed: float = 0.0  # share of rows that may be beyond, 0..1


class Offender(NamedTuple):
    """An image that breaks a rule."""

    row: int
    value: Any


class FlaggedImage(NamedTuple):
    """An image and all that speaks against it."""

    row: int
    stops: bool  # one of the rules that it breaks stops the pipeline
    reasons: list[str]


class Source(NamedTuple):
    """The images of a data set, and what people call them."""

    rows: Rows
    class_names: Sequence[str]
    files: Sequence[str]  # of each image, by row; none unless they came as images
    sizes: NDArray[np.int32] | None  # (N, 2): the images' own height and width

    def name_file(self, row: int) -> str:
        """The image's file; empty where there was none."""
        return self.files[row] if self.files else ""

    def name_row(self, row: int) -> str:
        """`train[3]`, and the image's file if it has one."""
        split, index = self.rows.locate(row)
        return f"{split}[{index}] {self.name_file(row)}".rstrip()

    def name_class(self, row: int) -> str:
        """The image's class, or the number that stands for none."""
        split, index = self.rows.locate(row)
        label = int(self.rows.splits[split].labels[index])
        return self.class_names[label] if 0 <= label < len(self.class_names) else str(label)


def load_source(raw_dir: Path, class_names: Sequence[str]) -> Source:
    """A data set as `ingest` writes it, images memory-mapped; nothing is expected of it yet.

    Raises:
        DataError: an array is missing or damaged.
    """
    dirs = {name: raw_dir / name for name in ("train", "test")}
    splits = {
        name: Split(load_array(path / "images.npy"), load_array(path / "labels.npy")) for name, path in dirs.items()
    }
    if not all((path / "files.csv").exists() for path in dirs.values()):
        return Source(Rows.of(splits), class_names, [], None)
    files: list[str] = []
    sizes: list[int] = []
    for path in dirs.values():
        for row in iterate_csv(path / "files.csv"):
            files.append(row["file"])
            sizes += int(row["height"]), int(row["width"])
    return Source(Rows.of(splits), class_names, files, np.array(sizes, np.int32).reshape(-1, 2))


def note_offenders(tables: Iterable[pd.DataFrame], offenders: Mapping[Rule, list[Offender]]) -> Iterator[pd.DataFrame]:
    """The parts of the image table as they come; the first rows beyond each rule are noted on the way."""
    first = 0
    for table in tables:
        for rule, noted in offenders.items():
            values = table[rule.column].to_numpy()
            low = values < rule.least if rule.least is not None else np.zeros(len(values), np.bool_)
            high = values > rule.most if rule.most is not None else np.zeros(len(values), np.bool_)
            places = np.flatnonzero(low | high)[: _NAMED - len(noted)]
            noted += [Offender(first + place, values[place].item()) for place in places.tolist()]
        first += len(table)
        yield table


def name_flagged_images(
    offenders: Mapping[Rule, Sequence[Offender]],
    source: Source,
    duplicate_of: NDArray[np.int64],
    fail_on: Sequence[str],
) -> list[FlaggedImage]:
    """One flagged image for each image among the offenders, with all its reasons; by row.

    duplicates: the row of the image that each is like, -1 for none. stops: the rules that stop the pipeline.
    """
    flagged_images: dict[int, FlaggedImage] = {}
    for rule, of_rule in offenders.items():
        does_stop = rule.name in (STRUCTURE, *fail_on)
        for row, value in of_rule:
            reason = _give_reason(rule.column, row, value, source, int(duplicate_of[row]))
            known = flagged_images.get(row, FlaggedImage(row, stops=False, reasons=[]))
            # An image may break two rules for one reason: copies under two labels are repetitions, too.
            is_new = not any(reported.startswith(reason) for reported in known.reasons)
            reasons = [*known.reasons, *([reason] if is_new else [])]
            flagged_images[row] = FlaggedImage(row, known.stops or does_stop, reasons)
    return [flagged_images[row] for row in sorted(flagged_images)]


def _give_reason(column: str, row: int, value: Any, source: Source, duplicate: int) -> str:  # noqa: ANN401  (any number)
    size = "" if source.sizes is None else "{1} x {0}".format(*source.sizes[row])
    duplicate_name, duplicate_class = (
        (source.name_row(duplicate), source.name_class(duplicate)) if duplicate >= 0 else ("", "")
    )
    text = _REASONS.get(column, "{column} {value}")
    return text.format(column=column, value=value, size=size, duplicate=duplicate_name, duplicate_class=duplicate_class)


def write_flagged_images(flagged_images: Sequence[FlaggedImage], source: Source, folder: Path) -> None:
    """Write flagged_images.csv and, if any is flagged, a sheet of some for each reason, the worst first."""
    with atomic_write(folder) as partial_dir:
        partial_dir.mkdir()
        lines = (
            (*source.rows.locate(row), source.name_class(row), source.name_file(row), stops, reasons)
            for row, stops, reasons in flagged_images
        )
        write_csv(
            partial_dir / "flagged_images.csv",
            ["split", "index", "class", "file", "stops", "reasons"],
            ((*place, str(stops).lower(), "; ".join(reasons)) for *place, stops, reasons in lines),
        )
        if flagged_images:
            _draw_sheet(partial_dir / "contact_sheet.png", flagged_images, source)


def _draw_sheet(path: Path, flagged_images: Sequence[FlaggedImage], source: Source) -> None:
    # Most data has no flagged images, and need not wait for these.
    from stages.lib.plotting.class_labels import find_numbered  # noqa: PLC0415
    from stages.lib.plotting.image_grid import draw_images  # noqa: PLC0415

    numbered = find_numbered(source.class_names)
    shown = choose_shown(flagged_images)
    title = f"{len(flagged_images):,} flagged images" + (
        f", {len(shown)} of them" if len(shown) < len(flagged_images) else ""
    )
    images = [source.rows.read_image(flagged_image.row) for flagged_image in shown]
    captions = [write_caption(flagged_image, source, numbered) for flagged_image in shown]
    draw_images(path, title, images, captions)


def write_caption(flagged_image: FlaggedImage, source: Source, numbered: Mapping[str, str]) -> str:
    """The image's name, its class, its reasons; long ones are wrapped, and at last cut off.

    numbered: what stands in place of some classes' names.
    """
    texts = [source.name_row(flagged_image.row), source.name_class(flagged_image.row), *flagged_image.reasons]
    for name in sorted(numbered, key=len, reverse=True):
        texts = [text.replace(name, numbered[name]) for text in texts]
    lines = [line for text in texts for line in textwrap.wrap(text, _CAPTION_WIDTH)]
    return "\n".join(lines if len(lines) <= _CAPTION_LINES else [*lines[: _CAPTION_LINES - 1], "…"])


def choose_shown(flagged_images: Sequence[FlaggedImage]) -> list[FlaggedImage]:
    """Choose the images to draw: those that stop the pipeline first, and one of each kind of reason in turn."""
    seen: Counter[str] = Counter()
    ranked = []
    for flagged_image in flagged_images:
        kind = flagged_image.reasons[0].split(" ")[0]
        seen[kind] += 1
        ranked.append((not flagged_image.stops, seen[kind], flagged_image))
    return [flagged_image for _, _, flagged_image in sorted(ranked, key=lambda entry: entry[:2])[:_DRAWN]]

"""Images that break a rule of validation: which, why, and a sheet of pictures of the first of them."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.lib.core.arrays import Split, load_array
from stages.lib.core.files import iterate_csv, write_csv, write_whole
from stages.lib.validation.image_features import Rows

# Arrays that fit together: what every other rule takes for granted, and so no threshold of params.yaml.
STRUCTURE = "structure"
# Images of one rule that are named, and pictures that are drawn in all.
_NAMED = 1000
_DRAWN = 40
# Characters in a line below a picture, and lines.
_CAPTION_WIDTH = 31
_CAPTION_LINES = 5
# A column of the image table in words; `twin` is the image that this one is like.
_REASONS = {
    "label": "label {value} has no class",
    "contrast": "contrast {value}",
    "conflicts": "same pixels as {twin}, a {twin_class}",
    "leaks": "same pixels as {twin}",
    "near_leaks": "nearly the same as {twin}",
    "repeats": "same pixels as {twin}",
    "other_polarity": "background unlike most",
    "other_resolution": "{size} pixels, unlike most",
    "ink_fraction": "ink on {value:.1%}",
    "ink_deviation": "ink {value} deviations off",
    "contrast_deviation": "contrast {value} deviations off",
    "size_deviation": "{size} pixels, {value} deviations off",
    "aspect_deviation": "{size} pixels, proportions {value} deviations off",
}


class Bounds(NamedTuple):
    """Between which values a column of a table should be."""

    rule: str  # of params.yaml, or STRUCTURE
    column: str
    least: float | None = None
    most: float | None = None
    allowed: float = 0.0  # share of rows that may be beyond, 0..1


class Offender(NamedTuple):
    """An image beyond the bounds."""

    row: int
    value: Any


class Suspect(NamedTuple):
    """An image and all that speaks against it."""

    row: int
    stops: bool  # one of the rules that it breaks stops the pipeline
    reasons: list[str]


class Source(NamedTuple):
    """The images of a data set, and what people call them."""

    rows: Rows
    class_names: Sequence[str]
    files: Sequence[str]  # of each image, by row; none unless they came as pictures
    sizes: NDArray[np.int32] | None  # (N, 2): the pictures' own height and width

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


def note_offenders(
    tables: Iterable[pd.DataFrame], offenders: Mapping[Bounds, list[Offender]]
) -> Iterator[pd.DataFrame]:
    """The parts of the image table as they come; the first rows beyond each of the bounds are noted on the way."""
    first = 0
    for table in tables:
        for bounds, noted in offenders.items():
            values = table[bounds.column].to_numpy()
            low = values < bounds.least if bounds.least is not None else np.zeros(len(values), np.bool_)
            high = values > bounds.most if bounds.most is not None else np.zeros(len(values), np.bool_)
            places = np.flatnonzero(low | high)[: _NAMED - len(noted)]
            noted += [Offender(first + place, values[place].item()) for place in places.tolist()]
        first += len(table)
        yield table


def name_suspects(
    offenders: Mapping[Bounds, Sequence[Offender]], source: Source, twins: NDArray[np.int64], stops: Sequence[str]
) -> list[Suspect]:
    """One suspect for each image among the offenders, with all its reasons; by row.

    twins: the row of the image that each is like, -1 for none. stops: the rules that stop the pipeline.
    """
    suspects: dict[int, Suspect] = {}
    for bounds, of_rule in offenders.items():
        does_stop = bounds.rule in (STRUCTURE, *stops)
        for row, value in of_rule:
            reason = _give_reason(bounds.column, row, value, source, int(twins[row]))
            known = suspects.get(row, Suspect(row, stops=False, reasons=[]))
            # An image may break two rules for one reason: copies under two labels are repetitions, too.
            is_new = not any(told.startswith(reason) for told in known.reasons)
            reasons = [*known.reasons, *([reason] if is_new else [])]
            suspects[row] = Suspect(row, known.stops or does_stop, reasons)
    return [suspects[row] for row in sorted(suspects)]


def _give_reason(column: str, row: int, value: Any, source: Source, twin: int) -> str:  # noqa: ANN401  (any number)
    size = "" if source.sizes is None else "{1} x {0}".format(*source.sizes[row])
    twin_name, twin_class = (source.name_row(twin), source.name_class(twin)) if twin >= 0 else ("", "")
    text = _REASONS.get(column, "{column} {value}")
    return text.format(column=column, value=value, size=size, twin=twin_name, twin_class=twin_class)


def write_suspects(suspects: Sequence[Suspect], source: Source, folder: Path) -> None:
    """Write suspects.csv, and a sheet of pictures if there is anyone to show: of each reason some, the worst first."""
    with write_whole(folder) as partial_dir:
        partial_dir.mkdir()
        lines = (
            (*source.rows.locate(row), source.name_class(row), source.name_file(row), stops, reasons)
            for row, stops, reasons in suspects
        )
        write_csv(
            partial_dir / "suspects.csv",
            ["split", "index", "class", "file", "stops", "reasons"],
            ((*place, str(stops).lower(), "; ".join(reasons)) for *place, stops, reasons in lines),
        )
        if suspects:
            _draw_sheet(partial_dir / "contact_sheet.png", suspects, source)


def _draw_sheet(path: Path, suspects: Sequence[Suspect], source: Source) -> None:
    from stages.lib.plotting.charts import draw_images  # noqa: PLC0415  (most data has no suspects, and need not wait for it)

    shown = choose_shown(suspects)
    title = f"{len(suspects):,} suspects" + (f", {len(shown)} of them" if len(shown) < len(suspects) else "")
    images = [source.rows.read_image(suspect.row) for suspect in shown]
    draw_images(path, title, images, [write_caption(suspect, source) for suspect in shown], grey_levels=(0, 255))


def write_caption(suspect: Suspect, source: Source) -> str:
    """The image's name, its class, its reasons; long ones are wrapped, and at last cut off."""
    texts = [source.name_row(suspect.row), source.name_class(suspect.row), *suspect.reasons]
    lines = [line for text in texts for line in textwrap.wrap(text, _CAPTION_WIDTH)]
    return "\n".join(lines if len(lines) <= _CAPTION_LINES else [*lines[: _CAPTION_LINES - 1], "…"])


def choose_shown(suspects: Sequence[Suspect]) -> list[Suspect]:
    """Those who stop the pipeline first, and of each kind of reason one after the other."""
    seen: Counter[str] = Counter()
    ranked = []
    for suspect in suspects:
        kind = suspect.reasons[0].split(" ")[0]
        seen[kind] += 1
        ranked.append((not suspect.stops, seen[kind], suspect))
    return [suspect for _, _, suspect in sorted(ranked, key=lambda entry: entry[:2])[:_DRAWN]]

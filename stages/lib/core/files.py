"""Files and folders that are written whole or not at all, and byte-stable."""

import csv
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from stages.lib.core.errors import DataError

# A text that a spreadsheet would compute, by what it begins with, or such a text with the quotes that `write_csv` puts
# before it (https://owasp.org/www-community/attacks/CSV_Injection). A sign alone or before a number computes nothing.
_FORMULA = re.compile(r"'*[=+@\t\r\n\uff1d\uff0b\uff20\uff0d-](?![\d.,]*$)")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A place beside `path` to write a file or a folder to; it takes its name once the block has ended well.

    The place has the same name at every attempt, so that what a killed attempt left is replaced by the next.
    """
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(partial)
    try:
        yield partial
        if path.is_dir() or partial.is_dir():
            remove(path)  # a file replaces a file in one step, a folder does not
        partial.replace(path)
    except OSError as error:
        # What fails on an open file, for want of space say, does not tell which file that is.
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        remove(partial)


def require_space(
    path: Path, size: int, how: str = "`dvc gc --workspace` empties DVC's cache of what is not in use"
) -> None:
    """Refuse to begin what needs `size` bytes on the disk of `path`, which need not exist yet, if they are not free.

    how: they can be freed.

    Raises:
        DataError: saying how many bytes are needed and how many there are.
    """
    place = next(folder for folder in [path, *path.absolute().parents] if folder.exists())
    free = shutil.disk_usage(place).free
    if free < size:
        raise DataError(
            str(path),
            expected=f"{size:,} bytes free on its disk",
            got=f"{free:,}",
            hint=f"free some ({how}), then run the same again",
        )


def remove(path: Path) -> None:
    """Remove the file or the folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, its line ends as they are."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` with sorted keys; NaN and infinity are refused, for they are not JSON."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        DataError: there is no such file, or it holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(str(path), "no such file", "run `dvc repro`") from None
    except ValueError as error:
        raise DataError(str(path), f"not JSON: {error}", "run `dvc repro`") from None
    if not isinstance(value, dict):
        raise DataError(str(path), expected="a JSON object", got=type(value).__name__, hint="run `dvc repro`")
    return value


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table with a header line; a single quote keeps a spreadsheet from computing a text."""
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        print_csv(file, [header])
        print_csv(file, rows)


def print_csv(file: TextIO, rows: Iterable[Iterable[object]]) -> None:
    """Write rows of a table to an open file, in the form of `write_csv`."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([f"'{cell}" if _is_formula(cell) else cell for cell in row] for row in rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table with a header line, every value as the text that was written."""
    return list(iterate_csv(path))


def iterate_csv(path: Path) -> Iterator[dict[str, str]]:
    """The same, one row at a time."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield {key: cell[1:] if _is_formula(cell) and cell[0] == "'" else cell for key, cell in row.items()}


def _is_formula(cell: object) -> bool:
    return isinstance(cell, str) and _FORMULA.match(cell) is not None

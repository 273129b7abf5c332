"""The digests of exported files, in a file beside them that `sha256sum --check` reads, too."""

import hashlib
from pathlib import Path

from stages.lib.errors import ExportError

CHECKSUMS_NAME = "SHA256SUMS"


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of every file in the folder and below, a line each, sorted by path."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / CHECKSUMS_NAME).write_text("".join(lines), encoding="utf-8", newline="\n")


def read_whole(path: Path) -> bytes:
    """The bytes of an exported file, which are those that were exported.

    Raises:
        ExportError: there is no such file, no digest of it beside it, or it has another digest.
    """
    try:
        content = path.read_bytes()
        lines = (path.parent / CHECKSUMS_NAME).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        if error.filename == str(path):
            raise ExportError(str(path), expected="a file", got="none", do="name another") from None
        lines = []
    except OSError as error:
        raise ExportError(str(path), expected="a file", got=error.strerror or str(error), do="name another") from None
    except ValueError:  # the list is no text
        lines = []
    digests = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    if path.name not in digests:
        raise ExportError(
            str(path),
            expected=f"its SHA-256 in {CHECKSUMS_NAME} beside it",
            got="none",
            do="copy that file, too, from where the model came from: it tells whether the model is whole",
        )
    if (got := hashlib.sha256(content).hexdigest()) != digests[path.name]:
        raise ExportError(
            str(path),
            expected=f"a whole model, SHA-256 {digests[path.name][:12]}…",
            got=f"{got[:12]}… ({len(content)} bytes)",
            do="copy it again, or `dvc checkout models/export --force`",
        )
    return content

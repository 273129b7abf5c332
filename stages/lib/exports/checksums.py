"""The digests of exported files, in a file beside them that `sha256sum --check` reads, too."""

import hashlib
from pathlib import Path

from stages.lib.core.errors import ExportError

CHECKSUMS_NAME = "SHA256SUMS"


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of every file in the folder and below, a line each, sorted by path."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    names = sorted(path.as_posix() for path in paths if path != Path(CHECKSUMS_NAME))
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / CHECKSUMS_NAME).write_text("".join(lines), encoding="utf-8", newline="\n")


def read_whole(path: Path, export_dir: Path | None = None) -> bytes:
    """The bytes of an exported file, which are those that were exported.

    export_dir: the folder with the digests, by default the file's own.

    Raises:
        ExportError: there is no such file, no digest of it beside it, or it has another digest.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        hint = "run `dvc repro`, which writes models/export, or name a model that is there"
        raise ExportError(str(path), "no such file", hint) from None
    except OSError as error:
        raise ExportError.unreadable(str(path), error) from None
    folder = export_dir or path.parent
    name, digests = path.relative_to(folder).as_posix(), _read_digests(folder / CHECKSUMS_NAME)
    if name not in digests:
        raise ExportError(
            str(path),
            f"there is no SHA-256 of it in {CHECKSUMS_NAME} beside it, which tells whether it is whole",
            "copy that file, too, from where the model came from",
        )
    if (got := hashlib.sha256(content).hexdigest()) != digests[name]:
        raise ExportError(
            str(path),
            expected=f"a whole model, SHA-256 {digests[name][:12]}…",
            got=f"{got[:12]}… ({len(content)} bytes)",
            hint="copy it again, or `dvc checkout models/export --force`",
        )
    return content


def _read_digests(path: Path) -> dict[str, str]:
    """The digests in a list by the file's name; none of them if there is no list or it is no text."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return {}
    except OSError as error:
        raise ExportError.unreadable(str(path), error) from None
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}

"""DVC's way to hash an output."""

import hashlib
import json
from pathlib import Path

# What .dvcignore leaves out of the folders that DVC hashes: byte code, not source.
_IGNORED = "__pycache__"


def hash_output(path: Path) -> str:
    """The MD5 of a file, or of a folder's files and names with `.dir` behind it, as DVC writes them to dvc.lock.

    A folder's is the MD5 of the JSON list of its files' MD5 and relative path, in the order of these paths
    (https://dvc.org/doc/user-guide/project-structure/internal-files#structure-of-the-cache-directory).
    """
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    if not path.is_dir():
        return "nothing"
    files = [file.relative_to(path) for file in path.rglob("*") if file.is_file()]
    names = sorted(file.as_posix() for file in files if _IGNORED not in file.parts)
    listing = [{"md5": hash_output(path / name), "relpath": name} for name in names]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"

"""Published files, fetched over https from the first mirror that has them whole."""

import gzip
import hashlib
import ipaddress
import os
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import BinaryIO, NamedTuple
from urllib.parse import urljoin, urlsplit

import requests
from filelock import FileLock
from urllib3.exceptions import HTTPError

from stages.lib.core.errors import DataError
from stages.lib.core.files import atomic_write
from stages.lib.core.paths import find_root, resolve
from stages.lib.core.urls import hide_password

_CHUNK_BYTES = 1 << 16
_MAX_REDIRECTS = 5
# Seconds to connect, and between two pieces of the answer.
_TIMEOUT = (10, 30)
# Stays in the cache, empty: a lock that is removed is none, for who waits for it has another file than who comes later.
_LOCK_NAME = ".lock"
# Seconds for all of it, redirects included, and bytes a second of a file that needs longer: CIFAR-10's server has been
# known to send 50,000. A server may send a byte now and then, and never end.
_MAX_SECONDS = 600
_MIN_BYTES_A_SECOND = 17_000
_PROGRESS_SECONDS = 5


class PublishedFile(NamedTuple):
    """A gzip-compressed file as its publisher promises it."""

    name: str
    sha256: str
    size: int  # bytes
    # Whether both are of the decompressed content, as mirrors may have compressed it anew, or of the file itself.
    is_of_content: bool = False


def fetch_dataset(name: str, files: Sequence[PublishedFile], mirrors: Sequence[str]) -> list[Path]:
    """Fetch each file of the data set `name`: the paths of verified copies, in a mirror's folder or in .cache/<name>.

    The mirror that <NAME>_MIRROR names is asked before `mirrors`. The parameters and errors are those of `fetch`.
    """
    variable = f"{name.upper()}_MIRROR"
    chosen = [*filter(None, [os.environ.get(variable)]), *mirrors]
    return [fetch(file, chosen, find_root() / ".cache" / name, variable) for file in files]


def fetch(file: PublishedFile, mirrors: Sequence[str], cache_dir: Path, variable: str) -> Path:
    """Fetch `file`: from `cache_dir` if it is there and good, else from the first good mirror; the path of a good copy.

    A mirror is a folder (relative to the project's root), an https URL, or an http URL on this machine. What came
    over the network is kept in `cache_dir`. variable: of the environment, with which a person names a mirror.

    Raises:
        DataError: no mirror had the file whole; says what was wrong with each.
    """
    cached = cache_dir / file.name
    problems: list[DataError] = []
    if cached.exists():
        try:
            return _verify(file, cached, str(cached))
        except DataError as problem:
            problems.append(problem)
    for mirror in mirrors:
        try:
            if "://" not in mirror:
                source = resolve(mirror) / file.name
                return _verify(file, source, str(source))
            url = f"{mirror.rstrip('/')}/{file.name}"
            _fetch_alone(file, url, cached)
        except DataError as problem:
            problems.append(problem)
        # requests' errors are OSErrors; its raw stream raises urllib3's, an address that is none a ValueError.
        except (OSError, HTTPError, ValueError) as error:
            shown = hide_password(mirror)
            reason = str(error).replace(mirror, shown)
            problems.append(DataError(shown, f"download failed: {reason}"))
        else:
            return cached
    raise DataError(
        file.name,
        f"no good copy in the cache or on a mirror: {' | '.join(map(str, problems))}",
        f"set {variable} to a folder or a URL that has the file",
    )


def _fetch_alone(file: PublishedFile, url: str, cached: Path) -> None:
    """Have the file in `cached`; of processes that want it at once, one fetches it for all."""
    cached.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(cached.with_name(_LOCK_NAME)):
        with suppress(FileNotFoundError, DataError):
            _verify(file, cached, str(cached))
            return
        with atomic_write(cached) as partial:
            _download_in_time(url, partial, max_bytes=file.size)  # gzip makes images smaller
            _verify(file, partial, hide_password(url))


def _verify(file: PublishedFile, path: Path, source: str) -> Path:
    """The path, if what is there is what was published; at most one byte more than that is read.

    Raises:
        DataError: it has another content, or should be decompressed and is not gzip or is cut off; without a hint, for
            `fetch` tries the next.
    """
    hashed, size = hashlib.sha256(), 0
    with path.open("rb") as packed:
        try:
            content = gzip.GzipFile(fileobj=packed) if file.is_of_content else packed
            while size <= file.size and (piece := content.read(min(_CHUNK_BYTES, file.size + 1 - size))):
                hashed.update(piece)
                size += len(piece)
        # An OSError of the disk is `fetch`'s.
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(source, f"not a whole gzip file: {error}") from None
    digest = hashed.hexdigest()
    if digest != file.sha256:
        shown = f"{size}" if size <= file.size else f"more than {file.size}"
        raise DataError(
            source,
            expected=f"{file.size} bytes with SHA-256 {file.sha256}",
            got=f"{shown} bytes with {digest}",
        )
    return path


def _download_in_time(url: str, path: Path, max_bytes: int) -> None:
    """Write what `url` answers to `path` in time: a timeout of a socket begins anew at each piece."""
    problems: list[BaseException] = []
    seconds = max(_MAX_SECONDS, max_bytes / _MIN_BYTES_A_SECOND)

    def download() -> None:
        try:
            _download(url, target, max_bytes)
        except BaseException as error:  # noqa: BLE001  (raised below, by the thread that waits)
            problems.append(error)

    # Opened here, so that a thread that was given up finds it closed and makes no file anew.
    with path.open("wb") as target:
        thread = Thread(target=download, daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            raise DataError(hide_password(url), f"it did not send the whole file within {round(seconds, 1):,} seconds")
    if problems:
        raise problems[0]


def _download(url: str, target: BinaryIO, max_bytes: int) -> None:
    """Write what `url` answers; every redirect is looked at before it is followed."""
    for _ in range(_MAX_REDIRECTS + 1):
        _require_safe(url)
        with requests.get(url, stream=True, allow_redirects=False, timeout=_TIMEOUT) as answer:
            if answer.is_redirect:
                url = urljoin(url, answer.headers["location"])
                continue
            answer.raise_for_status()
            received, reported = 0, time.monotonic()
            # Raw bytes: a server that labels .gz files with a content encoding must not have them unpacked here.
            for piece in answer.raw.stream(_CHUNK_BYTES, decode_content=False):
                received += len(piece)
                if received > max_bytes:
                    raise DataError(hide_password(url), expected=f"at most {max_bytes} bytes", got="more")
                target.write(piece)
                if time.monotonic() - reported > _PROGRESS_SECONDS:
                    reported = time.monotonic()
                    print(f"{hide_password(url)}: {received / 1e6:,.0f} MB have arrived", flush=True)
            return
    raise DataError(hide_password(url), expected=f"at most {_MAX_REDIRECTS} redirects", got="more")


def _require_safe(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or "")):
        return
    raise DataError(hide_password(url), expected="an https address", got=parts.scheme)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""Published files, fetched over https from the first mirror that has them whole."""

import gzip
import hashlib
import io
import ipaddress
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
from stages.lib.core.paths import resolve
from stages.lib.core.urls import hide_password

_CHUNK_BYTES = 1 << 16
_MAX_REDIRECTS = 5
# Seconds to connect, and between two pieces of the answer.
_TIMEOUT = (10, 30)
# Stays in the cache, empty: a lock that is removed is none, for who waits for it has another file than who comes later.
_LOCK_NAME = ".lock"
# Seconds for all of it, redirects included: MNIST's largest file at 17 kB a second. A server may send a byte now and
# then, and never end.
_MAX_SECONDS = 600


class PublishedFile(NamedTuple):
    """A gzip-compressed file as its publisher promises it."""

    name: str
    sha256: str  # of the decompressed content: mirrors may have compressed it anew
    size: int  # of the decompressed content, bytes


def fetch(file: PublishedFile, mirrors: Sequence[str], cache_dir: Path) -> bytes:
    """The decompressed content of `file`: from `cache_dir` if it is there and good, else from the first good mirror.

    A mirror is a folder (relative to the project's root), an https URL, or an http URL on this machine. What came
    over the network is kept in `cache_dir`.

    Raises:
        DataError: no mirror had the file whole; says what was wrong with each.
    """
    cached = cache_dir / file.name
    problems: list[DataError] = []
    if cached.exists():
        try:
            return unpack(file, cached.read_bytes(), str(cached))
        except DataError as problem:
            problems.append(problem)
    for mirror in mirrors:
        try:
            if "://" not in mirror:
                source = resolve(mirror) / file.name
                return unpack(file, source.read_bytes(), str(source))
            url = f"{mirror.rstrip('/')}/{file.name}"
            content = _fetch_alone(file, url, cached)
        except DataError as problem:
            problems.append(problem)
        # requests' errors are OSErrors; its raw stream raises urllib3's, an address that is none a ValueError.
        except (OSError, HTTPError, ValueError) as error:
            shown = hide_password(mirror)
            reason = str(error).replace(mirror, shown)
            problems.append(DataError(shown, f"download failed: {reason}"))
        else:
            return content
    raise DataError(
        file.name,
        f"no good copy in the cache or on a mirror: {' | '.join(map(str, problems))}",
        "set MNIST_MIRROR to a folder or a URL that has the file",
    )


def _fetch_alone(file: PublishedFile, url: str, cached: Path) -> bytes:
    """The decompressed content, kept in `cached`; of processes that want it at once, one fetches it for all."""
    cached.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(cached.with_name(_LOCK_NAME)):
        with suppress(FileNotFoundError, DataError):
            return unpack(file, cached.read_bytes(), str(cached))
        with atomic_write(cached) as partial:
            _download_in_time(url, partial, max_bytes=file.size)  # gzip makes images smaller
            return unpack(file, partial.read_bytes(), hide_password(url))


def unpack(file: PublishedFile, packed: bytes, source: str) -> bytes:
    """The decompressed content, if it is what was published; at most one byte more than that is unpacked.

    Raises:
        DataError: it is not gzip, is cut off, or has another content; without a hint, for `fetch` tries the next.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as unpacked:
            content = unpacked.read(file.size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(source, f"not a whole gzip file: {error}") from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        size = f"{len(content)}" if len(content) <= file.size else f"more than {file.size}"
        raise DataError(
            source,
            expected=f"{file.size} bytes with SHA-256 {file.sha256}",
            got=f"{size} bytes with {digest}",
        )
    return content


def _download_in_time(url: str, path: Path, max_bytes: int) -> None:
    """Write what `url` answers to `path` in time: a timeout of a socket begins anew at each piece."""
    problems: list[BaseException] = []

    def download() -> None:
        try:
            _download(url, target, max_bytes)
        except BaseException as error:  # noqa: BLE001  (raised below, by the thread that waits)
            problems.append(error)

    # Opened here, so that a thread that was given up finds it closed and makes no file anew.
    with path.open("wb") as target:
        thread = Thread(target=download, daemon=True)
        thread.start()
        thread.join(_MAX_SECONDS)
        if thread.is_alive():
            raise DataError(hide_password(url), f"it did not send the whole file within {_MAX_SECONDS} seconds")
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
            received = 0
            # Raw bytes: a server that labels .gz files with a content encoding must not have them unpacked here.
            for piece in answer.raw.stream(_CHUNK_BYTES, decode_content=False):
                received += len(piece)
                if received > max_bytes:
                    raise DataError(hide_password(url), expected=f"at most {max_bytes} bytes", got="more")
                target.write(piece)
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

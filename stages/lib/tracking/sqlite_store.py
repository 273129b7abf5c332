"""The file of an SQLite store: one process at a time, and looked at before MLflow does.

MLflow would try for a hundred seconds to open what is no database, wait for a locked one without a word, and change an
older one's tables, without a copy, by merely opening it.
"""

import os
import shlex
import sqlite3
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stages.lib.core.errors import TrackingError

# Seconds. To track a state takes a few, to wait for several that are tracked at once may take a minute; but who holds a
# store for minutes has forgotten it.
NOTICE_AFTER = 5.0
PATIENCE = 300.0

_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
# Locks as Linux lists them (https://man7.org/linux/man-pages/man5/proc_locks.5.html).
_LOCKS_PATH = Path("/proc/locks")


@contextmanager
def hold(lock_path: Path, where: str, again: str) -> Iterator[None]:
    """Keep other processes of this project from the store as long as the block lasts.

    where, again: the store, and what to do once it is free, for the error.

    Raises:
        TrackingError: another process still held it after `PATIENCE` seconds.
    """
    lock = FileLock(lock_path)

    def acquire(seconds: float) -> bool:
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            return False
        return True

    _wait(acquire, lock_path, where, again)
    try:
        yield
    finally:
        lock.release()


def require_usable(path: Path, where: str, again: str, revisions: Collection[str], newest: str) -> None:
    """Refuse a file that MLflow could not write to, or whose tables are not of the MLflow that is installed.

    revisions, newest: of its tables, all that this MLflow knows and the one that it works with.

    Raises:
        TrackingError: it is no database, read-only, locked for `PATIENCE` seconds, or of another MLflow.
    """
    if path.is_dir():
        raise TrackingError(where, "it is a folder, not a file", f"move it away, then {again}")
    found = ""

    def look(seconds: float) -> bool:
        nonlocal found
        try:
            found = _read_revision(path, seconds)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _LOCKED:  # the code without its extension
                raise
            return False
        return True

    try:
        _wait(look, path, where, again)
    except sqlite3.DatabaseError as error:
        is_damaged = getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED
        hint = "move it away" if is_damaged else "let it and its folder be written to (`chmod u+w`, `df`)"
        raise TrackingError(where, f"SQLite cannot use it: {error}", f"{hint}, then {again}") from None
    if found == newest:
        return
    expected = f"tables of the MLflow that is installed ({newest})"
    if found in revisions:
        copy = f"cp {shlex.quote(str(path))} {shlex.quote(f'{path}.copy')}"
        upgrade = f"mlflow db upgrade {shlex.quote(f'sqlite:///{path}')}"
        hint = f"`{copy} && {upgrade}`, then {again}"
        raise TrackingError(where, expected=expected, got=f"those of an older one ({found})", hint=hint)
    got = f"those of a newer one ({found})" if found else "those of another program"
    hint = "install the MLflow that wrote it" if found else "move it away"
    raise TrackingError(where, expected=expected, got=got, hint=f"{hint}, then {again}")


def _read_revision(path: Path, seconds: float) -> str:
    """The revision of the tables, as Alembic notes it; empty if they are another program's.

    Raises:
        sqlite3.DatabaseError: the file cannot be read, or another process has been writing to it for `seconds`.
    """
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=seconds, isolation_level=None)) as base:
        base.execute("BEGIN IMMEDIATE")  # what MLflow will need: to be the one that writes
        try:
            base.execute("PRAGMA user_version = 0")  # a write, taken back below: a read-only folder refuses it
            names = [name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE name = 'alembic_version'")]
            rows = base.execute("SELECT version_num FROM alembic_version").fetchall() if names else []
        finally:
            base.execute("ROLLBACK")
    return str(rows[0][0]) if rows else ""


def name_holders(path: Path) -> str:
    """The other processes that have a lock on the file, with their command lines, as far as the system tells."""
    try:
        inode, lines = path.stat().st_ino, _LOCKS_PATH.read_text(encoding="ascii").splitlines()
    except OSError:
        return "another process"
    # "1: POSIX ADVISORY WRITE 708 08:01:1180 0 EOF"; in place of the number, who waits has "->".
    fields = [line.split() for line in lines if "->" not in line]
    holders = {int(field[4]) for field in fields if field[5].rpartition(":")[2] == str(inode)} - {os.getpid()}
    named = [f"process {holder}{_describe_command(holder)}" for holder in sorted(holders) if holder > 0]
    return ", ".join(named) or "another process"


def _describe_command(process: int) -> str:
    try:
        words = Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
    except OSError:
        return ""
    command = " ".join(words).strip()
    return f" ({command[:80]}{'…' if command[80:] else ''})" if command else ""


def _wait(attempt: Callable[[float], bool], path: Path, where: str, again: str) -> None:
    """Make an attempt of a few seconds, say who is in the way, and make another of minutes."""
    if attempt(NOTICE_AFTER):
        return
    print(
        f"waiting up to {PATIENCE:.0f} s for {where}: {name_holders(path)} holds {path.name}",
        file=sys.stderr,
        flush=True,
    )
    if not attempt(PATIENCE):
        problem = f"{path.name} has been held for {PATIENCE:.0f} s by {name_holders(path)}"
        raise TrackingError(where, problem, f"wait until that ends, or stop it, then {again}")

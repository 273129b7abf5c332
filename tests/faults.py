"""What happens to disks and files: no space, nothing to be written to, other bytes than were written."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from project import Project
from ruamel.yaml import YAML
from samples import list_files

from stages.lib.core.files import remove

OUTPUTS = ("data", "models", "reports")
UNHASHED = "reports/parity_measured.json"  # differs in the last bits

# The folder and the command follow. In a namespace of its own, the mounts end with the command.
READ_ONLY = (
    "unshare",
    "--mount",
    "sh",
    "-ec",
    'mount --bind "$0" "$0"; mount -o remount,bind,ro "$0"; cd "$PWD"; "$@"',
)


def _can_mount() -> bool:
    with suppress(FileNotFoundError):
        done = subprocess.run(
            ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
        )
        return done.returncode == 0
    return False


needs_mounts = pytest.mark.skipif(
    not _can_mount(), reason="small and read-only disks need Linux and the right to mount"
)


@contextmanager
def mount_disk(place: Path, size: int) -> Iterator[Path]:
    """A disk of so many bytes, as long as the block lasts."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@contextmanager
def fill_disk(disk: Path, left: int) -> Iterator[None]:
    """Leave so many bytes of the disk free, as long as the block lasts."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - left)
    try:
        yield
    finally:
        filler.unlink()


def list_outputs(project: Project, stage: str) -> dict[str, str]:
    """The MD5 of each output of a stage, by path, as dvc.lock has it."""
    stages = YAML(typ="safe", pure=True).load(project.read("dvc.lock"))["stages"]
    return {out["path"]: out["md5"] for out in stages[stage]["outs"]}


def find_object(project: Project, md5: str) -> Path:
    """The place of an object in DVC's cache."""
    return project.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def forget(project: Project, stage: str) -> int:
    """Remove the outputs of a stage, in DVC's cache, too, so that it must make them again; their size in bytes."""
    size = 0
    for path, md5 in list_outputs(project, stage).items():
        listing = find_object(project, md5)
        files = [entry["md5"] for entry in YAML(typ="safe").load(listing)] if md5.endswith(".dir") else []
        for item in (*(find_object(project, file) for file in files), listing):
            size += item.stat().st_size if item.exists() else 0
            remove(item)
        remove(project.root / path)
    remove(project.root / ".dvc/cache/runs")
    return size


def read_outputs(project: Project) -> dict[str, bytes]:
    """What a person has after `dvc repro`: dvc.lock and each file of each output; nothing half-written among them."""
    files = {f"{folder}/{name}": c for folder in OUTPUTS for name, c in list_files(project.root / folder).items()}
    files.pop(UNHASHED, None)
    return {**files, "dvc.lock": (project.root / "dvc.lock").read_bytes()}


def read_runs(project: Project) -> list[str]:
    """Status of each run in MLflow's store, whose file must be sound."""
    with closing(sqlite3.connect(project.root / "mlflow.db")) as store:
        assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return [run.info.status for run in project.list_runs()]


def replace_content(path: Path, content: bytes | None) -> None:
    """Let a file have these bytes, or none be there, its time and its mode as they were: as a disk that rots does."""
    before = path.stat()
    path.chmod(0o600)
    if content is None:
        path.unlink()
        return
    path.write_bytes(content)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flip_bit(content: bytes) -> bytes:
    """The content with a bit in its middle turned."""
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


# Each kind of damage: from a file's bytes to those that are left, none if there is no file any more.
DAMAGES = {
    "a bit": flip_bit,
    "cut off": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
    "gone": lambda _: None,
}

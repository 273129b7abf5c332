"""Errors of disks and files in the real pipeline: told in a line, and made up for by the next `dvc repro`."""

import re
import shutil
import subprocess
from typing import NamedTuple

import pytest
from faults import (
    DAMAGES,
    READ_ONLY,
    fill_disk,
    find_object,
    forget,
    list_outputs,
    mount_disk,
    needs_mounts,
    read_outputs,
    read_runs,
    replace_content,
)
from imports import STAGES

from stages.lib.core.files import remove

# Room for a copy of the clone and for all that it makes anew.
DISK_BYTES = 96 * 2**20
# What the store of MLflow's and a run's artifacts take.
RUN_BYTES = 2_600_000
NO_SPACE = "No space left on device|bytes free on its disk|database or disk is full"
READ_ONLY_DISK = "Read-only file system|attempt to write a readonly database|unable to open database file"
slow = pytest.mark.slow


def copy_clone(reproduced, root, store):
    """A copy with an empty store of MLflow's, or none: the clone's own has absolute paths."""
    copied = reproduced.copy_to(root, without=("mlflow.db*", "mlartifacts"))
    (copied.root / "reports/state.json").unlink()  # DVC keeps it from run to run, and would take it for done
    if store:
        shutil.copy(store, copied.root / "mlflow.db")
    return copied


@pytest.fixture
def project(reproduced, empty_store, tmp_path):
    """A copy of the clone."""
    return copy_clone(reproduced, tmp_path / "copy", empty_store)


def hold_stage_lock(project, stage, *wrapper):
    """`dvc repro` of the one stage, started by the wrapper."""
    return project.start(*wrapper, "dvc", "repro", "--force", "--single-item", stage)


def require_told(failed, stage, what):
    """One line of the stage's own tells what is wrong, or DVC does where it is DVC that failed; without a traceback."""
    own, of_dvc = (
        [line for line in failed.stderr.splitlines() if line.startswith(start) and re.search(what, line)]
        for start in (f"{stage}: ", "ERROR: ")
    )
    assert "Traceback" not in failed.stdout + failed.stderr, failed.stderr
    assert len(own) == 1 or (of_dvc and not own), failed.stderr
    # DVC goes on when its cache has no room for an output, which is whole where it is.
    assert failed.returncode != 0 or "failed to transfer" in failed.stderr


def require_nothing_half(project, reproduced):
    """Whatever lies in an output's place is whole, and dvc.lock promises what it did."""
    whole = read_outputs(reproduced)
    found = {path: content for path, content in read_outputs(project).items() if ".partial" not in path}
    assert [path for path, content in found.items() if whole[path] != content] == []


def require_nothing_lost(project, reproduced):
    """The next `dvc repro` gives what an undisturbed one gave, in DVC's cache, too, and the state has one run."""
    project.run("dvc", "repro")
    assert read_outputs(project) == read_outputs(reproduced)
    assert read_runs(project) == ["FINISHED"]
    project.run("pipeline", "verify", "--quick")


# --- a full disk ------------------------------------------------------------------------------------------------


def list_fills():
    """Stages, and room for which share of what they write: at first a stage fails, at last DVC's cache does."""
    shares = dict.fromkeys(STAGES, (0.0, 0.9)) | {"normalize": (0.5, 1.1), "track": (0.02, 0.3, 0.6)}
    return [
        pytest.param(stage, share, marks=() if (stage, share) == ("normalize", 1.1) else slow, id=f"{stage}-{share}")
        for stage, of in shares.items()
        for share in of
    ]


@needs_mounts
@pytest.mark.parametrize(("stage", "share"), list_fills())
def test_full_disk_loses_nothing(reproduced, empty_store, tmp_path, stage, share):
    """A stage, or DVC after it, that finds no room says so, and once there is room nothing is missing."""
    with mount_disk(tmp_path / "disk", DISK_BYTES) as disk:
        project = copy_clone(reproduced, disk / "copy", empty_store if stage != "track" else None)
        size = RUN_BYTES if stage == "track" else forget(project, stage)
        # DVC notes there who reads what, and a note that grows would end it before the stage: see the next test.
        (project.root / ".dvc/tmp/rwlock").write_text(f"{{}}{' ' * 16_384}", encoding="utf-8")
        with fill_disk(disk, int(size * share)):
            failed = hold_stage_lock(project, stage)
            require_nothing_half(project, reproduced)

        require_told(failed, stage, NO_SPACE)
        require_nothing_lost(project, reproduced)


@pytest.mark.parametrize(
    ("name", "content", "reported", "way_back"),
    [
        (".dvc/tmp/rwlock", '{"read": {"/', "Unable to read RWLock-file '.dvc/tmp/rwlock'", "rm .dvc/tmp/rwlock"),
        ("dvc.lock", "schema: '2.0'\nstages:\n  ing", "'./dvc.lock' validation failed", "git checkout dvc.lock"),
    ],
)
def test_file_that_dvc_could_not_write_whole_has_a_way_back(project, name, content, reported, way_back):
    """DVC writes over its own notes and dvc.lock: cut off by a full disk, each is back by the documented command."""
    project.run("git", "add", "dvc.lock")
    (project.root / name).write_text(content, encoding="utf-8")
    refused = project.start("dvc", "repro", "evaluate")
    project.run(*way_back.split())

    assert refused.returncode != 0
    assert reported in refused.stderr
    assert project.repro("evaluate") == []


# --- folders that cannot be written to ---------------------------------------------------------------------------


def list_places():
    """Stages, and folders that they or DVC write to."""
    places = {
        "ingest": ("data", ".cache"),
        "validate": ("reports",),
        "normalize": ("data", ".cache", ".dvc/cache", "."),
        "train": ("models", "reports"),
        "evaluate": ("reports",),
        "export": ("models", "reports"),
        "track": ("reports", "mlartifacts", "."),
    }
    return [
        pytest.param(stage, place, marks=() if (stage, place) == ("normalize", "data") else slow, id=f"{stage}-{place}")
        for stage, of in places.items()
        for place in of
    ]


@needs_mounts
@pytest.mark.parametrize(("stage", "place"), list_places())
def test_read_only_folder_loses_nothing(project, reproduced, stage, place):
    """A folder that is read-only, for root, too, is told in a line; once it is not, nothing is lost."""
    if stage != "track":
        forget(project, stage)
    (project.root / place).mkdir(exist_ok=True)
    failed = hold_stage_lock(project, stage, *READ_ONLY, str(project.root / place))
    require_nothing_half(project, reproduced)

    require_told(failed, stage, READ_ONLY_DISK)
    require_nothing_lost(project, reproduced)


# --- other bytes than were written -------------------------------------------------------------------------------


class Spot(NamedTuple):
    """A file of an output, and a stage that reads it."""

    output: str
    file: str  # within the output; none if it is a file itself
    stage: str  # that makes it
    reader: str
    param: str  # a parameter of the reader, which makes it due
    value: object


SPOTS = (
    Spot("data/raw", "train/images.npy", "ingest", "normalize", "normalize.seed", 1),
    Spot("data/normalized", "train/labels.npy", "normalize", "train", "train.seed", 1),
    Spot("models/model.keras", "", "train", "evaluate", "evaluate.min_accuracy", 0.5),
)


def list_damages():
    """Each damage in each spot."""
    return [
        pytest.param(spot, kind, marks=() if (spot, kind) == (SPOTS[0], "a bit") else slow, id=f"{spot.output}-{kind}")
        for spot in SPOTS
        for kind in DAMAGES
    ]


def find_spot(project, spot):
    """The object in DVC's cache that holds the spot's file."""
    md5 = list_outputs(project, spot.stage)[spot.output]
    if spot.file:
        listing = find_object(project, md5).read_text(encoding="utf-8")
        entry = re.search(rf'"md5": "(\w+)", "relpath": "{spot.file}"', listing)
        md5 = entry[1]
    return find_object(project, md5)


def list_digests(project):
    """Every MD5 in dvc.lock; beside it DVC notes the size of what it brought back."""
    return re.findall(r"md5: (\w+)", project.read("dvc.lock"))


def heal(project):
    """Do what `pipeline verify --quick` says of each error, until it finds none."""
    said = []
    for _ in range(len(DAMAGES)):
        found = project.start("pipeline", "verify", "--quick")
        if found.returncode == 0:
            return said
        said.append(found.stdout + found.stderr)
        # "`rm -f X`, then `dvc fetch` if there is a remote, else `dvc repro`": there is none.
        commands = re.findall(r"`([^`]+)`", found.stdout + found.stderr)
        for command in dict.fromkeys(command for command in commands if command != "dvc fetch"):
            project.start("sh", "-c", command)
    raise AssertionError("\n".join(said))


@pytest.mark.parametrize(("spot", "kind"), list_damages())
def test_damaged_cache_object_makes_no_state(project, reproduced, spot, kind):
    """What DVC brings back damaged from its cache no stage works on; what `pipeline verify` names heals it."""
    damaged = find_spot(project, spot)
    replace_content(damaged, DAMAGES[kind](damaged.read_bytes()))
    remove(project.root / spot.output)
    project.set_param(spot.param, spot.value)
    failed = project.start("dvc", "repro", spot.reader)
    expected = list_digests(project)
    project.run("git", "checkout", "--quiet", "--", "params.yaml")

    if kind == "gone":  # DVC sees that, and makes it anew
        assert failed.returncode == 0, failed.stderr
    else:
        require_told(
            failed, spot.reader, f"{spot.output}[^:]*: expected MD5 .+ as in dvc.lock, .+`pipeline verify --quick`"
        )
        assert expected == list_digests(reproduced)
        heal(project)
    require_nothing_lost(project, reproduced)


@slow
@pytest.mark.parametrize("kind", ["a bit", "gone"])
@pytest.mark.parametrize("spot", SPOTS, ids=lambda spot: spot.output)
def test_damaged_output_is_found_and_healed(project, reproduced, spot, kind):
    """An output that changed and kept its time is found by `pipeline verify --quick`, which says what heals it."""
    path = project.root / spot.output / spot.file if spot.file else project.root / spot.output
    replace_content(path, DAMAGES[kind](path.read_bytes()))
    said = heal(project)

    assert len(said) == 1
    assert spot.output in said[0]
    require_nothing_lost(project, reproduced)


@slow
@pytest.mark.parametrize("kind", ["a bit", "cut off"])
@pytest.mark.parametrize(
    ("stage", "path"),
    [
        ("validate", "data/raw/dataset.json"),
        ("validate", "data/raw/train/images.npy"),
        ("normalize", "data/raw/train/labels.npy"),
        ("train", "data/normalized/train/images.npy"),
        ("evaluate", "models/model.keras"),
        ("export", "models/model.keras"),
        ("track", "models/export/model.onnx"),
        ("track", "reports/evaluation/predictions.csv"),
    ],
)
def test_stage_started_by_hand_on_a_damaged_input_has_no_traceback(project, stage, path, kind):
    """Without DVC a stage takes what is there; where that cannot be read, a line says which file it is."""
    replace_content(project.root / path, DAMAGES[kind]((project.root / path).read_bytes()))
    done = project.start("python", "-m", f"stages.{stage}")

    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or done.stderr.startswith(f"{stage}: {path.rpartition('/')[0]}"), done.stderr


# --- edits while a stage runs ------------------------------------------------------------------------------------


def edit_params(project):
    """Another seed for the stage that is at work."""
    project.set_param("train.seed", 1)


def edit_source(project):
    """A remark in a module that the stage has imported long since."""
    with (project.root / "stages/lib/model/network.py").open("a", encoding="utf-8") as file:
        file.write("# A remark.\n")


@slow
@pytest.mark.parametrize("edit", [edit_params, edit_source])
def test_edit_while_training_is_not_recorded(project, reproduced, edit):
    """DVC would record what was edited since with the output of what the stage read: the stage fails instead."""
    project.set_param("train.epochs", 300)
    command = ("dvc", "repro", "train")
    with subprocess.Popen(
        command, cwd=project.root, env=project.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as dvc:
        for line in dvc.stdout:
            if line.startswith("train: epoch"):
                edit(project)
                break
        reported = dvc.stdout.read()
    lock = project.read("dvc.lock")
    project.run("git", "checkout", "--quiet", "--", "params.yaml", "stages")

    assert dvc.returncode != 0
    assert len(re.findall(r"^train: .+: it was edited while the stage ran; ", reported, re.MULTILINE)) == 1
    assert lock == reproduced.read("dvc.lock")
    require_nothing_lost(project, reproduced)

"""A full disk is told in one line, and leaves nothing half-written."""

import shutil
import subprocess
import sys

import pytest
from imports import ROOT
from samples import CLASS_NAMES, IMAGE_SIZE, write_normalized

from stages.lib.core.errors import DataError
from stages.lib.core.files import require_space
from stages.lib.model.canonical_keras import save_keras
from stages.lib.model.network import Architecture, build_network

# A namespace of its own may mount what it likes, nobody else sees it, and it is gone with its last process.
APART = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
# One page, and a file that fills it.
MOUNT = 'mount -t tmpfs -o size=4k tmpfs full; head -c 4096 /dev/zero > full/file; exec "$0" "$@"'
EACH_STAGE = """
from pathlib import Path
from stages import evaluate, export, ingest, normalize, train
from stages.lib.core.errors import DataError, describe_os_error
from stages.lib.core.params import load_section

full = Path("full").absolute()

for name, params, begin in [
    ("ingest", ingest.IngestParams, lambda params: ingest.run(params, full / "raw")),
    ("normalize", normalize.NormalizeParams, lambda params: normalize.run(params, target_dir=full / "normalized")),
    ("train", train.TrainParams, lambda params: train.run(params, model_path=full / "model.keras")),
    ("evaluate", evaluate.EvaluateParams, lambda params: evaluate.run(params, reports_dir=full / "reports")),
    ("export", export.ExportParams, lambda params: export.run(params, export_dir=full / "export")),
]:
    try:
        begin(load_section(name, params))
    except DataError as error:
        print(f"{name}: {error}")
    except OSError as error:
        print(f"{name}: {describe_os_error(error)}")
print([path.name for path in full.rglob("*") if path.is_file()], Path("reports/history.csv").exists())
"""
FREE = "got 0; free some (`dvc gc --workspace` empties DVC's cache of what is not in use), then run the same again"

NO_SPACE = (
    "No space left on device; free some (`dvc gc --workspace` empties DVC's cache of what is not in use) and run again"
)


@pytest.fixture
def project(tmp_path):
    """A folder with params, raw and normalized data and an untrained network, and an empty folder `full`."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    write_normalized(tmp_path)
    save_keras(
        build_network(IMAGE_SIZE, Architecture((20,)), len(CLASS_NAMES), "softmax"), tmp_path / "models/model.keras"
    )
    (tmp_path / "full").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def _namespaces():
    """Skip where a process may not have namespaces of its own."""
    if not shutil.which("unshare"):
        pytest.skip("no `unshare` here: mounting a full file system needs it")
    done = subprocess.run([*APART, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine lets nobody mount a full file system: {done.stderr.strip()}")


@pytest.mark.usefixtures("_namespaces")
def test_stage_on_a_full_disk_ends_with_one_line_and_leaves_nothing(project):
    """Those that write much say before they begin how many bytes they need; the others which file had no room."""
    (project / "each.py").write_text(EACH_STAGE, encoding="utf-8")
    path = f"{ROOT}:{ROOT / 'tests'}"
    done = subprocess.run(
        [*APART, MOUNT, sys.executable, "each.py"],
        cwd=project,
        env={"PYTHONPATH": path, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    *printed, left = done.stdout.splitlines()
    full = project / "full"
    lines = [line for line in printed if f": {full}" in line]

    assert lines[:2] == [
        f"ingest: {full / 'raw'}: expected {1797 * 28 * 28:,} bytes free on its disk, {FREE}",
        f"normalize: {full / 'normalized'}: expected {90 * 48 * 4:,} bytes free on its disk, {FREE}",
    ]
    assert lines[2:] == [
        f"train: {full / 'model.keras'}: {NO_SPACE}",
        f"evaluate: {full / 'reports/evaluation/predictions.csv'}: {NO_SPACE}",
        f"export: {full / 'export'}: {NO_SPACE}",
    ]
    assert left == "['file'] False"


@pytest.mark.usefixtures("_namespaces")
def test_stage_without_room_for_its_reports_is_refused(project):
    """Also a stage that writes little is refused before its work, as a person starts it."""
    mount = 'mount -t tmpfs -o size=4k tmpfs reports; exec "$0" "$@"'
    done = subprocess.run(
        [*APART, mount, sys.executable, "-m", "stages.normalize"],
        cwd=project,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert (
        done.stderr
        == f"normalize: reports: expected 8,388,608 bytes free on its disk, {FREE.replace('0;', '4,096;')}\n"
    )


def test_message_says_how_room_is_made():
    """Where something else than DVC's cache is in the way, the line says so."""
    with pytest.raises(DataError) as refusal:
        require_space(ROOT, 10**18, "in this way")

    assert refusal.value.expected == f"{10**18:,} bytes free on its disk"
    assert refusal.value.hint == "free some (in this way), then run the same again"

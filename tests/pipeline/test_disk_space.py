"""Nothing begins that the disk has no room for: a full file system, and estimates against what is written."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import HIDDEN_UNITS
from imports import ROOT
from samples import CLASS_NAMES, IMAGE_SIZE, write_normalized
from stores import GOOD, make_model, make_record, track

from stages import evaluate, export, train
from stages.lib.core import arrays
from stages.lib.core.arrays import count_scratch_bytes
from stages.lib.core.errors import DataError
from stages.lib.core.files import require_space, write_csv
from stages.lib.core.params import load_section
from stages.lib.model.canonical_keras import save_keras
from stages.lib.model.network import build_network, count_weights
from stages.lib.model.training import Epoch
from stages.lib.tracking import runs

# A namespace of its own may mount what it likes, nobody else sees it, and it is gone with its last process.
APART = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
# One page, and a file that fills it.
MOUNT = 'mount -t tmpfs -o size=4k tmpfs full; head -c 4096 /dev/zero > full/file; exec "$0" "$@"'
EACH_STAGE = """
from pathlib import Path
from stages import evaluate, export, ingest, normalize, track, train
from stages.lib.tracking.runs import log_run
from stages.lib.tracking.store import Store
from stages.lib.core.errors import DataError
from stages.lib.core.params import load_section
from stores import GOOD, make_model, make_record, write_csv, PREDICTIONS_PATH

full = Path("full").absolute()

def log(params):
    Path("report.json").write_text("{}")
    write_csv(PREDICTIONS_PATH, ["actual", "predicted"], GOOD.predictions)
    log_run(Store(None, full), "1", make_record(), make_model(Path.cwd(), GOOD))

for name, params, begin in [
    ("ingest", ingest.IngestParams, lambda params: ingest.run(params, full / "raw")),
    ("normalize", normalize.NormalizeParams, lambda params: normalize.run(params, target_dir=full / "normalized")),
    ("train", train.TrainParams, lambda params: train.run(params, model_path=full / "model.keras")),
    ("evaluate", evaluate.EvaluateParams, lambda params: evaluate.run(params, reports_dir=full / "reports")),
    ("export", export.ExportParams, lambda params: export.run(params, export_dir=full / "export")),
    ("track", track.TrackParams, log),
]:
    try:
        begin(load_section(name, params))
    except DataError as error:
        print(f"{name}: {error}")
print([path.name for path in full.iterdir()], Path("reports/history.csv").exists())
"""
FREE = "got 0; free some (`dvc gc --workspace` empties DVC's cache of what is not in use), then run the same again"


@pytest.fixture
def project(tmp_path):
    """A folder with params, raw and normalized data and an untrained network, and an empty folder `full`."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    write_normalized(tmp_path)
    save_keras(build_network(IMAGE_SIZE, [20], len(CLASS_NAMES), "softmax"), tmp_path / "models/model.keras")
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
def test_stage_says_before_it_begins_how_many_bytes_it_needs(project):
    """On a disk that is full each ends with one line of the same kind, and has written nothing."""
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
    *lines, left = done.stdout.splitlines()
    full = project / "full"
    sizes = {
        "ingest": 1797 * 28 * 28,
        "normalize": 90 * 48 * 4,
        "train": train.estimate_size(load_section("train", train.TrainParams), IMAGE_SIZE, 3),
        "evaluate": evaluate.estimate_size(30, CLASS_NAMES),
        "export": export.estimate_size(list(export.FILES), count_weights(IMAGE_SIZE, [20], 3), (30, *IMAGE_SIZE), 3),
    }
    places = ["raw", "normalized", "model.keras", "reports", "export"]

    assert lines[:5] == [
        f"{stage}: {full / place}: expected {sizes[stage]:,} bytes free on its disk, {FREE}"
        for stage, place in zip(sizes, places, strict=True)
    ]
    assert lines[5].startswith(f"track: {full}: expected 1,0")
    assert "delete runs in MLflow's pages, then `mlflow gc`" in lines[5]
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


@pytest.mark.parametrize("hidden_units", [[], [24], [400, 400]])
def test_weights_are_counted_as_keras_does(hidden_units):
    """Without building the network."""
    assert (
        count_weights(IMAGE_SIZE, hidden_units, 3)
        == build_network(IMAGE_SIZE, hidden_units, 3, "linear").count_params()
    )


@pytest.mark.parametrize("hidden_units", [[], [400, 400]])
def test_training_writes_no_more_than_it_says(tmp_path, hidden_units):
    """The network is on the disk twice while it is written; a large one takes hardly less than said."""
    params = load_section("train", train.TrainParams).model_copy(update={"hidden_units": hidden_units, "epochs": 1000})
    save_keras(build_network(IMAGE_SIZE, hidden_units, 3, "softmax"), tmp_path / "model.keras")
    epoch = Epoch(1000, 0.12345, 0.12345, 0.12345, 0.12345)
    train.write_history(tmp_path / "history.csv", [epoch] * 1000, epoch)
    model_size, history_size = ((tmp_path / name).stat().st_size for name in ("model.keras", "history.csv"))
    estimate = train.estimate_size(params, IMAGE_SIZE, 3)

    assert 2 * model_size + history_size <= estimate
    assert estimate <= 1.25 * (2 * model_size + history_size) + 2**19


def test_evaluating_writes_no_more_than_it_says(tmp_path):
    """Class names that need quotes included."""
    names = ["a, b", "größer", "c"]
    write_csv(tmp_path / "predictions.csv", ["actual", "predicted"], [(names[1], names[0])] * 1000)

    assert (tmp_path / "predictions.csv").stat().st_size <= evaluate.estimate_size(1000, names) + len(
        "actual,predicted\n"
    )


def test_exporting_writes_no_more_than_it_says(small_model, tmp_path):
    """All files of a small network and their digests."""
    for name, content in small_model.exports.items():
        (tmp_path / name).write_bytes(content)
    weights = count_weights(IMAGE_SIZE, HIDDEN_UNITS, 3)
    estimate = export.estimate_size(list(export.FILES), weights, small_model.test.images.shape, 3)

    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= estimate


def test_run_takes_no_more_than_it_says(root):
    """Its files and the registered model, as MLflow keeps them."""
    before = (root / "mlflow.db").stat().st_size
    track(root)
    best = sum(path.stat().st_size for path in (root / "mlartifacts").rglob("*") if path.is_file())
    grown = (root / "mlflow.db").stat().st_size - before

    assert best + grown <= runs.estimate_size(make_record(), make_model(root, GOOD))


def test_predictions_that_memory_is_not_for_are_counted(monkeypatch):
    """What `allocate` puts into a file counts, what it keeps in memory does not."""
    few = evaluate.estimate_size(1000, CLASS_NAMES)
    monkeypatch.setattr(arrays, "_SMALL_BYTES", 1000 * 3 * 8 - 1)

    assert evaluate.estimate_size(1000, CLASS_NAMES) == few + 1000 * 3 * 8
    assert count_scratch_bytes((10, 3), np.float32) == 0

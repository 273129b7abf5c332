"""What the stage `track` does with an MLflow store, with the smallest of models."""

import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import onnx
from mlflow import MlflowClient
from onnx import TensorProto, helper

from stages.lib.core.files import write_csv
from stages.lib.exports.model_metadata import add_onnx_metadata
from stages.lib.tracking.promotion import PREDICTIONS_PATH, Candidate, Criteria
from stages.lib.tracking.registry import promote, register
from stages.lib.tracking.runs import ModelRecord, RunRecord, add_commit, ensure_experiment, find_run, log_run
from stages.lib.tracking.store import open_store

CRITERIA = Criteria(significance=0.05, max_accuracy_drop=0.2, min_recall=0.7)
IMAGES = 100


def make_candidate(*wrong, **changes):
    """A sound model that got these of its test images wrong."""
    candidate = Candidate(
        task="digits, 2x2 grey pixels 0..255, 2 classes",
        accuracy=1 - len(wrong) / IMAGES,
        test_data="a1",
        accepted=True,
        has_parity=True,
        lowest_recall=(0.9, "left"),
        predictions=[("left", "right" if image in wrong else "left") for image in range(IMAGES)],
    )
    return candidate._replace(**changes)


GOOD = make_candidate(*range(5))


def enter_root(folder, monkeypatch):
    """Make the folder a project's root, and the current folder."""
    mlflow.set_tracking_uri(None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("DVC_ROOT", str(folder))
    (folder / "report.json").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


def make_record(state="s1"):
    return RunRecord(
        name=f"run of {state}",
        state=state,
        tags={"git.commits": "c0"},
        params={"train.epochs": 2},
        metrics={"accuracy/test": 0.95},
        history={"loss/train": [0.5, 0.25]},
        datasets={"training": ("digits", "d1"), "test": ("digits", "d2")},
        manifest={"python": "3.11.7"},
        artifacts=[Path("report.json"), PREDICTIONS_PATH],
    )


def make_model(root, candidate, channels=1):
    """The smallest network that takes raw pixels: the mean of each half of the image."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [3], [-1, 2, 2 * channels])
    image_shape = [2, 2] if channels == 1 else [2, 2, channels]
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [2])
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["grey"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", ["grey", "shape"], ["halves"]),
            helper.make_node("ReduceMean", ["halves", "axes"], ["probabilities"], keepdims=0),
        ],
        "halves",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *image_shape])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])],
        [shape, axes],
    )
    onnx_path = root / "model.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    add_onnx_metadata(model, {"channels": channels, "class_names": ["left", "right"], "image_size": [2, 2]})
    onnx.save(model, onnx_path)
    return ModelRecord(onnx_path, np.zeros((1, *image_shape), np.uint8), candidate)


def track(root, state="s1", candidate=GOOD, commit="c0", criteria=CRITERIA, channels=1, **how):
    """What the stage does with the store."""
    with open_store() as store:
        experiment_id = ensure_experiment(store, "digits")
        model = make_model(root, candidate, channels)
        write_csv(PREDICTIONS_PATH, ["actual", "predicted"], candidate.predictions)
        known = find_run(store, experiment_id, "digits", state)
        run = known or log_run(store, experiment_id, make_record(state), model)
        run, version = register(store, experiment_id, "digits", run, candidate)
        add_commit(store, run, commit)
        return store, run, version, promote(store, run, version, candidate, criteria, **how)


def list_runs(store):
    experiment = store.client.get_experiment_by_name("digits")
    return store.client.search_runs([experiment.experiment_id])


def get_champion(store):
    return str(store.client.get_model_version_by_alias("digits", "champion").version)


def remove_for_good(root, run):
    """What `mlflow gc` does with a deleted run."""
    store = f"sqlite:///{root / 'mlflow.db'}"
    MlflowClient(store).delete_run(run.info.run_id)
    command = ["gc", "--backend-store-uri", store, "--tracking-uri", store, "--run-ids", run.info.run_id]
    subprocess.run([sys.executable, "-m", "mlflow", *command], check=True, capture_output=True)

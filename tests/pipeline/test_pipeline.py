"""The whole pipeline as a person uses it: `dvc repro` in a fresh clone, then one change after another."""

import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from imports import ROOT, STAGES
from pages import read_blocks

from stages.lib.core.files import read_csv, read_json
from stages.lib.core.params import load_section
from stages.train import TrainParams

# The packages that take long to load, or much memory, and the stages that may load them: only where they are used.
LOADED = {
    "ingest": {"PIL", "requests", "scipy", "sklearn"},  # of these, MNIST needs requests, and digits the others
    "validate": {"altair", "great_expectations", "pandas", "pyarrow", "requests", "scipy"},
    "normalize": set(),
    "train": {"PIL", "h5py", "keras", "requests", "tensorflow"},
    "evaluate": {"PIL", "h5py", "keras", "matplotlib", "requests", "tensorflow"},
    "export": {
        *("PIL", "h5py", "keras", "matplotlib", "requests", "tensorflow"),
        *("ai_edge_litert", "onnx", "onnxruntime", "tf2onnx", "tflite_micro", "tract"),
    },
    "track": {
        *("mlflow", "onnx", "onnxruntime"),
        *("fastapi", "pandas", "pyarrow", "requests", "scipy", "sqlalchemy"),  # MLflow takes these along
    },
}


@pytest.fixture(scope="module")
def first_repro(reproduced, tmp_path_factory):
    """That clone with an MLflow store of its own, for the paths in a store are absolute."""
    copy = reproduced.copy_to(tmp_path_factory.mktemp("copy") / "clone", without=("mlflow.db*", "mlartifacts"))
    (copy.root / ".cache/stage_times/track.json").unlink()
    copy.run("python", "-m", "stages.track")
    return copy


@pytest.fixture
def project(first_repro):
    """That clone, its params as committed; every test leaves it reproduced."""
    project = first_repro
    yield project
    project.run("git", "checkout", "--quiet", "--", "params.yaml")
    project.repro()


def test_fresh_clone_runs_every_stage(reproduced):
    """A fresh clone has no outputs, so all seven stages run, though dvc.lock is committed."""
    assert read_json(reproduced.root.parent / "stages.json")["ran"] == STAGES


def test_fresh_clone_gives_the_committed_lock(reproduced):
    """Whoever runs the pipeline gets the committed dvc.lock and reports: git sees no change."""
    assert reproduced.read("dvc.lock") == (ROOT / "dvc.lock").read_text(encoding="utf-8")
    assert reproduced.run("git", "status", "--porcelain") == ""


@pytest.mark.parametrize("stage", STAGES)
def test_stage_loads_what_it_uses_alone(reproduced, stage):
    """Of the large packages a stage's process has loaded none, at its end, that it has no use for."""
    modules = (reproduced.root.parent / "modules" / f"stages.{stage}").read_text(encoding="utf-8").split()
    large = {package for packages in LOADED.values() for package in packages} | {"jax", "torch"}
    loaded = large.intersection(modules)

    assert "numpy" in modules
    assert loaded <= LOADED[stage]


def test_first_run_is_tracked_and_promoted(first_repro):
    """The first run is in MLflow, and its model is the champion."""
    project = first_repro
    (run,) = project.list_runs()
    champion = project.client.get_model_version_by_alias("digits", "champion")

    assert champion.run_id == run.info.run_id
    assert run.data.metrics["accuracy/test"] >= 0.94
    assert run.data.params["ingest.dataset"] == "digits"
    assert run.data.tags["git.commits"] == project.run("git", "rev-parse", "HEAD").strip()
    assert len(project.client.get_metric_history(run.info.run_id, "loss/train")) == int(run.data.params["train.epochs"])


def test_first_run_tells_what_it_was_made_with(first_repro):
    """The first run carries the seconds of every stage before it, and a manifest of the machine and the programs."""
    project = first_repro
    (run,) = project.list_runs()
    manifest = json.loads(Path(project.client.download_artifacts(run.info.run_id, "manifest.json")).read_text("utf-8"))

    assert manifest["seconds"].keys() == set(STAGES[:-1])
    assert all(run.data.metrics[f"seconds/{stage}/work"] > 0 for stage in STAGES[:-1])
    assert manifest["params"]["train"]["epochs"] == int(run.data.params["train.epochs"])
    assert {"cores", "packages", "processor", "python", "settings"} <= manifest.keys()


def test_first_run_has_what_people_compare_first(first_repro):
    """By the alphabet, as MLflow lists metrics, accuracies come first; each export has its largest |Δp|."""
    project = first_repro
    (run,) = project.list_runs()
    metrics = sorted(run.data.metrics)
    exports = json.loads(project.read("reports/parity/parity.json"))
    artifacts = {item.path for item in project.client.list_artifacts(run.info.run_id, "reports")}

    assert metrics[:4] == ["accuracy/test", "accuracy/train", "accuracy/validation", "calibration_error/test"]
    assert {name for name in metrics if name.startswith("export_max_abs_error/")} == {
        f"export_max_abs_error/{name}" for name in exports
    }
    assert "reports/parity_measured.json" in artifacts


def test_no_change_runs_nothing(project):
    """A second `dvc repro` finds nothing to do."""
    assert project.repro() == []


def test_output_edited_in_place_is_made_again(project):
    """An edit does not reach DVC's cache, whose objects DVC trusts: what was expected comes back."""
    path = project.root / "reports/validation/validation.json"
    before = path.read_bytes()
    path.write_bytes(b"{}")
    project.repro()

    assert path.read_bytes() == before
    assert project.run("git", "status", "--porcelain") == ""


def test_changed_export_reruns_export_and_track_alone(project):
    """A parameter of `export` leaves the network and its evaluation alone."""
    project.set_param("export.representative_samples", 123)

    assert project.repro() == ["export", "track"]


# Too low to learn anything in the epochs there are.
TOO_LOW_RATE = 1e-06


class Repro(NamedTuple):
    """One `dvc repro`: the stages that it ran, and the runs in MLflow after it."""

    stages: list[str]
    run_ids: set[str]


@pytest.fixture(scope="module")
def change_and_back(first_repro):
    """`train.learning_rate` lowered, put back, and lowered again: three `dvc repro`."""
    project = first_repro
    usual_rate = load_section("train", TrainParams).learning_rate
    repros = []
    for rate in (TOO_LOW_RATE, usual_rate, TOO_LOW_RATE):
        project.set_param("train.learning_rate", rate)
        repros.append(Repro(project.repro(), {run.info.run_id for run in project.list_runs()}))
    return repros


def test_changed_train_leaves_the_data_alone(change_and_back):
    """A parameter of `train` leaves ingest, validate and normalize alone."""
    changed, _, _ = change_and_back

    assert changed.stages == ["train", "evaluate", "export", "track"]


def test_change_taken_back_makes_no_second_run(change_and_back):
    """What was once computed comes from DVC's cache, and its run is found again, never logged twice."""
    changed, back, again = change_and_back

    assert back.stages == again.stages == ["track"]
    assert back.run_ids == again.run_ids == changed.run_ids


@pytest.mark.usefixtures("change_and_back")
def test_network_below_the_floor_is_tracked_but_not_promoted(project):
    """A network that is not accepted has its run and its version, and the champion stays."""
    (run,) = [run for run in project.list_runs() if run.data.params["train.learning_rate"] == str(TOO_LOW_RATE)]
    (version,) = project.client.search_model_versions(f"run_id = '{run.info.run_id}'")
    champion = project.client.get_model_version_by_alias("digits", "champion")

    assert run.data.metrics["accuracy/test"] < 0.94
    assert "below evaluate.min_accuracy" in run.data.tags["promotion"]
    assert "below evaluate.min_accuracy" in version.description
    assert champion.version != version.version


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "train.epochs",
            "30",
            "train.epochs: expected a whole number of epochs, at least 1, got '30' (str); remove the quotes",
        ),
        (
            "train.epoch",
            3,
            (
                "train.epoch: expected one of the keys augmentation, batch_size, class_weights, conv_blocks, dropout, "
                "early_stopping, epochs, hidden_units, learning_rate, learning_rate_schedule, optimizer, seed, "
                "weight_decay, got 'epoch'; did you mean epochs?"
            ),
        ),
        (
            "evaluate.min_accuracy",
            float("nan"),
            "evaluate.min_accuracy: expected a number from 0 to 1, got nan (float); change this value",
        ),
    ],
)
def test_wrong_param_ends_repro_in_one_line_of_ours(project, name, value, message):
    """A wrong parameter stops `dvc repro` with the dotted path, the value and what is allowed."""
    project.set_param(name, value)
    done = project.start("dvc", "repro")
    (line,) = [line for line in done.stderr.splitlines() if line and not line.startswith("ERROR")]

    assert done.returncode != 0
    assert line == f"{message.split('.')[0]}: params.yaml: {message}"


def test_bad_data_stops_the_pipeline_and_is_reported(project):
    """Images that break an expectation stop before `normalize`; the report says which."""
    project.set_param("validate.min_contrast", 240)
    done = project.start("dvc", "repro")

    assert done.returncode != 0
    assert "expected contrast of at least 240, got" in done.stderr
    assert "train[" in done.stderr
    assert "Running stage 'normalize'" not in done.stdout
    assert json.loads(project.read("reports/validation/validation.json"))["success"] is False


def test_export_beyond_its_budget_is_withheld_and_the_run_says_so(project):
    """A file that is further from Keras than allowed is missing from the exports; the run has a tag, and no metric."""
    project.set_param("export.budgets.tflite_int8.max_abs_error", 0.0001)
    project.repro()
    (run,) = [run for run in project.list_runs() if run.data.tags["exports.withheld"]]

    assert (project.root / "models/export/model.onnx").exists()
    assert not (project.root / "models/export/model_int8.tflite").exists()
    assert run.data.tags["exports.withheld"].startswith("model_int8.tflite: further from Keras than its budget allows")
    assert not [name for name in run.data.metrics if name.endswith("/model_int8.tflite")]
    assert "export_bytes/model_int8.onnx" in run.data.metrics


def test_required_export_beyond_its_budget_fails_the_stage(project):
    """Without a required file there is no output, one line says why, and the reports are there."""
    project.set_param("export.required", ["onnx_float32", "tflite_int8"])
    project.set_param("export.budgets.tflite_int8.max_abs_error", 0.0001)
    done = project.start("dvc", "repro")
    (line,) = [line for line in done.stderr.splitlines() if line and not line.startswith("ERROR")]

    assert done.returncode != 0
    assert line.startswith("export: model_int8.tflite: further from Keras than its budget allows")
    assert not (project.root / "models/export").exists()
    assert json.loads(project.read("reports/parity/parity.json"))["model_int8.tflite"]["withheld"]


def test_registered_champion_answers_on_raw_pixels(project, tmp_path):
    """`mlflow models predict` gives for raw test images the classes that the network was measured with."""
    images = np.load(project.root / "data/raw/test/images.npy")[:5]
    request, answer = tmp_path / "request.json", tmp_path / "answer.json"
    request.write_text(json.dumps({"inputs": images.tolist()}), encoding="utf-8")
    project.run(
        *("env", "MLFLOW_TRACKING_URI=sqlite:///mlflow.db", "mlflow", "models", "predict", "--env-manager", "local"),
        *("--model-uri", "models:/digits@champion", "--input-path", str(request), "--output-path", str(answer)),
    )
    answers = json.loads(answer.read_text(encoding="utf-8"))["predictions"]
    champion = project.client.get_model_version_by_alias("digits", "champion")
    measured = project.client.download_artifacts(champion.run_id, "reports/evaluation/predictions.csv")

    assert [answer["class"] for answer in answers] == [row["predicted"] for row in read_csv(Path(measured))[:5]]


@pytest.mark.parametrize("opening", ["import json\nimport numpy", "import numpy as np\nfrom ai_edge_litert"])
def test_documented_lines_use_the_exports(project, opening):
    """The documents' lines for ONNX Runtime and LiteRT run as they stand and give the measured classes."""
    (lines,) = [block for block in read_blocks("python") if block.startswith(opening)]
    printed = project.run("python", "-c", lines)
    measured = [row["predicted"] for row in read_csv(project.root / "reports/evaluation/predictions.csv")[:3]]

    assert re.findall(r"\d+", printed) == measured


def test_deleted_store_is_rebuilt_by_one_command(project, tmp_path):
    """After the MLflow store is gone, `python -m stages.track` rebuilds the run of the outputs, once."""
    bereft = project.copy_to(tmp_path / "bereft", without=("mlflow.db", "mlartifacts"))
    bereft.run("python", "-m", "stages.track")
    bereft.run("python", "-m", "stages.track")
    (run,) = bereft.list_runs()
    artifacts = {item.path for item in bereft.client.list_artifacts(run.info.run_id, "reports/evaluation")}

    assert bereft.client.get_model_version_by_alias("digits", "champion").run_id == run.info.run_id
    assert "reports/evaluation/misclassified.png" in artifacts


def test_stage_with_an_unusable_store_loses_nothing_and_is_retried(project, tmp_path):
    """Where `track` cannot log, the outputs and dvc.lock stay as they are, and the next `dvc repro` runs it alone."""
    copy = project.copy_to(tmp_path / "copy", without=("mlflow.db", "mlartifacts"))
    copy.set_param("track.significance", 0.04)
    (copy.root / "mlflow.db").mkdir()
    before = {path: path.read_bytes() for path in list_outputs(copy.root)}
    done = copy.start("dvc", "repro")
    after = {path: path.read_bytes() for path in list_outputs(copy.root)}
    (copy.root / "mlflow.db").rmdir()
    stages = copy.repro()
    (line,) = [line for line in done.stderr.splitlines() if line and not line.startswith("ERROR")]

    assert done.returncode != 0
    assert line == (
        f"track: the MLflow store sqlite:///{copy.root}/mlflow.db: it is a folder, not a file; move it away, "
        "then `python -m stages.track`; nothing is logged twice"
    )
    assert after == before
    assert stages == ["track"]
    assert [run.info.status for run in copy.list_runs()] == ["FINISHED"]


def list_outputs(root):
    """The files of all outputs, and dvc.lock."""
    folders = ("data", "models", "reports")
    return [root / "dvc.lock", *(path for name in folders for path in (root / name).rglob("*") if path.is_file())]


@pytest.mark.parametrize("text", ["stages: [1, 2]", "stages: {}"], ids=["no DVC's", "of no stage"])
def test_lock_that_is_none_of_the_outputs_ends_tracking_in_one_line(project, text):
    """`python -m stages.track` says what is wrong with dvc.lock, and what to do, in one line."""
    valid = project.read("dvc.lock")
    (project.root / "dvc.lock").write_text(text, encoding="utf-8")
    done = project.start("python", "-m", "stages.track")
    (project.root / "dvc.lock").write_text(valid, encoding="utf-8")
    (line,) = done.stderr.splitlines()

    assert done.returncode == 1
    assert line.startswith("track: dvc.lock: it ")


def test_champion_that_was_rolled_back_stays_so(project, tmp_path):
    """After `pipeline rollback` the same state, tracked once more, is not promoted, and the line says what would."""
    rollback = ("python", "-c", "from stages.commands.main import main; main(['rollback'])")
    copy = project.copy_to(tmp_path / "copy", without=("mlflow.db", "mlartifacts"))
    copy.run("python", "-m", "stages.track")
    copy.set_param("export.representative_samples", 123)
    copy.repro()
    printed = copy.run(*rollback)
    reported = copy.run("python", "-m", "stages.track")

    assert printed.startswith("rollback: digits version 1 is the champion again, version 2 no longer is")
    assert reported.rstrip().endswith(
        "digits version 2 is not promoted: version 2 of this state was rolled back; "
        "`pipeline rollback --to 2` makes it the champion again"
    )
    assert copy.client.get_model_version_by_alias("digits", "champion").version == 1


def test_moved_folder_has_its_run_rebuilt_by_the_same_command(project, tmp_path):
    """In a moved folder, whose artifacts MLflow looks for in the old place, the run is rebuilt in the new one."""
    moved = project.copy_to(tmp_path / "moved")
    moved.run("python", "-m", "stages.track")
    (run,) = moved.list_runs()
    champion = moved.client.get_model_version_by_alias("digits", "champion")

    assert run.info.artifact_uri.startswith((tmp_path / "moved").as_uri())
    assert moved.client.download_artifacts(run.info.run_id, "reports/metrics.json")
    assert champion.version


def test_experiment_run_elsewhere_is_tracked_in_the_project(project):
    """`dvc exp run --temp` runs in a copy under .dvc/tmp, yet its run and artifacts are in the project's store."""
    project.run(
        "dvc", "exp", "run", "--temp", "--name", "eight", "-S", "train.hidden_units=[8]", "-S", "train.epochs=1"
    )
    (run,) = [run for run in project.list_runs() if run.data.params["train.hidden_units"] == "[8]"]
    artifact_dir = project.root / "mlartifacts" / "digits" / run.info.run_id / "artifacts"

    assert run.info.run_name == "eight"
    assert run.data.tags["dvc.experiment"] == "eight"
    assert run.info.artifact_uri == artifact_dir.as_uri()
    assert (artifact_dir / "models/export/model.onnx").exists()
    assert "eight" in project.run("dvc", "exp", "show", "--csv")


def test_experiment_in_the_workspace_is_tracked(project):
    """`dvc exp run -S` changes params.yaml, runs what is due and leaves one MLflow run."""
    project.run("dvc", "exp", "run", "--name", "nine", "-S", "export.representative_samples=99")

    assert [run.info.run_name for run in project.list_runs()].count("nine") == 1
    project.run("git", "checkout", "--quiet", "--", ".")


def test_dvc_compares_metrics_params_and_plots(project):
    """DVC's own commands show and compare what a change did."""
    usual_rate = load_section("train", TrainParams).learning_rate
    project.set_param("train.learning_rate", TOO_LOW_RATE)
    project.repro()
    metrics = json.loads(project.run("dvc", "metrics", "diff", "--json"))
    params = json.loads(project.run("dvc", "params", "diff", "--json"))
    project.run("dvc", "plots", "show", "--out", "plots")
    project.run("dvc", "plots", "diff", "HEAD", "--out", "plots")
    page = project.read("plots/index.html")
    project.run("rm", "-r", "plots")

    assert metrics["reports/metrics.json"]["accuracy"]["diff"] < 0
    assert params["params.yaml"]["train.learning_rate"]["old"] == usual_rate
    assert params["params.yaml"]["train.learning_rate"]["new"] == TOO_LOW_RATE
    titles = (
        "Loss",
        "Accuracy",
        "Confusion matrix",
        "misclassified.png",
        "Recall",
        "Test images that get Keras's class",
    )
    assert [title for title in titles if title not in page] == []

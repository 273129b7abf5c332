"""A sweep with DVC's own queue: two workers at once, every experiment tracked in the project's store, once."""

import json
import re
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from project import Project

pytestmark = pytest.mark.slow

WAIT_SECONDS = 600
ENDED = ("Success", "Failed")
# What each experiment changes, by its name.
EXPERIMENTS = {
    "narrow": ("train.hidden_units", [8]),
    "fast": ("train.learning_rate", 0.01),
    "short": ("train.epochs", 5),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A clone in which three experiments were queued and run by two workers."""
    project = Project.clone(tmp_path_factory.mktemp("clone"))
    # One kind of export is enough here, and takes the least time.
    project.set_param("export.artifacts", ["onnx_float32"])
    project.set_param("export.required", ["onnx_float32"])
    project.repro()
    project.run("git", "commit", "--quiet", "--all", "--message", "Export less")
    for name, (param, value) in EXPERIMENTS.items():
        project.run("dvc", "exp", "run", "--queue", "--name", name, "-S", f"{param}={json.dumps(value)}")
    try:
        project.run("dvc", "queue", "start", "--jobs", "2")
        wait_for_queue(project)
        yield project
    finally:
        project.start("dvc", "queue", "stop", "--kill")
        wait_for_workers(project)


def read_queue(project):
    """The status of each task by the experiment's name."""
    listed = project.run("dvc", "queue", "status").split("\n\n")[0].splitlines()[1:]
    return {line.split()[1]: line.split()[-1] for line in listed}


def wait_for_queue(project):
    """Wait until every experiment has ended; one that a worker takes at this moment may be listed nowhere."""
    deadline = time.monotonic() + WAIT_SECONDS
    while len([status for status in read_queue(project).values() if status in ENDED]) < len(EXPERIMENTS):
        assert time.monotonic() < deadline, read_queue(project)
        time.sleep(1)


def wait_for_workers(project):
    """Wait until no process is left that works in the project's folder."""
    deadline = time.monotonic() + WAIT_SECONDS
    while workers := list_processes(project.root):
        assert time.monotonic() < deadline, workers
        time.sleep(0.5)


def list_processes(root):
    """The processes whose folder is the project's or one below."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(root):
                found.append(process.cmdline())
    return found


def list_experiments(project):
    """The experiments by name: accuracy and params as `dvc exp show` has them."""
    (_, commit) = json.loads(project.run("dvc", "exp", "show", "--json"))
    shown = {}
    for experiment in commit["experiments"]:
        data = experiment["revs"][0]["data"]
        accuracy = data["metrics"]["reports/metrics.json"]["data"]["accuracy"]
        shown[experiment["name"]] = (accuracy, data["params"]["params.yaml"]["data"])
    return shown


def test_every_experiment_ends_well(project):
    """None fails for another that runs beside it."""
    assert read_queue(project) == dict.fromkeys(EXPERIMENTS, "Success")


def test_every_experiment_has_one_run_in_the_projects_store(project):
    """Each has one finished run of its own name beside the first run's, with files that can be read."""
    runs = [run for run in project.list_runs() if run.data.tags["dvc.experiment"]]
    models = [project.client.download_artifacts(run.info.run_id, "models/export/model.onnx") for run in runs]

    assert sorted(run.info.run_name for run in runs) == sorted(EXPERIMENTS)
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(project.list_runs()) == len(EXPERIMENTS) + 1
    assert len({Path(model).read_bytes() for model in models}) == len(EXPERIMENTS)
    assert all(run.info.artifact_uri.startswith((project.root / "mlartifacts").as_uri()) for run in runs)


def test_every_experiment_has_one_version_of_the_model(project):
    """Two workers that register at once leave a version for each run, and one champion among them."""
    versions = project.client.search_model_versions("name = 'digits'")
    champion = project.client.get_model_version_by_alias("digits", "champion")

    assert sorted(version.run_id for version in versions) == sorted(run.info.run_id for run in project.list_runs())
    assert champion.version in [version.version for version in versions]


def test_store_is_sound_after_two_writers(project):
    """SQLite finds no error in the store that two experiments wrote to at the same time."""
    with closing(sqlite3.connect(project.root / "mlflow.db")) as store:
        checked = store.execute("PRAGMA integrity_check").fetchall()

    assert checked == [("ok",)]


def test_dvc_and_mlflow_tell_the_same(project):
    """`dvc exp show` and MLflow agree on what each experiment changed and how good it was."""
    shown = list_experiments(project)
    runs = {run.info.run_name: run.data for run in project.list_runs()}

    assert shown.keys() == EXPERIMENTS.keys()
    for name, (param, value) in EXPERIMENTS.items():
        accuracy, params = shown[name]
        section, key = param.split(".")
        assert params[section][key] == value
        assert runs[name].params[param] == str(value)
        assert runs[name].metrics["accuracy/test"] == accuracy


def test_table_for_a_spreadsheet_has_every_experiment(project):
    """`dvc exp show --csv` has a line for each experiment."""
    table = project.run("dvc", "exp", "show", "--csv")

    assert all(len(re.findall(rf"(?m)^(?:.*,)?{name},", table)) == 1 for name in EXPERIMENTS)


def test_queue_leaves_the_workspace_alone(project):
    """Experiments run in copies: params and dvc.lock here are what they were, and the copies are gone."""
    folders = [path.name for path in (project.root / ".dvc/tmp/exps").iterdir() if path.name.startswith("tmp")]

    assert project.run("git", "status", "--porcelain") == ""
    assert folders == []

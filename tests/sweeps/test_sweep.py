"""`pipeline sweep`: every trial once, whatever is killed, and the best one's bytes are those of `dvc repro`."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from contextlib import chdir, contextmanager, suppress
from difflib import ndiff
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import psutil
import pytest
from click.testing import CliRunner
from imports import ROOT
from pages import PAGES
from project import Project
from ruamel.yaml import YAML
from samples import run_python

from stages.commands import sweep as command
from stages.commands.main import main
from stages.lib.core.files import read_csv
from stages.lib.sweeps.params_editor import edit_params
from stages.lib.sweeps.plan import read_plan
from stages.lib.sweeps.runs import PARENT_TAG, SWEEP_TAG, TRIAL_TAG, open_sweep_store
from stages.lib.tracking.runs import STATE_TAG

pytestmark = pytest.mark.slow

if find_spec("ray") is None or find_spec("optuna") is None:
    pytest.skip("the optional packages optuna and ray are not installed", allow_module_level=True)

FILE = """
search: grid
params:
  train.hidden_units: [[], [16]]
  train.seed: [1, 2]
  train.learning_rate: [1.0e-3, 1.0e+30]
minimize: loss/test
where:
  export_bytes/model_int8.tflite: {max: 15000}
"""
KEYS = ("train.hidden_units", "train.seed", "train.learning_rate")
SETTINGS = {"train.hidden_units": [], "train.seed": 1, "train.learning_rate": 1e-3}
# What the samplers and ASHA do with real trials: a poor rate is stopped after its first epoch.
SAMPLED = """
search: tpe
trials: 4
seed: 0
params:
  train.learning_rate: [1.0e-6, 1.0e-2]
  train.seed: [1, 2]
  train.epochs: [4]
maximize: accuracy/validation
asha: {grace_period: 1, reduction_factor: 2}
"""
# Networks of convolutions, one of them with more blocks than images of 28 x 28 pixels have room for.
BLOCKS = """
search: grid
params:
  train.conv_blocks: [[[4]], [[4], [4], [4], [4]]]
  train.dropout: [0.2]
  train.augmentation.shift: [1]
  train.epochs: [1]
maximize: accuracy/validation
"""
FEW = {
    "train.epochs": 2,
    "export.artifacts": ["onnx_float32", "tflite_int8"],
    "export.required": ["onnx_float32", "tflite_int8"],  # without which a trial has failed
}
TRIALS = 8
DIVERGING = 4  # those with the larger rate
FIRST, FIRST_WIDE = 1, 5  # the first trial without a hidden layer, and the first with one; neither diverges
PATIENCE = 30  # seconds for a process that was told to end, on a machine that does other things, too
OBJECT_STORE = 100 * 2**20
# In the folder of the results; what is being written has a name that begins with a dot.
KEPT = "[!.]*/result.json"
# How Ray names a process that runs a trial.
CALL = ["ray::ImplicitFunc.train"]


class Phase(NamedTuple):
    """One call of the command, and what was there after it."""

    output: str
    exit_code: int
    kept: dict[str, float]  # time of writing by trial

    @property
    def ended(self):
        """The trials that it told of, such as 3 for `3/8`."""
        return [int(number) for number in re.findall(rf"^sweep: +(\d+)/{TRIALS} ", self.output, re.MULTILINE)]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A clone with sound data, few epochs and few exports."""
    project = Project.clone(tmp_path_factory.mktemp("clone"))
    edit_params(FEW, project.root / "params.yaml")
    project.run("dvc", "repro", "normalize")
    (project.root / "nets.yaml").write_text(FILE, encoding="utf-8")
    return project


@contextmanager
def enter(project):
    """Be in the project's root with its own MLflow store."""
    with chdir(project.root), pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("DVC_ROOT", raising=False)
        yield


def run_sweep(project, *arguments, name="nets.yaml"):
    """What `pipeline sweep nets.yaml` gives."""
    with enter(project):
        done = CliRunner().invoke(main, ["sweep", name, *arguments])
    return Phase(done.output, done.exit_code, list_kept(project))


def make_trial(folder, settings, data="a"):
    """The trial with these settings, for data of this digest, in the project's root."""
    with TemporaryDirectory(dir=folder) as scratch:
        code_dir = command.copy_source(Path(scratch))
        return command.prepare_trials(command.load_params(), {"data/raw": data}, code_dir)(1, settings)


def read_example(path):
    """The plan in this file, in the project's root."""
    sections, base = command.load_sections(), command.load_params()
    return read_plan(path, base, sections, command.list_metrics(base, sections))


def describe_registry(project):
    """Each version of each registered model, and the aliases."""
    models = project.client.search_registered_models()
    versions = project.client.search_model_versions()
    return [(model.name, dict(model.aliases)) for model in models], sorted((v.name, v.version) for v in versions)


def list_kept(project):
    """When the result of each trial was written."""
    folder = project.root / "reports/sweeps/nets/trials"
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob(KEPT)}


def list_ray_processes():
    """The ids of Ray's processes in the session of these tests; others on this machine may have their own."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            is_ray = re.search(r"^ray::|/site-packages/ray/", " ".join(process.cmdline()))
            if is_ray and os.getsid(process.pid) == os.getsid(0) and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.pid)
    return found


@contextmanager
def acting_when(is_time, act):
    """Act once it is time, beside the block; never, if the block ends before."""
    has_ended = threading.Event()

    def watch():
        while not is_time():
            if has_ended.wait(0.05):
                return
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        has_ended.set()
        thread.join()


def freeze_trial(raylet):
    """Stop a process amid a trial on the node of this raylet; the process, if there is one.

    A trial that runs on might end, and the driver hear of it, before the process notices that its node is gone. Ray
    names it so until it sends a report.
    """
    for process in psutil.Process(raylet).children():
        with suppress(psutil.NoSuchProcess):
            if process.cmdline()[:1] == CALL:
                process.suspend()
                while process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
                    time.sleep(0.01)
                if process.cmdline()[:1] == CALL:
                    return process
                process.resume()
    return None


@pytest.fixture(scope="module")
def killed(project):
    """A sweep on this machine whose driver is killed after the first trial."""
    environment = {**project.environment, "PYTHONPATH": str(ROOT)}
    command = ["pipeline", "sweep", "nets.yaml", "--workers", "1"]
    with subprocess.Popen(
        command, cwd=project.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as driver:
        lines = []
        for line in driver.stdout:
            lines.append(line)
            if re.match(rf"sweep: +1/{TRIALS} ", line):
                driver.kill()
        lines += driver.stdout.readlines()
    return Phase("".join(lines), driver.returncode, list_kept(project))


@pytest.fixture(scope="module")
def interrupted(project, killed):
    """The same, gone on with and interrupted after one more trial; what it left."""
    before = list_ray_processes()  # the killed driver's may take some seconds to notice
    with acting_when(lambda: len(list_kept(project)) > len(killed.kept), lambda: os.kill(os.getpid(), signal.SIGINT)):
        phase = run_sweep(project, "--workers", "1")
    deadline = time.monotonic() + PATIENCE
    while (left := list_ray_processes() - before) and time.monotonic() < deadline:
        time.sleep(0.2)
    return phase, left


@pytest.fixture(scope="module")
def finished(project, interrupted):
    """The same, gone on with on a cluster of two nodes, of which one is killed amid a trial after another has ended."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415  # after the module that sets its environment

    node = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": OBJECT_STORE}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    frozen = []
    try:
        second = cluster.add_node(**node)
        raylet = second.all_processes["raylet"][0].process.pid

        def is_time():
            if not frozen and (process := freeze_trial(raylet)):
                frozen.append(process)
            return frozen and len(list_kept(project)) > len(interrupted[0].kept)

        with acting_when(is_time, lambda: cluster.remove_node(second, allow_graceful=False)):
            phase = run_sweep(project, "--address", cluster.address)
    finally:
        cluster.shutdown()
        for process in frozen:  # which does not notice that its node is gone
            with suppress(psutil.NoSuchProcess):
                process.kill()
    return phase


@pytest.fixture(scope="module")
def runs(project, finished):
    """The sweep's run in MLflow, and those of its trials by key, before any pipeline ran; the models registered."""
    assert finished.exit_code == 0, finished.output
    found = project.list_runs()
    (parent,) = [run for run in found if SWEEP_TAG in run.data.tags]
    children = [run for run in found if run is not parent]
    return parent, children, project.client.search_registered_models()


@pytest.fixture(scope="module")
def table(project, finished):
    """The rows of trials.csv."""
    assert finished.exit_code == 0, finished.output
    return read_csv(project.root / "reports/sweeps/nets/trials.csv")


@pytest.fixture(scope="module")
def written(project, runs, table):  # noqa: ARG001  # these look at what is there before
    """The params with the best settings written into them, by `--write`, and `dvc repro` of them."""
    before = project.read("params.yaml")
    phase = run_sweep(project, "--write")
    project.repro()
    return before, phase


def test_driver_that_is_killed_leaves_what_had_ended(killed):
    """A killed sweep has kept its finished trial."""
    assert killed.exit_code == -signal.SIGKILL
    assert len(killed.kept) >= 1


def test_interruption_ends_in_one_line(interrupted):
    """Ctrl-C ends the sweep with one line, exit code 130 and no process left."""
    phase, processes = interrupted

    assert phase.exit_code == 130
    assert phase.output.splitlines()[-1].startswith("sweep: interrupted; what has ended is kept")
    assert processes == set()


def test_interruption_waits_for_the_store(tmp_path, monkeypatch):
    """Ctrl-C amid a transaction comes once that has ended: it would leave the store locked."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'store.db'}")
    steps = []

    def write():
        with open_sweep_store():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            steps.append("ended")

    with pytest.raises(KeyboardInterrupt):
        write()

    assert steps == ["ended"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sweep_goes_on_where_it_was(killed, interrupted, finished):
    """What had ended is neither run nor written again."""
    phase, _ = interrupted

    assert len(phase.kept) > len(killed.kept)
    assert killed.kept.items() <= phase.kept.items() <= finished.kept.items()


def test_killed_node_loses_and_doubles_no_trial(interrupted, finished, table):
    """All trials are done though a node is killed midway, each once; those that were on it are tried again."""
    phase, _ = interrupted

    assert finished.exit_code == 0
    assert finished.ended == list(range(len(phase.kept) + 1, TRIALS + 1))
    assert sorted(int(row["trial"]) for row in table) == list(range(1, TRIALS + 1))
    assert finished.output.count("(tried 2 times)") == 1, finished.output


def test_nothing_temporary_is_left(project, finished):
    """Beside the results a sweep leaves its table and its charts."""
    assert finished.exit_code == 0
    assert sorted(path.name for path in (project.root / "reports/sweeps/nets").iterdir()) == [
        ".lock",
        "front.png",
        "importances.png",
        "trials",
        "trials.csv",
    ]


def test_output_is_of_the_sweep_alone(finished):
    """Ray's own messages, and those of the stages, stay out of the output."""
    lines = [line for line in finished.output.splitlines() if line and line[0] not in " |"]

    assert all(line.startswith("sweep: ") for line in lines), finished.output


def test_diverging_trial_is_a_result_with_its_reason(table):
    """A network that diverges is recorded as failed, with what the stage says of it, behind all others."""
    failed = [row for row in table if row["status"] == "failed"]

    assert len(failed) == DIVERGING
    assert failed == table[-DIVERGING:]
    assert any("the loss or a weight is no longer a finite number" in row["error"] for row in failed)
    assert all(row["train.learning_rate"] == "1e+30" for row in failed)


def test_table_is_sorted_by_what_is_wanted(table):
    """The smallest loss comes first, of those that meet the bound on the size."""
    meeting = [row for row in table if row["meets_goal"] == "yes"]
    losses = [float(row["loss/test"]) for row in meeting]

    assert meeting == table[: len(meeting)]
    assert losses == sorted(losses)
    assert {row["train.hidden_units"] for row in meeting} == {"[]"}


def test_each_trial_is_a_run_below_the_sweeps(runs, finished):
    """MLflow shows the sweep as one run with a run for each trial below it, none twice."""
    parent, children, _ = runs

    assert {run.data.tags[PARENT_TAG] for run in children} == {parent.info.run_id}
    assert sorted(run.data.tags[TRIAL_TAG] for run in children) == sorted(finished.kept)
    assert sorted(run.info.status for run in children) == ["FAILED"] * DIVERGING + ["FINISHED"] * (TRIALS - DIVERGING)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["sweep_trials/finished"] == TRIALS - DIVERGING


def test_trial_is_no_pipeline_state(runs):
    """No trial can be taken for a state of the pipeline, and none is registered."""
    parent, children, models = runs

    assert all(STATE_TAG not in run.data.tags for run in [parent, *children])
    assert models == []


def test_best_gives_the_same_bytes_under_dvc_repro(project, written, table):
    """The best settings, written into params.yaml, give under `dvc repro` the MD5s that their trial had."""
    _, phase = written
    stages = YAML(typ="safe").load(project.read("dvc.lock"))["stages"]
    outputs = {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}
    expected = {name.removeprefix("md5/"): md5 for name, md5 in table[0].items() if name.startswith("md5/")}

    assert phase.exit_code == 0, phase.output
    assert len(expected) == 5
    assert expected.items() <= outputs.items()
    assert all(f"MD5 {md5}  {path}" in phase.output for path, md5 in expected.items())


def test_best_is_written_with_comments_kept(project, written):
    """Nothing of params.yaml changes but the values of the keys that were swept."""
    before, after = written[0], project.read("params.yaml")
    changes = [line for line in ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]

    assert {line[1:].partition(":")[0].strip() for line in changes} == {"hidden_units", "- 20", "seed"}
    assert re.findall(r"#.*", after) == re.findall(r"#.*", before)


def test_trials_and_pipeline_runs_can_be_compared(project, written, runs):
    """The pipeline's run has the metrics of the best trial under the same names, and its params."""
    assert written[1].exit_code == 0
    small = [run for run in runs[1] if run.info.status == "FINISHED" and run.data.params["train.hidden_units"] == "[]"]
    best = min(small, key=lambda run: run.data.metrics["loss/test"])
    (pipeline_run,) = [run for run in project.list_runs() if STATE_TAG in run.data.tags]
    stable = {name for name in best.data.metrics if not name.startswith(("seconds/", "export_max_abs_error/"))}

    assert {"accuracy/test", "export_bytes/model_int8.tflite", "loss/train"} <= stable
    assert {name: best.data.metrics[name] for name in stable} == {
        name: pipeline_run.data.metrics[name] for name in stable
    }
    assert best.data.params.items() <= pipeline_run.data.params.items()


def test_finished_sweep_runs_nothing_again(project, written, finished):
    """A sweep that is there already starts no worker, logs nothing twice and writes the same table and charts."""
    _, phase = written

    assert phase.ended == []
    assert phase.kept == finished.kept
    assert len([run for run in project.list_runs() if PARENT_TAG in run.data.tags]) == TRIALS


def test_equal_trials_give_equal_bytes(project, written, tmp_path):
    """Table and charts depend on the trials alone."""
    assert written[1].exit_code == 0
    folder = project.root / "reports/sweeps/nets"
    first = {name: (folder / name).read_bytes() for name in ("trials.csv", "front.png", "importances.png")}
    shutil.copytree(folder, tmp_path / "other")
    for name in first:
        (tmp_path / "other" / name).unlink()
    project.run("git", "checkout", "--quiet", "params.yaml")
    edit_params(FEW, project.root / "params.yaml")
    again = run_sweep(project, "--output", str(tmp_path / "other"))

    assert again.exit_code == 0, again.output
    assert {name: (tmp_path / "other" / name).read_bytes() for name in first} == first


def test_process_that_served_others_gives_the_same_bytes(project, finished, table, tmp_path):
    """A trial has the same outputs in whatever process, and whatever that process did before."""
    assert finished.exit_code == 0
    expected = {
        int(row["trial"]): {name.removeprefix("md5/"): md5 for name, md5 in row.items() if name.startswith("md5/")}
        for row in table
    }
    settings = {int(row["trial"]): {key: json.loads(row[key]) for key in KEYS} for row in table}
    outputs = []
    with enter(project):
        for number in (FIRST_WIDE, FIRST, FIRST_WIDE):
            reports = []
            command.run_trial(
                (project.root / "data").absolute(), make_trial(tmp_path, settings[number]), tmp_path, reports.append
            )
            outputs.append(reports[-1]["result"].outputs)

    assert outputs == [expected[number] for number in (FIRST_WIDE, FIRST, FIRST_WIDE)]


def test_changed_source_or_data_makes_results_not_count(project, tmp_path, written):
    """A trial is known by the digest of its code, its data, its params and its packages."""
    assert written[1].exit_code == 0
    with enter(project):
        keys = {
            "as it is": make_trial(tmp_path, SETTINGS).key,
            "again": make_trial(tmp_path, SETTINGS).key,
            "other data": make_trial(tmp_path, SETTINGS, data="b").key,
        }
        with (project.root / "stages/lib/model/training.py").open("a", encoding="utf-8") as file:
            file.write("# changed\n")
        keys["other code"] = make_trial(tmp_path, SETTINGS).key
    project.run("git", "checkout", "--quiet", "stages")

    assert keys["as it is"] == keys["again"]
    assert len(set(keys.values())) == 3


@pytest.fixture(scope="module")
def sampled(project, written):
    """The registry before a sweep with TPE and ASHA, beside a registered champion; the sweep, and its table."""
    assert written[1].exit_code == 0
    (project.root / "sampled.yaml").write_text(SAMPLED, encoding="utf-8")
    # A network of two epochs becomes no champion by itself.
    (model,) = project.client.search_registered_models()
    project.client.set_registered_model_alias(model.name, "champion", "1")
    before = describe_registry(project)
    phase = run_sweep(project, name="sampled.yaml")
    assert phase.exit_code == 0, phase.output
    return before, phase, read_csv(project.root / "reports/sweeps/sampled/trials.csv")


def test_stopped_trials_are_no_results(project, sampled):
    """A trial that was stopped early has no accuracy, is not the best, and in MLflow it is killed."""
    _, phase, rows = sampled
    stopped = [row for row in rows if row["status"] == "stopped"]
    (parent,) = [run for run in project.list_runs() if run.info.run_name == "sweep sampled"]
    runs = [run for run in project.list_runs() if run.data.tags.get(PARENT_TAG) == parent.info.run_id]

    assert len(rows) == 4
    assert stopped, phase.output
    assert {(row["meets_goal"], row["accuracy/test"], row["accuracy/validation"]) for row in stopped} == {
        ("no", "", "")
    }
    assert rows[0] not in stopped
    assert [run.info.status for run in runs].count("KILLED") == len(stopped)


def test_sweep_moves_no_alias(project, sampled):
    """What the registry holds before a sweep, aliases included, it holds afterwards."""
    before, _, _ = sampled
    (_, aliases), *_ = before[0]

    assert int(aliases["champion"]) == 1
    assert describe_registry(project) == before


def test_stopped_trial_runs_whole_in_a_sweep_that_stops_none(project, sampled):
    """What one sweep stopped early is no result for another that takes its time."""
    stopped = [row["status"] for row in sampled[2]].count("stopped")
    text = SAMPLED.partition("asha")[0].replace("search: tpe\ntrials: 4\nseed: 0", "search: grid")
    (project.root / "sampled.yaml").write_text(text, encoding="utf-8")
    phase = run_sweep(project, name="sampled.yaml")
    rows = read_csv(project.root / "reports/sweeps/sampled/trials.csv")

    assert len(re.findall(r"^sweep: \d/4 ", phase.output, re.MULTILINE)) == stopped, phase.output
    assert "stopped" not in [row["status"] for row in rows]


def test_blocks_and_keys_of_a_section_in_a_section_are_swept(project):
    """A network that the images have no room for is a failed trial with its reason; the other is the best."""
    (project.root / "blocks.yaml").write_text(BLOCKS, encoding="utf-8")
    phase = run_sweep(project, name="blocks.yaml")
    assert phase.exit_code == 0, phase.output
    rows = read_csv(project.root / "reports/sweeps/blocks/trials.csv")

    assert [(row["train.conv_blocks"], row["status"]) for row in rows] == [
        ("[[4]]", "finished"),
        ("[[4],[4],[4],[4]]", "failed"),
    ]
    assert {(row["train.dropout"], row["train.augmentation.shift"]) for row in rows} == {("0.2", "1")}
    assert "before block 4" in rows[1]["error"]


def test_stale_data_is_told_before_anything_starts(project, written):
    """Data that is not what dvc.lock has, or params that it was not made with, end in one line that says what to do."""
    assert written[1].exit_code == 0
    labels = project.root / "data/normalized/train/labels.npy"
    valid = labels.read_bytes()
    labels.chmod(0o644)
    labels.write_bytes(valid[:-1] + bytes([valid[-1] ^ 1]))
    damaged = run_sweep(project)
    labels.write_bytes(valid)
    text = project.read("params.yaml")
    project.set_param("normalize.seed", 5)
    stale = run_sweep(project)
    (project.root / "params.yaml").write_text(text, encoding="utf-8")

    assert (damaged.exit_code, stale.exit_code) == (1, 1)
    assert re.fullmatch(
        r"sweep: data/normalized: expected MD5 \w+\.dir as in dvc.lock, got \w+\.dir; "
        r"run `dvc repro normalize` first\n",
        damaged.output,
    )
    assert stale.output == (
        "sweep: params.yaml: normalize: it differs from dvc.lock; run `dvc repro normalize` first\n"
    )


def test_second_sweep_in_the_same_folder_is_refused(project, written):
    """Two sweeps never write the same results."""
    assert written[1].exit_code == 0
    with command.lock(project.root / "reports/sweeps/nets"):
        refused = run_sweep(project)

    assert refused.exit_code == 1
    assert "another sweep is running there; wait until it ends" in refused.output


def test_help_shows_a_file_that_is_sound(tmp_path, project):
    """The example that the help and the documents show is one, without Ray and TensorFlow for the help."""
    shown = CliRunner().invoke(main, ["sweep", "--help"]).output
    example = tmp_path / "example.yaml"
    example.write_text(command._EXAMPLE, encoding="utf-8")  # noqa: SLF001  # what the help shows
    with enter(project):
        plan = read_example(example)

    assert command._EXAMPLE in PAGES["docs/how-to/sweeps.md"]  # noqa: SLF001
    assert all(line.strip() in shown for line in command._EXAMPLE.splitlines())  # noqa: SLF001
    assert (plan.search, plan.trials) == ("random", 32)


def test_other_commands_do_not_import_ray(tmp_path):
    """Neither the help nor the sweep's own module loads Ray, Optuna, TensorFlow or MLflow."""
    code = (
        "import json, sys; from stages.commands.main import main; import stages.commands.sweep; "
        "main(['--help'], standalone_mode=False); main(['sweep', '--help'], standalone_mode=False); "
        "print(json.dumps(sorted({'ray', 'optuna', 'tensorflow', 'mlflow'} & set(sys.modules))))"
    )
    done = run_python("-c", code, cwd=tmp_path)

    assert json.loads(done.stdout.splitlines()[-1]) == [], done.stderr


@pytest.mark.parametrize("package", ["optuna", "ray"])
def test_without_the_packages_one_line_says_how_to_get_them(tmp_path, package):
    """The packages are optional: the command alone needs them."""
    (tmp_path / "nets.yaml").write_text(FILE, encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text("", encoding="utf-8")  # a project's mark
    code = (
        f"import sys; sys.modules['{package}'] = None; "
        "from stages.commands.main import main; main(['sweep', 'nets.yaml'])"
    )
    done = run_python("-c", code, cwd=tmp_path)

    assert done.returncode == 1
    assert done.stderr == (
        f"sweep: this environment: the optional package {package} is not installed; "
        "install it: `python -m pip install --editable '.[sweep]'`, or all of requirements.txt\n"
    )


def test_node_with_other_packages_is_told():
    """A node with another TensorFlow could give other bytes: the sweep ends with its name."""
    with pytest.raises(command.PipelineError) as refusal:
        command.require_packages({"numpy": "0.1"})

    assert (refusal.value.where, refusal.value.expected) == (f"node {os.uname().nodename}: numpy", "0.1")

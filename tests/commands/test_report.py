"""`pipeline report`: what a person or a pull request reads about a change."""

import copy
import json
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner
from imports import ROOT
from ruamel.yaml import YAML

from stages.commands.main import main
from stages.lib.core.files import write_csv, write_json
from stages.lib.core.hashing import hash_output

HEAVY_PACKAGES = {"great_expectations", "keras", "matplotlib", "mlflow", "onnx", "pandas", "sklearn", "tensorflow"}

PARAMS = {
    "train": {"epochs": 20, "hidden_units": [20]},
    "evaluate": {"min_accuracy": 0.94},
    "export": {"budgets": {"onnx_float32": {"max_abs_error": 1e-5}}},
}
METRICS = {"accuracy": 0.95, "ece": 0.05, "loss": 0.16}
RECALLS = {"0": 1.0, "1": 0.9, "2": 0.8, "3": 0.7, "4": 0.6}
PARITY = {
    name: {
        "images": 45,
        "same_class": 45,
        "ties": 0,
        "accuracy": 0.95,
        "bytes": size,
        "required": required,
        "withheld": "",
        "max_abs_error": budget,
    }
    for name, budget, size, required in (("model.onnx", 1e-5, 64000, True), ("model_int8.tflite", 0.35, 19000, False))
}
REPORTS = ["reports/metrics.json", "reports/classes.csv", "reports/parity.csv"]


def unpad(text):
    """Text with runs of spaces as one: a table's cells without their padding."""
    return re.sub(" +", " ", text)


class Repository:
    """A git repository with what the report reads, and the changes that the pipeline would make to it."""

    def __init__(self, root):
        self.root = root
        values = (PARAMS, METRICS, RECALLS, PARITY)
        self.params, self.metrics, self.recalls, self.parity = (copy.deepcopy(value) for value in values)
        self.network = "a" * 32  # MD5 of models/model.keras
        self.data = "b" * 32 + ".dir"

    def git(self, *arguments):
        """What git prints, run as somebody whom every machine knows."""
        identity = ("-c", "user.name=A Tester", "-c", "user.email=tester@example.invalid", "-c", "commit.gpgsign=false")
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=self.root, check=True, capture_output=True, text=True).stdout

    def write_params(self):
        """Write params.yaml."""
        with (self.root / "params.yaml").open("w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump(self.params, file)

    def reproduce(self):
        """Write params.yaml, the reports and a dvc.lock that goes with them."""
        self.write_params()
        write_json(self.root / "reports/metrics.json", self.metrics)
        columns = ["class", "images", "precision", "recall", "f1"]
        rows = ([name, 9, 0.9, recall, 0.9] for name, recall in self.recalls.items())
        write_csv(self.root / "reports/classes.csv", columns, rows)
        rows = ([name, *export.values()] for name, export in self.parity.items())
        write_csv(self.root / "reports/parity.csv", ["export", *PARITY["model.onnx"]], rows)
        outs = {
            "ingest": {"data/raw": self.data},
            "train": {"models/model.keras": self.network},
            "evaluate": {path: hash_output(self.root / path) for path in REPORTS[:2]},
            "export": {path: hash_output(self.root / path) for path in REPORTS[2:]},
        }
        stages = {
            name: {
                "cmd": f"python -m stages.{name}",
                "params": {"params.yaml": {name: self.params[name]}} if name in self.params else {},
                "outs": [{"path": path, "md5": md5} for path, md5 in paths.items()],
            }
            for name, paths in outs.items()
        }
        lock = json.dumps({"schema": "2.0", "stages": stages})  # JSON is YAML, too
        (self.root / "dvc.lock").write_text(lock, encoding="utf-8")

    def commit(self, message="A state"):
        """Commit all that is there."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)

    def report(self, *arguments):
        """What `pipeline report` gives."""
        return CliRunner().invoke(main, ["report", *arguments])


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A repository with one commit that holds nothing; the tests' current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    repository = Repository(tmp_path)
    repository.git("init", "--quiet", "--initial-branch=main")
    repository.commit("Nothing yet")
    return repository


@pytest.fixture
def repository(empty):
    """The same with a second commit that holds a reproduced pipeline."""
    empty.reproduce()
    empty.commit()
    return empty


def test_identical_revision_differs_in_nothing(repository):
    """Against the revision that is checked out the report says that nothing differs, and exits with 0."""
    result = repository.report()

    assert result.exit_code == 0
    assert "No parameter differs." in result.output
    assert "| accuracy | 0.9500 | 0.9500 | 0 |" in unpad(result.output)
    assert "No output differs." in result.output


def test_first_line_is_the_verdict(repository):
    """The first line says accepted or not, the accuracy, and that the exports are within their budgets."""
    result = repository.report()

    assert result.output.splitlines()[0] == (
        "**Accepted**: test accuracy 0.9500 (at least 0.94 is wanted); every export is within its limits."
    )


def test_changed_added_and_removed_params_are_listed(repository):
    """Each param that differs is named by its dotted path with its value then and now."""
    repository.params["train"] = {"epochs": 3, "dropout": 0.5}
    repository.params["export"]["budgets"]["onnx_float32"]["max_abs_error"] = 1e-4
    repository.reproduce()
    result = repository.report()

    assert "| `train.epochs` | `20` | `3` |" in unpad(result.output)
    assert "| `train.dropout` | not there | `0.5` |" in unpad(result.output)
    assert "| `train.hidden_units` | `[20]` | not there |" in unpad(result.output)
    assert "| `export.budgets.onnx_float32.max_abs_error` | `1e-05` | `0.0001` |" in unpad(result.output)
    assert "min_accuracy`" not in result.output


def test_convolutions_and_augmentation_are_params_as_others_are(repository):
    """Blocks are told as params.yaml has them, and a key of a section in a section by its dotted path."""
    repository.params["ingest"] = {"channels": 3}
    repository.params["train"] |= {"conv_blocks": [], "augmentation": {"shift": 0}}
    repository.reproduce()
    repository.commit()
    repository.params["train"] |= {"conv_blocks": [[16], [32]], "augmentation": {"shift": 2}}
    repository.params["ingest"]["channels"] = 1
    repository.reproduce()
    output = unpad(repository.report().output)

    assert "| `ingest.channels` | `3` | `1` |" in output
    assert "| `train.conv_blocks` | `[]` | `[[16], [32]]` |" in output
    assert "| `train.augmentation.shift` | `0` | `2` |" in output


def test_param_cannot_break_the_table(repository):
    """A value with the table's own characters stays one cell of code."""
    repository.params["train"]["note"] = "a | `b`\n| **c** |"
    repository.reproduce()
    result = repository.report()

    assert '| `train.note` | not there | `` "a \\| `b`\\n\\| **c** \\|" `` |' in unpad(result.output)


def test_changed_metrics_show_their_difference(repository):
    """Metrics are shown then, now and as a signed difference."""
    repository.metrics |= {"accuracy": 0.9612, "loss": 0.15}
    repository.reproduce()
    result = repository.report()

    assert "| accuracy | 0.9500 | 0.9612 | +0.0112 |" in unpad(result.output)
    assert "| loss | 0.1600 | 0.1500 | -0.0100 |" in unpad(result.output)
    assert "| ece | 0.0500 | 0.0500 | 0 |" in unpad(result.output)


def test_recalls_that_changed_most_are_shown(repository):
    """Of the classes' recalls only the few that changed most are shown, the largest change first."""
    for name, recall in (("0", 0.99), ("1", 0.6), ("2", 0.9), ("4", 0.8)):
        repository.recalls[name] = recall
    repository.reproduce()
    rows = [line for line in unpad(repository.report().output).splitlines() if line.startswith("| recall")]

    assert rows == [
        "| recall of `1` | 0.9000 | 0.6000 | -0.3000 |",
        "| recall of `4` | 0.6000 | 0.8000 | +0.2000 |",
        "| recall of `2` | 0.8000 | 0.9000 | +0.1000 |",
    ]


def test_changed_data_warns_that_metrics_do_not_compare(repository):
    """Where data/raw is another, the report says that the metrics may be of other images."""
    repository.data = "c" * 32 + ".dir"
    repository.reproduce()
    result = repository.report()

    assert "data/raw differs: if these are other test images, the metrics do not compare." in result.output


def test_exports_show_parity_and_its_change(repository):
    """Each export is one row: same class, ties, accuracy, bytes, budget, verdict, and what changed."""
    repository.parity["model_int8.tflite"] |= {"same_class": 44, "ties": 1, "bytes": 18500}
    repository.reproduce()
    result = repository.report()

    assert "| `model.onnx` | 45 of 45 | 0 | 0.9500 | 64000 | ≤ 1e-05 | yes | 0 | 0 |" in unpad(result.output)
    assert "| `model_int8.tflite` | 44 of 45 | 1 | 0.9500 | 18500 | ≤ 0.35 | yes | -1 | -500 |" in unpad(result.output)


def test_export_that_is_gone_is_named(repository):
    """An export that the revision has and the working tree has not is not passed over."""
    del repository.parity["model.onnx"]
    repository.reproduce()
    result = repository.report()

    assert "- `model.onnx` is no longer exported." in result.output


def test_changed_outputs_are_listed_by_stage(repository):
    """Outputs with another MD5 are listed under their stage, the others not at all."""
    repository.network = "d" * 32
    repository.metrics["loss"] = 0.2
    repository.reproduce()
    lines = repository.report().output.splitlines()

    assert lines[-2:] == ["- train: `models/model.keras`", "- evaluate: `reports/metrics.json`"]


def test_older_revision_can_be_chosen(repository):
    """REV may be any name that git understands, and the report says which commit that is."""
    repository.params["train"]["epochs"] = 3
    repository.reproduce()
    repository.commit()
    result = repository.report("HEAD~1")

    assert "Compared with `HEAD~1 (" in result.output
    assert "| `train.epochs` | `20` | `3` |" in unpad(result.output)


def test_sha_is_named_once(repository):
    """A commit given by its SHA is named by the short one alone."""
    sha = repository.git("rev-parse", "HEAD").strip()

    assert f"Compared with `{sha[:7]}`." in repository.report(sha).output


def test_rejected_network_exits_with_one(repository):
    """A network below evaluate.min_accuracy fails the report, which says so first and is complete."""
    repository.metrics["accuracy"] = 0.81
    repository.reproduce()
    result = repository.report()

    assert result.exit_code == 1
    assert result.output.startswith("**NOT accepted**: test accuracy 0.8100 (at least 0.94 is wanted); every export")
    assert "### Outputs" in result.output
    assert result.stderr == ""


def test_required_export_that_is_withheld_exits_with_one(repository):
    """Without a required export the report fails, and names it in the first line and with its reason."""
    repository.parity["model.onnx"]["withheld"] = "further from Keras than its budget allows"
    repository.reproduce()
    result = repository.report()

    assert result.exit_code == 1
    assert result.output.splitlines()[0].endswith("; **required, but withheld**: `model.onnx`.")
    assert "| ≤ 1e-05 | **withheld** |" in unpad(result.output)
    assert "- `model.onnx` is withheld: further from Keras than its budget allows." in result.output


def test_other_export_that_is_withheld_is_told(repository):
    """A file that nobody requires is named with its reason, and the report does not fail."""
    repository.parity["model_int8.tflite"]["withheld"] = "too large for arduino_uno_r4"
    repository.reproduce()
    result = repository.report()

    assert result.exit_code == 0
    assert result.output.splitlines()[0].endswith("(at least 0.94 is wanted); withheld: `model_int8.tflite`.")
    assert "- `model_int8.tflite` is withheld: too large for arduino_uno_r4." in result.output


@pytest.mark.parametrize("text", ["export,images\nmodel.onnx\n", "export\nmodel.onnx\n", "a,b\n1,2\n"])
def test_damaged_table_is_one_line(repository, text):
    """A report without its columns, or with cells that are no numbers, is named together with what makes it."""
    (repository.root / "reports/parity.csv").write_text(text, encoding="utf-8")
    result = repository.report()

    assert result.exit_code == 1
    assert result.stderr.startswith("report: reports/parity.csv: it is damaged: ")
    assert result.stderr.endswith("; run `dvc repro`\n")
    assert result.stderr.count("\n") == 1


def test_accuracy_at_the_floor_is_accepted(repository):
    """The verdict is that of `evaluate`, from the accuracy that is reported and the floor in dvc.lock."""
    repository.metrics["accuracy"] = 0.94
    repository.reproduce()

    assert repository.report().exit_code == 0


def test_empty_revision_compares_with_nothing(repository):
    """A revision from before the pipeline is no error: the report says what it lacks and shows what is there now."""
    result = repository.report("HEAD~1")

    assert result.exit_code == 0
    assert f"no params.yaml and no {' and no '.join(REPORTS)} and no dvc.lock" in result.output
    assert "| `train.epochs` | not there | `20` |" in unpad(result.output)
    assert "| accuracy | - | 0.9500 | - |" in unpad(result.output)
    assert "- train: `models/model.keras` (new)" in result.output


def test_revision_without_reports_still_compares_params(empty):
    """Where only the reports are missing, the rest is compared, and the report says what is missing."""
    empty.write_params()
    empty.commit()
    empty.reproduce()
    result = empty.report()

    assert f"which has no {' and no '.join(REPORTS)} and no dvc.lock." in result.output
    assert "No parameter differs." in result.output


def test_edited_params_warn_that_reports_are_stale(repository):
    """Params that dvc.lock was not written for give one line of warning that says what to do."""
    repository.params["train"]["epochs"] = 3
    repository.write_params()
    result = repository.report()

    (warning,) = [line for line in result.output.splitlines() if "Warning" in line]

    assert warning.startswith("> **Warning:** stale reports: `params.yaml: train: it differs from dvc.lock")
    assert warning.endswith("; run dvc repro`")


def test_report_of_another_state_warns_that_it_is_stale(repository):
    """A report that is not the one that dvc.lock names gives the same warning."""
    write_json(repository.root / "reports/metrics.json", repository.metrics | {"loss": 0.3})
    result = repository.report()

    assert "> **Warning:** stale reports: `reports/metrics.json: expected MD5 " in result.output


@pytest.mark.parametrize("revision", ["nonsense", "HEAD:params.yaml", "--all"])
def test_unknown_revision_is_one_line(repository, revision):
    """What names no commit ends as one line on standard error that says where, expected, got and what to do."""
    result = repository.report("--", revision)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        f"report: REV: expected a commit, branch or tag of this repository, got {revision!r}; "
        "choose from `git log --all --oneline`, or `git fetch` first\n"
    )


def test_damaged_lock_in_the_revision_is_one_line(repository):
    """A file that cannot be parsed at the revision is named together with it."""
    (repository.root / "dvc.lock").write_text("<<<<<<< ours\nschema: '2.0'\n", encoding="utf-8")
    repository.commit()
    repository.reproduce()
    result = repository.report()

    assert result.exit_code == 1
    assert ":dvc.lock: it is damaged: " in result.stderr
    assert result.stderr.endswith("; choose another revision\n")
    assert result.stderr.count("\n") == 1


def test_subfolder_has_the_same_report(repository, monkeypatch):
    """In another folder of the project the report is the one of its root folder."""
    expected = repository.report()
    monkeypatch.chdir(repository.root / "reports")
    result = repository.report()

    assert (result.exit_code, result.stdout) == (0, expected.stdout)


def test_folder_outside_git_is_one_line(repository):
    """Without a git repository there is nothing to compare with, and the report says so."""
    (repository.root / ".git").rename(repository.root / "moved")
    result = repository.report()

    assert result.exit_code == 1
    assert result.stderr == "report: this folder: it is in no git repository; run in a clone of the project\n"


def test_repository_that_git_refuses_is_told_in_its_own_words(repository, monkeypatch):
    """Git opens no repository of another user's; that is not the same as none, and git says what to do."""
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    result = repository.report()

    assert result.exit_code == 1
    assert result.stderr == (
        "report: this folder: git refuses it: fatal: detected dubious ownership in "
        f"repository at '{repository.root}' To add an exception for this directory, call: git config --global --add "
        f"safe.directory {repository.root}; run again once `git status` works here\n"
    )


def test_machine_without_git_is_told(repository, monkeypatch):
    """Without git there is nobody to ask, and the report says so."""
    monkeypatch.setenv("PATH", str(repository.root))
    result = repository.report()

    assert result.exit_code == 1
    assert result.stderr == "report: git: it is not on PATH; install git and run again\n"


@pytest.mark.parametrize(
    "text",
    [
        "stages: 3",
        "[3]",
        "stages: {train: 3}",
        "stages: {train: {outs: [{path: a}]}}",
        "stages: {evaluate: {params: {params.yaml: {evaluate: 5}}}}",
    ],
)
def test_lock_that_is_something_else_is_one_line(repository, text):
    """Valid YAML that no DVC wrote ends in one line that names dvc.lock, not in a traceback."""
    (repository.root / "dvc.lock").write_text(text, encoding="utf-8")
    result = repository.report()

    assert result.exit_code == 1
    assert result.stderr.startswith("report: dvc.lock: it is damaged: ")
    assert result.stderr.endswith("; run `git checkout dvc.lock`\n")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("missing", ["dvc.lock", *REPORTS])
def test_missing_report_is_one_line(repository, missing):
    """Before the first `dvc repro` the report says what is missing and what makes it."""
    (repository.root / missing).unlink()
    result = repository.report()

    assert result.exit_code == 1
    assert re.fullmatch(f"report: {missing}: no such file; run `dvc repro`.*\n", result.stderr)


def test_project_in_a_folder_of_a_repository_is_compared(empty, monkeypatch):
    """The project's root need not be the repository's."""
    project = Repository(empty.root / "project")
    project.root.mkdir()
    project.reproduce()
    empty.commit()
    project.params["train"]["epochs"] = 3
    project.reproduce()
    monkeypatch.chdir(project.root)

    assert "| `train.epochs` | `20` | `3` |" in project.report().output


@pytest.mark.parametrize("argument", ["--help", "report --help"])
def test_help_imports_no_heavy_package(argument):
    """Help comes at once: TensorFlow, MLflow and their like are not imported for it."""
    program = (
        "import json, sys\n"
        "from stages.commands.main import main\n"
        f"main({argument.split()!r}, standalone_mode=False)\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = set(json.loads(done.stdout.splitlines()[-1]))

    assert "report" in done.stdout
    assert "click" in imported
    assert imported & HEAVY_PACKAGES == set()


def test_help_names_the_subcommands_without_importing_them():
    """The first page of help does not depend on what a subcommand imports."""
    program = (
        "import sys\n"
        "from stages.commands.main import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print(sorted({'stages.commands.predict', 'stages.commands.report'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert " report Compare params, metrics, parity and outputs with a revision.\n" in unpad(done.stdout)
    assert " predict Classify images, or folders of images, with an exported model.\n" in unpad(done.stdout)
    assert done.stdout.endswith("[]\n")


def test_unknown_subcommand_is_a_usage_error():
    """What is no subcommand ends with click's own exit code for a wrong call."""
    result = CliRunner().invoke(main, ["nonsense"])

    assert result.exit_code == 2
    assert "No such command 'nonsense'" in result.stderr

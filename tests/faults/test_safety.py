"""Safe by default: no data is run as code, nothing listens or calls beyond this machine, no name breaks out."""

import ast
import base64
import csv
import json
import marshal
import os
import pickle
import re
import subprocess
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from click.testing import CliRunner
from imports import ROOT, STAGES
from pages import PAGES
from PIL import Image
from project import Project
from ruamel.yaml import YAML
from samples import IMAGE_SIZE, list_files, run_python

from stages.commands.main import main
from stages.lib.core.arrays import load_array, save_array
from stages.lib.core.errors import DataError, ParamsError, PipelineError, describe_os_error, show_controls
from stages.lib.core.files import read_csv, read_json, write_csv, write_json
from stages.lib.core.params import load_params, validate_section
from stages.lib.data.image_folder import list_image_files
from stages.lib.data.npz import open_npz
from stages.lib.exports.checksums import write_checksums
from stages.lib.exports.model_metadata import add_onnx_metadata
from stages.lib.sweeps.params_editor import edit_params
from stages.track import TrackParams

SOURCES = sorted([*(ROOT / "stages").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])


# --- the sources --------------------------------------------------------------------------------------------------

# Modules that turn bytes into code, or whose job is a shell.
UNSAFE_MODULES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "pty", "shelve", "yaml"}
UNSAFE_CALLS = {
    *("__import__", "compile", "eval", "exec"),
    *("os.popen", "os.system", "subprocess.getoutput", "subprocess.getstatusoutput", "tempfile.mktemp"),
    *("builtins.eval", "builtins.exec", "shutil.unpack_archive"),
    *("mlflow.onnx.load_model", "mlflow.pyfunc.load_model", "mlflow.sklearn.load_model"),
}
# Of an archive, under names of its choosing; of a table.
UNSAFE_METHODS = {"extract", "extractall", "read_pickle", "to_pickle"}
# Calls that must be told to be safe, and how.
SAFE_ARGUMENTS = {
    "np.load": ("allow_pickle", False),
    "np.save": ("allow_pickle", False),
    "keras.saving.load_model": ("safe_mode", True),
    "keras.models.load_model": ("safe_mode", True),
    "requests.get": ("allow_redirects", False),
}
# The round-trip loader (the default) makes no objects of tags either: it keeps them as text.
SAFE_YAML = {"rt", "safe"}
ANY_ADDRESS = {"0.0.0.0", "::", ""}


def find_dangers(source):
    """What in a module's text could run data as code, or open a door; a line for each."""
    dangers = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            dangers += [f"import {name}" for name in names if name.split(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.Call):
            dangers += examine_call(node)
    return dangers


def examine_call(node):
    """The same of one call."""
    name = ast.unparse(node.func)
    last = name.rpartition(".")[2]
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    values = {key: value.value for key, value in given.items() if isinstance(value, ast.Constant)}
    key, wanted = SAFE_ARGUMENTS.get(name, (None, None))
    host = node.args[0].elts[0] if last == "bind" and node.args and isinstance(node.args[0], ast.Tuple) else None
    found = {
        name: name in UNSAFE_CALLS or last in UNSAFE_METHODS,
        f"{name}(shell)": "shell" in given and values.get("shell") is not False,
        f"{name}(verify=False)": values.get("verify") is False,
        f"{name} without {key}={wanted}": values.get(key) is not wanted,
        f"{name}({values.get('typ')})": last == "YAML" and values.get("typ", "rt") not in SAFE_YAML,
        f"{name} to all": isinstance(host, ast.Constant) and host.value in ANY_ADDRESS,
    }
    return [danger for danger, is_there in found.items() if is_there]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_runs_no_data_as_code(path):
    """No module unpickles, evaluates, starts a shell, extracts an archive or leaves a safe setting to a default."""
    assert find_dangers(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from cloudpickle import loads",
        "import yaml",
        "eval(text)",
        "builtins.exec(text)",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "subprocess.run('ls', shell=is_shell)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=is_pickled)",
        "np.save(path, array)",
        "keras.saving.load_model(path)",
        "keras.saving.load_model(path, safe_mode=False)",
        "requests.get(url)",
        "requests.get(url, allow_redirects=False, verify=False)",
        "YAML(typ='unsafe').load(text)",
        "archive.extractall(folder)",
        "shutil.unpack_archive(path)",
        "mlflow.pyfunc.load_model(uri)",
        "server.bind(('0.0.0.0', 80))",
        "pd.read_pickle(path)",
    ],
)
def test_danger_in_a_source_is_found(source):
    """What the test above looks for it finds."""
    assert len(find_dangers(source)) == 1


# --- files that would like to be code -----------------------------------------------------------------------------


class Trap:
    """An object that makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.fixture
def marker(tmp_path):
    """A file that is there once a trap has sprung."""
    return tmp_path / "sprung"


def test_trap_springs_where_it_is_unpickled(marker):
    """The trap of the tests below is a real one."""
    pickle.loads(pickle.dumps(Trap(marker)))

    assert marker.exists()


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
def test_pickled_array_is_refused(tmp_path, marker, name):
    """Objects in place of an array are an error of the data; a bare pickle under the array's name is, too."""
    path = tmp_path / name
    np.save(path, np.array([Trap(marker)], object), allow_pickle=True)
    with pytest.raises(DataError) as of_objects:
        load_array(path)
    path.write_bytes(pickle.dumps(Trap(marker)))
    with pytest.raises(DataError) as of_bare_pickle:
        load_array(path)

    for refusal in (of_objects, of_bare_pickle):
        assert refusal.value.where == str(path)
        assert refusal.value.problem.startswith("not a whole .npy array: ")
    assert not marker.exists()


def test_array_of_objects_is_not_written(tmp_path, marker):
    """What could only be pickled is not written at all."""
    with pytest.raises(ValueError, match="never pickled"):
        save_array(tmp_path / "a.npy", np.array([Trap(marker)], object))

    assert list_files(tmp_path) == {}


def test_pickled_member_of_an_npz_is_refused(tmp_path, marker):
    """The same in an .npz file."""
    np.savez(tmp_path / "a.npz", x_train=np.array([Trap(marker)], object))
    with pytest.raises(DataError) as refusal:
        open_npz(tmp_path / "a.npz", ["x_train"])

    assert (refusal.value.where, refusal.value.got) == (f"{tmp_path / 'a.npz'}: x_train", "objects")
    assert not marker.exists()


def test_npz_is_read_by_names_of_ours(tmp_path):
    """Members that would go elsewhere are not unpacked: arrays are asked for by name, and nothing is written."""
    np.savez(tmp_path / "a.npz", x=np.arange(3))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("../../escaped.npy", b"x")
        archive.writestr("/tmp/escaped.npy", b"x")
    before = list_files(tmp_path)

    assert open_npz(tmp_path / "a.npz", ["x"])["x"].tolist() == [0, 1, 2]
    assert list_files(tmp_path) == before


TAGS = [
    "!!python/object/apply:os.system ['touch {marker}']",
    "!!python/object/new:subprocess.Popen [['touch', '{marker}']]",
    "!!python/name:os.system",
    "!!python/module:os",
]


@pytest.mark.parametrize("tag", TAGS)
def test_python_tag_in_params_is_refused(tmp_path, marker, tag):
    """YAML that names Python code is no valid params.yaml, and runs nothing; nor does setting a key beside it."""
    path = tmp_path / "params.yaml"
    path.write_text(f"train: {{epochs: 1}}\nevil: {tag.format(marker=marker)}\n", encoding="utf-8")
    with pytest.raises(ParamsError) as refusal:
        load_params(path)
    edit_params({"train.epochs": 2}, path)

    assert refusal.value.problem.startswith("not valid YAML: ")
    assert not marker.exists()


# --- .keras files -------------------------------------------------------------------------------------------------


def write_keras(path, layers, weights=b""):
    """A .keras file that holds a network of these layers, as Keras has them in its JSON."""
    config = {"module": "keras", "class_name": "Sequential", "registered_name": None}
    config["config"] = {"name": "classifier", "trainable": True, "layers": layers}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1", "date_saved": ""}))
        archive.writestr("model.weights.h5", weights)
    return path


def make_lambda(marker):
    """A Lambda layer as Keras saves it: its function as marshalled byte code."""
    code = compile(f"lambda x: open({str(marker)!r}, 'w') and x", "trap", "eval").co_consts[0]
    encoded = base64.b64encode(marshal.dumps(code)).decode()
    function = {
        "class_name": "__lambda__",
        "config": {"code": encoded, "defaults": None, "closure": None},
    }
    return make_layer("keras.layers", "Lambda", function=function, output_shape=[4])


def make_layer(module, class_name, **config):
    return {"module": module, "class_name": class_name, "registered_name": None, "config": config}


INPUT = make_layer("keras.layers", "InputLayer", batch_shape=[None, 4], dtype="float32", name="images")


def make_function(module, name):
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


CODE_IN_KERAS = {
    "a Lambda with byte code": make_lambda,
    "a class of another module": lambda marker: make_layer("subprocess", "Popen", args=["touch", str(marker)]),
    "a function of another module": lambda marker: make_layer(
        "keras.layers", "Lambda", function=make_function("os", "system"), arguments={"command": f"touch {marker}"}
    ),
    "a function as activation": lambda _: make_layer(
        "keras.layers", "Dense", units=1, activation=make_function("os", "system")
    ),
    "a download by Keras": lambda marker: make_layer(
        "keras.layers",
        "Lambda",
        function=make_function("keras.utils", "get_file"),
        arguments={"origin": "http://127.0.0.1:9/x", "cache_dir": str(marker)},
    ),
}


@pytest.mark.parametrize("kind", CODE_IN_KERAS)
def test_code_in_a_keras_file_is_refused(tmp_path, marker, kind):
    """A network that brings code is told in a line, and none of it is run."""
    from stages.lib.model.network import load_network  # noqa: PLC0415  (TensorFlow, for these tests alone)

    path = write_keras(tmp_path / "model.keras", [INPUT, CODE_IN_KERAS[kind](marker)])
    with pytest.raises(DataError) as refusal:
        load_network(path)

    assert refusal.value.where == str(path)
    assert re.match(r"not a whole \.keras file without code: \w+Error: ", refusal.value.problem)
    assert "\n" not in str(refusal.value)
    assert not marker.exists()


def test_pickle_in_place_of_a_keras_file_is_refused(tmp_path, marker):
    """What a file holds counts, not its name."""
    from stages.lib.model.network import load_network  # noqa: PLC0415

    (tmp_path / "model.keras").write_bytes(pickle.dumps(Trap(marker)))
    with pytest.raises(DataError) as refusal:
        load_network(tmp_path / "model.keras")

    assert refusal.value.problem.startswith("not a whole .keras file without code: ")
    assert not marker.exists()


# --- MLflow -------------------------------------------------------------------------------------------------------

PICKLED_MODEL = """
import sys
import mlflow

class Model(mlflow.pyfunc.PythonModel):
    def __reduce__(self):
        import pathlib
        return pathlib.Path.touch, (pathlib.Path(sys.argv[1]),)

    def predict(self, context, model_input: list[int]):
        return model_input

mlflow.pyfunc.save_model("evil", python_model=Model(), pip_requirements=[])
"""


@pytest.mark.slow
def test_pickled_model_of_mlflow_is_refused_by_the_documented_command(tmp_path, marker):
    """The documented `mlflow models predict` unpickles nothing, whatever is registered; without the switch it does."""
    (command,) = re.findall(
        r"^(MLFLOW_\S+=.+\\\n.+mlflow models predict .+)$", PAGES["docs/how-to/champion.md"], re.MULTILINE
    )
    command = command.replace("models:/digits@champion", "evil").replace("\\\n", " ")
    run_python("-c", PICKLED_MODEL, str(marker), cwd=tmp_path, MLFLOW_ALLOW_PICKLE_DESERIALIZATION="true")
    marker.unlink(missing_ok=True)  # MLflow tries the model when it saves it
    (tmp_path / "request.json").write_text('{"inputs": [1]}', encoding="utf-8")
    refused = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    was_sprung = marker.exists()
    switched = command.replace("DESERIALIZATION=false", "DESERIALIZATION=true")
    subprocess.run(["sh", "-c", switched], cwd=tmp_path, capture_output=True, check=False)

    assert refused.returncode != 0
    assert "pickle" in refused.stderr
    assert not was_sprung
    assert marker.exists()


# --- names --------------------------------------------------------------------------------------------------------

ALLOWED_NAMES = [
    "+",
    "-",
    "=",
    "<",
    ">",
    "&",
    "-5",
    "$5",
    "a|b",
    "`x`",
    'say "no"',
    "it's",
    "Größe",
    "数字",
    "a, b",
    "نمی‌دانم",
]
# What a spreadsheet computes.
FORMULAS = ["=HYPERLINK(1)", "+cmd|' !A0", "@SUM(A1)", "-2+3", "=cmd|'/C calc'!A0", "\uff1d1+1"]
REFUSED_NAMES = {
    "<img src=x onerror=alert(1)>": "holds a tag of HTML",
    "<!--": "holds a tag of HTML",
    "two\nlines": r"got 'two\nlines'",
    "\x1b[2J": r"got '\x1b[2J'",
    "a\u202eb": r"got 'a\u202eb'",
    "a\x7f": r"got 'a\x7f'",
}


@pytest.mark.parametrize("name", [*ALLOWED_NAMES, *(name for name in FORMULAS if "/" not in name)])
def test_class_may_have_any_name_that_is_text(tmp_path, name):
    """Signs, quotes, bars, formulas and letters of any script name classes."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "1.png").write_bytes(b"")

    assert list_image_files(tmp_path, "own")[1] == []


@pytest.mark.parametrize(("name", "reported"), REFUSED_NAMES.items(), ids=map(ascii, REFUSED_NAMES))
def test_class_name_that_would_be_obeyed_is_refused(tmp_path, name, reported):
    """Names that a terminal or a page would take for an order are told, in a line that obeys none."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "1.png").write_bytes(b"")
    (problem,) = list_image_files(tmp_path, "own")[1]

    assert problem.problem.endswith(reported)
    assert problem.hint == "rename the folder"
    assert str(problem).isprintable()


@pytest.mark.parametrize("name", ALLOWED_NAMES)
def test_class_name_stays_one_cell_of_a_csv_report(tmp_path, name):
    """Commas and quotes in a name do not move the columns."""
    write_csv(tmp_path / "predictions.csv", ["actual", "predicted"], [(name, name)])

    assert read_csv(tmp_path / "predictions.csv") == [{"actual": name, "predicted": name}]


@pytest.mark.parametrize("name", [*FORMULAS, "\t=1+1", "\n=1+1", "'=1+1", "''@a"])
def test_formula_is_a_text_in_a_csv_report(tmp_path, name):
    """No cell begins with what a spreadsheet computes, and our own reader gives the name as it was."""
    write_csv(tmp_path / "predictions.csv", ["actual", "predicted"], [(name, f"a, {name}")])
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        (_, cells) = csv.reader(file)

    assert cells == [f"'{name}", f"a, {name}"]
    assert read_csv(tmp_path / "predictions.csv") == [{"actual": name, "predicted": f"a, {name}"}]


@pytest.mark.parametrize("value", [-0.5, "-0.5", -3, "+", "-", "-1,000", "'"])
def test_number_and_sign_stay_as_they_are_in_a_csv_report(tmp_path, value):
    """What computes nothing needs no quote: figures of a report stay figures."""
    write_csv(tmp_path / "a.csv", ["value"], [[value]])

    assert read_csv(tmp_path / "a.csv") == [{"value": str(value)}]
    assert "'" not in (tmp_path / "a.csv").read_text(encoding="utf-8").replace("value\n'\n", "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\u202etxt.exe", "a\\u202etxt.exe"),
        ("\x9b2J\x7f", "\\x9b2J\\x7f"),
        ("Größe 数字 نمی‌دانم 👩‍🚀", "Größe 数字 نمی‌دانم 👩‍🚀"),
    ],
)
def test_control_characters_are_shown_not_sent(text, shown):
    """Errors, whatever is in the names that they tell, leave the terminal as it is; letters stay letters."""
    assert show_controls(text) == shown
    assert str(PipelineError(text, expected="a", got=text, hint="b")) == f"{shown}: expected a, got {shown}; b"
    assert describe_os_error(FileNotFoundError(2, "No such file", text)).startswith(f"{shown}: No such file; ")


def test_predict_shows_a_models_words_and_a_files_name_as_text(small_model, tmp_path, monkeypatch):
    """An exported model may be anybody's: neither its class names nor a chart's name reach the terminal as orders."""
    monkeypatch.chdir(small_model.save(tmp_path))
    model = onnx.load("model.onnx")
    names = ["\x1b[31m", "\x9b2J", "\u202e"]
    add_onnx_metadata(model, {"background": "dark", "class_names": names, "image_size": list(IMAGE_SIZE)})
    onnx.save(model, "model.onnx")
    write_checksums(tmp_path)
    Image.fromarray(small_model.test.images[0]).save("\x1b[2J.png")
    result = CliRunner().invoke(main, ["predict", "--model", "model.onnx", "\x1b[2J.png"])

    assert result.exit_code == 0, result.output
    assert re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", result.output) == []
    assert "\\x1b[2J.png: " in result.output


def test_names_of_a_data_set_that_was_tampered_with_stay_data(tmp_path):
    """A dataset.json may be edited: what would be markup or an order comes back from the reports as the same name."""
    from stages.evaluate import measure  # noqa: PLC0415  (TensorFlow)

    names = ["</script><script>alert(1)</script>", "\x1b[2J", 'a,"b"\n| c']
    metrics = measure(np.eye(3, dtype=np.float32), np.arange(3), names, min_accuracy=0.5)
    write_json(tmp_path / "metrics.json", metrics)
    write_csv(tmp_path / "predictions.csv", ["actual"], [[name] for name in names])

    assert list(read_json(tmp_path / "metrics.json")["classes"]) == sorted(names)
    assert [row["actual"] for row in read_csv(tmp_path / "predictions.csv")] == names
    assert "\x1b" not in (tmp_path / "metrics.json").read_text(encoding="utf-8")


# --- paths --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "/etc", "..", ".hidden", "a\\b", "a\nb", ""])
def test_experiment_cannot_name_a_folder_elsewhere(name):
    """The artifacts' folder is called as the experiment: it stays in mlartifacts."""
    with pytest.raises(ParamsError) as refusal:
        validate_section({**TRACK, "experiment": name}, TrackParams, "track.")

    assert refusal.value.where == "track.experiment"
    assert refusal.value.expected.startswith("a name without slashes that begins with no dot")


@pytest.mark.parametrize("name", ["digits", "My digits 2", "Größe", "a.b", "a'b"])
def test_experiment_may_have_any_other_name(name):
    """Blanks, dots and letters of any script are fine."""
    assert validate_section({**TRACK, "experiment": name}, TrackParams, "track.").experiment == name


TRACK = {
    "experiment": "digits",
    "registered_model": "digits",
    "significance": 0.05,
    "max_accuracy_drop": 0.015,
    "min_recall": 0.7,
}


def test_no_parameter_but_one_is_a_path():
    """Params name one place to read from, `ingest.path`, and none to write to: those are in the code."""
    params = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    named = {
        f"{section}.{key}" for section, of in params.items() for key in of if re.search("path|dir|file|folder", key)
    }

    assert named == {"ingest.path"}


# --- nothing calls, nothing listens -------------------------------------------------------------------------------

SWITCHES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
}


def test_make_sets_the_switches_of_dvc_and_mlflow():
    """Whatever `make` starts, `make ui` among it, sends no statistics and unpickles no model."""
    done = subprocess.run(
        ["make", "--silent", "--eval=print: ; @env", "print"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )

    assert {f"{key}={value}" for key, value in {**SWITCHES, "DVC_NO_ANALYTICS": "1"}.items()} <= set(
        done.stdout.splitlines()
    )


def test_project_sets_the_switch_of_dvc():
    """DVC sends no statistics when it is started by hand either."""
    done = subprocess.run(["dvc", "config", "core.analytics"], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "false"


@pytest.mark.parametrize(
    ("module", "variables"),
    [
        ("stages.lib.tracking.store", SWITCHES),
        ("stages.lib.validation.expectations", {"GX_ANALYTICS_ENABLED": "false"}),
        ("stages.lib.sweeps.workers", {"RAY_USAGE_STATS_ENABLED": "0"}),
    ],
)
def test_module_sets_the_switch_before_the_package_loads(tmp_path, module, variables):
    """Each home of a package that would send statistics, or unpickle, turns that off, whatever was set before."""
    other = dict.fromkeys(variables, "") | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true"}
    code = f"import os, json, {module}; print(json.dumps({{key: os.environ[key] for key in {list(variables)}}}))"
    done = run_python("-c", code, cwd=tmp_path, **other)

    assert json.loads(done.stdout.splitlines()[-1]) == variables


@pytest.mark.parametrize("name", ["requirements.txt", "benchmarks/requirements.txt", "tests/machines/requirements.txt"])
def test_every_locked_package_has_its_hashes(name):
    """Each package comes in one version with its hashes, and no address to fetch it from."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    packages = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]

    assert packages
    assert [
        line for line in packages if not re.match(r"[\w.-]+(\[\w,-]+\])?==\S+ .*--hash=sha256:[0-9a-f]{64}", line)
    ] == []
    assert "://" not in re.sub(r"#.*", "", text)
    assert "--require-hashes" in (ROOT / "Makefile").read_text(encoding="utf-8")


# How psutil finds out, when it is imported, whether the system knows IPv6; nothing listens there.
PROBE = " socket.bind (('::1', 0),)"
# Notes what a process asks of the network, and each name that a pickle calls for.
SPY = """
import os, sys

LOG_PATH = os.environ["SPY_LOG"]  # a stage will have no such variable

def note(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.bind", "pickle.find_class", "os.system"}:
        shown = arguments[1:] if event in {"socket.connect", "socket.bind"} else arguments
        with open(LOG_PATH, "a") as log:
            log.write(f"{sys.orig_argv[-1]} {event} {shown}\\n")

if sys.orig_argv[-1].startswith("stages."):
    sys.addaudithook(note)
"""


@pytest.mark.slow
def test_stages_ask_nobody_and_unpickle_nothing(reproduced, tmp_path):
    """All seven stages, watched by Python's own audit: no address is looked up or connected to, no pickle is opened."""
    project = reproduced.copy_to(tmp_path / "copy", without=("mlflow.db*", "mlartifacts"))
    (tmp_path / "spy").mkdir()
    (tmp_path / "spy/sitecustomize.py").write_text(SPY, encoding="utf-8")
    log_path = tmp_path / "log"
    watched = ("env", f"PYTHONPATH={tmp_path / 'spy'}", f"SPY_LOG={log_path}")
    for stage in STAGES:
        project.run(*watched, "python", "-m", f"stages.{stage}")
    project.run(*watched, "python", "-c", "import os; os.system('true')", "stages.proof")

    noted = [line for line in log_path.read_text(encoding="utf-8").splitlines() if not line.endswith(PROBE)]

    assert noted == ["stages.proof os.system (b'true',)"]


@pytest.mark.slow
def test_pages_listen_on_the_loopback_interface_alone(tmp_path):
    """`make ui` and all that it starts can be reached from this machine alone."""
    project = Project.clone(tmp_path / "clone")
    listening = set()
    with project.serve():
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.cwd() == str(project.root):
                    connections = process.net_connections("inet")
                    listening |= {found.laddr.ip for found in connections if found.status == psutil.CONN_LISTEN}

    assert listening == {"127.0.0.1"}

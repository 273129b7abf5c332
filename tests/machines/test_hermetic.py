"""What a person has set on his machine changes no byte: settings that once did, or that packages read, and outputs."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl
import pytest
from imports import ROOT
from samples import list_files, run_python

from stages import track

TENSORFLOW = ("train", "evaluate", "export")
UP_TO_EXPORT = ("ingest", "validate", "normalize", *TENSORFLOW)
ALL = (*UP_TO_EXPORT, "track")
# Several stages in one process, so that large packages are loaded once, each as `python -m stages.<name>` runs it.
REHEARSAL = """
import runpy, sys
for name in sys.argv[1:]:
    runpy.run_module(f"stages.{name}", run_name="__main__")
"""
# As root in every respect but the name, for this Python may lie in root's home folder.
BECOME_NOBODY = (
    *("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"),
    *("--inh-caps=+dac_override,+dac_read_search", "--ambient-caps=+dac_override,+dac_read_search"),
)
OUTPUTS = ("data", "models", "reports")
UNHASHED = ("reports/parity_measured.json", "reports/state.json")
STYLE = "font.size: 20\nsavefig.dpi: 37\naxes.linewidth: 4\nfigure.facecolor: red\nbackend: TkAgg\n"
NOT_UTF8 = "font.size: 20  # größer\n".encode("latin-1")


@dataclass(frozen=True)
class Setting:
    """What is set, and the stages that it concerned. {home} and {folder} stand for folders of the test."""

    stages: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)  # by path relative to {folder}; `project` is the project
    unset: tuple[str, ...] = ()
    umask: int = 0o022
    is_nobody: bool = False  # as a user that the system has no account of; only root can try that
    redirection: str = ""  # of the shell


def set_keras(text: str) -> Setting:
    """Keras's configuration of a user."""
    return Setting(TENSORFLOW, {"HOME": "{home}"}, {"home/.keras/keras.json": text.encode()})


def set_variables(stages: tuple[str, ...], **variables: str) -> Setting:
    """Nothing but variables."""
    return Setting(stages, variables)


# A notebook on a server, with the settings of other work. None of them can keep another from having its effect.
NOTEBOOK = Setting(
    ALL,
    {
        "HOME": "{home}",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONIOENCODING": "latin-1",
        "PYTHONWARNINGS": "error",
        "PYTHONHASHSEED": "1",
        "PYTHONINTMAXSTRDIGITS": "640",
        "LC_ALL": "C",
        "TZ": "LINT-14",
        "OMP_NUM_THREADS": "7",
        "OPENBLAS_CORETYPE": "Prescott",
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4",
        "TF_NUM_INTRAOP_THREADS": "8",
        "TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit",
        "TF_USE_LEGACY_KERAS": "1",
        "KERAS_MAX_EPOCHS": "1",
        "KERAS_NNX_ENABLED": "true",
        "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python",
        "HDF5_DRIVER": "split",
        "GX_CLOUD_MODE": "true",
        "GX_ANALYTICS_ENABLED": "true",
        "MLFLOW_EXPERIMENT_NAME": "another",
        "MLFLOW_REGISTRY_URI": "sqlite:///{folder}/another.db",
        "DVC_ROOT": "{folder}/another",
        "GIT_DIR": "{folder}/another/.git",
        "SOURCE_DATE_EPOCH": "x",
        "CUDA_VISIBLE_DEVICES": "0",
    },
    {
        "home/.keras/keras.json": b'{"image_data_format": "channels_first", "floatx": "float64"}',
        "home/.great_expectations/great_expectations.conf": b"[ge_cloud_config\n",
        "home/.config/matplotlib/matplotlibrc": STYLE.encode(),
        "project/matplotlibrc": NOT_UTF8,
    },
    umask=0o077,
)
# A container: a user without account, home folder and standard error, in an encoding of seven bits.
CONTAINER = Setting(
    ALL,
    {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "LC_ALL": "C"},
    unset=("HOME", "USER", "LOGNAME"),
    is_nobody=os.geteuid() == 0 and shutil.which("setpriv") is not None,
    redirection="2>&-",
)
# What can be set together without one keeping another from its effect is one row.
SETTINGS = {
    "matplotlib: other styles": Setting(
        ("validate", "evaluate"),
        {"MPLBACKEND": "TkAgg", "MPLCONFIGDIR": "{folder}/style", "MATPLOTLIBRC": "{folder}/rc"},
        {
            "style/matplotlibrc": STYLE.encode(),
            "rc": f"{STYLE}backend: nonsense\n".encode(),
            "project/matplotlibrc": STYLE.encode(),
        },
    ),
    "matplotlib: a damaged file, no folder": Setting(
        ("evaluate",), {"MPLCONFIGDIR": "/etc/passwd/x"}, {"project/matplotlibrc": NOT_UTF8}
    ),
    "matplotlib: a user's style": Setting(
        ("evaluate",), {"HOME": "{home}"}, {"home/.config/matplotlib/matplotlibrc": STYLE.encode()}
    ),
    "keras.json: another order of axes": set_keras('{"image_data_format": "channels_first", "epsilon": 0.1}'),
    "keras.json: float64": set_keras('{"floatx": "float64"}'),
    "keras.json: bfloat16": set_keras('{"floatx": "bfloat16"}'),
    "keras.json: another backend": set_keras('{"backend": "torch", "nnx_enabled": true}'),
    "keras.json: not JSON": set_keras("{"),
    "Keras's variables": Setting(
        TENSORFLOW,
        {"KERAS_HOME": "{folder}", "KERAS_BACKEND": "jax", "KERAS_MAX_EPOCHS": "x", "KERAS_NNX_ENABLED": "true"},
        {"keras.json": b'{"image_data_format": "channels_first"}'},
    ),
    "output in latin-1": set_variables(ALL, PYTHONIOENCODING="latin-1"),
    "output in ascii": set_variables(ALL, LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0"),
    "Python's warnings and hashes": set_variables(ALL, PYTHONWARNINGS="error", PYTHONHASHSEED="1"),
    "Python's developer mode": set_variables(UP_TO_EXPORT, PYTHONDEVMODE="1"),
    "Python without asserts and docstrings": set_variables(ALL, PYTHONOPTIMIZE="2", PYTHONDONTWRITEBYTECODE="1"),
    "another numpy on PYTHONPATH": Setting(
        ("ingest",), {"PYTHONPATH": "{folder}/other"}, {"other/numpy/__init__.py": b"raise ImportError\n"}
    ),
    "threads": set_variables(
        UP_TO_EXPORT,
        OMP_NUM_THREADS="many",
        OMP_DYNAMIC="true",
        MKL_NUM_THREADS="7",
        OPENBLAS_NUM_THREADS="7",
        OPENBLAS_CORETYPE="Prescott",
        TF_NUM_INTRAOP_THREADS="8",
        TF_NUM_INTEROP_THREADS="8",
    ),
    "TensorFlow: oneDNN and XLA": set_variables(
        TENSORFLOW,
        TF_ENABLE_ONEDNN_OPTS="1",
        ONEDNN_MAX_CPU_ISA="DEFAULT",
        TF_XLA_FLAGS=NOTEBOOK.variables["TF_XLA_FLAGS"],
        TF_FUNCTION_JIT_COMPILE_DEFAULT="1",
    ),
    "TensorFlow: nonsense and old ways": set_variables(
        TENSORFLOW,
        TF_XLA_FLAGS="--nonsense",
        XLA_FLAGS="--nonsense",
        TF_USE_LEGACY_KERAS="1",
        TF2_BEHAVIOR="0",
        AUTOGRAPH_VERBOSITY="10",
        AUTOGRAPH_STRICT_CONVERSION="1",
        PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION="python",
    ),
    "NumPy without vector instructions": set_variables(
        UP_TO_EXPORT, NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4 AVX512_ICL"
    ),
    "NumPy with others": set_variables(("ingest",), NPY_ENABLE_CPU_FEATURES="AVX512_SPR"),
    "other packages": set_variables(
        UP_TO_EXPORT,
        PILLOW_BLOCK_SIZE="x",
        PILLOW_ALIGNMENT="3",
        PANDAS_FUTURE_INFER_STRING="0",
        PANDAS_COPY_ON_WRITE="0",
        SCIPY_ARRAY_API="1",
        SKLEARN_ASSUME_FINITE="x",
        SKLEARN_WORKING_MEMORY="x",
        HDF5_DRIVER="split",
        ORT_DEBUG_NODE_IO_DUMP_SHAPE_DATA="1",
        ONNX_ML="0",
    ),
    "time": set_variables(ALL, TZ="../../nonsense", SOURCE_DATE_EPOCH="x"),
    "no home folder": Setting(ALL, unset=("HOME",)),
    "a home folder that is a file": set_variables(ALL, HOME="/etc/passwd"),
    "files for me alone": Setting(ALL, umask=0o077),
    "files for everyone": Setting(("ingest", "normalize"), umask=0),
    "DVC at work elsewhere": set_variables(ALL, DVC_ROOT="{folder}/another"),
    "MLflow and Great Expectations": Setting(
        ("validate", "track"),
        {
            "HOME": "{home}",
            "MLFLOW_EXPERIMENT_NAME": "other",
            "MLFLOW_REGISTRY_URI": "sqlite:///{folder}/x.db",
            "MLFLOW_RUN_ID": "x",
            "MLFLOW_LOGGING_LEVEL": "nonsense",
            "GX_CLOUD_MODE": "true",
            "GX_CLOUD_ACCESS_TOKEN": "x",
            "GX_ANALYTICS_ENABLED": "true",
            "GX_ANALYTICS_DEBUG": "x",
        },
        {"home/.great_expectations/great_expectations.conf": b"[ge_cloud_config\n"},
    ),
    "the C library": set_variables(
        UP_TO_EXPORT, GLIBC_TUNABLES="glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F", MALLOC_PERTURB_="165"
    ),
    "closed streams": Setting(ALL, redirection="<&- >&- 2>&-"),
}


def list_outputs(root):
    """The content of every output that something hashes, by path."""
    return {
        path: content
        for name in OUTPUTS
        for path, content in ((f"{name}/{path}", content) for path, content in list_files(root / name).items())
        if path not in UNHASHED
    }


def rehearse(project, folder, setting):
    """Run the setting's stages in a copy of the project, all of whose outputs are damaged: exit code and outputs."""
    copy = project.copy_to(folder / "project", without=("cache", ".git", "__pycache__"))
    (copy.root / "stages" / "rehearsal.py").write_text(REHEARSAL, encoding="utf-8")
    (folder / "home").mkdir()
    for path, content in setting.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    variables = {
        name: value.replace("{home}", str(folder / "home")).replace("{folder}", str(folder))
        for name, value in setting.variables.items()
    }
    environment = {name: value for name, value in copy.environment.items() if name not in setting.unset} | variables
    command = f'exec "$0" -m stages.rehearsal {" ".join(setting.stages)} {setting.redirection}'
    done = subprocess.run(
        [*(BECOME_NOBODY if setting.is_nobody else ()), "sh", "-c", command, sys.executable],
        cwd=copy.root,
        env=environment,
        umask=setting.umask,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return copy


def read_tags(project):
    """The tags of the newest run in the project's own store."""
    (run, *_) = project.list_runs()
    return run.data.tags


@pytest.mark.parametrize(
    "setting", [NOTEBOOK, pytest.param(CONTAINER, marks=pytest.mark.slow)], ids=["notebook", "container"]
)
def test_settings_of_a_machine_change_no_byte(reproduced, tmp_path, setting):
    """All stages give the outputs of an undisturbed run, and no settings of other work are written to."""
    project = rehearse(reproduced, tmp_path, setting)

    assert list_outputs(project.root) == list_outputs(reproduced.root)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"home", "project"})
    # The archive of a project has no .git: the run says that it does not know, and not that all was committed.
    assert (read_tags(project)["git.commits"], read_tags(project)["git.is_dirty"]) == ("unknown", "unknown")


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_one_setting_changes_no_byte(reproduced, tmp_path, setting):
    """The same for settings of one kind by themselves, in the stages that they concern."""
    project = rehearse(reproduced, tmp_path, setting)

    assert list_outputs(project.root) == list_outputs(reproduced.root)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("localedef"), reason="localedef makes the locale that this test is about")
def test_locale_of_another_encoding_changes_no_byte(reproduced, tmp_path):
    """In a locale that knows no Δ, file names and output are those of every other."""
    made = subprocess.run(
        ["localedef", "-c", "-i", "de_DE", "-f", "ISO-8859-1", tmp_path / "de_DE.ISO-8859-1"],
        capture_output=True,
        check=False,
    )
    if made.returncode > 1:  # 1 is a warning
        pytest.skip("the system has no sources of locales")
    setting = set_variables(ALL, LC_ALL="de_DE.ISO-8859-1", LOCPATH=str(tmp_path))
    project = rehearse(reproduced, tmp_path, setting)

    assert list_outputs(project.root) == list_outputs(reproduced.root)


# --- what a stage sees ------------------------------------------------------------------------------------------


@pytest.fixture
def probe(tmp_path):
    """A function that runs code as a stage, in a project's folder or below it, and gives what it prints."""
    project = tmp_path / "project"
    for place in (project, project / ".dvc/tmp/exps/standalone/tmp1"):
        shutil.copytree(ROOT / "stages", place / "stages", ignore=shutil.ignore_patterns("__pycache__"))
        (place / ".dvc").mkdir(exist_ok=True)

    def run(code, place=".", shell="", **variables):
        (project / place / "stages/probe.py").write_text(code, encoding="utf-8")
        done = subprocess.run(
            ["sh", "-c", f'exec "$0" -B -m stages.probe {shell}', sys.executable],
            cwd=project / place,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)} | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.root = project
    return run


def test_only_what_is_listed_reaches_a_stage(probe):
    """Documented variables arrive as they are; what other programs are told does not."""
    kept = {
        "MNIST_MIRROR": "m",
        "CIFAR10_MIRROR": "c",
        "MLFLOW_TRACKING_URI": "u",
        "MLFLOW_TRACKING_TOKEN": "t",
        "https_proxy": "p",
        "DVC_STAGE": "s",
        "AWS_PROFILE": "a",
        "CC": "compiler",
    }
    others = {"MPLBACKEND": "x", "TF_ANYTHING": "x", "KERAS_BACKEND": "jax", "LANG": "de_DE", "MY_OWN": "x"}
    seen = ast.literal_eval(probe("import os; print(dict(os.environ))", **kept, **others))

    assert {name: seen.get(name) for name in kept} == kept
    assert seen.keys() & others.keys() == {"MPLBACKEND"}
    assert (seen["MPLBACKEND"], seen["TZ"], seen["LC_ALL"]) == ("agg", "UTC0", "C.UTF-8")


@pytest.mark.parametrize(
    ("place", "root", "is_own"),
    [
        (".", "{root}", True),
        (".dvc/tmp/exps/standalone/tmp1", "{root}", True),
        (".", "{root}/..", False),
        (".", "elsewhere", False),
        (".", "{root}/stages", False),
    ],
    ids=["its folder", "an experiment's copy", "the folder around it", "a relative one", "one in it"],
)
def test_root_of_another_project_is_not_this_ones(probe, place, root, is_own):
    """DVC passes an inherited DVC_ROOT on: of another project neither the folder nor the experiment counts."""
    code = "import os; print(os.environ.get('DVC_ROOT'), os.environ.get('DVC_EXP_NAME'))"
    given = root.replace("{root}", str(probe.root))

    assert probe(code, place, DVC_ROOT=given, DVC_EXP_NAME="e") == (f"{given} e\n" if is_own else "None None\n")


def test_closed_streams_lend_their_numbers_to_no_file(probe):
    """A file that a stage opens is not where C++ code writes what it says to standard error."""
    code = """
import os
with open("output", "wb") as file:
    print("shown"), os.write(2, b"from C++")
    file.write(str(file.fileno()).encode())
"""
    probe(code, shell="<&- >&- 2>&-")

    assert int((probe.root / "output").read_bytes()) > 2


def test_warnings_are_pythons_own(probe):
    """Warnings of packages are neither errors nor more than Python shows by itself."""
    code = "import sys, warnings; print(sys.warnoptions, [(f[0], f[2].__name__, str(f[3])) for f in warnings.filters])"

    assert probe(code, PYTHONWARNINGS="error") == probe(code)


def test_own_packages_come_before_those_of_python_path(probe, tmp_path):
    """PYTHONPATH, as clusters and robots set it, adds packages and replaces none."""
    for name in ("numpy", "only_there"):
        (tmp_path / "others" / name).mkdir(parents=True)
        (tmp_path / "others" / name / "__init__.py").write_text("", encoding="utf-8")
    code = "import numpy, only_there; print(numpy.__version__, only_there.__name__)"

    assert probe(code, PYTHONPATH=str(tmp_path / "others")).endswith(" only_there\n")


def test_letters_come_from_the_bundled_fonts_alone(probe, tmp_path):
    """Of a machine's own fonts none is known: a class name looks the same where others are installed."""
    (tmp_path / ".local/share/fonts").mkdir(parents=True)
    bundled = Path(mpl.get_data_path()) / "fonts/ttf/cmr10.ttf"
    shutil.copy(bundled, tmp_path / ".local/share/fonts/own.ttf")
    code = """
import stages.lib.plotting.png
from matplotlib import font_manager, get_data_path
fonts = font_manager.fontManager.ttflist
print(len(fonts) > 0, [font.fname for font in fonts if not font.fname.startswith(get_data_path())])
"""

    assert probe(code) == "True []\n"


def test_code_of_another_folder_is_refused(probe):
    """PYTHONSAFEPATH hides the stages of the current folder, and those of another clone are not run in their place."""
    (probe.root / "stages/probe.py").write_text("", encoding="utf-8")
    done = run_python("-m", "stages.ingest", cwd=probe.root, PYTHONSAFEPATH="1")

    assert done.returncode == 1
    assert done.stderr == (
        f"ingest: the code of {ROOT / 'stages/__init__.py'} would run, not this folder's; "
        "run `unset PYTHONSAFEPATH`, and start Python without -P and -I\n"
    )


def test_names_of_own_images_are_read_as_utf8_or_not_at_all(tmp_path):
    """Where the locale has another encoding a class would have another name: that is one line instead."""
    code = "from stages.lib.data.own_images import load_folder; load_folder('own', (28, 28), 0.2, 0)"
    ascii_names = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = run_python("-c", code, cwd=tmp_path, **ascii_names)

    assert done.stderr.endswith(
        "own: this locale reads names of files as ascii, not as UTF-8; "
        "run `export LC_ALL=C.UTF-8`, then the same again\n"
    )


# --- line ends, and no git --------------------------------------------------------------------------------------


@pytest.fixture
def committed(reproduced, tmp_path):
    """The project with its dvc.lock committed."""
    project = reproduced.copy_to(tmp_path / "committed", without=("mlartifacts", "mlflow.db*"))
    project.run("git", "commit", "--quiet", "--all", "--allow-empty", "--message", "What it gave")
    return project


def test_what_a_terminal_cannot_show_is_escaped_by_commands(committed):
    """The `pipeline` commands, too, end as they would elsewhere."""
    committed.run("git", "tag", "Δ")
    command = ("-m", "stages.commands.main", "whatis", "Δ")
    done = run_python(*command, cwd=committed.root, PYTHONIOENCODING="latin-1")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("\\u0394: the state ")


def test_clone_with_autocrlf_has_the_committed_bytes(committed, tmp_path):
    """Whatever a person's git makes of line ends elsewhere: in this project no stage is due for it."""
    committed.run("git", "-c", "core.autocrlf=true", "clone", "--quiet", str(committed.root), str(tmp_path / "clone"))
    clone = type(committed)(tmp_path / "clone")
    clone.run("git", "config", "core.autocrlf", "true")
    shutil.copytree(committed.root / ".dvc/cache", clone.root / ".dvc/cache")
    clone.run("dvc", "checkout", "--quiet")
    names = committed.run("git", "ls-files").splitlines()
    due = clone.run("dvc", "status")

    assert [name for name in names if (clone.root / name).read_bytes() != (committed.root / name).read_bytes()] == []
    assert "track" in due  # its note in reports/ is neither in git nor in the cache
    assert "modified" not in due
    assert clone.run("git", "status", "--porcelain") == ""


def test_params_with_other_line_ends_are_the_same_params(committed):
    """An editor that has saved params.yaml with CRLF has changed no parameter."""
    path = committed.root / "params.yaml"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    before = list_outputs(committed.root)
    for stage in ("ingest", "normalize"):
        committed.run("python", "-m", f"stages.{stage}")

    assert committed.run("dvc", "status") == "Data and pipelines are up to date.\n"
    assert list_outputs(committed.root) == before


def test_archive_without_git_is_one_line(committed):
    """DVC wants a repository and says so; commands that ask git do, too; `git init` is enough."""
    shutil.rmtree(committed.root / ".git")
    refused = committed.start("dvc", "repro")
    report = committed.start("python", "-m", "stages.commands.main", "report")
    committed.run("git", "init", "--quiet")

    assert refused.returncode != 0
    assert refused.stderr == f"ERROR: {committed.root} is not a git repository\n"
    assert report.returncode == 1
    assert report.stderr == "report: this folder: it is in no git repository; run in a clone of the project\n"
    assert committed.run("dvc", "status") == "Data and pipelines are up to date.\n"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """The current folder, a repository with a dvc.yaml in its only commit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_EXP_BASELINE_REV", raising=False)
    Path("dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    author = ("-c", "user.name=A Tester", "-c", "user.email=tester@example.invalid")
    for command in (("init", "--quiet"), ("add", "dvc.yaml"), (*author, "commit", "--quiet", "--message", "One")):
        subprocess.run(["git", *command], check=True)
    return tmp_path


def test_run_is_tagged_with_what_git_tells(repository):
    """A commit, and whether a tracked file is another than there."""
    clean = (len(track.find_state_commit()), track.tell_dirty())
    (repository / "dvc.yaml").write_text("", encoding="utf-8")

    assert clean == (40, "false")
    assert track.tell_dirty() == "true"


@pytest.mark.parametrize("case", ["refused", "no git", "no repository", "another repository"])
def test_run_is_tagged_unknown_where_git_does_not_tell(repository, monkeypatch, case):
    """Neither a commit nor `not dirty`, for nobody has looked."""
    if case == "refused":
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    elif case == "no git":
        monkeypatch.setenv("PATH", str(repository))
    elif case == "no repository":
        shutil.rmtree(repository / ".git")
    else:  # an archive, unpacked somewhere in it
        (repository / "archive").mkdir()
        monkeypatch.chdir(repository / "archive")

    assert (track.find_state_commit(), track.tell_dirty()) == ("unknown", "unknown")

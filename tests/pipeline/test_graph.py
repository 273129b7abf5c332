"""dvc.yaml says what the code does: stages are modules, deps are imports and data, params are those that are read."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from imports import ROOT, STAGES, find_dependencies, find_package, find_source, list_imports, read_constant
from ruamel.yaml import YAML

from stages.lib.exports.lineage import digest_params

# What each package of stages/lib may import beside itself. Neither a stage nor a command: they import packages.
ARROWS = {
    "core": set(),
    "runner": {"core"},
    "data": {"core"},
    "plotting": {"core"},
    "validation": {"core", "plotting"},
    "model": {"core"},
    "exports": {"core", "data", "model", "plotting"},
    "microcontroller": {"core", "exports", "model"},
    "web": {"microcontroller"},
    "tracking": {"core"},
    "sweeps": {"core", "tracking"},
    "verification": {"core"},
}
# Heavy packages, and the only modules that may import them.
HOMES = {
    "tensorflow": {"stages.lib.model.deterministic_tensorflow"},
    "keras": {"stages.lib.model.deterministic_tensorflow"},
    "tf2onnx": {"stages.lib.exports.conversion"},
    # The second runs where MLflow loads the model, far from this project.
    "mlflow": {"stages.lib.tracking.store", "stages.lib.tracking.served_model"},
    "great_expectations": {"stages.lib.validation.expectations"},
    "matplotlib": {"stages.lib.plotting.png"},
    "ray": {"stages.lib.sweeps.workers"},
    "optuna": {"stages.lib.sweeps.search"},
    "sklearn": {"stages.lib.data.digits"},
    "requests": {"stages.lib.data.download"},
    "tflite_micro": {"stages.lib.exports.tflite_micro"},
    "tract": {"stages.lib.exports.runtimes"},
}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted((ROOT / "stages").rglob("*.py"))
    if path.name != "__init__.py"
}


def load_yaml(name):
    return YAML(typ="safe", pure=True).load((ROOT / name).read_text(encoding="utf-8"))


GRAPH = load_yaml("dvc.yaml")["stages"]


# The functions that read params.yaml, or give a part of what was read.
READERS = {"load_params", "load_section", "take_section"}


class RecordingParams(dict):
    """All of params.yaml, and the names of the sections that were looked up in it."""

    def __init__(self):
        super().__init__(load_yaml("params.yaml"))
        self.looked_up = set()

    def __getitem__(self, section):
        self.looked_up.add(section)
        return super().__getitem__(section)


def list_digested_sections():
    """The sections that the digest of an export's upstream is made of."""
    params = RecordingParams()
    digest_params(params)
    return params.looked_up


def parse_main_call(stage):
    """The call of `main` at the end of a stage."""
    tree = ast.parse(MODULES[f"stages.{stage}"].read_text(encoding="utf-8"))
    (call,) = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "main"]
    return call


def list_guarded_sections(stage):
    """The sections that a stage names to the runner: its own, and those in `also_reads`."""
    call = parse_main_call(stage)
    also_reads = [word.value for word in call.keywords if word.arg == "also_reads"]
    return {
        ast.literal_eval(call.args[0]),
        *(read_constant(MODULES[f"stages.{stage}"], *also_reads) if also_reads else ()),
    }


def list_read_sections(stage):
    """The sections that a stage's code reads: its own, which `main` hands to `run`, and what it looks up itself.

    Whatever takes all of params.yaml, but for the digest of an export's upstream, counts as a reader of every section.
    """
    tree = ast.parse(MODULES[f"stages.{stage}"].read_text(encoding="utf-8"))
    parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
    sections = {ast.literal_eval(parse_main_call(stage).args[0])}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Name) and node.id in {*READERS, "PARAMS_PATH"}):
            continue
        call = parents[node]
        user = parents[call]
        if ast.unparse(call) == "load_params()" and isinstance(user, ast.Subscript):
            sections.add(ast.literal_eval(user.slice))
        elif ast.unparse(user) == "digest_params(load_params())":
            sections |= list_digested_sections()
        else:
            sections |= set(STAGES)
    return sections


def list_outputs(stage):
    entries = [entry for kind in ("outs", "metrics", "plots") for entry in GRAPH[stage].get(kind, [])]
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def test_stages_are_the_seven_modules():
    """The DAG has the seven stages in their order, each a module of its own name."""
    commands = {name: stage["cmd"] for name, stage in GRAPH.items()}

    assert commands == {name: f"python -m stages.{name}" for name in STAGES}


@pytest.mark.parametrize("stage", STAGES)
def test_source_deps_are_exactly_the_imports(stage):
    """A stage depends on itself and each package that it imports, directly or not, and on no other."""
    declared = {dep for dep in GRAPH[stage]["deps"] if dep.startswith("stages/")}

    assert declared == find_dependencies(f"stages.{stage}")


@pytest.mark.parametrize("stage", STAGES)
def test_data_deps_and_outputs_are_named_in_the_stage(stage):
    """What a stage's docstring says it reads and writes covers all data that dvc.yaml declares."""
    docstring = MODULES[f"stages.{stage}"].read_text(encoding="utf-8").split('"""')[1]
    named = re.sub(r"\{(\w+),(\w+),?(\w*)\}", r"\1 \2 \3", docstring)
    declared = [dep for dep in GRAPH[stage]["deps"] if not dep.startswith("stages/")] + list_outputs(stage)

    assert [path for path in declared if path.split("/")[0] not in named] == []
    assert [path for path in list_outputs(stage) if path not in named] == []


@pytest.mark.parametrize("stage", STAGES)
def test_declared_params_are_those_read(stage):
    """A stage depends on the sections that its code reads, and on no other."""
    assert GRAPH[stage]["params"] == [section for section in STAGES if section in list_read_sections(stage)]


@pytest.mark.parametrize("stage", STAGES)
def test_sections_guarded_against_edits_are_those_read(stage):
    """The runner refuses an edit, while the stage runs, of each section that the stage's code reads."""
    assert list_guarded_sections(stage) == list_read_sections(stage)


def test_library_reads_no_params():
    """Of the packages, only the one that starts stages reads params.yaml: a stage's own source shows what it reads."""
    readers = {
        module
        for module, path in MODULES.items()
        if module.startswith("stages.lib.") and READERS & {name.split(".")[-1] for name in list_imports(path)}
    }

    assert readers == {"stages.lib.runner.stage"}


def test_params_file_has_one_section_per_stage():
    """params.yaml has the stages' sections in the stages' order and nothing else."""
    assert list(load_yaml("params.yaml")) == STAGES


def test_every_output_reaches_the_tracked_state():
    """Each output of an earlier stage is a dep of `track`, so that no new state goes untracked."""
    outputs = {path for stage in STAGES[:-1] for path in list_outputs(stage)}

    assert outputs <= set(GRAPH["track"]["deps"])


def test_packages_are_those_that_the_arrows_name():
    """The library is packages, each with its arrows here, and no loose module."""
    packages = {
        path.name for path in (ROOT / "stages/lib").iterdir() if path.name not in ("__init__.py", "__pycache__")
    }

    assert packages == set(ARROWS)


@pytest.mark.parametrize("package", ARROWS)
def test_packages_import_along_the_arrows(package):
    """A package imports those that its arrows name, and uses each of them; no stage, no command."""
    own = [path for name, path in MODULES.items() if name.startswith(f"stages.lib.{package}.")]
    imported = {find_package(find_source(name)) for path in own for name in list_imports(path) if name in MODULES}

    assert imported - {Path("stages/lib", package)} == {Path("stages/lib", name) for name in ARROWS[package]}


@pytest.mark.parametrize("stage", STAGES)
def test_stages_import_packages_alone(stage):
    """A stage never imports a stage or a command: stages meet through their files."""
    imported = {name for name in list_imports(MODULES[f"stages.{stage}"]) if name in MODULES}

    assert imported
    assert {name for name in imported if not name.startswith("stages.lib.")} == set()


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("stages.commands.")))
def test_commands_import_no_command(module):
    """A command imports stages and packages; that of all commands loads the others by their names."""
    imported = {name for name in list_imports(MODULES[module]) if name in MODULES}

    assert {name for name in imported if name.startswith("stages.commands.")} == set()


@pytest.mark.parametrize("package", HOMES)
def test_heavy_packages_have_one_home(package):
    """A heavy package is imported in one place, so that only what needs it pays for it."""
    homes = {
        module for module, path in MODULES.items() if any(name.split(".")[0] == package for name in list_imports(path))
    }

    assert homes == HOMES[package]


def test_stage_outside_an_environment_says_so_in_one_line():
    """Without the packages a stage ends with one line that says how to get them, not with a traceback."""
    done = subprocess.run(
        # -S leaves site-packages out: a bare Python.
        [sys.executable, "-S", "-m", "stages.train"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert re.fullmatch(r"stages: this Python \(.+\) has no numpy; run `make`, .+\n", done.stderr)

"""A stage's shell: params in, exit code and one line per error out. Each test runs a tiny stage in a process."""

import re
import shutil
import signal
import subprocess
import sys
from textwrap import dedent, indent

import pytest
from imports import ROOT
from samples import list_files, run_python

STAGE = '''
import os, resource, signal, time
from pathlib import Path

from stages.lib.core.errors import DataError
from stages.lib.core.files import atomic_write
from stages.lib.core.params import Section
from stages.lib.runner.stage import main


class TinyParams(Section):
    """The `tiny` section."""

    size: int


def warn(params, sections):
    return ["size 5 is odd", str(sorted(sections))] if params.size == 5 else []


def run(params: TinyParams) -> None:
{body}


if __name__ == "__main__":
    main("tiny", TinyParams, run{also_reads}, warn=warn)
'''
# Writes a file and waits in the middle of it to be stopped.
SLOW_BODY = """
    # A shell that started the tests in the background may have had them ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with atomic_write(Path("out")) as partial:
        partial.write_text("half")
        print("writing", flush=True)
        # Not one long sleep: a signal just before it would be seen by Python only when it is over.
        for _ in range(1200):
            time.sleep(0.05)
"""


@pytest.fixture
def project(tmp_path):
    """A folder with params.yaml and a copy of the library, so that a stage may edit both."""
    (tmp_path / "params.yaml").write_text("tiny: {size: 3}\nother: {size: 1}\n", encoding="utf-8")
    shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def write_stage(project, body, also_reads=()):
    """Write the stage `tiny` with this body of `run`, and with these other sections that it reads."""
    argument = f", also_reads={also_reads}" if also_reads else ""
    code = STAGE.format(body=indent(dedent(body), "    "), also_reads=argument)
    (project / "tiny.py").write_text(code, encoding="utf-8")


def run_stage(project, body, also_reads=()):
    """Run a stage with this body: its exit code and what it wrote to standard error."""
    write_stage(project, body, also_reads)
    done = run_python("-m", "tiny", cwd=project, PYTHONPATH=str(project))
    return done.returncode, done.stderr


def test_sound_stage_gets_its_params_and_ends_with_0(project):
    """`run` is given the section as an object of its class."""
    assert run_stage(project, "assert params == TinyParams(size=3)") == (0, "")


def test_what_is_known_before_is_told_before(project):
    """Warnings come from all sections, before the stage runs, and do not end it."""
    (project / "params.yaml").write_text("tiny: {size: 5}\nother: {size: 1}\n", encoding="utf-8")
    code, reported = run_stage(project, "import sys; print('it runs', file=sys.stderr)")

    assert code == 0
    assert reported == "tiny: size 5 is odd\ntiny: ['other', 'tiny']\nit runs\n"


@pytest.mark.parametrize(
    ("edit", "place"),
    [
        ('Path("params.yaml").write_text("tiny: {size: 4}")', "params.yaml: tiny"),
        ('Path(__file__).write_text("")', "{root}/tiny.py"),
        ('Path("stages/lib/core/files.py").write_text("")', "{root}/stages/lib/core/files.py"),
    ],
)
def test_edit_of_an_input_while_the_stage_runs_is_refused(project, edit, place):
    """DVC would record the edited params or source with the output of those before the edit."""
    code, reported = run_stage(project, edit)

    assert code == 1
    assert reported == (
        f"tiny: {place.format(root=project)}: it was edited while the stage ran; run `dvc repro` again\n"
    )


@pytest.mark.parametrize(
    "edit",
    [
        'Path("params.yaml").write_text("# a comment\\ntiny: {size: 3}\\nother: {size: 2}")',
        'Path("stages/lib/data/download.py").write_text("")',
    ],
)
def test_edit_of_what_is_no_input_is_allowed(project, edit):
    """Another stage's section, a comment and a module that this stage does not import may change meanwhile."""
    assert run_stage(project, edit) == (0, "")


@pytest.mark.parametrize(
    ("params", "place"),
    [
        ("tiny: {size: 3}\nother: {size: 2}", "params.yaml: other"),
        ("tiny: {size: 3}", "params.yaml: other"),
        ("tiny: {size: 4}\nother: {size: 1}", "params.yaml: tiny"),
        ("tiny: {size: 3}\nother: {size: 1}\nadded: {size: 1}", "params.yaml: added"),
    ],
    ids=["another value", "taken out", "its own section", "put in"],
)
def test_edit_of_a_section_that_the_stage_also_reads_is_refused(project, params, place):
    """Sections of other stages that its outputs depend on are inputs as its own is, be they there or not."""
    code, reported = run_stage(project, f'Path("params.yaml").write_text({params!r})', also_reads=("other", "added"))

    assert (code, reported) == (
        1,
        f"tiny: {place}: it was edited while the stage ran; run `dvc repro` again\n",
    )


@pytest.mark.parametrize(
    "params",
    [
        "tiny: {size: 3}\nother: {size: 1}\nthird: {size: 2}",
        "third: {size: 2}\nother:\n  size: 1  # a comment\ntiny: {size: 3}",
    ],
    ids=["a third section", "order and comments"],
)
def test_edit_of_a_section_that_the_stage_does_not_read_is_allowed(project, params):
    """Beside its own section and those that it names, any other may change meanwhile."""
    assert run_stage(project, f'Path("params.yaml").write_text({params!r})', also_reads=("other",)) == (0, "")


def test_params_broken_while_the_stage_runs_are_one_line(project):
    """A params.yaml that can no longer be read is told as such: the stage does not end well."""
    code, reported = run_stage(project, 'Path("params.yaml").write_text("tiny: {size: [3")')

    assert code == 1
    assert reported.startswith("tiny: params.yaml: not valid YAML: ")
    assert reported.count("\n") == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('raise DataError("x", expected="a", got="b", hint="c")', "tiny: x: expected a, got b; c"),
        ('raise DataError("x", "it is damaged", "run it again")', "tiny: x: it is damaged; run it again"),
        (
            'raise DataError.join([DataError(name, expected="a", got="b", hint="c") for name in "xyz"])',
            "tiny: x: expected a, got b; c; also y: expected a, got b; c; also z: expected a, got b; c",
        ),
        (
            'Path("none/x").write_text("")',
            "tiny: none/x: No such file or directory; restore it (`dvc checkout` or `git checkout`) and run again",
        ),
        (
            # As root may write anywhere, the stage becomes nobody.
            """
            Path("locked").mkdir(mode=0o500)
            if os.geteuid() == 0:
                os.seteuid(65534)
            Path("locked/x").write_text("")
            """,
            "tiny: locked/x: Permission denied; allow it with `chmod` or `chown` and run again",
        ),
        (
            # A limit of this process is met like the end of a disk.
            """
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
            with atomic_write(Path("out")) as partial:
                partial.write_bytes(bytes(100))
            """,
            "tiny: out: File too large; allow larger files (`ulimit -f unlimited`) and run again",
        ),
    ],
)
def test_problem_that_a_person_can_put_right_is_one_line(project, body, message):
    """An error of the data, a missing file, a missing permission and a full disk end with 1 and one line."""
    assert run_stage(project, body) == (1, f"{message}\n")
    assert not list(project.glob("*.partial"))
    assert not (project / "out").exists()


FREE_SOME = "free some (`dvc gc --workspace` empties DVC's cache of what is not in use) and run again"


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
@pytest.mark.parametrize(
    ("body", "where"),
    [
        ('Path("/dev/full").write_text("x")', "input or output"),
        (
            """
            with atomic_write(Path("out")) as partial:
                partial.symlink_to("/dev/full")
                partial.write_text("x")
            """,
            "out",
        ),
        (
            """
            with atomic_write(Path("out")) as partial:
                import numpy as np
                from stages.lib.core.arrays import save_array
                partial.symlink_to("/dev/full")
                save_array(partial, np.zeros(10_000_000))
            """,
            "out",
        ),
    ],
    ids=["a file", "an output", "an array"],
)
def test_full_disk_is_one_line(project, body, where):
    """A disk without space ends a stage with 1 and one line, which names the output that there is no room for."""
    code, reported = run_stage(project, body)

    assert (code, reported) == (1, f"tiny: {where}: No space left on device; {FREE_SOME}\n")


def test_no_place_for_temporary_files_is_one_line(project):
    """Where every disk is full, a stage that imports TensorFlow says so before it does."""
    (project / "stages/full.py").write_text("import stages.lib.model.deterministic_tensorflow", encoding="utf-8")
    code = """
        import os, resource, sys
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        os.execv(sys.executable, [sys.executable, "-B", "-m", "stages.full"])
    """
    done = run_python("-c", dedent(code), cwd=project, PYTHONPATH=str(project))

    assert done.returncode == 1
    assert re.fullmatch(
        r"full: No usable temporary directory found in \[.+\]: all are full or read-only; "
        r"free some space, or set TMPDIR to another\n",
        done.stderr,
    )


def test_problem_of_the_code_keeps_its_traceback(project):
    """What no person's input can cause is not dressed up as such."""
    code, reported = run_stage(project, "1 / 0")

    assert code == 1
    assert reported.startswith("Traceback")
    assert reported.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize(
    ("sent", "code", "reported"),
    [
        (signal.SIGINT, 130, "tiny: interrupted; nothing was half-written\n"),
        (signal.SIGTERM, 143, ""),
    ],
)
def test_stopped_stage_leaves_nothing_half_written(project, sent, code, reported):
    """Ctrl-C and `kill` end a stage with the shell's code for them, and the file is as it was before."""
    (project / "out").write_text("old", encoding="utf-8")
    write_stage(project, SLOW_BODY)
    before = list_files(project).keys()
    stage = subprocess.Popen(
        [sys.executable, "-B", "-m", "tiny"], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert stage.stdout.readline() == "writing\n"
    stage.send_signal(sent)
    _, stderr = stage.communicate(timeout=30)

    assert (stage.returncode, stderr) == (code, reported)
    assert (project / "out").read_text(encoding="utf-8") == "old"
    assert list_files(project).keys() == before | {".cache/stage.lock"}


def test_stage_stopped_while_it_imports_is_one_line(project):
    """Ctrl-C while a stage's packages are imported, TensorFlow's noise held back, is no traceback from inside them."""
    slow = """
        import time
        from stages.lib.core.native_stderr import capture_native_stderr
        with capture_native_stderr():
            print("importing", flush=True)
            for _ in range(1200):
                time.sleep(0.05)
    """
    (project / "stages/slow.py").write_text(dedent(slow), encoding="utf-8")
    stage = subprocess.Popen(
        [sys.executable, "-B", "-m", "stages.slow"],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that started the tests in the background may have had them ignore it. No thread is in the way.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    assert stage.stdout.readline() == "importing\n"
    stage.send_signal(signal.SIGINT)
    _, reported = stage.communicate(timeout=30)

    assert (stage.returncode, reported) == (130, "slow: interrupted; nothing was half-written\n")


def test_signal_that_a_library_loses_ends_the_stage_all_the_same(project):
    """A stage ends with the signal's code though a library made another exception of it, or none."""
    body = """
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except BaseException:
            raise ValueError("lost")
    """
    assert run_stage(project, body) == (143, "")


def test_second_stage_in_a_folder_is_refused_with_the_name_of_the_first(project):
    """While one stage is at work another in the same folder ends with one line, and the first goes on."""
    write_stage(project, 'print("at work", flush=True)\ninput()')
    first = subprocess.Popen(
        [sys.executable, "-B", "-m", "tiny"], cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout.readline() == "at work\n"
    done = run_python("-m", "tiny", cwd=project, PYTHONPATH=str(project))
    first.communicate("\n", timeout=30)

    assert done.stderr == (
        f"tiny: {project}: the stage tiny is running here (process {first.pid}); "
        f"wait until it ends, or stop it with `kill {first.pid}`, then run again\n"
    )
    assert (done.returncode, first.returncode) == (1, 0)


def test_stage_without_params_file_says_where_to_run(project):
    """Outside the project's root a stage says so."""
    (project / "params.yaml").unlink()
    code, reported = run_stage(project, "pass")

    assert code == 1
    hint = "run in the project's root folder, or `git checkout params.yaml` if it was deleted"
    assert reported == f"tiny: params.yaml: no such file; {hint}\n"

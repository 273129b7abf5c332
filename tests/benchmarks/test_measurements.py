"""What every benchmark says of its figures, and how it ends."""

import re
import subprocess
import sys

import pytest
from imports import ROOT
from samples import run_python

from benchmarks.measurements import describe_machine, describe_ratios, describe_spread, tell_machine, write_result
from stages.lib.core.files import read_json

# A benchmark that has something to print, and something to fail of.
PRINTING = """
from benchmarks.measurements import print_lines, run_benchmark
with run_benchmark():
    print_lines(["a line of a table"] * 100_000)
"""
FAILING = """
from benchmarks.measurements import run_benchmark
from stages.lib.core.errors import DataError
with run_benchmark():
    raise {problem}
"""


def test_every_benchmark_has_its_make_target():
    """What is not run by `make` would be forgotten."""
    sources = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py")}
    benchmarks = {
        name for name, source in sources.items() if re.search(r"^    with .*run_benchmark\(\)", source, re.MULTILINE)
    }
    run = re.findall(r"^\tpython -m benchmarks\.(\w+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)

    assert {"pipeline", "predictions"} <= benchmarks <= set(run)


def test_spread_is_median_and_extremes():
    """The median does not follow a single slow round; the largest value tells of it."""
    assert describe_spread([1.0, 9.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 9.0}


def test_ratios_are_taken_round_by_round():
    """A round that was slow throughout changes no ratio."""
    assert describe_ratios([1.0, 10.0], [2.0, 20.0]) == {"median": 0.5, "min": 0.5, "max": 0.5}


def test_rounds_without_their_reference_are_refused():
    """A ratio needs both of its sides."""
    with pytest.raises(ValueError, match="shorter"):
        describe_ratios([1.0, 2.0], [1.0])


def test_machine_is_told_with_its_versions():
    """A line has the day, the processor and the versions asked for, of packages beside the pipeline's own, too."""
    machine = describe_machine("pytest")
    reported = tell_machine(machine, ["numpy", "pytest", "no-such-package"])

    assert reported.startswith(f"{machine['date']}, {machine['processor']}, {machine['cores']} cores, Python ")
    assert reported.endswith(
        f"; numpy {machine['packages']['numpy']}, pytest {pytest.__version__}, no-such-package not installed."
    )


def test_result_is_written_where_told(tmp_path):
    """The JSON is the result as it is."""
    write_result("anything", {"date": "2026-01-01"}, tmp_path / "out" / "result.json")

    assert read_json(tmp_path / "out" / "result.json") == {"date": "2026-01-01"}


def test_reader_that_has_had_enough_is_no_problem(tmp_path):
    """A table piped into `head` ends well and silently."""
    with subprocess.Popen(
        [sys.executable, "-c", PRINTING],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        first = process.stdout.readline()
        process.stdout.close()
        complaint = process.stderr.read()

    assert (first, complaint, process.returncode) == (b"a line of a table\n", b"", 0)


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        ("DataError('here', expected='a', got='b', hint='c')", "bench: here: expected a, got b; c\n"),
        ("OSError(28, 'No space left on device', 'result.json')", "bench: result.json: No space left on device; "),
        ("KeyboardInterrupt", "bench: interrupted; nothing was written\n"),
    ],
    ids=["pipeline", "disk", "interrupt"],
)
def test_problem_ends_in_one_line(tmp_path, problem, line):
    """What a person caused or can fix is told in one line, with exit code 1."""
    done = run_python("-c", FAILING.format(problem=problem), cwd=tmp_path)

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(line)

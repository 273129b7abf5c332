"""`python -m benchmarks.pipeline` measures what it says, and leaves nothing behind. The whole of it takes minutes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from imports import ROOT
from samples import make_split, run_python

from benchmarks.clones import DVC, clone_head
from benchmarks.measurements import describe_machine
from benchmarks.pipeline import (
    LECTURE_PATH,
    Finished,
    Repro,
    Rounds,
    describe,
    make_trivial,
    run_apart,
    run_no_op,
    run_repro,
    tabulate,
)
from stages.lib.core.errors import PipelineError
from stages.lib.core.files import write_json, write_text
from stages.lib.core.params import load_params

pytestmark = pytest.mark.slow

# A stage that takes a moment and writes down its times as ours do, and one that needs its output.
GRAPH = """
stages:
  first:
    cmd: >-
      mkdir -p data .cache/stage_times reports && sleep 0.5 && echo {} > data/a && echo {} > data/b &&
      echo '{"imports": 0.125, "work": 0.25}' | tee .cache/stage_times/first.json > .cache/stage_times/second.json
    deps: ["${first.place}"]
    params: [first]
    outs: [data]
  second:
    cmd: >-
      sleep 0.5 && echo '{"accuracy": 0.75}' > reports/metrics.json
    deps: [data, source]
    params: [second]
    metrics:
      - reports/metrics.json:
          cache: false
"""
# Waits in a shell that it has started, until it is told to stop.
WAITING = """
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from benchmarks.measurements import run_benchmark
from benchmarks.{module} import {start}
with run_benchmark(), TemporaryDirectory(dir=".") as folder:
    script = "sleep 300 & echo $! > ../child.partial; mv ../child.partial ../child; wait"
    {start}(["sh", "-c", script], Path(folder), os.environ)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A DVC project of two stages, and what was measured of it."""
    folder = tmp_path_factory.mktemp("project")
    write_text(folder / "dvc.yaml", GRAPH)
    write_json(folder / "params.yaml", {"first": {"place": "source"}, "second": {"rate": 0.5}})  # JSON is YAML, too
    write_text(folder / "source", "the source\n" * 1000)
    run_apart(["git", "init", "--quiet"], folder, os.environ)
    run_apart([*DVC, "init", "--quiet"], folder, os.environ)
    return folder, run_repro(folder, os.environ)


def test_kinds_of_time_add_up_to_the_whole(project):
    """Each stage has its imports and its work as it wrote them down; all else is DVC's, and nothing is lost."""
    _, repro = project

    assert list(repro.stages) == ["first", "second"]
    assert all((seconds["imports"], seconds["work"]) == (0.125, 0.25) for seconds in repro.stages.values())
    assert sum(sum(seconds.values()) for seconds in repro.stages.values()) == pytest.approx(repro.done.seconds)
    assert all(seconds["dvc"] > 0.1 for seconds in repro.stages.values())
    assert repro.accuracy == 0.75


def test_trivial_project_has_the_same_graph_and_files(project, tmp_path):
    """It has the same stages, deps, outputs and files, nothing to do, and a few bytes where the other has many."""
    folder, _ = project
    trivial = make_trivial(folder, tmp_path, os.environ)
    shown = [
        run_apart([*DVC, "dag", "--dot", *of], root, os.environ).lines
        for root in (folder, trivial)
        for of in ([], ["--outs"])
    ]

    assert run_no_op(trivial, os.environ).processor_seconds > 0
    assert shown[:2] == shown[2:]
    assert {path.name for path in (trivial / "data").iterdir()} == {"a", "b"}
    assert (trivial / "source").stat().st_size < (folder / "source").stat().st_size


def test_stage_that_runs_is_not_nothing_to_do(project):
    """A `dvc repro` that has something to do is no measure of one that has nothing."""
    folder, _ = project
    write_text(folder / "source", "another source\n")

    with pytest.raises(PipelineError) as refusal:
        run_no_op(folder, os.environ)

    assert refusal.value.problem.startswith("nothing was to do, yet it ran: Running stage 'first'")


def test_clone_is_head_with_other_params(tmp_path):
    """It has HEAD's files and nothing of what the pipeline has made here; all other params are as they were."""
    clone = clone_head(tmp_path / "clone", os.environ, lambda params: params["ingest"].update(dataset="mnist"))
    params = load_params(clone / "params.yaml")
    changed = params["ingest"].pop("dataset")
    subprocess.run(["git", "checkout", "--quiet", "params.yaml"], cwd=clone, check=True)
    head = load_params(clone / "params.yaml")
    del head["ingest"]["dataset"]

    assert (changed, params) == ("mnist", head)
    assert not (clone / "data/raw").exists()
    assert subprocess.run(["git", "status", "--porcelain"], cwd=clone, check=True, capture_output=True).stdout == b""


def test_clone_that_fails_is_told_in_one_line(tmp_path):
    """What git says of it is in the error."""
    write_text(tmp_path / "clone/in the way", "")
    with pytest.raises(PipelineError) as refusal:
        clone_head(tmp_path / "clone", os.environ, lambda params: params)

    assert refusal.value.where.startswith("`git clone ")
    assert re.match("it failed: fatal: .+ already exists", refusal.value.problem)


def test_failed_command_is_told_in_one_line(tmp_path):
    """What is measured must have worked."""
    with pytest.raises(PipelineError) as refusal:
        run_apart(["sh", "-c", "echo why; exit 3"], tmp_path, os.environ)

    assert refusal.value.where == f"`sh -c echo why; exit 3` in {tmp_path}"
    assert refusal.value.problem == "it failed: why"


@pytest.mark.parametrize(("module", "start"), [("pipeline", "run_apart"), ("scale", "watch")])
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_benchmark_leaves_nothing_behind(tmp_path, by, module, start):
    """Its folder is removed and what it has started ends, down to the processes of processes."""
    with subprocess.Popen(
        [sys.executable, "-c", WAITING.format(module=module, start=start)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "child").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(by)
        complaint = process.stderr.read()
    child = int((tmp_path / "child").read_text(encoding="utf-8"))

    assert (process.returncode, complaint) == (1, "bench: interrupted; nothing was written\n")
    assert [path.name for path in tmp_path.iterdir()] == ["child"]
    assert not is_running(child)


def is_running(process):
    """Whether the process is there, and more than an entry of a process that has ended."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        if state == "Z":
            return False
        time.sleep(0.05)
    return True


def test_lectures_script_runs(tmp_path):
    """The lecture's lines train on images in a file, and print the accuracy last."""
    split = make_split(64, seed=1)
    images = np.pad(split.images, ((0, 0), (0, 22), (0, 20)))  # 28 by 28
    np.savez(tmp_path / "small.npz", x_train=images, y_train=split.labels, x_test=images, y_test=split.labels)
    done = run_python(str(LECTURE_PATH), "small.npz", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert 0 <= float(done.stdout.splitlines()[-1]) <= 1


def test_table_has_medians_ratios_and_sums():
    """A figure is the median over the rounds, a ratio that of its rounds, and the last row has the column's sums."""
    lecture = [Finished(seconds, 20.0, ["loss\n", "0.9\n"], []) for seconds in (10.0, 40.0, 20.0)]
    repros = [
        Repro(
            Finished(seconds, 5.0, [], []),
            {
                "ingest": {"imports": 1.0, "work": seconds, "dvc": 0.5},
                "train": {"imports": 2.0, "work": 3.0, "dvc": 0.5},
            },
            accuracy=0.8,
        )
        for seconds in (5.0, 10.0, 8.0)
    ]
    described = describe(Rounds(lecture, repros, repros, lecture, lecture))
    lines = tabulate({**describe_machine(), **described})
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]

    assert described["mnist"]["repro"]["work_seconds"] == {"median": 11.0, "min": 8.0, "max": 13.0}
    assert ["`dvc repro` on MNIST", "8.0", "5.0", "10.0", "0.40", "5.0", "0.25"] in rows
    assert ["ingest", "1.0", "8.0", "0.5", "1.0", "8.0", "0.5"] in rows
    assert rows[-1] == ["all", "3.0", "11.0", "1.0", "3.0", "11.0", "1.0"]

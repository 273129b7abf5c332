"""`python -m benchmarks.predictions` measures every export in every runtime that can run it."""

import platform
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from imports import ROOT
from samples import IMAGE_SIZE, run_python, write_normalized

from benchmarks.predictions import (
    BATCH,
    KERAS_CALL,
    KERAS_PREDICT,
    Challenger,
    Effort,
    count_same_class,
    measure_memory_apart,
    time_single_calls,
)
from stages import export, train
from stages.lib.core.errors import ExportError
from stages.lib.core.files import read_json, write_json
from stages.lib.core.params import load_params, load_section
from stages.lib.exports.parity_matrix import find_unsupported_reason
from stages.lib.exports.runtimes import find_runtimes

pytestmark = pytest.mark.slow

ARTIFACTS = ["onnx_float32", "tflite_float32", "tflite_int8"]
FILES = [export.FILES[artifact] for artifact in ARTIFACTS]
EXPORTED = Challenger(Path("model.onnx"), "onnx_runtime")


class Bench(NamedTuple):
    """What a quick benchmark printed and wrote."""

    printed: str
    result: dict


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder in which the pipeline's own stages have made and exported a network for small images."""
    root = tmp_path_factory.mktemp("project")
    params = load_params()
    params["export"]["artifacts"] = ARTIFACTS
    write_json(root / "params.yaml", params)  # JSON is YAML, too
    write_normalized(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        train.run(load_section("train", train.TrainParams))
        export.run(load_section("export", export.ExportParams))
    return root


@pytest.fixture(scope="module")
def bench(project):
    done = run_python("-m", "benchmarks.predictions", "--quick", "--output", "out/result.json", cwd=project)
    assert done.returncode == 0, done.stderr
    return Bench(done.stdout, read_json(project / "out/result.json"))


def list_expected():
    """Each export with each runtime that can run it, Keras first, in the order of the params."""
    exports = [
        (name, runtime)
        for name in FILES
        for runtime in find_runtimes(Path(name))
        if not find_unsupported_reason(name, runtime)
    ]
    return [("model.keras", "keras_predict"), ("model.keras", "keras_call"), *exports]


def test_every_export_is_measured_in_every_runtime_that_can_run_it(bench):
    """There is one row for each, in the order of the export list, and a reason for each that is not run."""
    measured = [(cost["file"], cost["runtime"]) for cost in bench.result["costs"]]
    pairs = sum(len(find_runtimes(Path(name))) for name in FILES)

    assert measured == list_expected()
    assert len(bench.result["not_run"]) == pairs + 2 - len(measured)


def test_every_cost_is_a_positive_number(bench):
    """Time, ratios, bytes and memory are above zero; memory is none where the system does not tell it."""
    for cost in bench.result["costs"]:
        numbers = [cost["bytes"], *cost["single"].values(), *cost["batch"].values()]
        if platform.system() == "Linux":
            numbers.append(cost["memory_bytes"])

        assert all(number > 0 for number in numbers), cost
        assert cost["single"]["p99_us"] >= cost["single"]["median_us"]


def test_result_says_what_it_was_measured_with(bench):
    """The JSON has the day, the machine, the versions and the effort, and each cost the same keys."""
    assert set(bench.result) == {
        *("date", "cores", "packages", "platform", "processor", "python", "settings"),
        *("batch", "rounds", "costs", "not_run"),
    }
    assert {tuple(cost) for cost in bench.result["costs"]} == {
        ("batch", "bytes", "file", "memory_bytes", "runtime", "same_class", "single", "title")
    }
    assert bench.result["packages"]["keras"]


def test_ratios_are_to_keras(bench):
    """`predict` is once as fast as itself, and so is the direct call."""
    predict, call, *_ = bench.result["costs"]

    for size in ("single", "batch"):
        assert predict[size]["times_as_fast_as_predict"] == 1
        assert call[size]["times_as_fast_as_call"] == 1


def test_printed_table_has_the_measured_rows(bench):
    """The first line names the day and the processor, then comes a Markdown table with a row for each cost."""
    first, _, _, rule, *lines = bench.printed.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")][:2] for line in lines if line.startswith("|")]

    assert first.startswith(f"{bench.result['date']}, {bench.result['processor']}, ")
    assert set(rule) <= set("|-: ")
    assert rows == [[cost["file"], cost["title"]] for cost in bench.result["costs"]]


def test_missing_export_ends_in_one_line(project, tmp_path):
    """Without the exports it ends with exit code 1 and a line that says what to do, and writes nothing."""
    shutil.copytree(project, tmp_path / "copy", ignore=shutil.ignore_patterns("export", "out"))
    done = run_python("-m", "benchmarks.predictions", "--quick", "--output", "result.json", cwd=tmp_path / "copy")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "bench: models/export: it is not there; run `dvc repro`\n"
    assert not (tmp_path / "copy/result.json").exists()


def test_failed_memory_process_is_told_in_one_line(project, tmp_path, monkeypatch):
    """What went wrong in the process that measures memory is the error here."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with pytest.raises(ExportError) as refusal:
        measure_memory_apart(Challenger(tmp_path / "missing.onnx", "onnx_runtime"))

    assert refusal.value.where == "memory of missing.onnx in ONNX Runtime"
    assert "no such file" in refusal.value.problem
    assert "\n" not in str(refusal.value)


REFERENCE = np.array([[0.75, 0.25], [0.25, 0.75], [0.125, 0.875], [0.5625, 0.4375]], np.float32)


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (REFERENCE[[1, 0, 2, 3]], "50.00%"),
        (np.full_like(REFERENCE, np.nan), "0.00%"),
        (REFERENCE[:2], "0.00%"),
        (REFERENCE[:, :1], "0.00%"),
    ],
)
def test_wrong_answers_are_not_measured(answer, got):
    """Answers of another class, NaN, and too few of them are refused: what they cost is of no interest."""
    answers = {KERAS_PREDICT: REFERENCE, EXPORTED: answer}
    with pytest.raises(ExportError) as refusal:
        count_same_class(answers, {KERAS_PREDICT: 1.0, EXPORTED: 0.75})

    assert (refusal.value.where, refusal.value.got) == ("model.onnx in ONNX Runtime", got)


def test_answers_within_their_budget_are_counted():
    """A challenger may give another class to as many images as its budget lets it."""
    answers = {KERAS_PREDICT: REFERENCE, KERAS_CALL: REFERENCE, EXPORTED: REFERENCE[[0, 1, 2, 1]]}
    counted = count_same_class(answers, {KERAS_PREDICT: 1.0, KERAS_CALL: 1.0, EXPORTED: 0.75})

    assert counted == {KERAS_PREDICT: 4, KERAS_CALL: 4, EXPORTED: 3}


@pytest.mark.parametrize(("seconds", "calls"), [(0.0, 1), (3600.0, 7)])
def test_slow_contender_gets_fewer_calls(seconds, calls):
    """A challenger's turn ends with its calls or with its time, but never before the first call."""
    images = np.zeros((BATCH, *IMAGE_SIZE), np.uint8)
    times = time_single_calls(lambda images: images, images, Effort(rounds=1, calls=7, seconds=seconds))

    assert len(times) == calls

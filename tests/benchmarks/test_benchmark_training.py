"""`python -m benchmarks.training` measures the lecture's training, the pipeline's, JAX's and C's, which must agree."""

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import pytest
from imports import ROOT
from samples import make_dataset, run_python

from benchmarks.training import (
    LOSS_RTOL,
    Challenger,
    Turn,
    describe_turns,
    list_contenders,
    require_same_arithmetic,
    run_apart,
    write_start,
)
from stages.lib.core.errors import TrainingError
from stages.lib.core.files import read_json

pytestmark = pytest.mark.slow

EXPECTED = [
    *("lecture", "pipeline"),
    *(("jax", "jax_one_thread") if find_spec("jax") else ()),
    *(("c",) if shutil.which("cc") else ()),
]
SMALL = ("--dataset", "digits", "--seeds", "1", "--epochs", "2")


class Bench(NamedTuple):
    """What a small benchmark printed and wrote."""

    printed: str
    result: dict


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Takes half a minute, for it starts TensorFlow twice and JAX twice."""
    folder = tmp_path_factory.mktemp("bench")
    done = run_python("-m", "benchmarks.training", *SMALL, "--output", "out/result.json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return Bench(done.stdout, read_json(folder / "out/result.json"))


def find(bench, name):
    return next(challenger for challenger in bench.result["contenders"] if challenger["name"] == name)


def test_every_contender_is_measured_or_left_out_with_a_reason(bench):
    """What is installed here is measured; for the rest there is a sentence."""
    assert [challenger["name"] for challenger in bench.result["contenders"]] == EXPECTED
    assert len(bench.result["not_run"]) == (0 if find_spec("jax") else 1) + (0 if shutil.which("cc") else 1)


def test_every_figure_is_a_positive_number(bench):
    """Seconds, epochs a second and ratios are above zero, and ordered as median, smallest and largest."""
    for challenger in bench.result["contenders"]:
        for key in ("first_epoch_seconds", "epochs_per_second", "epoch_processor_seconds", "times_as_fast_as_lecture"):
            spread = challenger[key]

            assert 0 < spread["min"] <= spread["median"] <= spread["max"], (challenger["name"], key)


def test_ratios_are_to_the_lecture_and_to_the_pipeline(bench):
    """Each is once as fast as itself."""
    assert find(bench, "lecture")["times_as_fast_as_lecture"]["median"] == 1
    assert find(bench, "pipeline")["times_as_fast_as_pipeline"]["median"] == 1


def test_all_but_the_lecture_get_the_same_images_right(bench):
    """From the same weights, in the same order, the same network comes out, whatever computes it."""
    expected = find(bench, "pipeline")["test_accuracy"]["mean"]

    for name in EXPECTED[1:]:
        # One of the 359 test images may be a tie.
        assert find(bench, name)["test_accuracy"]["mean"] == pytest.approx(expected, abs=1.5 / 359), name


def test_result_says_what_it_was_measured_with(bench):
    """The JSON has the day, the machine, the versions and the effort."""
    assert {"date", "processor", "cores", "packages", "dataset", "images", "seeds", "epochs"} <= set(bench.result)
    assert (bench.result["dataset"], bench.result["seeds"], bench.result["epochs"]) == ("digits", 1, 2)


def test_printed_table_has_the_measured_rows(bench):
    """The first line names the day and the processor, then comes a Markdown table with a row for each challenger."""
    first, _, _, _, *lines = bench.printed.splitlines()
    titles = [line.strip("|").split("|")[0].strip() for line in lines if line.startswith("|")]

    assert first.startswith(f"{bench.result['date']}, {bench.result['processor']}, ")
    assert titles == [challenger["title"] for challenger in bench.result["contenders"]]


def test_another_arithmetic_is_refused():
    """A challenger whose first loss is not the pipeline's computes something else: its speed is of no interest."""
    turn = Turn(seconds=[1.0, 1.0], processor_seconds=[1.0, 1.0], losses=[0.5, 0.25], accuracy=0.9)
    require_same_arithmetic({"lecture": turn._replace(losses=[0.9, 0.9]), "pipeline": turn, "c": turn})

    with pytest.raises(TrainingError) as refusal:
        require_same_arithmetic({"pipeline": turn, "c": turn._replace(losses=[0.5 * (1 + 3 * LOSS_RTOL), 0.25])})

    assert refusal.value.where == "c"
    assert refusal.value.expected.endswith(", 0.500000")
    assert refusal.value.got.startswith("0.50")


def test_first_epoch_is_told_apart():
    """What compiling costs is in no figure but its own."""
    contenders = {name: Challenger(name, [], {}) for name in ("lecture", "pipeline")}
    turns = {
        "lecture": [
            Turn([100.0, 4.0, 4.0], [100.0, 4.0, 4.0], [1.0], 0.9),
            Turn([100.0, 8.0, 8.0], [100.0, 8.0, 8.0], [1.0], 0.7),
        ],
        "pipeline": [
            Turn([50.0, 1.0, 1.0], [50.0, 1.0, 1.0], [1.0], 0.9),
            Turn([50.0, 2.0, 2.0], [50.0, 2.0, 2.0], [1.0], 0.9),
        ],
    }
    lecture, pipeline = describe_turns(contenders, turns)

    assert pipeline["first_epoch_seconds"]["median"] == 50
    assert pipeline["epoch_seconds"] == {"median": 1.5, "min": 1.0, "max": 2.0}
    assert pipeline["times_as_fast_as_lecture"] == {"median": 4.0, "min": 4.0, "max": 4.0}
    assert lecture["test_accuracy"] == {"mean": 0.8, "deviation": 0.14142, "of_each_seed": [0.9, 0.7]}


def test_order_is_the_one_the_pipeline_draws(tmp_path):
    """Each epoch has each image once; the first weights have Keras's range."""
    write_start(7, 2, (6, 8), 50, tmp_path)
    orders, weights = np.load(tmp_path / "orders.npy"), np.load(tmp_path / "weights.npy")

    np.testing.assert_array_equal(orders[1], np.random.default_rng([7, 2]).permutation(50))
    assert weights.shape == (48 * 20 + 20 + 20 * 10 + 10,)
    assert 0.9 < np.abs(weights[: 48 * 20]).max() / np.sqrt(6 / (48 + 20)) <= 1


def test_without_a_compiler_c_is_left_out_with_the_reason(tmp_path, monkeypatch):
    """The others are still measured."""
    monkeypatch.setenv("PATH", str(tmp_path))
    contenders, not_run = list_contenders(make_dataset(), tmp_path)

    assert "c" not in contenders
    assert "C is not run: there is no compiler `cc`." in not_run


def test_contender_that_fails_is_told_in_one_line():
    """What its process said last is the error."""
    with pytest.raises(TrainingError) as refusal:
        run_apart([sys.executable, "-c", "import sys; print('no such thing', file=sys.stderr); sys.exit(3)"], {})

    assert refusal.value.problem == "it ended with exit code 3: no such thing"
    assert "\n" not in str(refusal.value)


def test_interrupted_benchmark_leaves_nothing(tmp_path):
    """Ctrl-C ends it with one line; there is neither a result nor anything temporary."""
    scratch_dir = tmp_path / "scratch"
    scratch_dir.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(scratch_dir)}
    command = [sys.executable, "-m", "benchmarks.training", *SMALL, "--output", "result.json"]
    bench = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(scratch_dir.glob("*/orders.npy")):  # written just before the first turn
        assert bench.poll() is None, bench.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    bench.send_signal(signal.SIGINT)
    _, said = bench.communicate(timeout=120)

    assert (bench.returncode, said) == (1, "bench: interrupted; nothing was written\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scratch"]
    assert list(scratch_dir.iterdir()) == []

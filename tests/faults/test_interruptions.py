"""Signals at any moment of any stage, to whom they may: afterwards `dvc repro` gives what an undisturbed one gives."""

import os
import random
import shutil
import signal
import time
from contextlib import contextmanager, suppress
from itertools import islice, product

import psutil
import pytest
from faults import read_outputs, read_runs
from imports import STAGES

from stages.lib.core.files import read_json, remove

# Who is sent the signal: `group` is all that a terminal's Ctrl-C reaches.
TARGETS = ("stage", "dvc", "group")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
# In which DVC runs a stage's command: bash gives its place to the stage, dash stays between the two.
SHELLS = tuple(filter(shutil.which, ("bash", "dash")))
# Before that a starting Python has not yet come to the first line of this project.
START_SECONDS = 0.3
WAIT_SECONDS = 120


def draw_moments(count, seed=0):
    """`count` draws of a stage, a signal, its target, a shell and a share of the stage's time; always the same ones."""
    generator = random.Random(seed)

    def draw():
        while True:
            cases = list(product(STAGES, SIGNALS, TARGETS, SHELLS))
            generator.shuffle(cases)
            yield from ((*case, round(generator.random(), 3)) for case in cases)

    return list(islice(draw(), count))


def pytest_generate_tests(metafunc):
    """As many moments as `--moments` says."""
    if "moment" in metafunc.fixturenames:
        moments = draw_moments(metafunc.config.getoption("--moments"))
        ids = [f"{stage}-{sent.name}-{target}-{shell}-{share}" for stage, sent, target, shell, share in moments]
        metafunc.parametrize("moment", moments, ids=ids)


@pytest.fixture
def project(reproduced, tmp_path):
    """A copy of that clone without its store of MLflow's."""
    return reproduced.copy_to(tmp_path / "copy", without=("mlflow.db*", "mlartifacts"))


@contextmanager
def run_stage(project, stage, shell="bash"):
    """`dvc repro` of one stage in a group of its own, and the process of that stage; neither outlives the block.

    shell: the one in which DVC runs commands.
    """
    log_path = project.root / "log.partial"  # a name that git ignores
    with log_path.open("w", encoding="utf-8") as log:
        dvc = psutil.Popen(
            ["dvc", "repro", "--force", "--single-item", stage],
            cwd=project.root,
            env={**project.environment, "SHELL": str(shutil.which(shell))},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield dvc, find_stage(dvc, stage)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(dvc.pid, signal.SIGKILL)
        dvc.wait(WAIT_SECONDS)


def find_stage(dvc, stage):
    """The process in which DVC runs the stage, once there is one."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        with suppress(psutil.NoSuchProcess):
            # A shell may stand between the two.
            for child in dvc.children(recursive=True):
                if child.cmdline()[-1:] == [f"stages.{stage}"]:
                    return child
        time.sleep(0.01)
    raise AssertionError(f"dvc started no {stage}")


def send(sent, target, dvc, stage):
    """Send the signal to those that are there still."""
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        if target == "group":
            os.killpg(dvc.pid, sent)
        else:
            {"dvc": dvc, "stage": stage}[target].send_signal(sent)


def has_ended(process):
    """Whether the process does nothing any more; one that nobody waits for may be listed still."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for_end(process):
    """Wait until the process does nothing any more."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not has_ended(process):
        assert time.monotonic() < deadline, f"{process} still runs"
        time.sleep(0.02)


def estimate_seconds(project, stage):
    """How long the stage took when nothing disturbed it, from its process's start."""
    times = read_json(project.root / ".cache/stage_times" / f"{stage}.json")
    return times["imports"] + times["work"]


@pytest.mark.faults
def test_interrupted_stage_is_made_up_for_by_the_next_repro(moment, project, reproduced):
    """Whatever was interrupted when: the next `dvc repro` gives the same bytes and one MLflow run."""
    stage, sent, target, shell, share = moment
    seconds = share * estimate_seconds(project, stage)
    if stage == "track":  # DVC keeps its output from run to run, and would take it for done
        (project.root / "reports/state.json").unlink()
    with run_stage(project, stage, shell) as (dvc, process):
        time.sleep(seconds)
        send(sent, target, dvc, process)
        dvc.wait(WAIT_SECONDS)
        # At once, as a person would: what the first attempt left running is not waited for before.
        project.run("dvc", "repro")
        wait_for_end(process)
    reported = (project.root / "log.partial").read_text(encoding="utf-8")

    assert read_outputs(project) == read_outputs(reproduced)
    assert stage != "track" or read_runs(project) == ["FINISHED"]
    assert seconds < START_SECONDS or "Traceback" not in reported, reported
    assert "exited with 130" not in reported or f"{stage}: interrupted; nothing was half-written" in reported, reported


def wait_for_work(project, process):
    """Wait until the process holds its folder's lock, which it takes once all is imported."""
    lock_path = project.root / ".cache/stage.lock"
    deadline = time.monotonic() + WAIT_SECONDS
    while not lock_path.read_text(encoding="utf-8").endswith(f" {process.pid}"):
        assert time.monotonic() < deadline, f"{process} did not come to its work"
        time.sleep(0.01)


@contextmanager
def train_long(project, shell="bash"):
    """DVC, and the stage `train` that is at work for longer than any test lasts, with params of its own."""
    project.set_param("train.hidden_units", [8])
    project.set_param("train.epochs", 1_000_000)
    with run_stage(project, "train", shell) as (dvc, stage):
        wait_for_work(project, stage)
        yield dvc, stage


def kill(dvc):
    """Kill DVC alone, with no time to tell its stage."""
    dvc.send_signal(signal.SIGKILL)
    dvc.wait(WAIT_SECONDS)


@pytest.mark.parametrize("shell", SHELLS)
def test_stage_ends_with_the_dvc_that_started_it(project, shell):
    """A stage whose DVC is killed ends itself, says so, and never puts its output in place, in whatever shell."""
    with train_long(project, shell) as (dvc, stage):
        kill(dvc)
        wait_for_end(stage)
    reported = (project.root / "log.partial").read_text(encoding="utf-8")

    assert not (project.root / "models/model.keras").exists()
    assert reported.endswith("train: the dvc that started this stage is gone; stopped, nothing was half-written\n")


def test_suspended_orphan_is_named_and_then_ends(project, reproduced):
    """While an orphan is suspended the next stage in the folder is refused; once it is not, nothing is left of it."""
    with train_long(project) as (dvc, stage):
        stage.suspend()
        kill(dvc)
        project.set_param("train.epochs", 3)  # a state that DVC cannot restore
        refused = project.start("dvc", "repro")
        project.run("git", "checkout", "--quiet", "--", "params.yaml")
        stage.resume()
        wait_for_end(stage)
        project.run("dvc", "repro")

    assert refused.returncode != 0
    assert (
        f"train: {project.root}: the stage train is running here (process {stage.pid}); "
        f"wait until it ends, or stop it with `kill {stage.pid}`, then run again"
    ) in refused.stderr.splitlines()
    assert read_outputs(project) == read_outputs(reproduced)


def test_second_repro_is_refused_and_the_first_unharmed(project, reproduced):
    """Of two `dvc repro` at once in one folder the second says who is there, and the first gives the same bytes."""
    with run_stage(project, "train") as (dvc, stage):
        wait_for_work(project, stage)
        stage.suspend()  # for as long as the others try
        refused = project.start("dvc", "repro")
        by_hand = project.start("python", "-m", "stages.normalize")
        stage.resume()
        assert dvc.wait(WAIT_SECONDS) == 0

    assert refused.returncode != 0
    assert f"(PID {dvc.pid})" in refused.stderr
    assert by_hand.returncode == 1
    assert f"the stage train is running here (process {stage.pid}); " in by_hand.stderr
    assert read_outputs(project) == read_outputs(reproduced)


def test_stage_that_was_started_by_hand_outlives_its_parent(project, reproduced):
    """Under nohup, or as the first process of a container, no parent is missed: the stage goes on to its end."""
    remove(project.root / "data/normalized")
    # The shell ends at once and leaves the stage to the system.
    project.run("sh", "-c", "nohup python -m stages.normalize >/dev/null 2>&1 & echo $! >pid.partial")
    wait_for_end(psutil.Process(int(project.read("pid.partial"))))

    assert read_outputs(project) == read_outputs(reproduced)

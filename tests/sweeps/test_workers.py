"""Trials on Ray Tune: each once, whatever dies, and nothing reached from outside."""

import importlib
import os
import shutil
import signal
import socket
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from imports import ROOT

from stages.lib.core.errors import DataError, PipelineError
from stages.lib.sweeps.plan import STOPPING_METRIC

if find_spec("ray") is None or find_spec("optuna") is None:
    pytest.skip("the optional packages optuna and ray are not installed", allow_module_level=True)

from stages.lib.sweeps.workers import ASHAScheduler, open_ray, require_cluster, run_trials, tune

pytestmark = pytest.mark.slow

WORKERS = 2
# What workers do; a module, as they import it.
JOBS = """
import os, signal
from stages.lib.core.errors import DataError

def tell(trial, node_dir, report):
    report({"told": (os.getpid(), str(node_dir), tell.__code__.co_filename)})

def die_once(trial, node_dir, report):
    if not (node_dir / f"died-{trial}").exists():
        (node_dir / f"died-{trial}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    report({"told": trial})

def die(trial, node_dir, report):
    os.kill(os.getpid(), signal.SIGKILL)

def fail(trial, node_dir, report):
    with open(node_dir / f"failed-{trial}", "a") as file:
        file.write("x")
    if trial == 1:
        raise ValueError("a bug")
    report({"told": (node_dir / "failed-1").read_text()})

def refuse(trial, node_dir, report):
    raise DataError("node", expected="sound data", got="none", hint="mend it")

def train(trial, node_dir, report):
    for epoch in range(1, 5):
        report({"epoch": epoch, "loss/validation": trial, "told": "stopped"})
    report({"told": "finished"})
"""


class Items(tune.search.Searcher):
    """Suggests these items as trials, one after the other."""

    def __init__(self, items):
        super().__init__(metric="told", mode="max")
        self._items = list(items)

    def suggest(self, trial_id):  # noqa: ARG002  # Ray's signature
        """The next item, or the word for the end."""
        return {"trial": self._items.pop(0)} if self._items else self.FINISHED

    def on_trial_complete(self, trial_id, result=None, error=False):
        """Nothing."""

    def save(self, checkpoint_path):
        """Nothing."""


class Here(NamedTuple):
    """Where Ray was started, and with what."""

    code_dir: Path
    scratch_dir: Path
    processors: int
    handler: object  # of SIGTERM, before

    def run(self, work, items, scheduler=None):
        """What has become of each item, in the order in which they ended."""
        ended = []
        run_trials(work, Items(items), scheduler, WORKERS, self.scratch_dir, ended.append)
        return ended


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """The module of the jobs, by reference to which the workers get them."""
    code_dir = tmp_path_factory.mktemp("code")
    shutil.copytree(ROOT / "stages", code_dir / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    (code_dir / "jobs.py").write_text(JOBS, encoding="utf-8")
    sys.path.insert(0, str(code_dir))
    yield importlib.import_module("jobs")
    sys.path.remove(str(code_dir))
    del sys.modules["jobs"]


@pytest.fixture(scope="module")
def here(jobs, tmp_path_factory):
    """Two processes of this machine."""
    code_dir, scratch_dir = Path(jobs.__file__).parent, tmp_path_factory.mktemp("scratch")
    handler = signal.getsignal(signal.SIGTERM)
    with open_ray(None, WORKERS, code_dir, scratch_dir) as processors:
        yield Here(code_dir, scratch_dir, processors, handler)


def test_each_trial_is_run_once_in_few_processes(here, jobs):
    """There are as many processes as workers, none of them this one, and what they run is a copy of the code."""
    ended = here.run(jobs.tell, range(6))
    processes, folders, sources = (set(values) for values in zip(*(end.report["told"] for end in ended), strict=True))

    assert here.processors == WORKERS
    assert sorted(end.trial for end in ended) == list(range(6))
    assert {(end.problem, end.retries) for end in ended} == {("", 0)}
    assert len(processes) <= WORKERS
    assert os.getpid() not in processes
    assert {str(Path(source).parent) for source in sources} == folders != {str(here.code_dir)}


@pytest.mark.usefixtures("here")
def test_local_workers_listen_on_the_loopback_interface_alone():
    """Without a cluster nothing is reached from outside this machine."""
    import ray  # noqa: PLC0415  # not before the module that sets its environment

    assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]


def test_killed_process_has_its_trial_tried_again(here, jobs):
    """A trial whose process is killed is tried again in another, which is counted."""
    ended = here.run(jobs.die_once, ["a", "b", "c"])

    assert sorted((end.trial, end.report["told"], end.retries) for end in ended) == [
        ("a", "a", 1),
        ("b", "b", 1),
        ("c", "c", 1),
    ]


def test_trial_that_always_kills_its_process_is_given_up(here, jobs):
    """What kills every process that tries it ends as a problem, after three more attempts."""
    (end,) = here.run(jobs.die, ["a"])

    assert "told" not in end.report
    assert end.retries == 3
    assert end.problem == "its process or its node was lost 4 times"


def test_problem_of_the_code_is_told_and_not_tried_again(here, jobs):
    """An exception would come again: it is told for its trial, and the others go on."""
    (first,), (second,) = here.run(jobs.fail, [1]), here.run(jobs.fail, [2])

    assert (first.problem, first.retries) == ("ValueError: a bug", 0)
    assert (second.problem, second.report["told"]) == ("", "x")


def test_problem_that_a_person_can_mend_ends_all(here, jobs):
    """What a person has to fix on a node ends the sweep with its line."""
    with pytest.raises(DataError) as refusal:
        here.run(jobs.refuse, ["a", "b"])

    assert (refusal.value.where, refusal.value.hint) == ("node", "mend it")
    assert (refusal.value.expected, refusal.value.got) == ("sound data", "none")


def test_result_that_cannot_be_kept_ends_all(here, jobs):
    """A full disk here is no problem of a trial."""

    def keep(_ended):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run_trials(jobs.tell, Items(range(2)), None, WORKERS, here.scratch_dir, keep)


def test_poor_trial_is_stopped_and_tells_so(here, jobs):
    """The last report of a stopped trial is one of its epochs, and its process takes the next trial."""
    scheduler = ASHAScheduler(
        *("epoch", STOPPING_METRIC, "min"), max_t=4, grace_period=1, reduction_factor=2, stop_last_trials=False
    )
    ended = []
    run_trials(jobs.train, Items([0.1, 0.9, 0.8, 0.05]), scheduler, 1, here.scratch_dir, ended.append)

    assert [(end.trial, end.report["told"], end.report.get("epoch")) for end in ended] == [
        (0.1, "finished", None),
        (0.9, "stopped", 1),
        (0.8, "stopped", 1),
        (0.05, "finished", None),
    ]
    assert {end.problem for end in ended} == {""}


def test_handler_of_the_caller_stays(here):
    """Ray's own handler of SIGTERM, which would end the process at once, is not left in place."""
    assert signal.getsignal(signal.SIGTERM) is here.handler


def test_address_without_a_listener_is_told_in_one_line():
    """An address at which nothing listens is refused at once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    with pytest.raises(PipelineError) as refusal:
        require_cluster(f"127.0.0.1:{port}")

    assert refusal.value.where == f"--address 127.0.0.1:{port}"
    assert refusal.value.problem.startswith("no Ray cluster answers there: ")
    assert "`ray start --head`" in refusal.value.hint


def test_address_of_another_service_is_told_in_one_line():
    """A server that is no Ray cluster is told from one: Ray itself would try for minutes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer():
            connection, _ = server.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(PipelineError) as refusal:
            require_cluster(f"127.0.0.1:{port}")
        thread.join()

    assert refusal.value.problem == "no Ray cluster answers there: something else does"


@pytest.mark.parametrize("address", ["cluster", "cluster:", ":6379", "ray://cluster:x"])
def test_malformed_address_is_told_in_one_line(address):
    """An address is a host and a port."""
    with pytest.raises(PipelineError) as refusal:
        require_cluster(address)

    assert (refusal.value.where, refusal.value.expected) == ("--address", "HOST:PORT")

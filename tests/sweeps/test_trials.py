"""Trials on Ray: each item once, whatever dies, and nothing left behind."""

import importlib
import os
import shutil
import socket
import sys
import tempfile
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from imports import ROOT

from stages.lib.core.errors import DataError, PipelineError

if find_spec("ray") is None:
    pytest.skip("the optional package ray is not installed", allow_module_level=True)

from stages.lib.sweeps.trials import make_scratch, open_workers, require_cluster

NUMBERS = np.arange(1000, dtype=np.int64)
WORKERS = 2
# What workers do; a module, as they import it.
JOBS = """
import os, signal
import numpy as np
from stages.lib.core.errors import DataError

def add(item, data_dir, scratch_dir):
    numbers = np.load(data_dir / "raw" / "numbers.npy", mmap_mode="r")
    return item + int(numbers.sum()), os.getpid(), os.path.realpath(scratch_dir), add.__code__.co_filename

def die_once(item, data_dir, scratch_dir):
    if not (scratch_dir / f"died-{item}").exists():
        (scratch_dir / f"died-{item}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item

def die(item, data_dir, scratch_dir):
    os.kill(os.getpid(), signal.SIGKILL)

def fail(item, data_dir, scratch_dir):
    with open(scratch_dir / f"failed-{item}", "a") as file:
        file.write("x")
    if item == 1:
        raise ValueError("a bug")
    return (scratch_dir / "failed-1").read_text()

def refuse(item, data_dir, scratch_dir):
    raise DataError("node", expected="sound data", got="none", hint="mend it")
"""


@pytest.fixture(scope="module")
def source_dir(tmp_path_factory):
    """A folder with the project's code and the jobs."""
    folder = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "stages", folder / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "jobs.py").write_text(JOBS, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def jobs(source_dir):
    """The module of the jobs, by reference to which the workers get them."""
    sys.path.insert(0, str(source_dir))
    yield importlib.import_module("jobs")
    sys.path.remove(str(source_dir))
    del sys.modules["jobs"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A file that the workers read."""
    path = tmp_path_factory.mktemp("data") / "numbers.npy"
    np.save(path, NUMBERS)
    return {"raw/numbers.npy": path}


@pytest.fixture(scope="module")
def workers(source_dir, data, tmp_path_factory):
    """Two workers of this machine."""
    note_path = tmp_path_factory.mktemp("note") / "note"
    with make_scratch(note_path) as scratch_dir, open_workers(None, WORKERS, source_dir, data, scratch_dir) as opened:
        yield opened


def test_each_item_is_answered_once(workers, jobs):
    """Every item comes back once, with what the function made of it and of the data."""
    answers = list(workers.run(jobs.add, list(range(6))))

    assert sorted(answer.item for answer in answers) == list(range(6))
    assert all(answer.result[0] == answer.item + NUMBERS.sum() for answer in answers)
    assert all((answer.problem, answer.retries) == ("", 0) for answer in answers)


def test_process_serves_many_items(workers, jobs, source_dir):
    """There are as many processes as workers, and what they run is a copy of the given source."""
    answers = list(workers.run(jobs.add, list(range(8))))

    assert workers.count == WORKERS
    assert len({answer.result[1] for answer in answers}) <= WORKERS
    assert os.getpid() not in {answer.result[1] for answer in answers}
    assert all(Path(answer.result[3]).parent != source_dir for answer in answers)


@pytest.mark.usefixtures("workers")
def test_local_workers_listen_on_the_loopback_interface_alone():
    """Without a cluster nothing is reached from outside this machine."""
    import ray  # noqa: PLC0415  # not before the module that sets its environment

    assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]


def test_killed_process_has_its_item_tried_again(workers, jobs):
    """An item whose process is killed is tried again in another, which is counted."""
    answers = list(workers.run(jobs.die_once, ["a", "b", "c"]))

    assert sorted((answer.item, answer.result, answer.retries) for answer in answers) == [
        ("a", "a", 1),
        ("b", "b", 1),
        ("c", "c", 1),
    ]


def test_item_that_always_kills_its_process_is_given_up(workers, jobs):
    """What kills every process that tries it ends as an error, after three more attempts."""
    (answer,) = workers.run(jobs.die, ["a"])

    assert answer.result is None
    assert answer.retries == 3
    assert answer.problem.startswith("lost 4 times: WorkerCrashedError")


def test_problem_of_the_function_is_told_and_not_tried_again(workers, jobs):
    """An exception would come again: it is told for its item, and the others go on."""
    by_item = {}
    for item in (1, 2):
        (by_item[item],) = workers.run(jobs.fail, [item])

    assert by_item[1].problem == "ValueError: a bug"
    assert by_item[1].retries == 0
    assert by_item[2].result == "x"


def test_problem_that_a_person_can_mend_ends_all(workers, jobs):
    """What a person has to fix on a node ends the sweep with its line."""
    with pytest.raises(DataError) as refusal:
        list(workers.run(jobs.refuse, ["a"]))

    assert (refusal.value.where, refusal.value.hint) == ("node", "mend it")
    assert (refusal.value.expected, refusal.value.got) == ("sound data", "none")


def test_scratch_is_removed_with_its_note(tmp_path):
    """The folder for what is temporary is this user's alone, and gone afterwards."""
    with make_scratch(tmp_path / "note") as folder:
        mode = folder.stat().st_mode & 0o777
        noted = (tmp_path / "note").read_text(encoding="utf-8")

    assert (mode, noted) == (0o700, folder.name)
    assert not folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_scratch_of_a_killed_sweep_is_removed_by_the_next(tmp_path):
    """What a killed process left is found by its note."""
    with make_scratch(tmp_path / "note") as left:
        note = (tmp_path / "note").read_text(encoding="utf-8")
    left.mkdir()
    (left / "large").write_bytes(b"0")
    (tmp_path / "note").write_text(note, encoding="utf-8")

    with make_scratch(tmp_path / "note"):
        assert not left.exists()


@pytest.mark.parametrize("note", ["", ".", "..", "sweep-../x", "/", "sweep-"])
def test_note_that_names_another_folder_removes_nothing(tmp_path, monkeypatch, note):
    """A note that was damaged leads to no folder but one that a sweep made."""
    (tmp_path / "temporary" / "x").mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "note").write_text(note, encoding="utf-8")

    with make_scratch(tmp_path / "note"):
        assert (tmp_path / "temporary" / "x").exists()


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
    """A server that is no Ray cluster is told from one: Ray itself would try for a minute."""
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


def test_data_without_room_is_refused_before_ray_starts(source_dir, tmp_path):
    """The line has the bytes that are needed on this node, and how to have another disk take them."""
    with (tmp_path / "images.npy").open("wb") as file:
        file.truncate(2 * shutil.disk_usage(tempfile.gettempdir()).free)  # nothing but a size

    with (
        make_scratch(tmp_path / "note") as scratch_dir,
        pytest.raises(DataError) as refusal,
        open_workers(None, WORKERS, source_dir, {"images.npy": tmp_path / "images.npy"}, scratch_dir),
    ):
        pass

    assert refusal.value.expected.endswith(" bytes free on its disk")
    assert "set TMPDIR to a folder on another disk" in refusal.value.hint

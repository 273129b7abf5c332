"""Stores that misbehave: told in one line, nothing lost, and a retry doubles nothing."""

import os
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest
import requests
import sqlalchemy
from alembic import command
from alembic.config import Config
from imports import ROOT
from mlflow import MlflowClient
from mlflow.store.tracking.dbmodels.initial_models import Base
from servers import find_port, serve
from stores import get_champion, list_runs, track

from stages.lib.core.errors import TrackingError
from stages.lib.tracking import sqlite_store
from stages.lib.tracking.runs import STATE_TAG
from stages.lib.tracking.store import FIRST_REQUEST

# One revision before the tables of MLflow 3.17: all tables are there, one lacks a column.
OLDER = "75868b020152"


def explain(root):
    """The one line that tracking ends with, where it must fail."""
    with pytest.raises(TrackingError) as refusal:
        track(root)
    (line,) = str(refusal.value).splitlines()
    assert line.endswith("then `python -m stages.track`; nothing is logged twice")
    return line


def require_one(store):
    """The state has one finished run and no other, one version, and that is the champion."""
    (run,) = list_runs(store)
    (version,) = store.client.search_model_versions("name = 'digits'")
    assert run.info.status == "FINISHED"
    assert version.run_id == run.info.run_id
    assert get_champion(store) == str(version.version)
    return run


def execute(path, statement):
    with closing(sqlite3.connect(path)) as base, base:
        base.execute(statement)


def become_folder(path):
    path.unlink()
    path.mkdir()


def become_nonsense(path):
    path.write_bytes(os.urandom(5000))


def become_another_programs(path):
    path.unlink()
    execute(path, "CREATE TABLE notes (text)")


def become_newer(path):
    execute(path, "UPDATE alembic_version SET version_num = 'ffffffffffff'")


def remove(path):
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "got"),
    [
        (become_folder, "it is a folder, not a file; move it away, then"),
        (become_nonsense, "SQLite cannot use it: file is not a database; move it away, then"),
        (become_another_programs, "got those of another program; move it away, then"),
        (become_newer, "got those of a newer one (ffffffffffff); install the MLflow that wrote it, then"),
    ],
)
def test_file_that_is_no_store_is_told_at_once(root, empty_store, capfd, spoil, got):
    """What MLflow cannot use is told in one line, before MLflow tries for minutes; without it, tracking goes on."""
    path = root / "mlflow.db"
    spoil(path)
    line = explain(root)
    remove(path)
    shutil.copy(empty_store, path)
    store, *_ = track(root)

    assert got in line
    assert capfd.readouterr().err == ""
    require_one(store)


@pytest.fixture(scope="module")
def older_store(tmp_path_factory):
    """A store whose tables an older MLflow made, by MLflow's own migrations."""
    path = tmp_path_factory.mktemp("older") / "mlflow.db"
    config = Config()
    config.set_main_option("script_location", str(Path(mlflow.__file__).parent / "store/db_migrations"))
    config.set_main_option("sqlalchemy.url", f"sqlite:///{path}")
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, OLDER)
    return path


def test_older_store_is_left_alone_and_upgraded_by_the_line(root, older_store):
    """An older MLflow's store is not changed by opening it; the line's own command, as typed, makes it usable."""
    path = root / "mlflow.db"
    shutil.copy(older_store, path)
    line = explain(root)
    untouched = path.read_bytes() == older_store.read_bytes()
    typed = line.split("`")[1]
    subprocess.run(["bash", "-c", typed], check=True, capture_output=True, env=with_environment_first())
    store, *_ = track(root)

    assert untouched
    assert typed == f"cp {path} {path}.copy && mlflow db upgrade sqlite:///{path}"
    assert f"got those of an older one ({OLDER})" in line
    assert (root / "mlflow.db.copy").read_bytes() == older_store.read_bytes()
    require_one(store)


def with_environment_first():
    """Variables with which programs are this environment's."""
    return {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}


HOLD_TABLES = "import sqlite3; base = sqlite3.connect(NAME); base.execute('BEGIN IMMEDIATE')"
HOLD_LOCK = "import filelock; lock = filelock.FileLock(NAME); lock.acquire()"


@contextmanager
def run_holder(code, path):
    """Another process that holds the file until it is ended."""
    code = f"{code.replace('NAME', repr(str(path)))}; print('held', flush=True); import time; time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        try:
            yield holder
        finally:
            holder.kill()


@pytest.mark.parametrize(("code", "name"), [(HOLD_TABLES, "mlflow.db"), (HOLD_LOCK, "mlflow.db.lock")])
def test_held_store_is_waited_for_then_told_with_its_holder(root, monkeypatch, capfd, code, name):
    """Who waits learns for whom after seconds, and after minutes the stage ends with a line that says so, too."""
    monkeypatch.setattr(sqlite_store, "NOTICE_AFTER", 0.2)
    monkeypatch.setattr(sqlite_store, "PATIENCE", 1.0)
    with run_holder(code, root / name) as holder:
        line = explain(root)
    notice = capfd.readouterr().err
    store, *_ = track(root)

    assert f"{name} has been held for 1 s by process {holder.pid} (" in line
    assert notice.startswith(
        f"waiting up to 1 s for the MLflow store sqlite:///{root}/mlflow.db: process {holder.pid} ("
    )
    assert notice.rstrip().endswith(f"holds {name}")
    require_one(store)


@pytest.mark.parametrize(("code", "name"), [(HOLD_TABLES, "mlflow.db"), (HOLD_LOCK, "mlflow.db.lock")])
def test_held_store_that_becomes_free_is_used(root, monkeypatch, code, name):
    """Whoever holds the store for a while delays tracking, and nothing else."""
    monkeypatch.setattr(sqlite_store, "NOTICE_AFTER", 0.2)
    with run_holder(code, root / name) as holder:
        threading.Timer(1, holder.kill).start()
        store, *_ = track(root)

    require_one(store)


def run_without_privileges(root, environment):
    """The outcome of tracking in a process that file permissions bind, as they do not bind root."""
    privileges = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"] if os.geteuid() == 0 else []
    return subprocess.run(
        [*privileges, *WRITER, "s1"], cwd=root, env=environment, capture_output=True, text=True, check=False
    )


SCRIPT = """\
import pathlib, sys
from stages.lib.core.errors import PipelineError
from stores import track
try:
    track(pathlib.Path.cwd(), sys.argv[1])
except PipelineError as error:
    sys.exit(f"track: {error}")
except OSError as error:
    sys.exit(f"track: {error.filename}: {error.strerror}")
"""
WRITER = (sys.executable, "-c", SCRIPT)


@pytest.fixture
def environment(root):
    """The variables of a process that tracks in the root."""
    return {
        **with_environment_first(),
        "DVC_ROOT": str(root),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }


@pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may write anywhere, and there is no setpriv"
)
@pytest.mark.parametrize("name", ["mlflow.db", "."], ids=["file", "folder"])
def test_read_only_store_is_told(root, environment, name):
    """A file or a folder that cannot be written to is told in one line, and tracking goes on once it can."""
    (root / "mlflow.db.lock").touch()
    (root / "reports").mkdir()
    path = root / name
    mode = path.stat().st_mode
    path.chmod(mode & ~0o222)
    try:
        refused = run_without_privileges(root, environment)
    finally:
        path.chmod(mode)
    store, *_ = track(root)

    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert "SQLite cannot use it: " in line
    assert "let it and its folder be written to (`chmod u+w`, `df`), then " in line
    require_one(store)


def test_full_disk_is_told_and_nothing_half_counts(root, capfd):
    """When the store's file cannot be written on, tracking fails in one line; with room again there is one run.

    A limit on the size of files stands for the disk's: no test should fill that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((root / "mlflow.db").stat().st_size // 2, hard))
    try:
        explain(root)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    store, *_ = track(root)

    assert capfd.readouterr().err == ""
    require_one(store)


def test_closed_port_is_told_without_the_password(root, monkeypatch):
    """A server that is not there is told in one line; a password in its address is not."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:sEcret77@127.0.0.1:{find_port()}")
    line = explain(root)

    assert "the MLflow store http://ann:***@127.0.0.1:" in line
    assert "Connection refused" in line
    assert "sEcret77" not in line


def test_port_that_never_answers_is_told(root, monkeypatch):
    """A server that accepts a connection and says nothing is given up after two attempts, each of ten seconds."""
    assert FIRST_REQUEST["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "10"
    monkeypatch.setitem(FIRST_REQUEST, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        line = explain(root)

    assert "Read timed out" in line


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server to be killed."""
    with serve(tmp_path_factory.mktemp("home")) as running:
        yield running


def wait_for(is_there, process):
    """Wait until a process has come so far; fails if it ends before."""
    while not is_there():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)


def count(path, table):
    """Rows of a table of the store; none while it is locked or not yet there."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0)) as base:
            return base.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


MOMENTS = {
    "run begun": lambda root: count(root / "mlflow.db", "runs"),
    "model begun": lambda root: count(root / "mlflow.db", "logged_models"),
    "run finished": lambda root: count(root / "mlflow.db", "runs WHERE status = 'FINISHED'"),
    "version registered": lambda root: count(root / "mlflow.db", "model_versions"),
    "champion set": lambda root: count(root / "mlflow.db", "registered_model_aliases"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_tracking_is_completed_by_the_next(root, environment, moment):
    """Whenever tracking is killed, the next attempt leaves one finished run, one version and one champion."""
    with subprocess.Popen([*WRITER, "s1"], cwd=root, env=environment, stderr=subprocess.DEVNULL) as writer:
        wait_for(lambda: MOMENTS[moment](root), writer)
        writer.kill()
    store, *_ = track(root)
    (model,) = store.client.search_logged_models([list_runs(store)[0].info.experiment_id])

    assert writer.returncode == -signal.SIGKILL
    assert model.source_run_id == require_one(store).info.run_id


def test_tracking_killed_while_it_makes_the_store_begins_anew(root, environment):
    """The tables are there whole or not at all: a store that was being made is made again."""
    (root / "mlflow.db").unlink()
    partial = root / ".mlflow.db.partial"
    with subprocess.Popen([*WRITER, "s1"], cwd=root, env=environment, stderr=subprocess.DEVNULL) as writer:
        wait_for(lambda: partial.exists() and partial.stat().st_size > 0, writer)
        writer.kill()
    left = not (root / "mlflow.db").exists()
    store, *_ = track(root)

    assert left
    require_one(store)
    assert not partial.exists()


class Proxy(BaseHTTPRequestHandler):
    """Passes everything on to the server but artifacts: they are too large for it, as 1 MB is for nginx's defaults."""

    def do_GET(self):
        """Pass it on."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = requests.request(
            self.command,
            self.server.target + self.path,
            data=body,
            headers={"Content-Type": "application/json"},
            timeout=60,
        )
        self.send_response(answer.status_code)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_POST = do_GET  # noqa: N815  # http.server's names

    def do_PUT(self):
        """Refuse it."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_error(413)

    def log_message(self, *_):
        """Say nothing."""


def test_artifact_that_a_proxy_refuses_is_told(root, monkeypatch, server):
    """What a proxy in front of the server says of an artifact ends in one line, too, without the password."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        proxy.target = server.address
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:sEcret77@127.0.0.1:{proxy.server_port}")
        line = explain(root)
        proxy.shutdown()

    assert "it failed: 413 Client Error" in line
    assert "sEcret77" not in line


def test_server_that_dies_midway_is_told_and_the_run_is_logged_again(root, environment, server):
    """When the server is gone amid logging, tracking ends in one line; back again, it has one whole run."""
    # By default MLflow asks four times, ever more slowly.
    address = {**environment, "MLFLOW_TRACKING_URI": server.address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    with subprocess.Popen([*WRITER, "s1"], cwd=root, env=address, stderr=subprocess.PIPE, text=True) as writer:
        wait_for(lambda: any((server.home / "mlflow-server/artifacts").glob("*/*/artifacts/report.json")), writer)
        server.stop(signal.SIGKILL)
        _, said = writer.communicate(timeout=280)
    server.start()
    again = subprocess.run([*WRITER, "s1"], cwd=root, env=address, capture_output=True, text=True, check=False)
    client = MlflowClient(server.address)
    (experiment,) = client.search_experiments(filter_string="name = 'digits'")
    runs = client.search_runs([experiment.experiment_id], f"tags.`{STATE_TAG}` = 's1'")

    assert writer.returncode == 1
    assert [line.split(":")[0] for line in said.splitlines()] == ["track"], said
    assert again.returncode == 0, again.stderr
    assert [run.info.status for run in runs] == ["FINISHED"]
    assert len(client.search_model_versions("name = 'digits'")) == 1

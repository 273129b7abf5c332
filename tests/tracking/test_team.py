"""Two clones, one MLflow server, one DVC remote: what docs/how-to/team-server.md says, as it is typed."""

import os
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar, NamedTuple

import pytest
from imports import ROOT
from mlflow import MlflowClient
from pages import PAGES
from project import Project
from servers import TEAM_PAGE, Server, read_commands, serve
from stores import track

from stages.lib.core.dvc_lock import parse_lock
from stages.lib.core.errors import TrackingError
from stages.lib.core.files import read_csv

pytestmark = pytest.mark.slow


class Team(NamedTuple):
    """What the page's commands leave."""

    server: Server
    first: Project
    second: Project
    printed: str  # by the second person's commands

    def type_in(self, project: Project, commands: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """The outcome of shell lines in a clone whose runs go to the server."""
        environment = {**self.server.environment, "MLFLOW_TRACKING_URI": self.server.address, **variables}
        return subprocess.run(
            ("bash", "-euc", commands), cwd=project.root, env=environment, capture_output=True, text=True, check=False
        )

    def run(self, project: Project, commands: str) -> str:
        """The same, for lines that must succeed: what they printed."""
        done = self.type_in(project, commands)
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @property
    def client(self) -> MlflowClient:
        """The server's runs and models."""
        return MlflowClient(self.server.address)

    def list_runs(self):
        """The runs on the server, the newest first."""
        return list(self.client.search_runs([self.client.get_experiment_by_name("digits").experiment_id]))


@pytest.fixture(scope="module")
def team(tmp_path_factory) -> Iterator[Team]:
    """Two people who have typed what the page says; a test that changes more than the server has a copy of a clone."""
    home = tmp_path_factory.mktemp("home")
    first = Project.clone(tmp_path_factory.mktemp("first"))
    first.run("git", "init", "--quiet", "--bare", "--initial-branch=main", str(home / "digits.git"))
    first.run("git", "remote", "add", "origin", str(home / "digits.git"))
    first.run("git", "push", "--quiet", "--set-upstream", "origin", "main")
    with serve(home) as server:
        team = Team(server, first, Project(home / "digits"), "")
        team.run(first, read_commands("The first person").replace("5000", server.port))
        printed = team.run(Project(home), read_commands("Everyone else").replace("5000", server.port))
        for setting in ("user.name=Another Tester", "user.email=another@example.invalid"):
            team.second.run("git", "config", *setting.split("="))
        yield team._replace(printed=printed)


def read_outputs(project):
    """Every file of the outputs by its path; but for the note of what was measured, which nothing hashes."""
    paths = [path for folder in ("data", "models", "reports") for path in (project.root / folder).rglob("*")]
    files = [path for path in paths if path.is_file() and path.name != "parity_measured.json"]
    return {path.relative_to(project.root).as_posix(): path.read_bytes() for path in files}


def test_second_clone_has_every_byte_and_runs_track_alone(team):
    """`dvc pull` brings all outputs; of the stages, only the one that finds the run is run."""
    assert re.findall(r"Running stage '(\w+)'", team.printed) == ["track"]
    assert read_outputs(team.second) == read_outputs(team.first)
    assert team.printed.rstrip().endswith("Data and pipelines are up to date.")
    assert team.run(team.second, "git status --porcelain") == ""


def test_second_clone_finds_the_run_and_logs_nothing(team):
    """One state has one run, one version and one champion, whoever tracks it; nobody has a store of their own."""
    runs = [run for run in team.list_runs() if run.data.tags["pipeline.state"] == read_digest(team.first)]
    (run,) = runs
    versions = team.client.search_model_versions(f"name = 'digits' and run_id = '{run.info.run_id}'")

    assert re.search(
        r"track: run '.+' was already there; digits version 1 is the champion: first champion", team.printed
    )
    assert [str(version.version) for version in versions] == ["1"]
    assert not [path for root in (team.first.root, team.second.root) for path in root.glob("ml*")]


def read_digest(project):
    return parse_lock(project.read("dvc.lock")).state.digest


def test_champion_answers_in_the_second_clone(team):
    """The page's lines load the champion from the server's artifacts, and it gives the measured classes."""
    (lines,) = re.findall(r"```python\n(.*?)```", PAGES[TEAM_PAGE], re.DOTALL)
    printed = team.run(team.second, f"python - <<'END'\n{lines}END\n")
    measured = [row["predicted"] for row in read_csv(team.second.root / "reports/evaluation/predictions.csv")[:3]]

    assert re.findall(r"\d+", printed) == measured


def ask(*arguments):
    """The command that `pipeline` is, of the clone's own code."""
    return f'python -c "from stages.commands.main import main; main()" {" ".join(arguments)}'


def test_whatis_and_report_ask_the_server(team):
    """In the second clone, which never computed anything, a file leads to the server's run and the report is valid."""
    run = next(run for run in team.list_runs() if run.data.tags["pipeline.state"] == read_digest(team.first))

    assert f"run {run.info.run_id}, experiment digits" in team.run(team.second, ask("whatis", "models/model.keras"))
    assert team.run(team.second, ask("report")).startswith("**Accepted**")


def test_another_state_is_compared_on_the_server_and_rolled_back(team, tmp_path):
    """The second person's change has a run of its own, judged by the first's predictions, and can be rolled back."""
    changed = team.second.copy_to(tmp_path / "changed")
    changed.set_param("export.representative_samples", 123)
    printed = team.run(changed, "dvc repro")
    second = get_champion_of(team)
    rolled_back = team.run(changed, ask("rollback"))
    states = [run.data.tags["pipeline.state"] for run in team.list_runs()]

    assert "right on the same images as champion version 1 (of 359 test images" in printed
    assert sorted(states) == sorted([read_digest(team.first), read_digest(changed)])
    assert second == "2"
    assert rolled_back.startswith("rollback: digits version 1 is the champion again")
    assert get_champion_of(team) == "1"


def get_champion_of(team):
    return str(team.client.get_model_version_by_alias("digits", "champion").version)


def test_credentials_reach_no_file_and_no_message(team, tmp_path):
    """A password in the address or beside it is neither printed nor written, here or on the server."""
    given, beside = secrets.token_hex(8), secrets.token_hex(8)
    address = team.server.address.replace("//", f"//ann:{given}@")
    clone = team.second.copy_to(tmp_path / "clone")
    clone.set_param("track.experiment", "credentials")
    done = team.type_in(
        clone,
        f"python -m stages.track && {ask('whatis', 'HEAD')}",
        MLFLOW_TRACKING_URI=address,
        MLFLOW_TRACKING_USERNAME="bob",
        MLFLOW_TRACKING_PASSWORD=beside,
    )
    files = [path for folder in (team.server.home, clone.root) for path in folder.rglob("*") if path.is_file()]
    leaks = [path for path in files if re.search(f"{given}|{beside}".encode(), path.read_bytes())]

    assert done.returncode == 0, done.stderr
    assert "logged;" in done.stdout
    assert not re.search(f"{given}|{beside}", done.stdout + done.stderr)
    assert len(files) > 100
    assert leaks == []


class Recorder(BaseHTTPRequestHandler):
    """Refuses every request and remembers who asked."""

    asked: ClassVar[list[str]] = []

    def do_POST(self):  # http.server's name
        """Refuse."""
        self.asked.append(self.headers["Authorization"])
        self.send_error(403)

    def log_message(self, *_):
        """Say nothing."""


@pytest.mark.parametrize(
    ("variables", "header"),
    [
        ({"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "sEcret"}, "Basic YW5uOnNFY3JldA=="),
        ({"MLFLOW_TRACKING_TOKEN": "sEcret"}, "Bearer sEcret"),
    ],
    ids=["password", "token"],
)
def test_credentials_reach_the_server_untouched(root, monkeypatch, variables, header):
    """MLflow's own variables for who asks work; who is refused is told so, without them."""
    with HTTPServer(("127.0.0.1", 0), Recorder) as recorder:
        threading.Thread(target=recorder.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{recorder.server_port}")
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(TrackingError) as refusal:
            track(root)
        recorder.shutdown()

    assert Recorder.asked[-1] == header
    assert "403" in refusal.value.problem
    assert "sEcret" not in str(refusal.value)


# Seconds for two processes to end, on a machine that does other things, too.
PATIENCE = 300
# Both look before either logs, and log before either registers.
RACER = """\
import sys, time
from pathlib import Path
from stages.lib.tracking.registry import promote, register
from stages.lib.tracking.runs import ensure_experiment, find_run, log_run
from stages.lib.tracking.store import open_store
from stores import CRITERIA, GOOD, make_model, make_record, write_csv, PREDICTIONS_PATH

def meet(place):
    Path("..", f"{place}.{sys.argv[1]}").touch()
    while len(list(Path("..").glob(f"{place}.*"))) < 2:
        time.sleep(0.01)

with open_store() as store:
    experiment_id = ensure_experiment(store, "race")
    Path("report.json").write_text("{}")
    write_csv(PREDICTIONS_PATH, ["actual", "predicted"], GOOD.predictions)
    assert find_run(store, experiment_id, "race", "s1") is None
    meet("looked")
    run = log_run(store, experiment_id, make_record(), make_model(Path.cwd(), GOOD))
    meet("logged")
    run, version = register(store, experiment_id, "race", run, GOOD)
    promote(store, run, version, GOOD, CRITERIA)
    print(run.info.run_id, version.version)
"""


def test_two_clones_that_track_a_state_at_once_leave_one_run(team, tmp_path):
    """Of two clones that both found no run and both logged one, the first to register wins, and both say so."""
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": team.server.address,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    racers = []
    for name in ("ann", "bob"):
        (tmp_path / name).mkdir()
        variables = {**environment, "DVC_ROOT": str(tmp_path / name)}
        command = [sys.executable, "-c", RACER, name]
        racers.append(
            subprocess.Popen(
                command, cwd=tmp_path / name, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    deadline = time.monotonic() + PATIENCE
    while {racer.poll() for racer in racers} in ({None}, {None, 0}) and time.monotonic() < deadline:
        time.sleep(0.1)
    for racer in racers:  # one that failed leaves the other waiting for it
        racer.kill()
    said = [racer.communicate() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], said
    experiment = team.client.get_experiment_by_name("race")
    (run,) = team.client.search_runs([experiment.experiment_id])
    (version,) = team.client.search_model_versions("name = 'race'")
    (logged_model,) = team.client.search_logged_models([experiment.experiment_id])

    assert {out for out, _ in said} == {f"{run.info.run_id} {version.version}\n"}, said
    assert run.info.status == "FINISHED"
    assert logged_model.source_run_id == run.info.run_id
    assert team.client.get_registered_model("race").aliases == {"champion": version.version}

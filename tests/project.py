"""A copy of this project in a folder of its own, and the commands a person types in it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import reduce
from pathlib import Path

from imports import ROOT
from mlflow import MlflowClient
from ruamel.yaml import YAML


class Project:
    """A git repository with this project's files and the environment of these tests."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def clone(cls, root: Path) -> "Project":
        """What git would clone, with the changes that are not committed yet, as one commit."""
        project = cls(root)
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in listed.stdout.splitlines():
            if (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        project.run("git", "init", "--quiet", "--initial-branch=main")
        project.run("git", "config", "user.name", "A Tester")
        project.run("git", "config", "user.email", "tester@example.invalid")
        project.run("git", "add", "--all")
        project.run("git", "commit", "--quiet", "--message", "A clone")
        return project

    def copy_to(self, root: Path, without: tuple[str, ...] = ()) -> "Project":
        """The project's folder with all that is in it, copied to another place."""
        shutil.copytree(self.root, root, symlinks=True, ignore=shutil.ignore_patterns(*without))
        return Project(root)

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which `python` is this environment's and MLflow's store the project's own.

        Nothing of a `make test` around these tests passes on to a `make` within them.
        """
        left_out = ("MLFLOW_", "DVC_", "MAKE", "MFLAGS")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
        return environment

    def start(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the project's environment."""
        return subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False, timeout=300
        )

    def run(self, *command: str) -> str:
        """The same, for a command that must succeed: what it printed."""
        done = self.start(*command)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def serve(self) -> Iterator[str]:
        """The address at which `make ui` answers, as long as the block lasts."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log_path = self.root / "server.log.partial"  # a name that git ignores
        # The environment is there already: make is told not to look at it.
        command = ("make", "--silent", "--old-file=.venv/.ready", f"PORT={port}", "ui")
        with log_path.open("w", encoding="utf-8") as log:
            server = subprocess.Popen(
                command, cwd=self.root, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            deadline = time.monotonic() + 120
            while not _answers(port):
                said = log_path.read_text(encoding="utf-8")
                assert server.poll() is None, f"`make ui` ended\n{said}"
                assert time.monotonic() < deadline, f"`make ui` does not answer\n{said}"
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)

    def repro(self, *arguments: str) -> list[str]:
        """The stages that `dvc repro` ran, in order."""
        return re.findall(r"Running stage '(\w+)'", self.run("dvc", "repro", *arguments))

    def set_param(self, name: str, value: object) -> None:
        """Set the parameter of a dotted name in params.yaml."""
        yaml = YAML()
        params = yaml.load(self.root / "params.yaml")
        *sections, key = name.split(".")
        reduce(lambda section, part: section[part], sections, params)[key] = value
        yaml.dump(params, self.root / "params.yaml")

    def read(self, name: str) -> str:
        """A file's text."""
        return (self.root / name).read_text(encoding="utf-8")

    @property
    def client(self) -> MlflowClient:
        """The project's own MLflow store."""
        return MlflowClient(f"sqlite:///{self.root / 'mlflow.db'}")

    def list_runs(self, experiment: str = "digits"):
        """The runs of an experiment, the newest first."""
        found = self.client.get_experiment_by_name(experiment)
        return list(self.client.search_runs([found.experiment_id])) if found else []


def _answers(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0

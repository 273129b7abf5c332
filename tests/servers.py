"""MLflow servers on the loopback interface, as a team would share one."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pages import read_section

TEAM_PAGE = "docs/how-to/team-server.md"
_PORT = "5000"  # on the page


def read_commands(title: str) -> str:
    """The shell lines below a heading of the team's page."""
    return "".join(re.findall(r"```sh\n(.*?)```", read_section(TEAM_PAGE, title), re.DOTALL))


def find_port() -> str:
    """A port that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


class Server:
    """The page's server, in a home folder of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = find_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """What MLFLOW_TRACKING_URI is to be."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which the page's `~` is the home folder and its programs are this environment's."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_"))}
        path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
        return {**kept, "HOME": str(self.home), "PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"}

    def start(self) -> None:
        """Start it, and wait until it answers."""
        commands = read_commands("The server").replace(_PORT, self.port)
        log_path = self.home / "server.log"
        with log_path.open("ab") as log:
            self.process = subprocess.Popen(
                ("bash", "-ec", commands), env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while not self._answers():
            said = log_path.read_text(encoding="utf-8")
            assert self.process.poll() is None, f"the server ended\n{said}"
            assert time.monotonic() < deadline, f"the server does not answer\n{said}"
            time.sleep(0.2)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it with all its processes."""
        if self.process:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, how)
            self.process.wait(30)
            self.process = None

    def _answers(self) -> bool:
        with socket.socket() as caller:
            return caller.connect_ex(("127.0.0.1", int(self.port))) == 0


@contextmanager
def serve(home: Path) -> Iterator[Server]:
    """The page's server, as long as the block lasts."""
    server = Server(home)
    server.start()
    try:
        yield server
    finally:
        server.stop()

"""Serve the exported page on this machine, with the answers of every runtime beside its own."""

import json
import sys
from base64 import b64encode
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import click
import numpy as np

from stages.lib.core.errors import ExportError, PipelineError
from stages.lib.data.image_decoding import read_image
from stages.lib.data.image_limits import MAX_BYTES
from stages.lib.exports.checksums import read_whole
from stages.lib.exports.model_metadata import find_image_shape, read_metadata
from stages.lib.exports.parity_matrix import find_unsupported_reason
from stages.lib.exports.runtimes import RUNTIMES, Predictor, find_runtimes, load_content
from stages.lib.web.page import PAGE_PATH

_HOST = "127.0.0.1"
_NAMES = (_HOST, "localhost")  # by which a browser on this machine may call the server
_HTML, _JSON = "text/html; charset=utf-8", "application/json"
_IDLE_SECONDS = 60
# A browser looks at an answer only once it has sent everything: more than is taken is read and forgotten, to a bound.
_MAX_FORGOTTEN_BYTES = 1 << 30
_CHUNK_BYTES = 1 << 16


@click.command()
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="Where to listen.  [default: a free port]")
@click.option(
    "--exports",
    "export_dir",
    type=click.Path(path_type=Path),
    default=Path("models/export"),
    show_default=True,
    help="The folder that the export stage wrote.",
)
def demo(port: int, export_dir: Path) -> None:
    """Serve the page for browsers, with every runtime's answers beside its own, until Ctrl-C.

    A picture that is given to the page is decoded and resized as `pipeline predict` does it, and each exported model
    answers in each of its runtimes. Only this machine can reach the server.
    """
    page = read_page(export_dir)
    panel = load_panel(export_dir)
    with open_server(port, page, panel) as server:
        try:
            click.echo(f"demo: http://{_HOST}:{server.server_port}/ until Ctrl-C")
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("demo: ended")


def read_page(export_dir: Path) -> bytes:
    """The page for browsers, as it was exported.

    Raises:
        ExportError: it is damaged, or was not written since the int8 model is withheld.
    """
    path = export_dir / PAGE_PATH
    if export_dir.is_dir() and not path.exists():
        hint = "export it: add tflite_int8 to export.artifacts, and read in reports/parity/parity.md if it is withheld"
        raise ExportError(str(path), "there is no page, for there is no model_int8.tflite", hint)
    return read_whole(path, export_dir)


class Member(NamedTuple):
    """An exported model in one of its runtimes."""

    file: str
    runtime: str  # its title
    predictor: Predictor | None  # none if the runtime cannot run it
    reason: str  # why


class Panel(NamedTuple):
    """All exported models in all of their runtimes, and what they take."""

    members: list[Member]
    image_shape: tuple[int, ...]  # (H, W) or (H, W, 3)
    background: str | None

    def answer(self, content: bytes) -> dict[str, Any]:
        """What each member answers for an image file of any kind and size, and what it was shown.

        Raises:
            DataError: the file is no image that can be decoded.
        """
        pixels, was_inverted = read_image(BytesIO(content), "the picture", self.image_shape, self.background)
        return {
            "pixels": b64encode(pixels.tobytes()).decode(),
            "rows": [
                {
                    "file": member.file,
                    "probabilities": member.predictor(pixels[np.newaxis])[0].tolist() if member.predictor else None,
                    "reason": member.reason,
                    "runtime": member.runtime,
                }
                for member in self.members
            ],
            "was_inverted": was_inverted,
        }


def load_panel(export_dir: Path) -> Panel:
    """Load each model of a folder in each runtime for its kind.

    Raises:
        ExportError: there is none, or one is damaged.
    """
    paths = sorted(path for path in export_dir.iterdir() if path.suffix in {".onnx", ".tflite"})
    if not paths:
        raise ExportError(str(export_dir), "there is no model in it", "run `dvc repro`, which writes models/export")
    members = []
    for path in paths:
        content = read_whole(path)
        for runtime in find_runtimes(path):
            predictor, reason = None, find_unsupported_reason(path.name, runtime)
            if not reason:
                try:
                    predictor = load_content(content, runtime, str(path))
                except ExportError as error:  # of one runtime: the others answer
                    reason = error.problem
            members.append(Member(path.name, RUNTIMES[runtime].title, predictor, reason))
    metadata = read_metadata(paths[0])
    return Panel(members, find_image_shape(metadata), metadata["background"])


class Server(ThreadingHTTPServer):
    """A server on the loopback interface; in threads, for a browser keeps connections open that it may need later."""

    def __init__(self, port: int, page: bytes, panel: Panel) -> None:
        super().__init__((_HOST, port), _Handler)
        self.page, self.panel = page, panel
        self.lock = Lock()  # runtimes answer one image at a time

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  (http.server's signature)
        """Say nothing of a page that was closed before it had its answer."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def open_server(port: int, page: bytes, panel: Panel) -> Server:
    """The server, which listens.

    Raises:
        PipelineError: the port cannot be had.
    """
    try:
        return Server(port, page, panel)
    except OSError as error:
        hint = "choose another with --port, or leave --port out for a free one"
        raise PipelineError(f"port {port}", f"cannot be had: {error.strerror or error}", hint) from None


class _Handler(BaseHTTPRequestHandler):
    """Answers a request of a page that this server has served; refuses those of other pages and for other hosts."""

    server: Server
    timeout = _IDLE_SECONDS
    server_version, sys_version = "pipeline-demo", ""

    def do_GET(self) -> None:
        """Give the page, or the list of runtimes, by which the page knows where it is."""
        if not self._is_from_here():
            return
        if self.path == "/":
            self._send(HTTPStatus.OK, _HTML, self.server.page)
        elif self.path == "/runtimes":
            self._send_json(HTTPStatus.OK, {"runtimes": self._list_runtimes()})
        else:
            self._send_unknown()

    def do_POST(self) -> None:
        """Have every runtime answer for the image file that is the request's body."""
        if not self._is_from_here():
            return
        if self.path != "/answers":
            self._send_unknown()
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self._send_problem(HTTPStatus.LENGTH_REQUIRED, "The request does not say how long it is.")
        elif int(length) > MAX_BYTES:
            self._forget(min(int(length), _MAX_FORGOTTEN_BYTES))
            problem = f"The picture is a file of more than {MAX_BYTES:,} bytes: make it smaller."
            self._send_problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, problem)
        else:
            self._answer(self.rfile.read(int(length)))

    def _answer(self, content: bytes) -> None:
        try:
            with self.server.lock:
                answered = self.server.panel.answer(content)
        except PipelineError as error:
            self._send_problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
            return
        self._send_json(HTTPStatus.OK, answered)

    def _is_from_here(self) -> bool:
        """Whether the request is for this server by name, and of no other page; if not, it is refused.

        A page from elsewhere might ask by a name of its own for this machine (DNS rebinding).
        """
        allowed = {f"{name}:{self.server.server_port}" for name in _NAMES}
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if host in allowed and origin in (None, f"http://{host}"):
            return True
        self._send_problem(HTTPStatus.FORBIDDEN, f"This server answers for {' and '.join(sorted(allowed))} alone.")
        return False

    def _list_runtimes(self) -> list[str]:
        return list(dict.fromkeys(member.runtime for member in self.server.panel.members))

    def _forget(self, length: int) -> None:
        while length > 0 and (chunk := self.rfile.read(min(length, _CHUNK_BYTES))):
            length -= len(chunk)

    def _send_unknown(self) -> None:
        self._send_problem(HTTPStatus.NOT_FOUND, "There is no such page.")

    def _send_problem(self, status: HTTPStatus, problem: str) -> None:
        self._send_json(status, {"problem": problem})

    def _send_json(self, status: HTTPStatus, value: dict[str, Any]) -> None:
        self._send(status, _JSON, json.dumps(value).encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("Cache-Control", "no-store"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401  (http.server's signature)
        """Say nothing of single requests."""

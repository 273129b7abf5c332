"""`pipeline demo` serves the page on this machine alone, and every runtime answers beside it."""

import base64
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest
from click.testing import CliRunner
from imports import ROOT
from PIL import Image
from selenium.webdriver.common.by import By

from stages.commands.demo import demo, load_panel
from stages.commands.main import main
from stages.lib.core.arrays import load_array
from stages.lib.core.errors import ExportError, PipelineError
from stages.lib.data.image_decoding import read_image
from stages.lib.data.image_limits import MAX_BYTES
from stages.lib.exports.checksums import write_checksums
from stages.lib.exports.runtimes import RUNTIMES, find_runtimes, load_predictor


class Demo(NamedTuple):
    """A running `pipeline demo`."""

    process: subprocess.Popen
    port: int

    @property
    def address(self):
        """Of the page."""
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, method, path, body=None, **headers):
        """The status and the content of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, content

    def answer(self, content):
        """What the runtimes say of an image file."""
        status, answered = self.ask("POST", "/answers", content)
        assert status == 200
        return json.loads(answered)


@contextmanager
def serve(export_dir, *arguments):
    process = subprocess.Popen(
        [Path(sys.executable).with_name("pipeline"), "demo", "--exports", export_dir, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert re.fullmatch(r"demo: http://127\.0\.0\.1:\d+/ until Ctrl-C\n", line), process.stderr.read()
        yield Demo(process, int(re.findall(r":(\d+)/", line)[0]))
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def export_dir(reproduced):
    return reproduced.root / "models/export"


@pytest.fixture(scope="module")
def running(export_dir):
    with serve(export_dir) as running:
        yield running


@pytest.fixture(scope="module")
def picture(reproduced):
    """A PNG of other proportions than the model's input, and dark on light."""
    digit = Image.fromarray(255 - load_array(reproduced.root / "data/raw/test/images.npy")[2])
    image, file = Image.new("L", (200, 150), 255), io.BytesIO()
    image.paste(digit.resize((150, 150)), (20, 0))
    image.save(file, "png")
    return file.getvalue()


def test_page_is_the_exported_file(running, export_dir):
    """The same bytes as those that open from the disk."""
    assert running.ask("GET", "/") == (200, (export_dir / "web/index.html").read_bytes())


def test_every_runtime_answers_for_what_predict_sees(running, export_dir, picture):
    """Each exported model in each of its runtimes: their own answers for the picture as ingest's rules bring it."""
    answered = running.answer(picture)
    decoded = read_image(io.BytesIO(picture), "picture", (28, 28), "dark")
    rows = {(row["file"], row["runtime"]): row for row in answered["rows"]}
    paths = sorted(path for path in export_dir.iterdir() if path.suffix in {".onnx", ".tflite"})
    wanted = {
        (path.name, RUNTIMES[runtime].title): (path, runtime) for path in paths for runtime in find_runtimes(path)
    }

    assert base64.b64decode(answered["pixels"]) == decoded.pixels.tobytes()
    assert answered["was_inverted"] is decoded.was_inverted is True
    assert rows.keys() == wanted.keys()
    for key, row in rows.items():
        if row["probabilities"] is None:
            assert row["reason"]
        else:
            (expected,) = load_predictor(*wanted[key])(decoded.pixels[np.newaxis])
            np.testing.assert_allclose(row["probabilities"], expected, rtol=0, atol=1e-6)  # float32's last bits


def test_file_that_is_no_image_is_refused_in_one_line(running):
    """With the words of `pipeline predict`."""
    status, content = running.ask("POST", "/answers", b"no picture")

    assert status == 422
    assert json.loads(content) == {
        "problem": "the picture: not a valid image: its kind is unknown; replace it, or leave it out"
    }


def test_upload_beyond_the_limit_is_refused(running):
    """What is longer than ingest takes is not kept, and the server goes on."""
    status, content = running.ask("POST", "/answers", bytes(MAX_BYTES + 1))

    assert (status, list(json.loads(content))) == (413, ["problem"])
    assert running.ask("GET", "/runtimes")[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "example.org"},
        {"Host": "127.0.0.1:1"},
        {"Host": "127.0.0.1.example.org:80"},
        {"Origin": "http://example.org"},
        {"Origin": "null"},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("POST", "/answers")])
def test_other_pages_and_names_are_refused(running, headers, method, path):
    """A page from elsewhere can neither read the answers nor ask by a name of its own for this machine."""
    status, content = running.ask(method, path, b"" if method == "POST" else None, **headers)

    assert (status, list(json.loads(content))) == (403, ["problem"])


@pytest.mark.parametrize("path", ["/index.html", "/../params.yaml", "//etc/passwd", "/runtimes/"])
def test_nothing_else_is_served(running, path):
    """No path leads to a file."""
    assert running.ask("GET", path)[0] == 404


def test_server_listens_on_the_loopback_interface_alone(running):
    """No other machine can reach it."""
    listening = [
        connection.laddr.ip
        for connection in psutil.Process(running.process.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]

    assert listening == ["127.0.0.1"]


def test_ctrl_c_ends_it_without_an_error(export_dir):
    """As its own line says."""
    with serve(export_dir) as running:
        os.kill(running.process.pid, signal.SIGINT)
        said = running.process.communicate(timeout=60)

        assert (running.process.returncode, *said) == (0, "demo: ended\n", "")


def test_page_that_is_closed_early_makes_no_noise(export_dir):
    """The server goes on, and prints no traceback."""
    with serve(export_dir) as running:
        for _ in range(3):
            page = socket.create_connection(("127.0.0.1", running.port))
            host = f"127.0.0.1:{running.port}"
            page.sendall(f"POST /answers HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\nsome".encode())
            page.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset, not closed
            page.close()
        assert running.ask("GET", "/runtimes")[0] == 200
        os.kill(running.process.pid, signal.SIGINT)

        assert running.process.communicate(timeout=60)[1] == ""


def test_runtime_that_cannot_run_a_file_says_why(export_dir, tmp_path):
    """The others answer for it."""
    shutil.copy(export_dir / "model.tflite", tmp_path / "other.tflite")
    write_checksums(tmp_path)
    reasons = {member.runtime: member.reason for member in load_panel(tmp_path).members}

    assert reasons["LiteRT"] == ""
    assert reasons["TensorFlow Lite Micro"] != ""


def test_port_in_use_is_told_in_one_line(export_dir):
    """With what to type instead."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(demo, ["--exports", str(export_dir), "--port", str(port)])

    assert isinstance(result.exception, PipelineError)
    assert result.exception.where == f"port {port}"
    assert result.exception.hint == "choose another with --port, or leave --port out for a free one"


def test_exports_without_a_page_are_told(export_dir, tmp_path):
    """The int8 model is withheld: there is nothing to serve, and where the reason is."""
    shutil.copytree(export_dir, tmp_path / "export")
    shutil.rmtree(tmp_path / "export/web")
    result = CliRunner().invoke(demo, ["--exports", str(tmp_path / "export")])

    assert isinstance(result.exception, ExportError)
    assert result.exception.problem == "there is no page, for there is no model_int8.tflite"


def test_damaged_page_is_refused(export_dir, tmp_path):
    """Only what was exported is shown."""
    shutil.copytree(export_dir, tmp_path / "export")
    with (tmp_path / "export/web/index.html").open("a", encoding="utf-8") as page:
        page.write("<!-- more -->")
    result = CliRunner().invoke(demo, ["--exports", str(tmp_path / "export")])

    assert isinstance(result.exception, ExportError)
    assert result.exception.expected.startswith("a whole model")


def test_folder_that_is_not_there_ends_with_one_line(tmp_path):
    """Exit code 1, and no traceback."""
    result = CliRunner().invoke(main, ["demo", "--exports", str(tmp_path / "none")])

    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1


def read_table(browser):
    """The cells of the table of runtimes."""
    rows = browser.driver.find_elements(By.CSS_SELECTOR, "#rows tr")
    return [[cell.text for cell in row.find_elements(By.CSS_SELECTOR, "th, td")] for row in rows]


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_page_shows_every_runtime(browser, running, picture, tmp_path, kind):
    """Side by side with its own answer, also for a file that the browser itself cannot read."""
    path = tmp_path / f"picture.{kind}"
    Image.open(io.BytesIO(picture)).save(path)
    answered = running.answer(path.read_bytes())
    browser.open(running.address)
    browser.see_text("Every runtime")
    browser.driver.find_element(By.ID, "file").send_keys(str(path))
    browser.wait(lambda: read_table(browser), "the table of runtimes")
    table, note = read_table(browser), browser.see("//*[@id='seen-note']").text
    run = [row for row in table if len(row) == 5]
    int8 = {row[3] for row in run if row[0] == "model_int8.tflite" and row[1] in ("this page", "LiteRT")}

    assert [row[:2] for row in table] == [
        *([row["file"], row["runtime"]] for row in answered["rows"]),
        ["model_int8.tflite", "this page"],
    ]
    assert {row[2] for row in run} == {browser.see("//*[@id='answer-class']").text}
    assert len(int8) == 1
    assert "Decoded by the project" in note
    assert ("this browser gets the same pixels" in note) == (kind == "png")
    if kind == "png":
        browser.resize(960, 1640)
        browser.take_picture("demo")

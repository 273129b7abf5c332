"""Published files come whole and verified from the first good mirror: a real HTTP server on this machine."""

import gzip
import hashlib
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from imports import ROOT
from mirror_server import Server, send
from samples import list_files

from stages.lib.core.errors import DataError
from stages.lib.data import download
from stages.lib.data.download import PublishedFile, fetch, fetch_dataset

CONTENT = b"handwritten digits " * 500
OTHER = b"handwritten glyphs " * 500
SHA256, OTHER_SHA256 = (hashlib.sha256(content).hexdigest() for content in (CONTENT, OTHER))
FILE = PublishedFile("images.gz", SHA256, len(CONTENT), is_of_content=True)
PACKED = gzip.compress(CONTENT, mtime=0)
# The same, of which the publisher's hash is that of the compressed file.
PACKED_FILE = PublishedFile("images.gz", hashlib.sha256(PACKED).hexdigest(), len(PACKED))


def redirect(location):
    """Answer that the file is elsewhere."""
    return send(b"", status=302, Location=location)


def reset_midway(handler):
    """Send half of the file, then reset the connection."""
    send(PACKED[:40], expected=len(PACKED))(handler)
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def send_endlessly(handler):
    """Send more and more, with no length told."""
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(bytes(1 << 16))
    except OSError:  # the other side has had enough
        handler.close_connection = True


def trickle(body):
    """Send a byte now and then, for as long as the other side waits."""

    def answer(handler):
        try:
            if body:
                handler.send_response(200)
                handler.end_headers()
            else:
                handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
            while True:
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(0.02)
        except OSError:  # the other side has had enough
            handler.close_connection = True

    return answer


@pytest.fixture(autouse=True)
def looked_up(monkeypatch):
    """No proxy stands between; the hosts that were looked up, of which none but this machine is answered."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    hosts, look_up = [], socket.getaddrinfo

    def note(host, *arguments, **options):
        hosts.append(host)
        if host not in ("127.0.0.1", "localhost"):
            raise socket.gaierror(socket.EAI_NONAME, "no network in tests")
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", note)
    return hosts


@pytest.fixture
def server():
    server = Server()
    yield server
    server.stop()


def read(mirrors, cache_dir):
    """What is in the file that was fetched."""
    return gzip.decompress(fetch(FILE, mirrors, cache_dir, "IMAGES_MIRROR").read_bytes())


def explain(mirrors, cache_dir):
    """The error about a file that could not be had, which has one line; nothing half-written may be left behind."""
    with pytest.raises(DataError) as caught:
        fetch(FILE, mirrors, cache_dir, "IMAGES_MIRROR")
    assert not [name for name in list_files(cache_dir) if "partial" in name]
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def list_kept(folder):
    """The files in a folder and below, but for the empty one by which processes take turns."""
    return {name: content for name, content in list_files(folder).items() if not name.endswith(".lock")}


def test_good_file_is_unpacked_and_cached(server, tmp_path):
    """The content is what was published, and the file is kept as it came."""
    server.answers["/images.gz"] = send(PACKED)

    assert read([server.url], tmp_path / "cache") == CONTENT
    assert list_kept(tmp_path) == {"cache/images.gz": PACKED}


def test_good_cached_file_needs_no_server(server, tmp_path):
    """Once fetched, a file is taken from the cache, also when the server is gone."""
    server.answers["/images.gz"] = send(PACKED)
    read([server.url], tmp_path)
    server.stop()

    assert read([server.url], tmp_path) == CONTENT
    assert server.asked == ["/images.gz"]


FETCHING = """
import sys
from pathlib import Path
from test_download import read
print("here", flush=True)
print(len(read([sys.argv[1]], Path("cache"))), flush=True)
"""


def test_two_processes_that_fetch_one_file_do_not_disturb_each_other(server, tmp_path):
    """The second one waits for the first, and takes what that has brought."""
    may_go_on = threading.Event()

    def send_in_halves(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(PACKED)))
        handler.end_headers()
        handler.wfile.write(PACKED[:40])
        handler.wfile.flush()
        may_go_on.wait()
        handler.wfile.write(PACKED[40:])

    server.answers["/images.gz"] = send_in_halves
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "tests", Path(__file__).parent]))}
    command = [sys.executable, "-c", FETCHING, server.url]
    processes = [
        subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    begun = [process.stdout.readline() for process in processes]
    time.sleep(0.5)  # for the second to get as far as it can
    may_go_on.set()
    ended = [process.communicate(timeout=60) for process in processes]

    assert begun == ["here\n"] * 2
    assert ended == [(f"{len(CONTENT)}\n", "")] * 2
    assert server.asked == ["/images.gz"]
    assert list_kept(tmp_path) == {"cache/images.gz": PACKED}


@pytest.mark.parametrize(
    "damaged", [b"", b"<html>", PACKED[:-9], gzip.compress(OTHER)], ids=["empty", "a page", "cut off", "other data"]
)
def test_damaged_cached_file_is_fetched_anew(server, tmp_path, damaged):
    """A cached file that is not the published one is replaced."""
    server.answers["/images.gz"] = send(PACKED)
    (tmp_path / "images.gz").write_bytes(damaged)

    assert read([server.url], tmp_path) == CONTENT
    assert list_kept(tmp_path) == {"images.gz": PACKED}


def test_labelled_as_encoded_stays_packed(server, tmp_path):
    """A server that calls a .gz file gzip-encoded changes nothing."""
    server.answers["/images.gz"] = send(PACKED, Content_Encoding="gzip")

    assert read([server.url], tmp_path) == CONTENT


def test_second_mirror_helps_out(server, tmp_path):
    """What is wrong with the first mirror does not matter where the second is good; a slash at its end neither."""
    server.answers |= {"/bad/images.gz": send(b"<html>"), "/good/images.gz": send(PACKED)}

    assert read([f"{server.url}/bad", f"{server.url}/good/"], tmp_path) == CONTENT


PROBLEMS = {
    "empty": (send(b""), f"expected {len(CONTENT)} bytes with SHA-256 {SHA256}, got 0 bytes"),
    "html": (send(b"<html>Please log in</html>"), "not a whole gzip file: Not a gzipped file"),
    "cut off": (send(PACKED[:-9]), "not a whole gzip file: "),
    "damaged": (send(PACKED[:30] + b"\xff\xff\xff" + PACKED[33:]), "not a whole gzip file: "),
    "shorter than told": (send(PACKED[:40], expected=len(PACKED)), "40 bytes read"),
    "reset": (reset_midway, "Connection reset by peer"),
    "other content": (
        send(gzip.compress(OTHER)),
        f"expected {len(CONTENT)} bytes with SHA-256 {SHA256}, got {len(OTHER)} bytes with {OTHER_SHA256}",
    ),
    # One byte more than published is unpacked, however much there is.
    "more than published": (
        send(gzip.compress(CONTENT * 10)),
        f"got more than {len(CONTENT)} bytes with {hashlib.sha256(CONTENT + CONTENT[:1]).hexdigest()}",
    ),
    "larger than published": (send(bytes(len(CONTENT) + 1)), f"expected at most {len(CONTENT)} bytes, got more"),
    "endless": (send_endlessly, f"expected at most {len(CONTENT)} bytes, got more"),
    "gone": (send(b"", status=404), "404 Client Error"),
    "broken": (send(b"", status=500), "500 Server Error"),
    "redirect to nowhere": (send(b"", status=302), "got 0 bytes"),
    "redirect to http": (redirect("http://mirror.invalid/images.gz"), "expected an https address, got http"),
    "redirect to a file": (redirect("file:///etc/passwd"), "expected an https address, got file"),
    "redirect to no address": (redirect("http://[1/"), "Invalid IPv6 URL"),
    "redirect to itself": (redirect("/images.gz"), "expected at most 5 redirects, got more"),
}


@pytest.mark.parametrize(("answer", "reported"), PROBLEMS.values(), ids=PROBLEMS)
def test_faulty_answer_is_refused_with_what_is_wrong(server, tmp_path, looked_up, answer, reported):
    """Whatever a server does, nothing of it is kept, the message says what it was, and no other host is asked."""
    server.answers["/images.gz"] = answer
    error = explain([server.url], tmp_path)

    assert reported in error.problem
    assert error.hint == "set IMAGES_MIRROR to a folder or a URL that has the file"
    assert list_kept(tmp_path) == {}
    assert set(looked_up) == {"127.0.0.1"}


@pytest.mark.parametrize("answer", [trickle(body=True), trickle(body=False)], ids=["body", "header"])
def test_answer_without_end_is_given_up(server, tmp_path, monkeypatch, answer):
    """A server that sends a byte whenever a timeout is near is left after a while, and the next mirror is asked."""
    monkeypatch.setattr(download, "_MAX_SECONDS", 0.3)
    monkeypatch.setattr(download, "_MIN_BYTES_A_SECOND", 1_000_000)
    server.answers["/images.gz"] = answer
    error = explain([server.url], tmp_path / "cache")
    server.answers["/good/images.gz"] = send(PACKED)

    assert error.problem.endswith("it did not send the whole file within 0.3 seconds")
    assert read([server.url, f"{server.url}/good"], tmp_path / "cache") == CONTENT
    assert list_kept(tmp_path / "cache") == {"images.gz": PACKED}


def test_five_redirects_are_followed(server, tmp_path):
    """As many redirects as the message allows lead to the file."""
    server.answers |= {f"/{number}": redirect(f"/{number + 1}") for number in range(1, 5)}
    server.answers |= {"/images.gz": redirect("/1"), "/5": send(PACKED)}

    assert read([server.url], tmp_path) == CONTENT
    assert server.asked == ["/images.gz", "/1", "/2", "/3", "/4", "/5"]


def test_server_that_is_gone_is_named(server, tmp_path):
    """A refused connection is an error of the mirror."""
    server.stop()

    assert "Connection refused" in explain([server.url], tmp_path).problem


def test_password_of_a_mirror_is_not_told(server, tmp_path):
    """A mirror's address may hold a password: no message repeats it."""
    mirrors = [server.url.replace("://", "://ann:secret@"), "ftp://ann:secret@mirror.invalid"]
    message = str(explain(mirrors, tmp_path))

    assert "ann:***@" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("mirror", "reported"),
    [
        ("http://mirror.invalid", "expected an https address, got http"),
        ("http://127.0.0.1.mirror.invalid", "expected an https address, got http"),
        ("http://127.0.0.1@mirror.invalid", "expected an https address, got http"),
        ("http://", "expected an https address, got http"),
        ("ftp://mirror.invalid", "expected an https address, got ftp"),
        ("http://[1", "Invalid IPv6 URL"),
    ],
)
def test_unsafe_address_is_refused_before_any_traffic(tmp_path, looked_up, mirror, reported):
    """Plain http is for this machine alone: another host is not even looked up."""
    assert reported in explain([mirror], tmp_path).problem
    assert looked_up == []


def test_every_mirror_is_named_with_its_problem(server, tmp_path):
    """Where no mirror is good, the message says what was wrong with the cached file and with each of them."""
    server.answers["/images.gz"] = reset_midway
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "images.gz").write_bytes(b"")
    error = explain([str(tmp_path / "none"), server.url, "http://mirror.invalid"], tmp_path / "cache")
    summary, _, reasons = error.problem.partition(": ")
    problems = reasons.split(" | ")

    assert (error.where, summary) == ("images.gz", "no good copy in the cache or on a mirror")
    assert len(problems) == 4
    for place, problem in zip(
        ("cache/images.gz", "none: ", server.url, "http://mirror.invalid"), problems, strict=True
    ):
        assert place in problem


def test_folder_is_a_mirror(tmp_path, monkeypatch):
    """A folder, relative to the project's root, is read in place and not copied to the cache."""
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "images.gz").write_bytes(PACKED)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))

    assert read(["mirror"], tmp_path / "cache") == CONTENT
    assert not (tmp_path / "cache").exists()


def test_damaged_file_in_a_folder_gives_way_to_the_next_mirror(server, tmp_path):
    """A folder's file is verified as a server's is."""
    server.answers["/images.gz"] = send(PACKED)
    (tmp_path / "images.gz").write_bytes(PACKED[:-9])

    assert read([str(tmp_path), server.url], tmp_path / "cache") == CONTENT


def test_hash_may_be_of_the_compressed_file(server, tmp_path):
    """Where the publisher's hash is of the file as it comes, the same content compressed anew is refused."""
    server.answers |= {"/anew/images.gz": send(gzip.compress(CONTENT, mtime=1)), "/images.gz": send(PACKED)}

    with pytest.raises(DataError) as caught:
        fetch(PACKED_FILE, [f"{server.url}/anew"], tmp_path, "IMAGES_MIRROR")
    assert f"expected {len(PACKED)} bytes with SHA-256 {PACKED_FILE.sha256}" in caught.value.problem

    path = fetch(PACKED_FILE, [f"{server.url}/anew", server.url], tmp_path, "IMAGES_MIRROR")
    assert path.read_bytes() == PACKED


def test_large_file_gets_more_time(server, tmp_path, monkeypatch, capsys):
    """A server that needs long for a long file is waited for, and what has arrived is told meanwhile."""
    monkeypatch.setattr(download, "_MAX_SECONDS", 0.1)
    monkeypatch.setattr(download, "_MIN_BYTES_A_SECOND", 1_000)
    monkeypatch.setattr(download, "_PROGRESS_SECONDS", 0.2)

    def send_slowly(handler):
        send(PACKED[:40], expected=len(PACKED))(handler)
        handler.wfile.flush()
        time.sleep(0.5)
        handler.wfile.write(PACKED[40:])

    server.answers["/images.gz"] = send_slowly

    assert read([server.url], tmp_path) == CONTENT
    assert capsys.readouterr().out == f"{server.url}/images.gz: 0 MB have arrived\n"


def test_data_set_comes_from_its_own_mirror_into_its_own_cache(server, tmp_path, monkeypatch):
    """<NAME>_MIRROR is asked first, the files are kept in .cache/<name>, and the hint names the variable."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("SMALL_IMAGES_MIRROR", f"{server.url}/own")
    server.answers |= {"/own/images.gz": send(PACKED), "/public/images.gz": send(PACKED)}
    paths = fetch_dataset("small_images", [FILE], [f"{server.url}/public"])
    server.answers["/own/other.gz"] = send(b"")
    with pytest.raises(DataError) as caught:
        fetch_dataset("small_images", [FILE._replace(name="other.gz")], [])

    assert paths == [tmp_path / ".cache/small_images/images.gz"]
    assert paths[0].read_bytes() == PACKED
    assert server.asked == ["/own/images.gz", "/own/other.gz"]
    assert caught.value.hint == "set SMALL_IMAGES_MIRROR to a folder or a URL that has the file"

"""`pipeline replay` compares a device's answers on a serial line with the golden ones, and notices what is lost."""

import json
import os
import pty
import subprocess
import tty
from contextlib import contextmanager

import pytest
from click.testing import CliRunner
from int8_models import IMAGES, NETWORKS, make_int8

from stages.commands.main import main
from stages.commands.replay import find_answer, frame
from stages.lib.exports.checksums import write_checksums
from stages.lib.microcontroller.c_classifier import render_classifier
from stages.lib.microcontroller.c_program import MISSING_COMPILER, find_compiler
from stages.lib.microcontroller.device_sources import render_device_sources
from stages.lib.microcontroller.integer_network import read_network
from stages.lib.microcontroller.integer_reference import IntegerReference

COMPILER = find_compiler()
CONTENT, GOLDEN_IMAGES = make_int8(*NETWORKS[1]), IMAGES[:5]
CLASS_NAMES = ["one", "two", "three"]
# The device's side: a serial line is its standard input and output. It says something as it starts, as a board's boot
# loader does, and loses the byte of a number, counted over all that it reads.
DEVICE = """
#include "replay.h"
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>
static long lost;
static int read_byte(void) {
    static long count;
    struct pollfd input = {0, POLLIN, 0};
    uint8_t byte;
    if (poll(&input, 1, 200) <= 0)
        return -1;
    if (read(0, &byte, 1) != 1)
        exit(0);
    return count++ == lost ? read_byte() : byte;
}
static void write_byte(uint8_t byte) {
    if (write(1, &byte, 1) != 1)
        exit(1);
}
int main(int count, char **arguments) {
    lost = count > 1 ? atol(arguments[1]) : -1;
    if (write(1, "hello\\xa5", 6) != 6)
        return 1;
    for (;;)
        replay_answer(read_byte, write_byte);
}
"""


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """The compiled program of a device."""
    if COMPILER is None:
        pytest.skip(MISSING_COMPILER)
    folder = tmp_path_factory.mktemp("device")
    sources = {**render_classifier(read_network(CONTENT), CLASS_NAMES, "dark"), **render_device_sources("dark")}
    for name, text in {**sources, "main.c": DEVICE}.items():
        (folder / name).write_text(text)
    warnings = [
        "-std=c99",
        "-D_POSIX_C_SOURCE=200809L",
        "-pedantic",
        "-Wall",
        "-Wextra",
        "-Wconversion",
        "-Wsign-conversion",
        "-Werror",
    ]
    watched = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    files = ["main.c", "replay.c", "classifier.c", "-o", "device"]
    subprocess.run([COMPILER, *warnings, *watched, *files], cwd=folder, check=True)
    return folder / "device"


@pytest.fixture
def golden_path(tmp_path):
    """Golden vectors as `export` writes them, with their digest beside them."""
    return write_golden(tmp_path, IntegerReference(CONTENT).answer(GOLDEN_IMAGES).tolist())


def write_golden(folder, answers):
    described = {
        "class_names": CLASS_NAMES,
        "images": [image.tobytes().hex() for image in GOLDEN_IMAGES],
        "integers": {"model_int8.tflite": {"output": answers, "tolerance": 2}} if answers else {},
    }
    (folder / "golden.json").write_text(json.dumps(described), encoding="utf-8")
    write_checksums(folder)
    return folder / "golden.json"


@contextmanager
def connect(*command):
    """The path of a serial line at whose other end the program runs."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    process = subprocess.Popen(command, stdin=ours, stdout=ours) if command else None
    try:
        yield os.ttyname(theirs)
    finally:
        if process:
            process.kill()
            process.wait()
        os.close(ours)
        os.close(theirs)


def replay(port, golden_path, *options):
    return CliRunner().invoke(main, ["replay", "--port", port, "--golden", str(golden_path), *options])


def test_device_that_answers_the_golden_bytes_passes(device, golden_path):
    """Each image is answered once, whatever the device says as it starts."""
    with connect(device) as port:
        done = replay(port, golden_path)

    assert (done.exit_code, done.output) == (0, "replay: 5 images: 0 of 15 bytes differ\n")


def test_device_that_answers_other_bytes_fails(device, tmp_path):
    """Each image is told, with the classes, and the exit code is 1."""
    answers = IntegerReference(CONTENT).answer(GOLDEN_IMAGES)
    expected = CLASS_NAMES[answers[3].argmax()]
    answers[3] = answers[3] ^ 1
    answers[3, answers[3].argmin()] = 255
    with connect(device) as port:
        done = replay(port, write_golden(tmp_path, answers.tolist()))

    assert done.exit_code == 1
    assert done.output.splitlines() == [
        f"replay: image 3: 3 bytes differ; expected the class {CLASS_NAMES[answers[3].argmax()]}, got {expected}",
        "replay: 5 images: 3 of 15 bytes differ",
    ]


@pytest.mark.parametrize("lost", [0, 1, 30, 60])
def test_lost_byte_is_noticed_and_the_image_sent_again(device, golden_path, lost):
    """Of the start, the number, the pixels, or of the next image's: no answer is taken for another's."""
    with connect(device, str(lost)) as port:
        done = replay(port, golden_path, "--timeout", "1")

    assert (done.exit_code, done.output) == (0, "replay: 5 images; 1 sent again: 0 of 15 bytes differ\n")


def test_answer_is_taken_only_whole_and_of_its_number():
    """Neither a part of it, nor with another byte, nor of another image."""
    answer = bytes([1, 2, 3])
    whole = frame(7, answer)

    assert find_answer(b"noise\xa5\x07" + whole + b"more", 7, 3) == answer
    assert find_answer(whole[:-1], 7, 3) is None
    assert find_answer(whole, 8, 3) is None
    assert not any(
        find_answer(whole[:index] + bytes([whole[index] ^ bit]) + whole[index + 1 :], 7, 3)
        for index in range(len(whole))
        for bit in (1, 16, 128)
    )


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ([], "no answer to image 0, sent 3 times: nothing came"),
        # As at another rate: other bytes come than were sent.
        (
            ["sh", "-c", "head -c 10 >/dev/null; printf 012; sleep 60"],
            "no answer to image 0, sent 3 times: 3 bytes came that are no answer",
        ),
    ],
)
def test_device_that_does_not_answer_is_one_line(golden_path, command, problem):
    """With what to check; the exit code is 1."""
    with connect(*command) as port:
        done = replay(port, golden_path, "--timeout", "0.3")

    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert done.output.startswith(f"replay: {port}: {problem}; check that --baud is the board's rate")


def test_line_that_is_none_is_one_line(golden_path, tmp_path):
    """No such device, and a file that is none."""
    (tmp_path / "file").touch()
    missing, file = replay(str(tmp_path / "ttyUSB7"), golden_path), replay(str(tmp_path / "file"), golden_path)

    assert missing.output.startswith(f"replay: {tmp_path}/ttyUSB7: cannot be opened: No such file or directory; ")
    assert file.output.startswith(f"replay: {tmp_path}/file: it is no serial line; ")
    assert [(done.exit_code, done.output.count("\n")) for done in (missing, file)] == [(1, 1)] * 2


def test_golden_vectors_without_int8_answers_are_refused(tmp_path):
    """As they are where the int8 export was withheld."""
    done = replay("/dev/null", write_golden(tmp_path, None))

    assert done.exit_code == 1
    assert "it has no answers of model_int8.tflite; export tflite_int8, too (export.artifacts)" in done.output


def test_device_that_is_unplugged_is_one_line(golden_path):
    """The line ends while the command waits for an answer."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    port = os.ttyname(theirs)
    with subprocess.Popen(["head", "-c", "30"], stdin=ours, stdout=subprocess.DEVNULL):
        os.close(ours)  # the other end is open as long as the program reads
        done = replay(port, golden_path)
    os.close(theirs)

    assert done.exit_code == 1
    assert done.output.startswith(f"replay: {port}: the line broke: ")
    assert done.output.endswith("; connect the board, and run again\n")

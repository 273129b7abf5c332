"""Send the golden images to a device over a serial line, and compare its answers.

Reads   models/export/golden.json
Prints  each image whose answer differs, and how many bytes differ of how many
"""

import binascii
import errno
import json
import os
import re
import select
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from stages.lib.core.errors import ExportError, PipelineError
from stages.lib.exports.checksums import read_whole

_GOLDEN_PATH = Path("models/export/golden.json")
_INT8_NAME = "model_int8.tflite"
_RATES = sorted((name[1:] for name in dir(termios) if re.fullmatch(r"B[1-9]\d*", name)), key=int)
# A request and an answer: start, number of the image, what it is about, CRC (see the exported replay.h).
_START, _CRC_START, _CRC_BYTES = 0xA5, 0xFFFF, 2
_TRIES = 3  # a board that restarts as the line is opened misses the first
_BITS_OF_BYTE = 10  # with a start and a stop bit
_MOST_AT_ONCE = 4096  # bytes
_INPUT_SPEED, _OUTPUT_SPEED, _CONTROL_FLAGS = 4, 5, 2  # where termios.tcgetattr has them
_WHAT_TO_CHECK = (
    "check that --baud is the board's rate, and that the board answers with replay_answer of this models/export/c "
    "(in Arduino: the sketch Replay)"
)


@click.command()
@click.option("--port", required=True, help="The serial line, such as /dev/ttyUSB0 or /dev/ttyACM0.")
@click.option(
    "--baud", type=click.Choice(_RATES), default="115200", show_default=True, metavar="RATE", help="Bits a second."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the device may take for an answer, beside the time on the line.",
)
@click.option(
    "--golden",
    "golden_path",
    type=click.Path(path_type=Path),
    default=_GOLDEN_PATH,
    show_default=True,
    help="The golden vectors.",
)
def replay(port: str, baud: str, timeout: float, golden_path: Path) -> None:
    """Send the golden images to a device over a serial line, and compare its answers.

    The device answers each image with the bytes of its probabilities, by replay_answer of models/export/c. All must
    be equal; if one differs, the exit code is 1. What is lost on the line is sent again, up to three times.
    """
    golden, expected = read_golden(golden_path)
    class_names, answers, repeats = golden["class_names"], [], 0
    with open_line(port, baud) as line:
        for number, image in enumerate(map(bytes.fromhex, golden["images"])):
            seconds = timeout + _BITS_OF_BYTE * (len(image) + len(class_names)) / int(baud)
            answer, tries = ask(line, port, number, image, len(class_names), seconds)
            answers.append(answer)
            repeats += tries - 1
    is_different = np.stack(answers) != expected
    for number, (answer, wanted, is_wrong) in enumerate(zip(answers, expected, is_different, strict=True)):
        if is_wrong.any():
            classes = f"expected the class {class_names[wanted.argmax()]}, got {class_names[answer.argmax()]}"
            click.echo(f"replay: image {number}: {np.count_nonzero(is_wrong)} bytes differ; {classes}")
    again = f"; {repeats} sent again" if repeats else ""
    click.echo(f"replay: {len(answers)} images{again}: {is_different.sum()} of {is_different.size} bytes differ")
    if is_different.any():
        raise click.exceptions.Exit(1)


def read_golden(path: Path) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """The golden vectors, and the bytes (G, classes) that the int8 network answers to them.

    Raises:
        ExportError: they are not as exported, or without answers of the int8 network.
    """
    golden = json.loads(read_whole(path))
    if _INT8_NAME not in golden["integers"]:
        hint = "export tflite_int8, too (export.artifacts); if it was withheld, reports/parity/parity.md says why"
        raise ExportError(str(path), f"it has no answers of {_INT8_NAME}", hint)
    return golden, np.array(golden["integers"][_INT8_NAME]["output"], np.uint8)


@contextmanager
def open_line(port: str, baud: str) -> Iterator[int]:
    """The file descriptor of a serial line that passes 8 bits as they are, at this rate.

    Raises:
        PipelineError: there is no such line, it may not be opened, or it breaks within the block.
    """
    try:
        line = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise PipelineError(port, f"cannot be opened: {error.strerror}", _suggest_line(error)) from None
    try:
        if not os.isatty(line):
            raise PipelineError(port, "it is no serial line", "name the board's port")
        tty.setraw(line)
        settings = termios.tcgetattr(line)
        settings[_CONTROL_FLAGS] |= termios.CLOCAL | termios.CREAD
        settings[_INPUT_SPEED] = settings[_OUTPUT_SPEED] = getattr(termios, f"B{baud}")
        termios.tcsetattr(line, termios.TCSANOW, settings)
        yield line
    except (OSError, termios.error) as error:
        raise PipelineError(port, f"the line broke: {error.args[1]}", "connect the board, and run again") from None
    finally:
        os.close(line)


def _suggest_line(error: OSError) -> str:
    """What to do about a line that cannot be opened."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return "add yourself to the group that it belongs to (`ls -l` shows it, often dialout), and log in again"
    found = sorted(str(path) for pattern in ("ttyUSB*", "ttyACM*", "cu.usb*") for path in Path("/dev").glob(pattern))
    return f"these are there: {', '.join(found)}" if found else "connect the board; then `ls /dev/tty*` has its port"


def ask(
    line: int, port: str, number: int, image: bytes, class_count: int, seconds: float
) -> tuple[NDArray[np.uint8], int]:
    """The device's answer (classes,) to an image, and how often the image was sent.

    Raises:
        PipelineError: no whole answer came.
    """
    noise = 0
    for tries in range(1, _TRIES + 1):
        termios.tcflush(line, termios.TCIFLUSH)
        deadline = time.monotonic() + seconds
        _send(line, frame(number, image), deadline)
        received = b""
        while chunk := _receive(line, deadline):
            received += chunk
            if answer := find_answer(received, number, class_count):
                return np.frombuffer(answer, np.uint8), tries
        noise += len(received)
    came = f"{noise} bytes came that are no answer" if noise else "nothing came"
    raise PipelineError(port, f"no answer to image {number}, sent {_TRIES} times: {came}", _WHAT_TO_CHECK)


def frame(number: int, content: bytes) -> bytes:
    """A request or an answer as it goes over the line."""
    counted = bytes([number]) + content
    return bytes([_START]) + counted + binascii.crc_hqx(counted, _CRC_START).to_bytes(_CRC_BYTES)


def find_answer(received: bytes, number: int, class_count: int) -> bytes | None:
    """The answer to the image of that number in what was received; a board may say other things before."""
    for start in range(len(received) - class_count - 1 - _CRC_BYTES):
        answer = received[start + 2 : start + 2 + class_count]
        if received.startswith(frame(number, answer), start):
            return answer
    return None


def _send(line: int, content: bytes, deadline: float) -> None:
    """Send it all, or as much as the line takes in time."""
    while content and select.select([], [line], [], max(0, deadline - time.monotonic()))[1]:
        content = content[os.write(line, content) :]


def _receive(line: int, deadline: float) -> bytes:
    """What has come next, nothing if nothing comes in time."""
    if not select.select([line], [], [], max(0, deadline - time.monotonic()))[0]:
        return b""
    received = os.read(line, _MOST_AT_ONCE)
    if not received:
        raise OSError(errno.EIO, "the device is gone")
    return received

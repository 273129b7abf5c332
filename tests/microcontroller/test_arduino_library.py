"""The Arduino library has the form that Arduino asks for, and its sketches run with a core that holds what they use."""

import io
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from int8_models import CONVOLUTIONS, IMAGES, NETWORKS, make_convolutional, make_int8

from stages.commands.replay import frame
from stages.lib.microcontroller.arduino_library import build_arduino_library
from stages.lib.microcontroller.c_classifier import render_classifier
from stages.lib.microcontroller.c_source import render_c_golden
from stages.lib.microcontroller.device_sources import render_device_sources
from stages.lib.microcontroller.integer_network import read_network
from stages.lib.microcontroller.integer_reference import IntegerReference

CORE_DIR = Path(__file__).parent / "arduino_core"
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
needs_compiler = pytest.mark.skipif(
    not (shutil.which("cc") and shutil.which("c++")), reason="no compilers of C and C++: there is no `cc` or no `c++`"
)


def build(content, images, change=0):
    """The library of a network, with these images as golden vectors, of whose answers the first byte is changed."""
    network = read_network(content)
    background = "dark" if len(network.image_shape) == 2 else None
    answers = IntegerReference(content).answer(images)
    answers[0, 0] ^= change
    sources = {
        **render_classifier(network, [f"class {index}" for index in range(network.class_count)], background),
        **render_device_sources(background),
        **render_c_golden(images, answers, 2),
    }
    return build_arduino_library(sources, content)


def build_sketch(library, name, folder):
    """The program of an example sketch, compiled as Arduino does: the sketch behind Arduino.h as C++, the rest as C."""
    with zipfile.ZipFile(io.BytesIO(library)) as opened:
        opened.extractall(folder)
    sources = folder / "classifier/src"
    sketch = folder / "sketch.cpp"
    sketch.write_text(f"#include <Arduino.h>\n{(folder / f'classifier/examples/{name}/{name}.ino').read_text()}")
    for path in sources.glob("*.c"):
        command = ["cc", *WARNINGS, "-c", str(path), "-o", str(path.with_suffix(".o"))]
        subprocess.run(command, check=True)
    objects = [str(path.with_suffix(".o")) for path in sources.glob("*.c")]
    includes = ["-I", str(CORE_DIR), "-I", str(sources)]
    command = ["c++", "-std=gnu++11", *WARNINGS, *includes, str(sketch), str(CORE_DIR / "core.cpp"), *objects]
    subprocess.run([*command, "-o", str(folder / "program")], check=True)
    return folder / "program"


def test_library_has_the_form_that_arduino_asks_for():
    """One folder with library.properties, src and examples; properties that Arduino's two environments take."""
    with zipfile.ZipFile(io.BytesIO(build(make_int8(*NETWORKS[0]), IMAGES[:2]))) as library:
        names = library.namelist()
        properties = dict(
            line.split("=", 1) for line in library.read("classifier/library.properties").decode("ascii").splitlines()
        )

    assert names == [
        "classifier/examples/GoldenVectors/GoldenVectors.ino",
        "classifier/examples/Replay/Replay.ino",
        "classifier/library.properties",
        *(
            f"classifier/src/{name}"
            for name in ("camera.c", "camera.h", "classifier.c", "classifier.h", "golden.h", "replay.c", "replay.h")
        ),
    ]
    # Arduino 1 refuses a library without these.
    assert {"name", "version", "author", "maintainer", "sentence", "paragraph", "url"} <= properties.keys()
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.-]*", properties["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", properties["version"])
    assert properties["category"] == "Data Processing"
    assert all(f"classifier/src/{name}" in names for name in properties["includes"].split(","))


def test_library_is_byte_stable():
    """Equal sources give equal bytes; another model changes what the properties say of it."""
    library = build(make_int8(*NETWORKS[0]), IMAGES[:2])

    assert library == build(make_int8(*NETWORKS[0]), IMAGES[:2])
    assert library != build(make_int8(*NETWORKS[1]), IMAGES[:2])
    with zipfile.ZipFile(io.BytesIO(library)) as opened:
        assert {(entry.date_time, entry.compress_type) for entry in opened.infolist()} == {((1980, 1, 1, 0, 0, 0), 0)}


@needs_compiler
@pytest.mark.parametrize("is_colour", [False, True])
def test_sketch_checks_the_golden_vectors(is_colour, tmp_path):
    """It prints the class of each image and that no byte differs."""
    content, images = make_convolutional(*CONVOLUTIONS[4]) if is_colour else (make_int8(*NETWORKS[3]), IMAGES)
    expected = IntegerReference(content).answer(images[:4])
    program = build_sketch(build(content, images[:4]), "GoldenVectors", tmp_path)
    said = subprocess.run([program], capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()

    assert [re.sub(r" in \d+ microseconds$", "", line) for line in said] == [
        *(f"image {index}: class {answer.argmax()}" for index, answer in enumerate(expected)),
        f"0 of {expected.size} bytes differ",
    ]


@needs_compiler
def test_sketch_counts_bytes_that_differ(tmp_path):
    """A device that answers otherwise than the golden vectors is found out."""
    program = build_sketch(build(make_int8(*NETWORKS[3]), IMAGES[:4], change=1), "GoldenVectors", tmp_path)
    said = subprocess.run([program], capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()

    assert said[-1] == "1 of 12 bytes differ"


@needs_compiler
def test_sketch_answers_what_is_replayed(tmp_path):
    """As `pipeline replay` asks and expects it."""
    content = make_int8(*NETWORKS[3])
    program = build_sketch(build(content, IMAGES[:1]), "Replay", tmp_path)
    requests = b"".join(frame(number, image.tobytes()) for number, image in enumerate(IMAGES[:4]))
    done = subprocess.run([program], input=requests, capture_output=True, check=True, timeout=60)
    answers = IntegerReference(content).answer(IMAGES[:4])

    assert done.stdout == b"".join(frame(number, answer.tobytes()) for number, answer in enumerate(answers))

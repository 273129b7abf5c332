"""The exported sources build as the page on microcontrollers says, and check themselves, here and on a Cortex-M3."""

import re
import shutil
import subprocess

import pytest
from imports import ROOT
from int8_models import IMAGES, NETWORKS, make_int8
from pages import PAGES

from stages.lib.microcontroller.c_classifier import render_classifier
from stages.lib.microcontroller.c_source import render_c_golden
from stages.lib.microcontroller.device_sources import render_device_sources
from stages.lib.microcontroller.integer_network import read_network
from stages.lib.microcontroller.integer_reference import IntegerReference


def list_missing(*programs):
    """Those of the programs that this machine lacks."""
    return ", ".join(program for program in programs if shutil.which(program) is None)


MISSING = list_missing("cmake", "ctest", "cc", "make")
MISSING_ARM = list_missing("cmake", "ctest", "make", "arm-none-eabi-gcc", "qemu-system-arm")
needs_cmake = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING}")
needs_arm = pytest.mark.skipif(bool(MISSING_ARM), reason=f"not installed: {MISSING_ARM}")


def write_sources(folder, change=0):
    """The sources of a small network, and golden vectors, of whose answers the first byte is changed."""
    content = make_int8(*NETWORKS[1])
    answers = IntegerReference(content).answer(IMAGES[:4])
    answers[0, 0] ^= change
    sources = {
        **render_classifier(read_network(content), ["one", "two", "three"], "dark"),
        **render_device_sources("dark"),
        **render_c_golden(IMAGES[:4], answers, 2),
    }
    folder.mkdir()
    for name, text in sources.items():
        (folder / name).write_text(text)
    return folder


def run_project(source, folder, *options):
    """What ctest says of the project, and its exit code."""
    subprocess.run(["cmake", "-S", source, "-B", folder, *options], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", folder], check=True, capture_output=True)
    command = ["ctest", "--test-dir", folder, "--verbose", "--timeout", "60"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@needs_cmake
@pytest.mark.parametrize(("change", "different"), [(0, 0), (1, 1)])
def test_exported_project_checks_the_golden_vectors(change, different, tmp_path):
    """It builds with the compiler of this machine; a byte that differs fails."""
    code, said = run_project(write_sources(tmp_path / "c", change), tmp_path / "build", "-DCMAKE_C_FLAGS=-Wall -Werror")

    assert f"1: {different} of 12 bytes differ\n" in said
    assert (code > 0) == (different > 0)


@needs_arm
@pytest.mark.parametrize(("change", "different"), [(0, 0), (1, 1)])
def test_bare_metal_example_checks_the_golden_vectors(change, different, tmp_path):
    """It runs on an emulated Cortex-M3 without an operating system and without a C library."""
    options = ["--toolchain", "toolchain.cmake", f"-DSOURCES_DIR={write_sources(tmp_path / 'c', change)}"]
    code, said = run_project(ROOT / "docs/cortex-m3", tmp_path / "build", *options)

    assert f"1: {different} of 12 bytes differ\n" in said
    assert (code > 0) == (different > 0)


@needs_cmake
def test_shown_c_compiles(tmp_path):
    """Each block of C on the page is of functions and constants that the exported headers have."""
    folder = write_sources(tmp_path / "c")
    blocks = re.findall(r"^```c\n(.+?)^```$", PAGES["docs/how-to/microcontroller.md"], re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).splitlines()
    includes = [line for line in lines if line.startswith("#include")]
    body = "".join(f"{{\n{block}}}\n" for block in blocks).replace("#include", "// ")
    given = (
        "static uint8_t bytes[320 * 240 * 2], pixels[CLASSIFIER_PIXEL_BYTES], probabilities[CLASSIFIER_CLASS_COUNT];\n"
        "static CLASSIFIER_SCRATCH(scratch);\nint read_byte(void);\nvoid write_byte(uint8_t byte);\n"
    )
    shown = "\n".join(["#include <stdio.h>", *includes, given, f"void shown(void)\n{{\n{body}}}\n"])
    (folder / "shown.c").write_text(shown)
    command = ["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-c", "shown.c", "-o", "shown.o"]

    assert len(blocks) == 3
    subprocess.run(command, cwd=folder, check=True)

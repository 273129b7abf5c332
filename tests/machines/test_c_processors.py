"""The C99 classifier answers the integer reference's bytes on other processors, of either byte order and any size."""

import base64
import re
import subprocess

import numpy as np
import pytest
from browser import CHROMEDRIVER, CHROMIUM, Browser
from int8_models import CONVOLUTIONS, IMAGES, NETWORKS, make_convolutional, make_int8

from benchmarks.processors import (
    COMPILERS,
    CORTEX_M,
    LINUX_TARGETS,
    STRICT,
    TARGETS_DIR,
    Sizes,
    answer_in_node,
    answer_on_linux,
    build_firmware,
    build_webassembly,
    find_missing,
    measure_elf,
    read_sizes,
    run_firmware,
)
from stages.lib.core.arrays import load_array
from stages.lib.core.errors import PipelineError
from stages.lib.microcontroller.c_classifier import render_classifier
from stages.lib.microcontroller.integer_network import read_network
from stages.lib.microcontroller.integer_reference import IntegerReference

# In a page: the answers of a module and images in base64, in base64.
PAGE_SCRIPT = """
const [module, images, sizes, done] = arguments;
const decode = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const encode = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
answerImages(decode(module), decode(images), ...sizes).then(
  (answers) => done(encode(answers)),
  (error) => done(String(error)),
);
"""
GOOD_SHARE = 0.9  # of the test images, which a network that learned nothing does not reach


def render(content):
    network = read_network(content)
    return render_classifier(network, [f"class {index}" for index in range(network.class_count)], "dark")


def require(*programs):
    reason = find_missing(*programs)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="module", params=["dense", "convolutional"])
def network(request):
    """An int8 file and images: digits' network and whole test split, or a convolutional network and made-up images."""
    if request.param == "convolutional":
        return make_convolutional(*CONVOLUTIONS[0])
    reproduced = request.getfixturevalue("reproduced")
    content = (reproduced.root / "models/export/model_int8.tflite").read_bytes()
    images = np.array(load_array(reproduced.root / "data/raw/test/images.npy"))
    labels = load_array(reproduced.root / "data/raw/test/labels.npy")
    # Of one that answers the same to everything, equal bytes would mean little.
    assert np.mean(IntegerReference(content).answer(images).argmax(axis=1) == labels) > GOOD_SHARE
    return content, images


def require_equal(answers, content, images):
    """Not a byte differs."""
    np.testing.assert_array_equal(answers.ravel(), IntegerReference(content).answer(images).ravel(), strict=True)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("core", CORTEX_M)
def test_cortex_m_answers_as_the_reference(tmp_path, network, core, compiler):
    """Without a library and an operating system, in 16 KiB of RAM; the costs are plausible."""
    require(compiler, "qemu-system-arm")
    content, images = network
    sources = render(content)
    firmware = build_firmware(core, compiler, sources, tmp_path)
    run = run_firmware(core, firmware, images, read_sizes(sources)[1])

    require_equal(run.answers, content, images)
    pixel_bytes, class_count, scratch_bytes = read_sizes(sources)
    products = sum(layer.kernel.size for layer in read_network(content).layers)
    assert firmware.classifier_sizes.ram == 0
    assert products < firmware.classifier_sizes.flash < firmware.program_sizes.flash < products + 8_000
    assert pixel_bytes + class_count + scratch_bytes <= firmware.program_sizes.ram < 16 * 1024
    assert len(run.instructions) == len(images)
    assert run.instructions.min() > 10_000
    assert 64 < run.stack_bytes < 512


@pytest.mark.slow
@pytest.mark.parametrize("processor", LINUX_TARGETS)
def test_processor_answers_as_the_reference(tmp_path, network, processor):
    """On Linux, with the lowest byte of a number first or the highest. Zig compiles a C library for each, once."""
    require("Clang", LINUX_TARGETS[processor][1])
    content, images = network

    require_equal(answer_on_linux(processor, render(content), images, tmp_path), content, images)


@pytest.mark.slow
@pytest.mark.parametrize("hidden_units", [(), (20,)])
def test_fast_emulators_answer_all_of_mnist(tmp_path, reproduced, mnist, hidden_units):
    """10,000 images each, on AArch64 and the other byte order, by digits' network and by a convolutional one."""
    programs = {name: LINUX_TARGETS[name] for name in ("AArch64", "s390x")}
    require("Clang", *(emulator for _, emulator in programs.values()))
    images = np.array(mnist.test.images)
    if hidden_units:
        content = (reproduced.root / "models/export/model_int8.tflite").read_bytes()
    else:
        content, _ = make_convolutional((28, 28), ((8,), (16,)), hidden_units)

    for name in programs:
        require_equal(answer_on_linux(name, render(content), images, tmp_path), content, images)


def test_webassembly_in_node_answers_as_the_reference(tmp_path, network):
    """As a module that imports nothing."""
    require("Clang", "node")
    content, images = network

    require_equal(answer_in_node(render(content), images, tmp_path), content, images)


@pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="needs Chromium and its driver of the same version")
def test_webassembly_in_chromium_answers_as_the_reference(tmp_path, network):
    """The same module in a page."""
    require("Clang")
    content, images = network
    sources = render(content)
    module = build_webassembly(sources, tmp_path).read_bytes()
    browser = Browser(tmp_path)
    try:
        browser.open("about:blank")
        given = [base64.b64encode(part).decode() for part in (module, images.tobytes())]
        script = (TARGETS_DIR / "webassembly.js").read_text(encoding="utf-8") + PAGE_SCRIPT
        said = browser.driver.execute_async_script(script, *given, read_sizes(sources))
    finally:
        browser.close()

    require_equal(np.frombuffer(base64.b64decode(said, validate=True), np.uint8), content, images)


def test_compiler_with_small_integers_says_nothing(tmp_path):
    """AVR's int has 16 bits: strict flags find nothing that would be lost in it."""
    require("Clang")
    for name, text in render(make_convolutional(*CONVOLUTIONS[4])[0]).items():
        (tmp_path / name).write_text(text)
    clang = ["python", "-m", "ziglang", "cc", "-target", "avr-freestanding", "-mmcu=atmega2560"]
    done = subprocess.run([*clang, *STRICT, "-c", "classifier.c"], cwd=tmp_path, capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")


def test_images_beyond_the_memory_are_refused(tmp_path):
    """A network that no board of 16 KiB holds does not link, instead of writing over its own stack."""
    require("Clang")
    content, _ = make_convolutional(*CONVOLUTIONS[3])
    with pytest.raises(PipelineError) as refusal:
        build_firmware("Cortex-M3", "Clang", render(content), tmp_path)

    assert re.search("the RAM is too small", refusal.value.problem)


def test_sizes_are_those_of_sections(tmp_path):
    """Constants and code are in flash, variables in RAM, and those that do not begin as 0 in both."""
    require("Clang")
    (tmp_path / "x.c").write_text("const int fixed[100] = {1};\nint filled[10] = {1};\nint empty[1000];\n")
    clang = ["python", "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabi", "-mcpu=cortex_m3", "-O2"]
    subprocess.run([*clang, "-c", "x.c", "-o", "x.o"], cwd=tmp_path, check=True)

    assert measure_elf((tmp_path / "x.o").read_bytes()) == Sizes(flash=440, ram=4040)


def test_small_networks_answer_on_a_microcontroller(tmp_path):
    """Also the darkest and the brightest image, and random ones."""
    require("Clang", "qemu-system-arm")
    content = make_int8(*NETWORKS[3])
    run = run_firmware("Cortex-M0+", build_firmware("Cortex-M0+", "Clang", render(content), tmp_path), IMAGES, 3)

    require_equal(run.answers, content, IMAGES)

"""Runtimes for browsers answer as the native ones: ONNX Runtime in Node, LiteRT in Chromium."""

import json
import shutil
import subprocess
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from imports import ROOT
from int8_models import CONVOLUTIONS, make_convolutional

from stages.lib.core.arrays import load_array
from stages.lib.exports.model_metadata import add_tflite_metadata
from stages.lib.exports.runtimes import load_predictor
from stages.lib.microcontroller.integer_reference import IntegerReference

LOCK_DIR = ROOT / "tests/web/npm"
PACKAGES_DIR = ROOT / ".cache/npm/node_modules"
NODE = shutil.which("node")
needs_packages = pytest.mark.skipif(
    not (NODE and PACKAGES_DIR.is_dir()), reason="no Node, or no packages for it: `make web-runtimes` installs them"
)
# Of float32, as in params.yaml.
LARGEST_DIFFERENCE = 1e-5
_IMAGES_AT_ONCE = 100

# A model, images, the shape of one, and how many to answer at once; writes float32 probabilities.
_ONNX_RUNTIME = """
import {readFileSync} from "node:fs";
import * as ort from "onnxruntime-web";
const [model, images, shape, rows] = process.argv.slice(1).map((text, place) => place < 2 ? text : JSON.parse(text));
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(readFileSync(model), {executionProviders: ["wasm"]});
const bytes = new Uint8Array(readFileSync(images)), size = shape.reduce((one, other) => one * other);
for (let start = 0; start < bytes.length; start += rows * size) {
  const some = bytes.slice(start, start + rows * size);
  const given = {[session.inputNames[0]]: new ort.Tensor("uint8", some, [some.length / size, ...shape])};
  const {[session.outputNames[0]]: answers} = await session.run(given);
  process.stdout.write(Buffer.from(answers.data.slice().buffer));
}
"""
_LITERT = """<!doctype html>
<link rel="icon" href="data:,">
<script type="importmap">{"imports": {
  "@litertjs/core": "/node_modules/@litertjs/core/dist/index.js",
  "@litertjs/wasm-utils": "/node_modules/@litertjs/wasm-utils/dist/index.js"
}}</script>
<script type="module">
import {loadLiteRt, loadAndCompile, Tensor} from "@litertjs/core";
const loaded = loadLiteRt("/node_modules/@litertjs/core/wasm/");
window.answer = async (shape) => {
  await loaded;
  const model = await loadAndCompile("/model.tflite", {accelerator: "wasm"});
  const response = await fetch("/images"), images = new Uint8Array(await response.arrayBuffer()), answers = [];
  const size = shape.reduce((one, other) => one * other);
  for (let start = 0; start < images.length; start += size) {
    const image = new Tensor(images.slice(start, start + size), [1, ...shape]), [answer] = await model.run(image);
    answers.push(Array.from(answer.toTypedArray()));
    image.delete();
    answer.delete();
  }
  model.delete();
  return answers;
};
</script>
"""


@pytest.fixture(scope="module")
def images(reproduced):
    return np.array(load_array(reproduced.root / "data/raw/test/images.npy"))


@contextmanager
def serve_files(folder):
    """The address at which the folder's files are, for modules and WebAssembly are not loaded from the disk."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def answer_in_litert(browser, folder, content, images):
    """What LiteRT for the web gives for each image, before scale and zero point."""
    (folder / "node_modules").symlink_to(PACKAGES_DIR)
    (folder / "index.html").write_text(_LITERT, encoding="utf-8")
    (folder / "model.tflite").write_bytes(content)
    (folder / "images").write_bytes(images.tobytes())
    with serve_files(folder) as address:
        browser.open(f"{address}/index.html")
        browser.wait(lambda: browser.driver.execute_script("return 'answer' in window"), "the runtime")
        browser.driver.set_script_timeout(120)
        given = browser.driver.execute_async_script(
            "const [shape, done] = arguments; answer(shape).then(done, (error) => done(String(error)))",
            list(images.shape[1:]),
        )
    assert not isinstance(given, str), given
    return np.array(given)


@needs_packages
@pytest.mark.parametrize("name", ["model.onnx", "model_int8.onnx"])
def test_onnx_runtime_for_the_web_answers_as_natively(reproduced, images, tmp_path, name):
    """The whole test split: the same class of each image, and probabilities that differ as float32 does."""
    model_path = reproduced.root / "models/export" / name
    (tmp_path / "images").write_bytes(images.tobytes())
    arguments = [str(model_path), str(tmp_path / "images"), json.dumps(images.shape[1:]), str(_IMAGES_AT_ONCE)]
    done = subprocess.run(
        [NODE, "--input-type=module", "--eval", _ONNX_RUNTIME, "--", *arguments],
        cwd=PACKAGES_DIR.parent,
        capture_output=True,
        check=True,
    )
    given = np.frombuffer(done.stdout, np.float32).reshape(len(images), -1)
    expected = load_predictor(model_path)(images)

    assert (given.argmax(axis=1) == expected.argmax(axis=1)).all()
    assert np.abs(given - expected).max() <= LARGEST_DIFFERENCE


@needs_packages
@pytest.mark.parametrize("name", ["model.tflite", "model_float16.tflite", "model_dynamic_range.tflite"])
def test_litert_for_the_web_answers_as_natively(browser, reproduced, images, tmp_path, name):
    """The same of the .tflite files whose answers are floats."""
    path = reproduced.root / "models/export" / name
    given, expected = answer_in_litert(browser, tmp_path, path.read_bytes(), images), load_predictor(path)(images)

    assert (given.argmax(axis=1) == expected.argmax(axis=1)).all()
    assert np.abs(given - expected).max() <= LARGEST_DIFFERENCE


@needs_packages
def test_litert_for_the_web_gives_the_references_bytes(browser, reproduced, images, tmp_path):
    """The int8 file over the whole test split: no byte differs."""
    content = (reproduced.root / "models/export/model_int8.tflite").read_bytes()
    given = answer_in_litert(browser, tmp_path, content, images)

    np.testing.assert_array_equal(given, IntegerReference(content).answer(images))


@needs_packages
@pytest.mark.parametrize("shapes", [CONVOLUTIONS[0], CONVOLUTIONS[4]], ids=["grey", "colour"])
def test_litert_for_the_web_gives_the_references_bytes_of_a_convolution(browser, tmp_path, shapes):
    """The same of made-up convolutional networks."""
    content, images = make_convolutional(*shapes)
    content = add_tflite_metadata(content, {})  # as every export gets it
    given = answer_in_litert(browser, tmp_path, content, images)

    np.testing.assert_array_equal(given, IntegerReference(content).answer(images))


def test_every_locked_package_has_its_digest_and_no_address():
    """Packages are taken from wherever npm is told to, and only those that were locked."""
    lock = json.loads((LOCK_DIR / "package-lock.json").read_text(encoding="utf-8"))
    (_, wanted), *packages = lock["packages"].items()

    assert wanted["dependencies"] == json.loads((LOCK_DIR / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert [name for name, package in packages if not package["integrity"].startswith("sha512-")] == []
    assert [name for name, package in packages if "resolved" in package] == []

"""The exported page answers in a real browser what the integer reference answers, to the bit, and serves everyone."""

import base64
import io
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from int8_models import CONVOLUTIONS, IMAGES, NETWORKS, make_convolutional, make_int8
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from stages.lib.core.arrays import load_array
from stages.lib.core.errors import ExportError
from stages.lib.data.image_decoding import read_image
from stages.lib.microcontroller.integer_network import read_network
from stages.lib.microcontroller.integer_reference import IntegerReference
from stages.lib.web.page import render_page

# The page of the default network, all golden images included.
MOST_BYTES = 200_000
# The narrowest screen of a phone, in pixels.
NARROW = 360
# Names that would like to be markup, a script, or another order of letters.
BAD_NAMES = (
    "</script><script>document.title='run'</script>",
    "<img src=x onerror=\"document.title='run'\">",
    "\u202e\"'&ß字\udcff",
)

_DECODE = "const decode = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));"
_ANSWER = f"""{_DECODE}
const all = decode(arguments[0]), size = classifier.imageShape.reduce((one, other) => one * other), answers = [];
for (let start = 0; start < all.length; start += size) {{
  answers.push(...classifier.predict(all.subarray(start, start + size)));
}}
return answers;
"""
_PREPARE = f"""{_DECODE}
return arguments[0].map(([rgba, width, height]) => {{
  const {{pixels, wasInverted}} = prepareImage(decode(rgba), width, height, arguments[1], arguments[2]);
  return [Array.from(pixels), wasInverted];
}});
"""
# What lies on the clipboard or is dropped is a file for the page, as if a person had done it.
_GIVE = f"""{_DECODE}
const [kind, name, content] = arguments, files = new DataTransfer();
files.items.add(new File([decode(content)], "picture.png", {{type: "image/png"}}));
document.dispatchEvent(kind === "paste"
  ? new ClipboardEvent("paste", {{clipboardData: files}})
  : new DragEvent("drop", {{dataTransfer: files, cancelable: true}}));
"""
_READ_SEEN = """
const canvas = document.getElementById("seen");
return Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data);
"""


def make_page(content, images, background="dark", names=None):
    """A page with the first images as golden ones."""
    network = read_network(content)
    names = names or [f"class {index}" for index in range(network.class_count)]
    golden = images[:3]
    return render_page(network, names, background, golden, np.arange(3), IntegerReference(content).answer(golden))


def open_page(browser, folder, text):
    (folder / "index.html").write_text(text, encoding="utf-8")
    browser.open((folder / "index.html").as_uri())
    browser.wait(lambda: browser.driver.find_elements(By.CSS_SELECTOR, "html.ready"), "the page's end of loading")


def answer(browser, images):
    """The page's bytes (N, classes)."""
    given = base64.b64encode(images.tobytes()).decode()
    return np.array(browser.driver.execute_script(_ANSWER, given), np.uint8).reshape(len(images), -1)


def read(browser, name):
    """The text of an element, seen or not."""
    return browser.driver.find_element(By.ID, name).get_property("textContent")


def read_seen(browser, image_shape):
    """The pixels that the page shows as those that the model sees."""
    rgba = np.array(browser.driver.execute_script(_READ_SEEN), np.uint8).reshape(*image_shape[:2], 4)
    return rgba[..., :3] if len(image_shape) == 3 else rgba[..., 0]


def encode_png(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", **options)
    return file.getvalue()


@contextmanager
def set_scheme(browser, scheme):
    """As if the person had chosen light or dark pages."""
    for features in ([{"name": "prefers-color-scheme", "value": scheme}], []):
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        if features:
            yield


@pytest.fixture
def grey_page(browser, tmp_path):
    """A page of a network for grey images of 28 by 28 pixels."""
    content, images = make_convolutional(*CONVOLUTIONS[0])
    open_page(browser, tmp_path, make_page(content, images))
    return browser


@pytest.mark.parametrize(("hidden_units", "factor"), NETWORKS)
def test_dense_network_answers_as_the_reference(browser, tmp_path, hidden_units, factor):
    """Every byte, whatever the network and the images."""
    content = make_int8(hidden_units, factor)
    open_page(browser, tmp_path, make_page(content, IMAGES))

    np.testing.assert_array_equal(answer(browser, IMAGES), IntegerReference(content).answer(IMAGES), strict=True)


@pytest.mark.parametrize(("image_shape", "conv_blocks", "hidden_units"), CONVOLUTIONS)
def test_convolutional_network_answers_as_the_reference(browser, tmp_path, image_shape, conv_blocks, hidden_units):
    """Convolution, pooling and colour, with rows that no pooling takes."""
    content, images = make_convolutional(image_shape, conv_blocks, hidden_units)
    background = None if len(image_shape) == 3 else "dark"
    open_page(browser, tmp_path, make_page(content, images, background))

    np.testing.assert_array_equal(answer(browser, images), IntegerReference(content).answer(images), strict=True)


def test_exported_page_answers_for_the_whole_test_split(browser, reproduced):
    """The page that `export` writes, opened from the disk: no byte differs, and it says so of the golden images."""
    export_dir = reproduced.root / "models/export"
    images = load_array(reproduced.root / "data/raw/test/images.npy")
    expected = IntegerReference((export_dir / "model_int8.tflite").read_bytes()).answer(images)
    browser.open((export_dir / "web/index.html").as_uri())
    verdict = browser.see("//*[@id='verdict'][@class='good']").text

    np.testing.assert_array_equal(answer(browser, images), expected, strict=True)
    assert verdict == "✔ Verified: 10 golden images, all 100 bytes of the answers as expected."
    assert (export_dir / "web/index.html").stat().st_size < MOST_BYTES
    assert re.search(r"  web/index.html$", (export_dir / "SHA256SUMS").read_text(encoding="utf-8"), re.MULTILINE)
    browser.resize(960, 700)
    browser.take_picture("page")
    browser.resize(390, 844)
    with set_scheme(browser, "dark"):
        browser.take_picture("page_phone")
    browser.resize(1400, 1000)


@pytest.mark.slow
def test_mnist_test_split_is_answered_as_the_reference(browser, tmp_path, mnist):
    """All of 10,000 images, by a convolutional network."""
    content, _ = make_convolutional(*CONVOLUTIONS[0])
    open_page(browser, tmp_path, make_page(content, mnist.test.images))
    expected = IntegerReference(content).answer(mnist.test.images)
    given = [answer(browser, mnist.test.images[start : start + 1000]) for start in range(0, 10_000, 1000)]

    np.testing.assert_array_equal(np.concatenate(given), expected, strict=True)


def test_golden_answer_that_differs_is_told(browser, tmp_path):
    """A browser that computes otherwise would be seen at once."""
    content = make_int8(*NETWORKS[0])
    answers = IntegerReference(content).answer(IMAGES[:2])
    answers[1, 2] ^= 1
    page = render_page(read_network(content), ["a", "b", "c"], "dark", IMAGES[:2], np.arange(2), answers)
    open_page(browser, tmp_path, page)

    assert browser.see("//*[@id='verdict'][@class='bad']").text.startswith("✘ Do not trust this page: 1 of 6 bytes")


def test_page_is_the_same_every_time():
    """Equal arguments give equal bytes."""
    content, images = make_convolutional(*CONVOLUTIONS[4])

    assert make_page(content, images, None) == make_page(content, images, None)


def test_names_are_shown_as_text(browser, tmp_path):
    """Whatever a class is called: no markup, no script, no end of one."""
    content = make_int8(*NETWORKS[0])
    open_page(browser, tmp_path, make_page(content, IMAGES, names=BAD_NAMES))
    shown = [row.get_property("textContent") for row in browser.driver.find_elements(By.CSS_SELECTOR, "#bars th")]

    # What stands for a byte that is no letter is shown as the sign for such.
    assert shown == [name.replace("\udcff", "�") for name in BAD_NAMES]
    assert browser.driver.title == "Image classifier"


def test_fewer_names_than_classes_are_refused():
    """A class without a name could not be shown."""
    with pytest.raises(ExportError) as refusal:
        make_page(make_int8(*NETWORKS[0]), IMAGES, names=["one", "two"])

    assert (refusal.value.expected, refusal.value.got) == ("3 class names", "2")


def test_page_needs_no_other_file_and_no_network(grey_page):
    """It asks for nothing, and its policy would not let it."""
    asked = grey_page.driver.execute_script("return performance.getEntriesByType('resource').map(({name}) => name)")
    refused = grey_page.driver.execute_async_script(
        "const done = arguments[0]; fetch('https://example.org/').then(() => done(''), (error) => done(error.name))"
    )
    text = Path(grey_page.driver.current_url.removeprefix("file://")).read_text(encoding="utf-8")

    assert [name for name in asked if not name.startswith("data:")] == []
    assert refused == "TypeError"
    assert set(re.findall(r"(?:src|href)=\"([^\"]*)", text)) == {"data:,"}


@pytest.mark.parametrize(
    ("image_shape", "background"),
    [
        ((28, 28), "dark"),
        ((28, 28), "light"),
        ((13, 10), "dark"),
        ((96, 96), "dark"),
        ((32, 32, 3), None),
        ((6, 8, 3), None),
    ],
)
def test_decoded_pixels_become_the_same_input_as_in_python(grey_page, image_shape, background):
    """Alpha, luma, polarity, proportions, padding and Pillow's filter: 1,200 frames of all sizes, no byte differs."""
    generator = np.random.default_rng(len(image_shape) + image_shape[0])
    frames, expected = [], []
    for number in range(200):
        width, height = (int(size) for size in np.exp(generator.uniform(0, np.log(200), 2)))
        if number % 10 == 0:  # a line
            width, height = (1, height) if number % 20 else (width * 5, 1)
        if number % 10 == 1:  # the same proportions
            width, height = image_shape[1] * (1 + number % 3), image_shape[0] * (1 + number % 3)
        frame = generator.integers(0, 256, (height, width, 4), np.uint8)
        if number % 3:
            frame[..., 3] = 255
        if number % 4 == 0:  # black and white, where a cubic goes beyond both
            frame[..., :3] = generator.choice(np.array([0, 255], np.uint8), (height, width, 1))
        frames.append([base64.b64encode(frame.tobytes()).decode(), width, height])
        expected.append(read_image(io.BytesIO(encode_png(frame)), "frame", image_shape, background))
    given = grey_page.driver.execute_script(_PREPARE, frames, list(image_shape), background)
    different = [
        frame[1:]
        for frame, (pixels, was_inverted), wanted in zip(frames, given, expected, strict=True)
        if pixels != wanted.pixels.ravel().tolist() or was_inverted != wanted.was_inverted
    ]

    assert different == []
    assert len({was_inverted for _, was_inverted in given}) == (1 if background is None else 2)


def make_pictures():
    """Files that a browser decodes to what Pillow makes of them: opaque, without a colour profile."""
    generator = np.random.default_rng(7)
    colours = generator.integers(0, 256, (50, 70, 3), np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: a quarter to the right
    palette = io.BytesIO()
    Image.fromarray(colours).quantize(16).save(palette, "png")
    bitmap = io.BytesIO()
    Image.fromarray(colours).save(bitmap, "bmp")
    return {
        "grey": encode_png(colours[..., 0]),
        "colour": encode_png(colours),
        "turned": encode_png(colours, exif=turned),
        "palette": palette.getvalue(),
        "bitmap": bitmap.getvalue(),
        "model-sized": encode_png(colours[:28, :28, 0]),
    }


@pytest.mark.parametrize("kind", ["grey", "colour", "turned", "palette", "bitmap", "model-sized"])
def test_chosen_picture_is_seen_as_in_python(grey_page, tmp_path, kind):
    """A file that is opaque, of 8 bits and without a colour profile: the same pixels, and the answer to them."""
    content = make_pictures()[kind]
    (tmp_path / "picture").write_bytes(content)
    expected = read_image(io.BytesIO(content), kind, (28, 28), "dark")
    grey_page.driver.find_element(By.ID, "file").send_keys(str(tmp_path / "picture"))
    grey_page.wait(lambda: "golden" not in read(grey_page, "seen-note"), "the picture's answer")
    (answers,) = answer(grey_page, expected.pixels[np.newaxis])

    np.testing.assert_array_equal(read_seen(grey_page, (28, 28)), expected.pixels)
    assert ("Inverted" in read(grey_page, "seen-note")) == expected.was_inverted
    assert read(grey_page, "said").startswith(f"class {answers.argmax()}, ")


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_pasted_and_dropped_pictures_are_answered(grey_page, kind):
    """From the clipboard or a folder's window."""
    content = make_pictures()["colour"]
    grey_page.driver.execute_script(_GIVE, kind, "picture.png", base64.b64encode(content).decode())
    grey_page.wait(lambda: "Resized from 70 " in read(grey_page, "seen-note"), "the picture's answer")

    expected = read_image(io.BytesIO(content), kind, (28, 28), "dark").pixels
    np.testing.assert_array_equal(read_seen(grey_page, (28, 28)), expected)


def test_file_that_is_no_picture_is_told(grey_page, tmp_path):
    """In words for a person, which a screen reader reads at once."""
    (tmp_path / "notes.png").write_text("no picture", encoding="utf-8")
    grey_page.driver.find_element(By.ID, "file").send_keys(str(tmp_path / "notes.png"))

    assert grey_page.see("//*[@role='alert']").text.startswith("This browser cannot read it as a picture")


def test_camera_picture_is_answered(grey_page):
    """The camera is closed once the picture is taken."""
    grey_page.press("Use the camera")
    grey_page.press("Take the picture")
    grey_page.wait(lambda: "Resized from" in read(grey_page, "seen-note"), "the picture's answer")

    assert grey_page.driver.execute_script("return document.getElementById('video').srcObject") is None


def test_drawing_by_pointer_is_answered(grey_page):
    """A stroke on an empty pad is what the model sees, by the same rules as a picture."""
    grey_page.press("Clear")
    pad = grey_page.see("//*[@id='pad']")
    ActionChains(grey_page.driver).move_to_element(pad).click_and_hold().move_by_offset(0, 90).release().perform()
    seen = read_seen(grey_page, (28, 28))

    assert seen[:10].max() == 0
    assert seen[16:20, 13:15].min() > 200
    assert read(grey_page, "said").startswith("class ")


def test_drawing_by_keys_is_answered(grey_page):
    """Tab to the pad; arrows move the pen, space lowers and lifts it, Delete clears: no mouse is needed."""
    keys = ActionChains(grey_page.driver)
    keys.send_keys(Keys.TAB, Keys.DELETE, Keys.SPACE, *[Keys.ARROW_UP] * 8, Keys.SPACE).perform()
    seen = read_seen(grey_page, (28, 28))

    assert grey_page.driver.switch_to.active_element.get_property("id") == "pad"
    assert seen[8:13, 13:15].min() > 200
    assert seen[18:].max() == 0
    assert read(grey_page, "said").startswith("class ")


def test_every_control_has_a_name_and_a_place_in_the_order(grey_page):
    """As the browser tells a screen reader; the order of the Tab key is that of the page."""
    controls = []
    for _ in range(8):
        ActionChains(grey_page.driver).send_keys(Keys.TAB).perform()
        focused = grey_page.driver.switch_to.active_element
        controls.append((focused.aria_role, focused.accessible_name))
    tree = grey_page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    focusable = [
        node["role"]["value"]
        for node in tree
        if any(entry["name"] == "focusable" and entry["value"]["value"] for entry in node.get("properties", []))
    ]
    headings = [node["name"]["value"] for node in tree if node.get("role", {}).get("value") == "heading"]

    assert controls == [
        ("application", "Drawing pad"),
        ("button", "Clear"),
        ("slider", "Pen"),
        ("button", "Choose a picture"),
        ("button", "Use the camera"),
        *(("button", f"Example: class {label}") for label in range(3)),
    ]
    assert sorted(focusable) == sorted(["RootWebArea", *(role for role, _ in controls)])  # there are no others
    assert headings == ["Image classifier", "Image", "Answer", "As the model sees it", "Pictures"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone_in_both_schemes(grey_page, scheme):
    """Nothing is wider than the screen, and text stands out from what is behind it by at least 4.5 to 1 (WCAG 2.2)."""
    grey_page.resize(NARROW, 800)
    with set_scheme(grey_page, scheme):
        width = grey_page.driver.execute_script("return document.documentElement.scrollWidth")
        text, faint, good, card = (
            measure_luminance(grey_page.driver.execute_script(f"return getComputedStyle({element}).{kind}"))
            for element, kind in [
                ("document.body", "color"),
                ("document.getElementById('seen-note')", "color"),
                ("document.getElementById('verdict')", "color"),
                ("document.querySelector('section')", "backgroundColor"),
            ]
        )
    grey_page.resize(1400, 1000)

    assert width == NARROW
    assert (card > 0.5) == (scheme == "light")
    assert min((max(one, card) + 0.05) / (min(one, card) + 0.05) for one in (text, faint, good)) >= 4.5


def measure_luminance(colour):
    """Relative luminance of a CSS colour (https://www.w3.org/TR/WCAG22/#dfn-relative-luminance)."""
    values = np.array([int(value) for value in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])

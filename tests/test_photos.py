"""Pictures of any size and kind come out as the raw pixels that a model takes."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from stages.lib.errors import DataError
from stages.lib.photos import find_background, read_photo

# Height and width differ, so that a mix-up shows.
SIZE = (20, 30)
# Grey levels that JPEG and resampling may move: both are lossy.
LOSS = 12


def draw():
    """A bright block left of the centre on a dark ground, uint8 (20, 30)."""
    pixels = np.zeros(SIZE, np.uint8)
    pixels[5:15, 6:14] = 240
    return pixels


def encode(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def read(file, background="dark"):
    return read_photo(file, "a picture", SIZE, background)


def test_picture_of_the_models_kind_comes_through_byte_for_byte():
    """Grey, of the right size and with the model's background: nothing is done to it."""
    photo = read(encode(Image.fromarray(draw())))

    assert np.array_equal(photo.pixels, draw())
    assert photo.pixels.dtype == np.uint8
    assert not photo.was_inverted


@pytest.mark.parametrize(("ground", "background"), [(0, "dark"), (255, "light")])
def test_background_is_the_median_of_the_borders(ground, background):
    """What the middle of an image shows does not count."""
    images = np.full((2, *SIZE), ground, np.uint8)
    images[:, 1:-1, 1:-1] = 255 - ground

    assert find_background(images) == background


def test_other_polarity_is_inverted_and_said():
    """Dark on light becomes light on dark for a model of dark backgrounds, and stays for one of light ones."""
    picture = ImageOps.invert(Image.fromarray(draw()))

    assert np.array_equal(read(encode(picture)).pixels, draw())
    assert read(encode(picture)).was_inverted
    assert np.array_equal(read(encode(picture), "light").pixels, 255 - draw())


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda image: image.resize((300, 200), Image.Resampling.NEAREST), "PNG"),
        (lambda image: image.convert("RGB"), "JPEG"),
        (lambda image: image.convert("CMYK"), "TIFF"),
        (lambda image: image.convert("P"), "GIF"),
        (lambda image: Image.fromarray(np.asarray(image).astype(np.uint16) * 257), "PNG"),
    ],
    ids=["ten times the size", "colour", "CMYK", "palette", "16 bits"],
)
def test_any_kind_of_picture_is_taken(change, kind):
    """Size, colour and depth of the picture do not matter."""
    photo = read(encode(change(Image.fromarray(draw())), kind, quality=95))
    inner = photo.pixels[7:13, 8:12].astype(int)

    assert photo.pixels.shape == SIZE
    assert np.abs(inner - 240).max() <= LOSS
    assert photo.pixels[[0, -1]].max() <= LOSS


def test_transparent_parts_are_white():
    """A dark drawing on a transparent ground is one on white paper."""
    drawing = Image.new("RGBA", (30, 20), (0, 0, 0, 0))
    drawing.paste((0, 0, 0, 255), (6, 5, 14, 15))
    photo = read(encode(drawing))

    assert photo.was_inverted
    assert photo.pixels[10, 10] == 255
    assert photo.pixels[0, 0] == 0


def test_exif_rotation_is_honoured():
    """A camera's note that the picture lies on its side is followed."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    lying = Image.fromarray(draw()).transpose(Image.Transpose.ROTATE_90)

    assert np.array_equal(read(encode(lying, exif=exif)).pixels, draw())


def test_other_aspect_is_padded_not_stretched():
    """A square picture keeps its proportions; its ground goes on at the sides."""
    square = np.zeros((20, 20), np.uint8)
    square[5:15, 5:15] = 240
    pixels = read(encode(Image.fromarray(square))).pixels

    assert np.array_equal(pixels[:, 5:25], square)
    assert pixels[:, :5].max() == pixels[:, 25:].max() == 0


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "cannot identify"),
        (b"this is text\n" * 50, "cannot identify"),
        (encode(Image.fromarray(draw()).resize((300, 200))).getvalue()[:150], "truncated"),
        (encode(Image.fromarray(draw().astype(np.float32)), "TIFF").getvalue(), "got mode F"),
        (encode(Image.new("1", (20_000, 10_000))).getvalue(), "decompression bomb"),
    ],
    ids=["empty", "text", "cut off", "float", "bomb"],
)
def test_what_is_no_sound_picture_is_refused_in_one_line(content, told):
    """Each broken file gets one line that names it."""
    with pytest.raises(DataError) as refusal:
        read(io.BytesIO(content))

    assert str(refusal.value).startswith("a picture: expected ")
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)

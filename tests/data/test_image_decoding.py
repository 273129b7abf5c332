"""Images of any size and kind come out as the raw pixels that a model takes."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from stages.lib.core.errors import DataError
from stages.lib.data.image_decoding import decode_image, find_background, read_image

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
    return read_image(file, "an image", SIZE, background)


def draw_colours():
    """The same block in another brightness of each channel, in another place of each, uint8 (20, 30, 3)."""
    return np.stack([draw(), draw()[::-1] // 2, np.roll(draw(), 9, axis=1) // 3], axis=-1)


def read_colours(file):
    return read_image(file, "an image", (*SIZE, 3), None)


def test_picture_of_the_models_kind_comes_through_byte_for_byte():
    """Grey, of the right size and with the model's background: nothing is done to it."""
    image = read(encode(Image.fromarray(draw())))

    assert np.array_equal(image.pixels, draw())
    assert image.pixels.dtype == np.uint8
    assert not image.was_inverted


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
    """Size, colour and depth of the image do not matter."""
    image = read(encode(change(Image.fromarray(draw())), kind, quality=95))
    inner = image.pixels[7:13, 8:12].astype(int)

    assert image.pixels.shape == SIZE
    assert np.abs(inner - 240).max() <= LOSS
    assert image.pixels[[0, -1]].max() <= LOSS


def test_transparent_parts_are_white():
    """A dark drawing on a transparent ground is one on white paper."""
    drawing = Image.new("RGBA", (30, 20), (0, 0, 0, 0))
    drawing.paste((0, 0, 0, 255), (6, 5, 14, 15))
    image = read(encode(drawing))

    assert image.was_inverted
    assert image.pixels[10, 10] == 255
    assert image.pixels[0, 0] == 0


def test_exif_rotation_is_honoured():
    """A camera's note that the image lies on its side is followed."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    lying = Image.fromarray(draw()).transpose(Image.Transpose.ROTATE_90)

    assert np.array_equal(read(encode(lying, exif=exif)).pixels, draw())


def test_other_aspect_is_padded_not_stretched():
    """A square image keeps its proportions; its ground goes on at the sides."""
    square = np.zeros((20, 20), np.uint8)
    square[5:15, 5:15] = 240
    pixels = read(encode(Image.fromarray(square))).pixels

    assert np.array_equal(pixels[:, 5:25], square)
    assert pixels[:, :5].max() == pixels[:, 25:].max() == 0


@pytest.mark.parametrize(
    ("content", "reported"),
    [
        (b"", "not a valid image: its kind is unknown"),
        (b"this is text\n" * 50, "not a valid image: its kind is unknown"),
        (encode(Image.fromarray(draw()).resize((300, 200))).getvalue()[:150], "not a valid image: .*truncated"),
        (encode(Image.fromarray(draw().astype(np.float32)), "TIFF").getvalue(), "expected at most 16 .+ got mode F"),
        (encode(Image.new("1", (20_000, 10_000))).getvalue(), "not a valid image: .*decompression bomb"),
    ],
    ids=["empty", "text", "cut off", "float", "bomb"],
)
def test_what_is_no_sound_picture_is_refused_in_one_line(content, reported):
    """Each broken file gets one line that names it."""
    with pytest.raises(DataError) as refusal:
        read(io.BytesIO(content))

    assert refusal.value.where == "an image"
    assert re.match(reported, refusal.value.problem)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_exif_orientation_is_honoured(orientation):
    """All eight ways in which a camera may lie, against the turn that makes up for each (Exif 2.3, table 6)."""
    turn = Image.Transpose
    lay = [None, turn.FLIP_LEFT_RIGHT, turn.ROTATE_180, turn.FLIP_TOP_BOTTOM]
    lay += [turn.TRANSPOSE, turn.ROTATE_90, turn.TRANSVERSE, turn.ROTATE_270]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(draw())
    lying = image.transpose(lay[orientation - 1]) if orientation > 1 else image

    for kind in ("PNG", "TIFF"):
        assert np.array_equal(read(encode(lying, kind, exif=exif)).pixels, draw())


@pytest.mark.parametrize("size", [(1, 10_000), (10_000, 1), (1, 1)])
def test_line_and_dot_leave_something(size):
    """A bright line on the image's width, however thin, is at least a pixel wide."""
    pixels = read(encode(Image.new("L", size, 200)), "light").pixels

    assert pixels.shape == SIZE
    assert pixels.max() == 200


def test_big_endian_16_bits_keep_their_grey_levels():
    """The high byte of each value, as in a PNG: Pillow alone would make all but the darkest white."""
    deep = Image.frombytes("I;16B", SIZE[::-1], (draw().astype(">u2") * 257).astype(">u2").tobytes())

    assert np.array_equal(read(encode(deep, "TIFF")).pixels, draw())


def test_first_picture_of_several_behind_a_jpeg_is_taken():
    """Telephones put a smaller one, or a map of depth, behind the image."""
    image, other = Image.fromarray(draw()), Image.new("L", (30, 20), 255)
    image = read(encode(image, "MPO", quality=95, save_all=True, append_images=[other]))

    assert np.abs(image.pixels.astype(int) - draw()).max() <= LOSS


def add_scans():
    """A progressive JPEG whose last scan comes thirty times."""
    content = encode(Image.fromarray(draw()), "JPEG", progressive=True).getvalue()
    return content[:-2] + content[content.rindex(b"\xff\xda") : -2] * 30 + content[-2:]


def format_tiff(*tags):
    """A TIFF of one grey pixel, and these tags beside: number, type, count, value."""
    plain = [(256, 4, 1, 1), (257, 4, 1, 1), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 1)]
    entries = sorted([*plain, *tags])
    return (
        b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries) + bytes(4)
    )


def format_png(*chunks):
    """A PNG of one grey pixel, and these chunks before it."""
    listed = [(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)), *chunks, (b"IDAT", zlib.compress(b"\0\0"))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in [*listed, (b"IEND", b"")]
    )


@pytest.mark.parametrize(
    ("content", "reported", "advised"),
    [
        (encode(Image.new("1", (8193, 8192))).getvalue(), "at most 67,108,864 pixels, got 8193 x 8192", "make it"),
        (encode(Image.new("1", (1, 65_536))).getvalue(), "at most 65,535 pixels a side, got 1 x 65536", "make it"),
        (format_png() + bytes(1 << 26), "a file of at most 67,108,864 bytes, got more", "make it smaller"),
        (format_png(*[(b"abCd", b"")] * 140_000), "not a valid image: more than 262,144 pieces", "replace it"),
        (
            format_png((b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 21)))),
            *("not a valid image: Decompressed data too", "replace it"),
        ),
        (
            format_png((b"eXIf", b"II*\0" + bytes(1 << 21))),
            *("at most 1,048,576 bytes of EXIF data, got more", "save it without EXIF data"),
        ),
        (add_scans(), "a JPEG of at most 20 scans, got more", "save it again as PNG"),
        (format_tiff((322, 4, 1, 30_000), (323, 4, 1, 30_000)), "tiles of at most 67,108,864 pixels", "make it"),
        (format_tiff((256, 4, 1, 30_000)), "a TIFF tag stands in it twice", "save it again as PNG"),
        (format_tiff((40_000, 4, 1 << 30, 8)), "at most 262,144 values of TIFF tags, got more", "save it again as PNG"),
        (
            format_tiff((259, 3, 1, 7)) + b"\xff\xc2",
            *("baseline JPEG in a TIFF, got a progressive one", "save it again as PNG"),
        ),
    ],
    ids=["pixels", "side", "bytes", "chunks", "text", "EXIF", "scans", "tile", "twice", "values", "JPEG in TIFF"],
)
def test_what_would_take_memory_or_minutes_is_refused_before(content, reported, advised):
    """Small files that unpack to gigabytes, or are gone through again and again, are told for what they are."""
    with pytest.raises(DataError) as refusal:
        read(io.BytesIO(content))

    assert reported in refusal.value.problem
    assert refusal.value.hint.startswith(advised)


def test_colours_come_through_byte_for_byte():
    """RGB of the right size is what it was, and grey is the same in three channels."""
    image = read_colours(encode(Image.fromarray(draw_colours())))
    grey = read_colours(encode(Image.fromarray(draw())))

    np.testing.assert_array_equal(image.pixels, draw_colours(), strict=True)
    np.testing.assert_array_equal(grey.pixels, np.stack([draw()] * 3, axis=-1), strict=True)


def test_no_colour_image_is_inverted():
    """A negative in colour shows nothing that exists: whatever its border, an image stays as it is."""
    image = read_colours(encode(Image.fromarray(255 - draw_colours())))

    np.testing.assert_array_equal(image.pixels, 255 - draw_colours(), strict=True)
    assert not image.was_inverted
    assert find_background(image.pixels[np.newaxis]) is None


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda image: image.resize((300, 200), Image.Resampling.NEAREST), "PNG"),
        (lambda image: image, "JPEG"),
        (lambda image: image, "MPO"),
        (lambda image: image.convert("CMYK"), "TIFF"),
        (lambda image: image.quantize(64), "PNG"),
        (lambda image: image, "WEBP"),
    ],
    ids=["ten times the size", "JPEG", "MPO", "CMYK", "palette", "WebP"],
)
def test_any_kind_of_picture_is_taken_in_its_colours(change, kind):
    """Each channel of the block's inside has the brightness that was drawn; subsampled colours are lossy."""
    drawn = np.zeros((*SIZE, 3), np.uint8)
    drawn[4:16, 4:20] = (240, 120, 40)
    image = read_colours(encode(change(Image.fromarray(drawn)), kind, quality=95))

    assert image.pixels.shape == (*SIZE, 3)
    assert np.abs(image.pixels[7:13, 8:16].astype(int) - (240, 120, 40)).max() <= LOSS
    assert image.pixels[[0, -1]].max() <= LOSS


def test_colour_is_padded_with_each_channels_border():
    """Beside a square image its ground goes on, in the median of each channel."""
    square = np.full((20, 20, 3), (10, 200, 90), np.uint8)
    square[0, :3] = 255  # less than half of the border
    square[5:15, 5:15] = 0
    pixels = read_colours(encode(Image.fromarray(square))).pixels

    np.testing.assert_array_equal(pixels[:, 5:25], square)
    assert (pixels[:, :5] == (10, 200, 90)).all()
    assert (pixels[:, 25:] == (10, 200, 90)).all()


def test_transparent_parts_are_white_in_colour():
    """Colours shine through as far as they are opaque, on white."""
    drawing = Image.new("RGBA", (30, 20), (0, 0, 0, 0))
    drawing.paste((200, 100, 0, 255), (6, 5, 14, 15))
    drawing.paste((0, 0, 255, 51), (20, 5, 28, 15))  # a fifth
    pixels = read_colours(encode(drawing)).pixels

    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[10, 10].tolist() == [200, 100, 0]
    assert pixels[10, 24].tolist() == [204, 204, 255]


def test_sixteen_bits_of_grey_are_three_equal_channels():
    """The high byte of each pixel, in each channel."""
    deep = Image.fromarray(draw().astype(np.uint16) * 257)

    np.testing.assert_array_equal(read_colours(encode(deep)).pixels, np.stack([draw()] * 3, axis=-1), strict=True)


def test_exif_rotation_is_honoured_in_colour():
    """A camera's note that the image lies on its side is followed."""
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.fromarray(draw_colours()).transpose(Image.Transpose.ROTATE_90)

    np.testing.assert_array_equal(read_colours(encode(lying, exif=exif)).pixels, draw_colours(), strict=True)


def test_line_in_colour_is_at_least_a_pixel():
    """An image of one row becomes one row of the model's, amid the colour of its border."""
    line = Image.new("RGB", (3000, 1), (10, 20, 30))

    assert (read_colours(encode(line)).pixels == (10, 20, 30)).all()


@pytest.mark.parametrize(
    "content",
    [b"", b"this is text\n" * 50, encode(Image.fromarray(draw().astype(np.float32)), "TIFF").getvalue()],
    ids=["empty", "text", "float"],
)
def test_what_is_no_image_is_refused_in_colour_alike(content):
    """Grey or colour, the same error."""
    refusals = []
    for is_colour in (False, True):
        with pytest.raises(DataError) as refusal:
            decode_image(io.BytesIO(content), "an image", is_colour=is_colour)
        refusals.append(refusal.value.args)

    assert refusals[0] == refusals[1]

"""Images that are in the data twice are found: the same pixel by pixel, or saved anew."""

import io

import numpy as np
import pytest
from memory import measure_peak
from PIL import Image
from samples import make_dataset

from stages.lib.core.arrays import Split
from stages.lib.validation import duplicates
from stages.lib.validation.duplicates import NEAR_BITS, NEAR_CORRELATION, correlate, find_duplicates, find_near
from stages.lib.validation.image_features import Measures, Rows, hash_images, measure_images, to_grey

SIZE = 28
# Training images that are saved anew, and the share of them that must be found: bits of the hash change by chance.
COUNT = 400
LEAST_FOUND = 0.95


def measure(train, test):
    """The rows of two splits and their copies."""
    rows = Rows.of({"train": train, "test": test})
    return rows, find_duplicates(rows, measure_images(rows))


def draw_strokes(count, seed=0):
    """Images (N, 28, 28) of three strokes each, bright on black."""
    generator = np.random.default_rng(seed)
    images = np.zeros((count, SIZE, SIZE), np.uint8)
    for image in images:
        for _ in range(3):
            row, column = generator.integers(3, 15, 2)
            height, width = generator.integers(2, 12, 2)
            image[row : row + height, column : column + width] += np.uint8(80)
    return images


def draw_photographs(count, seed=0):
    """Images (N, 28, 28, 3) that are full of light and dark, in colours that are smoother, as photographs are."""
    generator = np.random.default_rng(seed)

    def enlarge(small):
        return np.stack([Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC) for image in small])

    light, colours = (
        generator.integers(0, 180, (count, 14, 14), np.uint8),
        generator.integers(0, 60, (count, 4, 4, 3), np.uint8),
    )
    return enlarge(light)[..., np.newaxis] + enlarge(colours)


def turn_hue(image):
    """A drawing (H, W, 3) in other colours."""
    return image[..., [2, 0, 1]]


def save_as_jpeg(image):
    """What is left of an image (H, W) or (H, W, 3) that was saved as JPEG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


def resize_and_back(image):
    """An image (H, W) that was twice as large for a while."""
    return np.asarray(Image.fromarray(image).resize((2 * SIZE, 2 * SIZE)).resize((SIZE, SIZE)))


def brighten(image):
    """An image (H, W) with a little more light."""
    return np.minimum(image.astype(int) + 9, 255).astype(np.uint8)


def test_copies_are_found_with_what_they_are_like():
    """An image of each kind: repeated, leaked, leaked and repeated, alone; each knows which one it is like."""
    train, test = make_dataset()[:2]
    train.images[20] = train.images[10]
    test.images[[5, 7]] = train.images[10]
    test.images[9] = train.images[11]
    _, found = measure(train, test)

    assert np.flatnonzero(found.repeats).tolist() == [20, 67]
    assert np.flatnonzero(found.leaks).tolist() == [65, 67, 69]
    assert found.duplicate_of[[10, 20, 65, 67, 69]].tolist() == [20, 10, 10, 20, 11]


@pytest.mark.parametrize("digest_count", [1, 2, 5])
def test_images_that_share_a_digest_are_no_copies(digest_count):
    """Where digests collide, the pixels decide."""
    train, test = make_dataset()[:2]
    train.images[20] = train.images[10]
    rows = Rows.of({"train": train, "test": test})
    digests = (np.arange(90) % digest_count).astype(np.uint32)
    found = find_duplicates(rows, measure_images(rows)._replace(digests=digests))

    assert np.flatnonzero(found.repeats).tolist() == [20]
    assert not found.leaks.any()


def test_same_pixels_under_two_labels_conflict_both():
    """Of two labels one is wrong, and nobody but a person knows which: both images are named, each with the other."""
    train, test = make_dataset()[:2]
    test.images[0] = train.images[1]  # classes 0 and 1
    _, found = measure(train, test)

    assert np.flatnonzero(found.label_conflicts).tolist() == [1, 60]
    assert found.duplicate_of[[1, 60]].tolist() == [60, 1]


@pytest.mark.parametrize("change", [save_as_jpeg, resize_and_back, brighten])
def test_image_that_was_saved_anew_is_a_near_leak(digits, change):
    """Test images that are training images through another program are found, with the images that they were."""
    test = Split(np.array([change(image) for image in digits.train.images[:COUNT]]), digits.train.labels[:COUNT])
    rows, found = measure(digits.train, test)
    (near,) = np.nonzero(found.near_leaks)

    assert len(near) >= LEAST_FOUND * COUNT
    assert found.duplicate_of[near].tolist() == (near - len(digits.train.labels)).tolist()
    assert rows.total == len(found.near_leaks)


@pytest.mark.parametrize("change", [save_as_jpeg, resize_and_back, brighten])
def test_photograph_that_was_saved_anew_is_a_near_leak(change):
    """In colour, too; and no other photograph is taken for one."""
    train = Split(draw_photographs(COUNT), np.zeros(COUNT, np.uint8))
    images = np.concatenate([[change(image) for image in train.images[:40]], draw_photographs(40, seed=1)])
    _, found = measure(train, Split(images, np.zeros(80, np.uint8)))
    (near,) = np.nonzero(found.near_leaks)

    assert len(near) >= LEAST_FOUND * 40
    assert found.duplicate_of[near].tolist() == (near - COUNT).tolist()


def test_drawing_in_another_colour_is_another_image():
    """Their grey levels, and so their hashes, are nearly the same; their pixels are not."""
    red = draw_strokes(40)[..., np.newaxis] * np.array([1, 0, 0], np.uint8)
    other = np.array([turn_hue(image) for image in red])
    _, found = measure(Split(red, np.zeros(40, np.uint8)), Split(other, np.zeros(40, np.uint8)))
    hashes = [hash_images(to_grey(images)) for images in (red, other)]

    assert not found.near_leaks.any()
    assert (np.bitwise_count(hashes[0] ^ hashes[1]).sum(axis=1) <= NEAR_BITS).sum() > 20


def test_copy_is_found_among_the_same_drawing_in_other_colours():
    """The nearest hash may be that of another colour: then the next one's pixels are compared."""
    drawing = draw_strokes(1)[0][..., np.newaxis] * np.array([1, 0, 0], np.uint8)
    copy = resize_and_back(drawing)
    # Of the copy's very grey levels, in grey.
    decoy = np.repeat(to_grey(copy[np.newaxis])[0][..., np.newaxis], 3, axis=-1)
    rows = Rows.of(
        {
            "train": Split(np.stack([decoy, drawing]), np.zeros(2, np.uint8)),
            "test": Split(copy[np.newaxis], np.zeros(1, np.uint8)),
        }
    )

    assert find_near(rows, measure_images(rows)) == [(2, 1)]


def test_grey_levels_of_colours_are_pillows():
    """Luma of ITU-R BT.601 in whole numbers, bit for bit."""
    images = np.random.default_rng(0).integers(0, 256, (3, 17, 19, 3), np.uint8)

    assert np.array_equal(to_grey(images), [np.asarray(Image.fromarray(image).convert("L")) for image in images])


@pytest.mark.parametrize("window_rows", [1, 7])
def test_near_images_are_found_however_few_rows_are_looked_at_together(digits, monkeypatch, window_rows):
    """Images that share bits of the hash are compared across the ends of what is looked at together."""
    test = Split(np.array([brighten(image) for image in digits.train.images[:20]]), digits.train.labels[:20])
    rows = Rows.of({"train": Split(digits.train.images[:200], digits.train.labels[:200]), "test": test})
    measures = measure_images(rows)
    expected = find_near(rows, measures)
    monkeypatch.setattr(duplicates, "_WINDOW_ROWS", window_rows)

    assert len(expected) == 20
    assert find_near(rows, measures) == expected


def test_image_is_near_the_nearest():
    """Of several training images within reach, the one with the fewest other bits is named."""
    image = draw_strokes(1)
    train = Split(np.concatenate([[save_as_jpeg(image[0])], image]), np.zeros(2, np.uint8))
    test = Split(np.array([brighten(image[0])]), np.zeros(1, np.uint8))
    rows = Rows.of({"train": train, "test": test})

    assert find_near(rows, measure_images(rows)) == [(2, 1)]


def test_repetition_within_a_split_is_no_near_leak():
    """What is nearly the same as an image of its own split cannot flatter a test."""
    images = draw_strokes(20)
    train = Split(np.concatenate([images, [save_as_jpeg(image) for image in images]]), np.zeros(40, np.uint8))
    _, found = measure(train, Split(draw_strokes(5, seed=1), np.zeros(5, np.uint8)))

    assert not found.near_leaks.any()


def test_large_groups_that_share_bits_are_compared_in_part(monkeypatch):
    """However many images share bits of the hash, the work for each stays bounded."""
    monkeypatch.setattr(duplicates, "_COMPARED", 3)
    train = Split(np.repeat(draw_strokes(1), 50, axis=0), np.zeros(50, np.uint8))
    test = Split(train.images[:1].copy(), np.zeros(1, np.uint8))
    test.images[0, 0, 0] = 1
    rows = Rows.of({"train": train, "test": test})
    ((later, earlier),) = find_near(rows, measure_images(rows))

    assert later == 50
    assert earlier >= 47


def test_memory_is_a_few_bytes_for_each_image():
    """Images that are like no other take at most 40 bytes each, however large they are."""
    count = 2_000_000  # many more than are looked at together
    generator = np.random.default_rng(0)
    digests, hashes = generator.permutation(count).astype(np.uint32), generator.bytes(32 * count)
    nothing = np.zeros(count, np.int32)
    measures = Measures(digests, np.frombuffer(hashes, np.uint32).reshape(count, 8), *[nothing] * 5)
    rows = Rows.of({"train": Split(np.broadcast_to(np.uint8(0), (count, SIZE, SIZE)), np.zeros(count, np.uint8))})

    assert measure_peak(lambda: find_duplicates(rows, measures)) < 40 * count


@pytest.mark.parametrize(("height", "width"), [(16, 28), (28, 16), (1, 1)])
def test_small_images_have_no_hash(height, width):
    """Images of too few pixels look alike by chance: they are like none."""
    images = np.random.default_rng(0).integers(0, 256, (4, height, width), np.uint8)

    assert not hash_images(images).any()


@pytest.mark.parametrize("size", [(17, 17), (28, 28), (1024, 1024)])
def test_hash_is_computed_without_rounding(size):
    """Whole numbers in float64 give what whole numbers give, so that no processor changes a bit."""
    images = np.random.default_rng(0).integers(0, 256, (2, *size), np.uint8)
    cosines = [
        np.round(512 * np.cos(np.pi * np.arange(1, 17)[:, None] * (np.arange(side) + 0.5) / side)).astype(np.int64)
        for side in size
    ]
    order = sorted(range(256), key=lambda place: sum(divmod(place, 16)))
    exact = np.einsum("fh,nhw,gw->nfg", cosines[0], images.astype(np.int64), cosines[1], optimize=True)

    assert np.array_equal(
        hash_images(images), np.packbits(exact.reshape(2, -1).take(order, axis=1) > 0, axis=1).view(np.uint32)
    )


@pytest.mark.parametrize(
    ("image", "other", "correlation"),
    [
        ([[0, 10], [20, 30]], [[5, 25], [45, 65]], 1.0),
        ([[0, 10], [20, 30]], [[255, 245], [235, 225]], -1.0),
        ([[0, 10], [20, 30]], [[7, 7], [7, 7]], 0.0),
        ([[0, 10], [20, 30]], [[0, 10, 20, 30]], 0.0),
    ],
    ids=["brighter and of more contrast", "inverted", "blank", "of another shape"],
)
def test_correlation_is_of_the_drawing_alone(image, other, correlation):
    """Brightness and contrast do not count; nothing is like an image without a drawing."""
    assert correlate(np.array(image, np.uint8), np.array(other, np.uint8)) == pytest.approx(correlation, abs=1e-12)
    assert NEAR_CORRELATION < 1

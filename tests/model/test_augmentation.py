"""Augmented images are those of the textbooks, and each follows from the seed, the epoch and its row alone."""

import numpy as np
import pytest
from samples import IMAGE_SIZE
from scipy.ndimage import map_coordinates

from stages.lib.model.augmentation import Augmentation, Augmenter, draw_shares
from stages.lib.model.deterministic_tensorflow import tf
from stages.lib.model.order_free import VALUE_BITS, round_to_grid
from stages.lib.model.order_free_sine import compute_sine

SHAPES = [IMAGE_SIZE, (*IMAGE_SIZE, 3)]
EVERYTHING = Augmentation(shift=2, rotation=20, scale=0.2, horizontal_flip=True, brightness=0.2, contrast=0.3)
# Of pixels from 0 to 1: positions are whole multiples of 2^-8 of a pixel, in both directions, and pixels of 2^-20.
BETWEEN_ATOL = 2.0**-7
LIGHT_ATOL = 2.0**-18
# Of the mean of 40,000 even numbers: six standard deviations.
MEAN_ATOL = 6 / np.sqrt(12 * 40_000)
SINE_ATOL = 1e-15


def make_images(shape, count=40):
    """Noise from 0 to 1, on the grid on which training has it."""
    images = np.random.default_rng(1).random((count, *shape)).astype(np.float32)
    return round_to_grid(images, images.max(), VALUE_BITS)


def augment(augmentation, images, epoch=1, seed=0):
    """The images as they are in an epoch, and what was done to each."""
    augmenter = Augmenter(augmentation, images, seed)
    transforms = augmenter.draw(epoch, [slice(0, len(images))])
    return augmenter.apply(tf.constant(images), tf.constant(transforms)).numpy(), transforms


def test_sine_is_the_textbooks():
    """Over two turns; exactly 0 and 1 where a turn has a quarter."""
    half_turns = np.linspace(-2, 2, 10_001)

    np.testing.assert_allclose(compute_sine(half_turns), np.sin(np.pi * half_turns), atol=SINE_ATOL)
    assert [abs(compute_sine(quarter / 2)) for quarter in range(-4, 5)] == [0, 1] * 4 + [0]


def test_draws_are_those_of_the_row_whatever_slice_it_is_in():
    """A row has the same numbers alone, in a block and among all; another epoch or seed has others."""
    drawn = draw_shares(3, 7, slice(0, 100))

    assert (draw_shares(3, 7, slice(40, 50)) == drawn[40:50]).all()
    assert (draw_shares(3, 7, slice(99, 100)) == drawn[99:]).all()
    assert not (draw_shares(3, 8, slice(0, 100)) == drawn).any()
    assert not (draw_shares(4, 7, slice(0, 100)) == drawn).any()


def test_draws_are_even_and_independent():
    """Each column has the mean and the deviation of even numbers from 0 to 1, and none follows from another."""
    drawn = draw_shares(0, 1, slice(0, 40_000))

    assert drawn.min() >= 0
    assert drawn.max() < 1
    np.testing.assert_allclose(drawn.mean(axis=0), 0.5, atol=MEAN_ATOL)
    np.testing.assert_allclose(drawn.std(axis=0), 12**-0.5, atol=MEAN_ATOL)
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.eye(8), atol=0.03)
    assert len(np.unique(drawn)) > 0.99 * drawn.size


def test_blocks_are_drawn_as_the_rows_that_they_have():
    """What happens to an image does not depend on the group that it is in."""
    augmenter = Augmenter(EVERYTHING, make_images(IMAGE_SIZE), seed=5)
    whole = augmenter.draw(2, [slice(0, 40)])

    parts = augmenter.draw(2, [slice(3, 10), slice(20, 40)])
    assert parts.tobytes() == np.concatenate([whole[3:10], whole[20:]]).tobytes()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_image_is_the_same_in_any_company(shape):
    """Alone or in another order an image comes out the same, to the bit; it is on the grid that it was on."""
    images = make_images(shape)
    augmenter = Augmenter(EVERYTHING, images, seed=0)
    transforms = augmenter.draw(1, [slice(0, 40)])
    together = augmenter.apply(tf.constant(images), tf.constant(transforms)).numpy()
    backwards = augmenter.apply(tf.constant(images[::-1]), tf.constant(transforms[::-1])).numpy()
    alone = [
        augmenter.apply(tf.constant(images[row : row + 1]), tf.constant(transforms[row : row + 1])).numpy()
        for row in range(40)
    ]

    assert backwards[::-1].tobytes() == together.tobytes() == np.concatenate(alone).tobytes()
    assert together.shape == images.shape
    exact = together.astype(np.float64)
    assert exact.tobytes() == round_to_grid(exact, np.float64(images.max()), VALUE_BITS).tobytes()
    assert (together != images).any(axis=tuple(range(1, images.ndim))).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shift_moves_whole_pixels_and_repeats_the_edge(shape):
    """Each image is a window of the image whose edges were repeated; every step there is happens, evenly."""
    images = make_images(shape, count=400)
    augmented, transforms = augment(Augmentation(shift=2), images)
    padding = [(2, 2), (2, 2), (0, 0)][: len(shape)]
    seen = set()
    for image, result, row in zip(images, augmented, transforms, strict=True):
        down, right = int(row[2] - 2.5), int(row[5] - 3.5)
        window = np.pad(image, padding, mode="edge")[2 + down : 8 + down, 2 + right : 10 + right]
        assert result.tobytes() == window.tobytes()
        seen.add((down, right))

    assert seen == {(down, right) for down in range(-2, 3) for right in range(-2, 3)}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_flip_mirrors_half_of_the_images(shape):
    """An image is itself or its mirror image, left for right."""
    images = make_images(shape, count=400)
    augmented, _ = augment(Augmentation(horizontal_flip=True), images)
    is_flipped = [(result == image[:, ::-1]).all() for result, image in zip(augmented, images, strict=True)]
    is_kept = [(result == image).all() for result, image in zip(augmented, images, strict=True)]

    assert all(flipped != kept for flipped, kept in zip(is_flipped, is_kept, strict=True))
    assert 160 < sum(is_flipped) < 240


@pytest.mark.parametrize("shape", [*SHAPES, (1, 1), (1, 8), (6, 1, 3)], ids=str)
def test_interpolation_of_whole_pixels_is_the_shift_itself(shape):
    """Turned by next to nothing, an image is what shifting and flipping make of it, to the bit."""
    images = make_images(shape)
    moved, _ = augment(Augmentation(shift=1, horizontal_flip=True), images)
    between, _ = augment(Augmentation(shift=1, horizontal_flip=True, rotation=1e-9), images)

    assert between.tobytes() == moved.tobytes()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rotation_and_scale_are_those_of_scipy(shape):
    """Each pixel is a bilinear mean of the four around the place that it comes from; beyond an edge are its own pixels."""
    images = make_images(shape)
    augmented, _ = augment(Augmentation(shift=1, rotation=180, scale=0.3, horizontal_flip=True), images)
    shares = draw_shares(0, 1, slice(0, 40))
    middle = np.array([[2.5], [3.5]])
    places = np.stack(np.meshgrid(*map(np.arange, IMAGE_SIZE), indexing="ij")).reshape(2, -1) - middle
    for image, result, row in zip(images, augmented, shares, strict=True):
        angle, zoom = (2 * row[2] - 1) * np.pi, 1 + 0.3 * (2 * row[3] - 1)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
        mirror = np.array([[1], [-1 if row[4] < 0.5 else 1]])
        shift = np.floor(3 * row[:2, np.newaxis]) - 1
        sources = mirror * (turn @ places) + shift + middle
        channels = image.reshape(*IMAGE_SIZE, -1).transpose(2, 0, 1)
        expected = [map_coordinates(channel, sources, order=1, mode="nearest") for channel in channels]
        np.testing.assert_allclose(result.reshape(48, -1).T, expected, atol=BETWEEN_ATOL)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_light_changes_within_the_range_of_each_channel(shape):
    """Pixels are scaled about their channel's mean in the image, shifted by a share of the channel's range, and cut."""
    images = make_images(shape) * np.linspace(1, 2, shape[-1] if len(shape) == 3 else 1, dtype=np.float32)
    images = round_to_grid(images, images.max(), VALUE_BITS)
    augmented, transforms = augment(Augmentation(brightness=0.3, contrast=0.5), images)
    lowest, highest = images.min(axis=(0, 1, 2)), images.max(axis=(0, 1, 2))
    if len(shape) == 2:
        lowest, highest = images.min(), images.max()
    for image, result, (added, factor) in zip(images, augmented, transforms[:, 6:], strict=True):
        mean = image.mean(axis=(0, 1))
        expected = (image - mean) * factor + mean + added * (highest - lowest)
        np.testing.assert_allclose(result, np.clip(expected, lowest, highest), atol=LIGHT_ATOL)

    assert np.abs(transforms[:, 6]).max() > 0.25
    assert transforms[:, 7].min() < 0.6
    assert transforms[:, 7].max() > 1.4


def test_columns_of_nothing_change_nothing():
    """With all settings at 0, an image is itself."""
    images = make_images(IMAGE_SIZE)

    assert augment(Augmentation(), images)[0].tobytes() == images.tobytes()

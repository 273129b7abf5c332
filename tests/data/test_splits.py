"""Splits are seeded, disjoint, of the exact size, and hold each class in proportion."""

import numpy as np
import pytest
from memory import measure_peak

from stages.lib.data.splits import split_stratified

# 1,000 images of five classes, from frequent to rare.
LABELS = np.random.default_rng(0).choice(5, 1000, p=[0.5, 0.3, 0.15, 0.04, 0.01]).astype(np.uint8)
FRACTIONS = [0.0, 0.001, 0.1, 0.2, 0.333, 0.5, 0.999, 1.0]


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_every_row_is_in_one_part(fraction):
    """The parts are disjoint, complete and each in ascending order."""
    kept, held_out = split_stratified(LABELS, fraction, seed=0)

    np.testing.assert_array_equal(np.sort(np.concatenate([kept, held_out])), np.arange(len(LABELS)))
    np.testing.assert_array_equal(kept, np.sort(kept))
    np.testing.assert_array_equal(held_out, np.sort(held_out))


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_fraction_is_met_exactly(fraction):
    """As many rows as the rounded fraction are held out."""
    assert len(split_stratified(LABELS, fraction, seed=0)[1]) == round(fraction * len(LABELS))


@pytest.mark.parametrize("fraction", FRACTIONS)
@pytest.mark.parametrize("seed", range(5))
def test_each_class_is_held_out_in_proportion(fraction, seed):
    """Of each class, its share is held out to within one image."""
    held_out = split_stratified(LABELS, fraction, seed)[1]
    shares = fraction * np.bincount(LABELS, minlength=5)

    assert np.abs(np.bincount(LABELS[held_out], minlength=5) - shares).max() <= 1


def test_fraction_0_holds_nothing_out():
    """Without a validation split every row is kept."""
    kept, held_out = split_stratified(LABELS, 0.0, seed=0)

    assert (len(kept), len(held_out)) == (1000, 0)


def test_same_seed_gives_the_same_rows():
    """A split depends on labels, fraction and seed alone."""
    first, second = split_stratified(LABELS, 0.2, seed=7), split_stratified(LABELS, 0.2, seed=7)

    np.testing.assert_array_equal(first[1], second[1])


def test_other_seed_gives_other_rows():
    """The seed draws the rows."""
    first, second = split_stratified(LABELS, 0.2, seed=7), split_stratified(LABELS, 0.2, seed=8)

    assert not np.array_equal(first[1], second[1])


def test_seed_draws_the_rows_that_it_always_drew():
    """A new version of this code holds the same rows out."""
    held_out = split_stratified(LABELS, 0.01, seed=0)[1]

    assert held_out.tolist() == [40, 208, 524, 574, 642, 832, 845, 941, 989, 996]


@pytest.mark.parametrize("count", [0, 1])
def test_few_rows_are_split(count):
    """No row and one row are in the part that is kept."""
    kept, held_out = split_stratified(np.zeros(count, np.uint8), 0.3, seed=5)

    assert (kept.tolist(), held_out.tolist()) == (list(range(count)), [])


def test_memory_is_a_few_bytes_for_each_row():
    """A million rows take at most 40 bytes each."""
    labels = np.zeros(10**6, np.uint8)

    assert measure_peak(lambda: split_stratified(labels, 0.1, seed=0)) < 40 * len(labels)


def test_rows_are_not_taken_by_their_place():
    """Within a class, rows are drawn from the beginning and the end of the data alike."""
    held_out = split_stratified(np.zeros(1000, np.uint8), 0.5, seed=0)[1]

    # 250 are expected of each half; 200 is more than six standard deviations (8) away.
    assert 200 < (held_out < 500).sum() < 300

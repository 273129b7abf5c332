"""The order of an epoch's images: each once, drawn by seed and epoch alone, and read in large pieces."""

import numpy as np
import pytest
from imports import ROOT
from samples import run_python

from stages.lib.model.shuffling import (
    MEMORY_BUDGET,
    MemoryBudget,
    count_group_rows,
    count_rows,
    draw_groups,
    split_into_blocks,
)

ROW_BYTES = 100
# Blocks of 10 rows, 8 blocks to a group.
BUDGET = MemoryBudget(block_bytes=1000, group_bytes=8000)
MNIST_ROW_BYTES = 28 * 28 * 4


def draw(row_count=1000, *, seed=0, epoch=1, budget=BUDGET):
    return list(draw_groups(row_count, ROW_BYTES, seed=seed, epoch=epoch, budget=budget))


def list_rows(groups):
    """The split's rows in the order in which they are trained on."""
    rows = [np.concatenate([np.arange(block.start, block.stop) for block in group.blocks]) for group in groups]
    return np.concatenate([of_group[group.order] for of_group, group in zip(rows, groups, strict=True)])


@pytest.mark.parametrize("row_count", [1, 9, 10, 11, 79, 80, 81, 999, 1000])
def test_every_row_is_seen_once(row_count):
    """However many rows there are, an epoch has each of them, once."""
    groups = draw(row_count)

    assert sorted(list_rows(groups)) == list(range(row_count))


@pytest.mark.parametrize(
    "budget",
    [MemoryBudget(1, 1), MemoryBudget(1, 10**6), MemoryBudget(10**6, 1), MemoryBudget(250, 777), BUDGET],
    ids=str,
)
def test_every_budget_sees_every_row_once(budget):
    """Nor does it matter how blocks and groups come out, even where a row is larger than either."""
    groups = draw(budget=budget)

    assert sorted(list_rows(groups)) == list(range(1000))
    assert max(count_rows(group.blocks) for group in groups) <= count_group_rows(1000, ROW_BYTES, budget)


def test_group_fits_the_budget():
    """No group holds more bytes than the budget says, and none is much smaller than the others."""
    sizes = [count_rows(group.blocks) for group in draw(1005)]

    assert max(sizes) * ROW_BYTES <= BUDGET.group_bytes
    assert max(sizes) == count_group_rows(1005, ROW_BYTES, BUDGET)
    assert max(sizes) - min(sizes) <= 10 + 5


def test_rows_of_a_block_are_read_together():
    """A group reads whole blocks of neighbouring rows, in the order of the file."""
    blocks = split_into_blocks(1005, ROW_BYTES, BUDGET)

    for group in draw(1005):
        starts = [block.start for block in group.blocks]

        assert starts == sorted(starts)
        assert all(block in blocks for block in group.blocks)


def test_one_group_is_a_plain_permutation():
    """Data that fits is shuffled as a whole: MNIST is one group, and its order NumPy's permutation."""
    (group,) = draw_groups(60_000, MNIST_ROW_BYTES, seed=3, epoch=2)

    assert count_rows(group.blocks) == 60_000
    np.testing.assert_array_equal(group.order, np.random.default_rng([3, 2]).permutation(60_000))


def test_ten_times_mnist_is_several_groups():
    """Sizes are constants, not this machine's memory: every machine draws the same groups."""
    groups = list(draw_groups(600_000, MNIST_ROW_BYTES, seed=0, epoch=1))

    assert MEMORY_BUDGET == (2**20, 2**28)
    assert [count_rows(group.blocks) for group in groups] == pytest.approx([75_000] * 8, abs=2 * 334)


def test_seed_and_epoch_alone_decide_the_order():
    """Drawn again in another process it is the same; another seed or epoch gives other groups and another order."""
    code = "from test_shuffling import *; print(list_rows(draw()).tolist())"
    again = run_python("-c", code, cwd=ROOT / "tests/model")
    first = draw()

    assert again.stdout.strip() == str(list_rows(first).tolist())
    for other in (draw(seed=1), draw(epoch=2)):
        assert other[0].blocks != first[0].blocks
        assert list_rows(other).tolist() != list_rows(first).tolist()


def test_rows_travel_far():
    """Where a row comes in an epoch does not follow from where it is in the file, nor from the epoch before."""
    first, second = list_rows(draw(10_000)), list_rows(draw(10_000, epoch=2))
    # Of two unrelated orders of 10,000 rows, five standard deviations.
    unrelated = 5 / np.sqrt(10_000)

    assert abs(np.corrcoef(first, np.arange(10_000))[0, 1]) < unrelated
    assert abs(np.corrcoef(np.argsort(first), np.argsort(second))[0, 1]) < unrelated


def test_batches_of_sorted_data_have_all_classes():
    """Rows sorted by class, the worst case, are mixed nearly as well as by a plain permutation.

    That would have 10 * (1 - 0.9 ** 32) = 9.66 of ten classes in 32 rows.
    """
    labels = np.arange(10_000) // 1000
    groups = draw(10_000, budget=MemoryBudget(block_bytes=1000, group_bytes=100_000))
    shuffled = labels[list_rows(groups)]
    classes = [len(set(shuffled[start : start + 32])) for start in range(0, 9984, 32)]

    assert len(groups) == 10
    assert np.mean(classes) == pytest.approx(9.66, abs=0.25)

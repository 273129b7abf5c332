"""The order in which an epoch sees the rows of a split, which may be larger than memory.

Blocks of neighbouring rows are shuffled and dealt out to groups that fit in memory, then the rows of each group are
shuffled. Data up to one group's size is one group: a plain permutation of all rows. Sizes are constants, for the order
must be the same on a machine with more memory.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class MemoryBudget(NamedTuple):
    """How many bytes of images are handled at a time."""

    # Read in one go, so that a disk need not seek often. Smaller blocks mix neighbours better.
    block_bytes: int = 2**20
    # Held in memory while its rows are trained on; MNIST's 60,000 images as float32 are 188 MB.
    group_bytes: int = 2**28


MEMORY_BUDGET = MemoryBudget()


class Group(NamedTuple):
    """Rows that are in memory at the same time."""

    blocks: list[slice]  # of the split's rows, ascending
    order: NDArray[np.int64]  # a permutation of these rows, which are counted from the first block's first


def split_into_blocks(row_count: int, row_bytes: int, budget: MemoryBudget = MEMORY_BUDGET) -> list[slice]:
    """All rows in their order, in blocks of neighbours; each has at least one row, the last may have fewer."""
    size = max(1, budget.block_bytes // row_bytes)
    return [slice(start, min(start + size, row_count)) for start in range(0, row_count, size)]


def count_rows(blocks: list[slice]) -> int:
    """The number of rows in all these blocks."""
    return sum(block.stop - block.start for block in blocks)


def count_group_rows(row_count: int, row_bytes: int, budget: MemoryBudget = MEMORY_BUDGET) -> int:
    """The number of rows that no group exceeds."""
    blocks = split_into_blocks(row_count, row_bytes, budget)
    return count_rows(blocks[: math.ceil(len(blocks) / _count_groups(blocks, row_bytes, budget))])


def deal_blocks(
    row_count: int, row_bytes: int, *, seed: int, epoch: int, budget: MemoryBudget = MEMORY_BUDGET
) -> Iterator[list[slice]]:
    """The blocks of each group of an epoch, ascending.

    Groups differ by at most one block. The seed and the epoch's number alone decide what they are.
    """
    blocks = split_into_blocks(row_count, row_bytes, budget)
    (generator,) = np.random.default_rng([seed, epoch]).spawn(1)
    for places in np.array_split(generator.permutation(len(blocks)), _count_groups(blocks, row_bytes, budget)):
        # In the order of the file, which is read from front to back.
        yield [blocks[place] for place in sorted(places)]


def draw_groups(
    row_count: int, row_bytes: int, *, seed: int, epoch: int, budget: MemoryBudget = MEMORY_BUDGET
) -> Iterator[Group]:
    """The groups of an epoch, one after the other: each row is in one of them, once, in an order drawn like them."""
    generator = np.random.default_rng([seed, epoch])
    for blocks in deal_blocks(row_count, row_bytes, seed=seed, epoch=epoch, budget=budget):
        yield Group(blocks, generator.permutation(count_rows(blocks)))


def _count_groups(blocks: list[slice], row_bytes: int, budget: MemoryBudget) -> int:
    block_bytes = row_bytes * count_rows(blocks[:1])
    return math.ceil(len(blocks) / max(1, budget.group_bytes // max(1, block_bytes)))

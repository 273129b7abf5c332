"""Arrays come back from disk memory-mapped, and a damaged file is an error of the data."""

import re

import numpy as np
import pytest
from samples import make_split

from stages.lib.core import arrays
from stages.lib.core.arrays import CHUNK_ROWS, allocate, iterate_chunks, load_array, load_split, save_array
from stages.lib.core.errors import DataError


def write_split(folder, images, labels):
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)


def test_split_comes_back_memory_mapped_and_read_only(tmp_path):
    """Images and labels are those written, and stay on disk until they are looked at."""
    written = make_split(5, seed=0)
    write_split(tmp_path, *written)
    images, labels = load_split(tmp_path)

    np.testing.assert_array_equal(images, written.images)
    np.testing.assert_array_equal(labels, written.labels)
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable


def test_split_without_images_comes_back(tmp_path):
    """An empty validation split is a split."""
    write_split(tmp_path, np.zeros((0, 6, 8), np.float32), np.zeros(0, np.uint8))

    assert load_split(tmp_path).images.shape == (0, 6, 8)


def test_split_with_labels_missing_is_refused(tmp_path):
    """As many labels as images are expected; the message has both numbers."""
    images, labels = make_split(5, seed=0)
    write_split(tmp_path, images, labels[:4])

    with pytest.raises(DataError) as refusal:
        load_split(tmp_path)

    assert refusal.value.where == str(tmp_path)
    assert (refusal.value.expected, refusal.value.got) == ("as many labels as images", "5 images and 4 labels")


@pytest.mark.parametrize(
    "array",
    [
        np.arange(2 * CHUNK_ROWS + 1),
        np.zeros((0, 6, 8), np.float32),
        np.zeros((3, 0), np.uint8),
        make_split(5, seed=0).images[:, ::2],
        np.asfortranarray(make_split(5, seed=0).images).astype(">u2", order="C"),
    ],
    ids=["several chunks", "no rows", "no columns", "a view", "big-endian"],
)
def test_saved_array_has_the_bytes_of_numpys_own(tmp_path, array):
    """An array that is written a piece at a time is the same file as `numpy.save` makes."""
    save_array(tmp_path / "a.npy", array)
    np.save(tmp_path / "b.npy", np.ascontiguousarray(array))

    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def damage_nothing(path):
    path.unlink()


def damage_header(path):
    path.write_bytes(b"no array")


def damage_end(path):
    path.write_bytes(path.read_bytes()[:-1])


def damage_all(path):
    path.write_bytes(b"")


def pickle_objects(path):
    np.save(path, np.array([{}], object), allow_pickle=True)


def write_scalar(path):
    np.save(path, np.float32(1))


@pytest.mark.parametrize(
    ("damage", "reported"),
    [
        (damage_nothing, "no such file"),
        (damage_header, "not a whole .npy array: "),
        (damage_end, "not a whole .npy array: "),
        (damage_all, "not a whole .npy array: "),
        (pickle_objects, "not a whole .npy array: "),
        (write_scalar, "expected one row per image, got a single value"),
    ],
)
def test_damaged_array_is_refused_with_its_path(tmp_path, damage, reported):
    """A missing, foreign, cut off, empty or pickled file and a single value are errors of the data."""
    path = tmp_path / "images.npy"
    np.save(path, np.zeros((3, 6, 8), np.uint8))
    damage(path)

    with pytest.raises(DataError) as refusal:
        load_array(path)

    assert (refusal.value.where, refusal.value.hint) == (str(path), "run `dvc repro`")
    assert refusal.value.problem.startswith(reported)


@pytest.mark.parametrize("count", [0, 1, 6, 7])
def test_chunks_cover_all_rows_in_order(count):
    """Each row is in one slice, no slice is longer than asked, and the last may be shorter."""
    chunks = [np.arange(count)[rows] for rows in iterate_chunks(count, 3)]

    assert np.concatenate([*chunks, np.zeros(0, int)]).tolist() == list(range(count))
    assert all(1 <= len(chunk) <= 3 for chunk in chunks)


@pytest.mark.parametrize("small_bytes", [11, 12])
def test_large_array_is_held_by_a_file_that_has_no_name(tmp_path, monkeypatch, small_bytes):
    """An array is filled the same way in memory and in a file, which leaves no trace in the folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(arrays, "_SMALL_BYTES", small_bytes)
    array = allocate((3, 2), np.uint16)
    array[:] = [[1, 2], [3, 4], [5, 6]]

    assert array.sum(axis=0).tolist() == [9, 12]
    assert isinstance(array.base, np.memmap) == (small_bytes < 12)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_array_that_no_disk_holds_is_refused_before_it_is_made(tmp_path, monkeypatch):
    """The message has the bytes that are needed and those that are free."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(DataError) as refusal:
        allocate((10**15,), np.uint8)

    assert refusal.value.expected == "1,000,000,000,000,000 bytes free on its disk"
    assert re.fullmatch(r"[\d,]+", refusal.value.got)
    assert refusal.value.hint.startswith("free some (`dvc gc --workspace` ")

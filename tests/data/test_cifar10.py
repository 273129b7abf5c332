"""CIFAR-10 comes from a mirror, is verified and is read record by record: small made-up archives, a real server."""

import hashlib
import io
import tarfile

import numpy as np
import pytest
from mirror_server import Server, send
from samples import list_files

from stages.ingest import IngestParams, run
from stages.lib.core.arrays import load_split
from stages.lib.core.errors import DataError, ParamsError
from stages.lib.core.files import read_json
from stages.lib.data import cifar10 as module
from stages.lib.data.cifar10 import load_cifar10, read_batches
from stages.lib.data.download import PublishedFile

COUNT = 7
FOLDER = "cifar-10-batches-bin"
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
META = f"{FOLDER}/batches.meta.txt"
TRAIN = [f"{FOLDER}/data_batch_{number}.bin" for number in range(1, 6)]
TEST = f"{FOLDER}/test_batch.bin"


def make_batch(seed):
    """Images (7, 32, 32, 3) and their labels."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (COUNT, 32, 32, 3), np.uint8), generator.integers(0, 10, COUNT).astype(np.uint8)


def format_batch(images, labels):
    """The records as the publisher describes them: a label, then the red, the green and the blue pixels, row by row."""
    return b"".join(
        bytes([label]) + b"".join(image[..., channel].tobytes() for channel in range(3))
        for image, label in zip(images, labels.tolist(), strict=True)
    )


def make_members():
    """The content of each member of the archive, in no order."""
    batches = {TEST: make_batch(0), **{name: make_batch(number) for number, name in enumerate(TRAIN, start=1)}}
    members = {name: format_batch(*batch) for name, batch in reversed(batches.items())}
    return {f"{FOLDER}/readme.html": b"<html>", **members, META: ("\n".join(NAMES) + "\n\n").encode()}


def pack(members):
    """A tar.gz archive of these names and contents; a member without content is a link to the test batch."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "test_batch.bin"
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content or b""))
    return file.getvalue()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A mirror with a small archive, whose hash and counts stand in for the published ones."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    content = pack(make_members().items())
    server = Server()
    server.answers[f"/{module.FILE.name}"] = send(content)
    monkeypatch.setattr(
        module, "FILE", PublishedFile(module.FILE.name, hashlib.sha256(content).hexdigest(), len(content))
    )
    monkeypatch.setattr(module, "_MIRRORS", (server.url,))
    monkeypatch.setattr(module, "_BATCH_RECORDS", COUNT)
    yield server
    server.stop()


def make_params(channels):
    return IngestParams(
        dataset="cifar10", path="none", image_size=[28, 28], channels=channels, test_fraction=0.2, seed=0
    )


def test_records_come_back_as_images(server, tmp_path):
    """Five batches in their order are the training split, wherever the archive has them; the same bytes each time."""
    for name in ("one", "two"):
        run(make_params(3), tmp_path / name)
    train, test = (load_split(tmp_path / "one" / name) for name in ("train", "test"))
    described = read_json(tmp_path / "one/dataset.json")

    for number in range(5):
        images, labels = make_batch(number + 1)
        rows = slice(number * COUNT, (number + 1) * COUNT)
        np.testing.assert_array_equal(train.images[rows], images, strict=True)
        np.testing.assert_array_equal(train.labels[rows], labels, strict=True)
    np.testing.assert_array_equal(test.images, make_batch(0)[0], strict=True)
    assert (described["class_names"], described["channels"], described["image_size"]) == (NAMES, 3, [32, 32])
    assert described["expected"] == {"train": 50_000, "test": 10_000}
    assert described["sources"] == {module.FILE.name: module.FILE.sha256}
    assert list_files(tmp_path / "one") == list_files(tmp_path / "two")
    assert server.asked == [f"/{module.FILE.name}"]


@pytest.mark.parametrize("chunk_records", [1, 3, 7])
def test_number_of_records_in_memory_changes_nothing(tmp_path, monkeypatch, chunk_records):
    """However few records are read at a time, the arrays are the same."""
    (tmp_path / "x.tar.gz").write_bytes(pack(make_members().items()))
    whole, _ = read_batches(tmp_path / "x.tar.gz", COUNT)
    monkeypatch.setattr(module, "_CHUNK_RECORDS", chunk_records)
    parts, _ = read_batches(tmp_path / "x.tar.gz", COUNT)

    np.testing.assert_array_equal(parts["train"].images, whole["train"].images, strict=True)
    np.testing.assert_array_equal(parts["train"].labels, whole["train"].labels, strict=True)


def test_archive_that_cannot_be_had_is_refused(server, tmp_path):
    """Another file than the published one is not kept, and the hint names the variable."""
    server.answers[f"/{module.FILE.name}"] = send(b"<html>")

    with pytest.raises(DataError) as refusal:
        load_cifar10()

    assert refusal.value.where == module.FILE.name
    assert refusal.value.hint == "set CIFAR10_MIRROR to a folder or a URL that has the file"
    assert not (tmp_path / ".cache/cifar10" / module.FILE.name).exists()


def without(name):
    return [(other, content) for other, content in make_members().items() if other != name]


def replace(name, content):
    return [*without(name), (name, content)]


WRONG_LABEL = format_batch(make_batch(0)[0], np.array([0, 1, 2, 3, 10, 5, 6]))


@pytest.mark.parametrize(
    ("members", "member", "reported"),
    [
        (without(TRAIN[2]), "", f"it holds no file {TRAIN[2]}"),
        (without(META), "", f"it holds no file {META}"),
        (replace(TRAIN[0], b"\0" * 3073), TRAIN[0], "expected 21,511 bytes, 7 records of 3,073, got 3,073"),
        (replace(TRAIN[0], b"\0" * (8 * 3073)), TRAIN[0], "expected 21,511 bytes, 7 records of 3,073, got 24,584"),
        (replace(TEST, WRONG_LABEL), TEST, "expected labels from 0 to 9, got 10"),
        (replace(META, b"cat\ndog\n"), META, "expected 10 class names, got 2"),
        (replace(TEST, None), "", "not a whole tar.gz archive: cannot extract (sym)link as file object"),
        ([(f"../{name}", content) for name, content in make_members().items()], "", "it holds no file"),
        ([(f"/{name}", content) for name, content in make_members().items()], "", "it holds no file"),
        ([(name.rpartition("/")[2], content) for name, content in make_members().items()], "", "it holds no file"),
    ],
    ids=["batch", "names", "short", "long", "label", "few names", "link", "parent", "root", "other folder"],
)
def test_archive_with_other_members_is_refused(tmp_path, members, member, reported):
    """What is missing, of another size, out of range or no file of that very name is said; nothing is unpacked."""
    path = tmp_path / "x.tar.gz"
    path.write_bytes(pack(members))
    with pytest.raises(DataError) as refusal:
        read_batches(path, COUNT)

    assert refusal.value.where == (f"{path}: {member}" if member else str(path))
    assert refusal.value.problem.startswith(reported)
    assert refusal.value.hint == "download or copy the file again"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("place", [0, 5, 600, 40_000, -60_000])
def test_archive_that_is_cut_off_is_refused(tmp_path, place):
    """Wherever the file ends too early, it is an error of the data, in one line."""
    path = tmp_path / "x.tar.gz"
    path.write_bytes(pack(make_members().items())[:place])
    with pytest.raises(DataError) as refusal:
        read_batches(path, COUNT)

    assert refusal.value.where.startswith(str(path))
    assert "\n" not in str(refusal.value)


def test_other_members_are_passed_over(tmp_path):
    """Folders, links and files of other names change nothing, nor does a second file of a name."""
    extra = [("../../evil", b"x"), (f"{FOLDER}/link", None), (f"{FOLDER}/data_batch_6.bin", b"x")]
    members = [*extra, *make_members().items(), (TEST, b"x")]
    (tmp_path / "x.tar.gz").write_bytes(pack(members))
    splits, class_names = read_batches(tmp_path / "x.tar.gz", COUNT)

    np.testing.assert_array_equal(splits["test"].images, make_batch(0)[0], strict=True)
    assert class_names == tuple(NAMES)


def test_grey_is_refused_with_what_to_set(tmp_path):
    """CIFAR-10 is in colour: with one channel nothing is downloaded, and the hint says what to set."""
    with pytest.raises(ParamsError) as refusal:
        run(make_params(1), tmp_path / "raw")

    assert (refusal.value.where, refusal.value.got) == ("params.yaml: ingest.channels", "1")
    assert refusal.value.expected == "3 for cifar10, which is in colour"
    assert refusal.value.hint == "set ingest.channels to 3"
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize("dataset", ["digits", "mnist", "fashion_mnist"])
def test_colour_of_a_grey_data_set_is_refused_with_what_to_set(tmp_path, dataset):
    """The grey data sets have one channel."""
    with pytest.raises(ParamsError) as refusal:
        run(make_params(3).model_copy(update={"dataset": dataset}), tmp_path / "raw")

    assert refusal.value.expected == f"1 for {dataset}, which is grey"
    assert refusal.value.hint == "set ingest.channels to 1"

"""Fashion-MNIST comes from a mirror, is verified, and is grey: small made-up files of its format, a real server."""

import hashlib

import numpy as np
import pytest
from mirror_server import Server, send
from samples import make_dataset, write_idx

from stages.ingest import IngestParams, run
from stages.lib.core.arrays import load_split
from stages.lib.core.errors import DataError
from stages.lib.core.files import read_json
from stages.lib.data import fashion_mnist as module
from stages.lib.data.download import PublishedFile
from stages.lib.data.fashion_mnist import load_fashion_mnist

PARAMS = IngestParams(dataset="fashion_mnist", path="none", image_size=[28, 28], channels=1, test_fraction=0.2, seed=0)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A mirror with four small files, whose hashes stand in for the published ones."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    folder = write_idx(tmp_path / "made up", compress_all=True)
    server = Server()
    published = {}
    for key, file in module.FILES.items():
        content = (folder / file.name).read_bytes()
        server.answers[f"/{file.name}"] = send(content)
        published[key] = PublishedFile(file.name, hashlib.sha256(content).hexdigest(), len(content))
    monkeypatch.setattr(module, "FILES", published)
    monkeypatch.setattr(module, "_MIRRORS", (server.url,))
    yield server
    server.stop()


@pytest.mark.usefixtures("server")
def test_files_come_back_as_they_are_published(tmp_path):
    """Both splits, the ten names, the counts and the SHA-256 of each compressed file; the same bytes from the cache."""
    made = make_dataset()
    for name in ("one", "two"):
        run(PARAMS, tmp_path / name)
    described = read_json(tmp_path / "two/dataset.json")

    np.testing.assert_array_equal(load_split(tmp_path / "one/train").images, made.train.images, strict=True)
    np.testing.assert_array_equal(load_split(tmp_path / "two/test").images, made.test.images, strict=True)
    np.testing.assert_array_equal(load_split(tmp_path / "two/test").labels, made.test.labels, strict=True)
    assert described == read_json(tmp_path / "one/dataset.json")
    assert (described["class_names"][0], described["class_names"][9]) == ("T-shirt/top", "Ankle boot")
    assert (described["channels"], described["expected"]) == (1, {"train": 60_000, "test": 10_000})
    assert described["sources"] == {file.name: file.sha256 for file in module.FILES.values()}


def test_files_are_fetched_once(server, tmp_path):
    """What came over the network is taken from .cache/fashion_mnist from then on."""
    for _ in range(2):
        load_fashion_mnist()

    assert sorted(server.asked) == sorted(f"/{file.name}" for file in module.FILES.values())
    assert {path.name for path in (tmp_path / ".cache/fashion_mnist").glob("*.gz")} == {
        file.name for file in module.FILES.values()
    }


def test_folder_of_a_person_is_asked_first(server, tmp_path, monkeypatch):
    """FASHION_MNIST_MIRROR may be a folder; no server is asked then."""
    monkeypatch.setenv("FASHION_MNIST_MIRROR", "made up")
    load_fashion_mnist()

    assert server.asked == []
    assert not (tmp_path / ".cache/fashion_mnist").exists()


def test_other_content_is_refused(server, tmp_path):
    """A file whose hash is another one is neither taken nor kept, and the hint names the way out."""
    server.answers["/t10k-labels-idx1-ubyte.gz"] = send(b"<html>")

    with pytest.raises(DataError) as refusal:
        load_fashion_mnist()

    assert refusal.value.where == "t10k-labels-idx1-ubyte.gz"
    assert "bytes with SHA-256" in refusal.value.problem
    assert refusal.value.hint == "set FASHION_MNIST_MIRROR to a folder or a URL that has the file"
    assert not (tmp_path / ".cache/fashion_mnist/t10k-labels-idx1-ubyte.gz").exists()

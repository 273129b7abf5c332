"""An output's hash is the one that DVC writes."""

import pytest
from ruamel.yaml import YAML
from samples import run_python

from stages.lib.core.hashing import hash_output

# "-" and " " come before "/" in ASCII: the order of whole paths is not that of their parts.
NAMES = ["b", "a/b", "a-b", "a/b-c", "a b", "a/b c/d", "ü/€.npy", "empty", "Z"]


@pytest.fixture(scope="module")
def dvc_hashes(tmp_path_factory):
    """A folder and a file as DVC hashes them, by their path."""
    root = tmp_path_factory.mktemp("dvc")
    for name in NAMES:
        path = root / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("" if name == "empty" else name, encoding="utf-8")
    (root / "file").write_bytes(bytes(range(256)) * 1000)
    for command in (["init", "--no-scm", "--quiet"], ["add", "--quiet", "folder", "file"]):
        done = run_python("-m", "dvc", *command, cwd=root, DVC_NO_ANALYTICS="1", DVC_SITE_CACHE_DIR=str(root / "site"))
        assert done.returncode == 0, done.stderr
    yaml = YAML(typ="safe", pure=True)
    return {root / name: yaml.load(root / f"{name}.dvc")["outs"][0]["md5"] for name in ("folder", "file")}


def test_hashes_are_those_of_dvc(dvc_hashes):
    """A file's MD5 and a folder's, with any names in it, are what DVC writes."""
    assert {path: hash_output(path) for path in dvc_hashes} == dvc_hashes


def test_missing_output_has_no_hash(tmp_path):
    """What is not there is told from everything that is."""
    assert hash_output(tmp_path / "none") == "nothing"


def test_renamed_file_changes_the_hash_of_its_folder(tmp_path):
    """A folder's hash is of contents and names."""
    (tmp_path / "a").write_text("x", encoding="utf-8")
    before = hash_output(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")

    assert hash_output(tmp_path) != before

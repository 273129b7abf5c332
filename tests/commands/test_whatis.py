"""`pipeline whatis` finds params, dvc.lock entry, commits and runs from any one file that the pipeline made."""

import json
import re
import shutil
import subprocess

import pytest
from click.testing import CliRunner
from empty_models import write_onnx, write_tflite
from project import Project

from stages.commands.main import main
from stages.lib.core.dvc_lock import parse_lock
from stages.lib.core.hashing import hash_output
from stages.lib.core.params import load_params
from stages.lib.exports.lineage import Upstream, digest_params

CURRENT = {"current": ["yes, dvc.lock here has this state"]}
NOT_CURRENT = {"current": ["no, dvc.lock here has another state"]}
CACHE = ".dvc/cache/files/md5"


def run_whatis(*arguments):
    """What `pipeline whatis` gives in the current folder."""
    return CliRunner().invoke(main, ["whatis", "--params", *map(str, arguments)])


def read_fields(output):
    """The lines of each field by its name, of the newest state."""
    fields, key = {}, ""
    for line in output.split("\nstate ")[0].splitlines()[1:]:
        name, value = line[2:12].strip(), line[13:]
        key = name or key
        fields.setdefault(key, []).append(value)
    return fields


def read_older(output):
    """The fields of each older state that differ from the newest's."""
    return [read_fields(part) for part in output.split("\nstate ")[1:]]


@pytest.fixture
def _alone(monkeypatch):
    """Neither a store nor a root that the environment names."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)


class Repository:
    """A git repository with a small pipeline's outputs, and the dvc.lock and cache that DVC would write for them."""

    def __init__(self, root):
        self.root = root
        self.params = {name: {"seed": 0} for name in ("ingest", "validate", "normalize", "train", "export")}
        self.sources = {"stages/train.py": "1" * 32}  # deps of train
        self.write("data/raw/train/labels.npy", "labels")
        self.write("data/raw/test/images.npy", "images")
        self.write("models/model.keras", "network")
        self.write("models/export/model.onnx", "export")

    def write(self, name, text):
        """Write a file of the project."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def git(self, *arguments):
        """What git prints, run as somebody whom every machine knows."""
        identity = ("-c", "user.name=A Tester", "-c", "user.email=tester@example.invalid", "-c", "commit.gpgsign=false")
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=self.root, check=True, capture_output=True, text=True).stdout.strip()

    def reproduce(self):
        """Write a dvc.lock, laid out as DVC does, for what lies on disk."""
        outputs = {"ingest": "data/raw", "train": "models/model.keras", "export": "models/export"}
        lines = ["schema: '2.0'", "stages:"]
        for stage, section in self.params.items():
            lines += [f"  {stage}:", f"    cmd: python -m stages.{stage}"]
            if stage == "train":
                lines.append("    deps:")
                for path, md5 in self.sources.items():
                    lines += [f"    - path: {path}", "      hash: md5", f"      md5: '{md5}'", "      size: 1"]
            lines += ["    params:", "      params.yaml:", f"        {stage}:"]
            lines += [f"          {name}: {value}" for name, value in section.items()]
            if stage in outputs:
                path = outputs[stage]
                lines += ["    outs:", f"    - path: {path}", "      hash: md5", f"      md5: {self.md5(path)}"]
        self.write("dvc.lock", "\n".join([*lines, ""]))

    def commit(self, message):
        """Commit dvc.lock, as a person would after `dvc repro`, and give the commit's line as `whatis` shows it."""
        self.git("add", "dvc.lock")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("log", "-1", "--abbrev=7", "--format=%h %cs %s")

    def cache(self, folder):
        """Put the listing of an output into DVC's cache, then remove the output."""
        files = sorted(path for path in (self.root / folder).rglob("*") if path.is_file())
        listing = [
            {"md5": self.md5(path), "relpath": path.relative_to(self.root / folder).as_posix()} for path in files
        ]
        md5 = self.md5(folder)
        path = self.write(f"{CACHE}/{md5[:2]}/{md5[2:]}", json.dumps(listing))
        shutil.rmtree(self.root / folder)
        return path

    def md5(self, name):
        """DVC's hash of an output."""
        return hash_output(self.root / name)

    def upstream(self):
        """What an export of the present state should have inside."""
        return Upstream(digest_params(self.params), self.md5("data/raw"), self.md5("models/model.keras"))


@pytest.fixture
def repository(tmp_path, monkeypatch, _alone):
    """Such a repository with one commit that holds dvc.lock; the tests' current folder."""
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    repository = Repository(root)
    repository.git("init", "--quiet", "--initial-branch=main")
    repository.write("dvc.yaml", "stages: {}\n")
    repository.write(".gitignore", "/data\n/models\n/.dvc\n")
    repository.git("add", "--all")
    repository.reproduce()
    repository.first = repository.commit("First state")
    return repository


def test_single_file_is_found_by_its_md5(repository, tmp_path):
    """A renamed copy elsewhere is the output whose MD5 it has."""
    copy = shutil.copy(repository.root / "models/model.keras", tmp_path / "image.jpg")
    result = run_whatis(copy)
    fields = read_fields(result.stdout)

    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == f"{copy}: models/model.keras, an output of train"
    assert fields["found by"] == [f"its MD5 {repository.md5('models/model.keras')}"]
    assert fields["params"] == [f"{name}.seed: 0" for name in repository.params]
    assert fields["dvc.lock"] == [f"models/model.keras  md5 {repository.md5('models/model.keras')}"]
    assert fields["commits"] == [repository.first]
    assert list(fields) == ["current", "MLflow", "commits", "found by", "dvc.lock", "params"]


def test_params_are_counted_and_listed_on_request(repository):
    """Without --params the answer says how many there are."""
    short = CliRunner().invoke(main, ["whatis", "models/model.keras"]).stdout

    assert read_fields(short)["params"] == [f"{len(repository.params)}, which --params lists"]
    assert read_fields(short) | {"params": []} == read_fields(run_whatis("models/model.keras").stdout) | {"params": []}


def test_convolutions_and_augmentation_are_listed(repository):
    """Blocks as params.yaml has them, and keys of a section in a section by their dotted names."""
    repository.params["train"] |= {"conv_blocks": "[[16, 16], [32]]", "augmentation": "{shift: 2, scale: 0.1}"}
    repository.reproduce()
    params = read_fields(run_whatis("models/model.keras").stdout)["params"]

    assert {"train.conv_blocks: [[16, 16], [32]]", "train.augmentation.shift: 2"} <= set(params)


def test_file_and_commit_are_found_from_a_subfolder(repository, monkeypatch):
    """In a folder of the project paths are as they were typed, and revisions stay what they are."""
    (repository.root / "docs").mkdir()
    expected = [run_whatis(name).stdout for name in ("models/model.keras", "HEAD")]
    monkeypatch.chdir(repository.root / "docs")

    assert run_whatis("../models/model.keras").stdout == expected[0]
    monkeypatch.chdir(repository.root / "docs")
    assert run_whatis("HEAD").stdout == expected[1]


def test_file_of_a_folder_is_found_in_the_cached_listing(repository, tmp_path):
    """A file of an output that is a folder is found where DVC's cache alone knows the folder."""
    copy = shutil.copy(repository.root / "data/raw/test/images.npy", tmp_path / "copy")
    entry = f"data/raw  md5 {repository.md5('data/raw')}"
    repository.cache("data/raw")
    result = run_whatis(copy)

    assert result.stdout.startswith(f"{copy}: data/raw/test/images.npy, an output of ingest\n")
    assert read_fields(result.stdout)["found by"] == [f"its MD5 {hash_output(copy)}"]
    assert read_fields(result.stdout)["dvc.lock"] == [entry]


def test_file_of_a_folder_is_found_on_disk_without_a_cache(repository, tmp_path):
    """Where the cache is gone, the folder itself is looked into."""
    copy = shutil.copy(repository.root / "models/export/model.onnx", tmp_path / "copy")

    assert run_whatis(copy).stdout.startswith(f"{copy}: models/export/model.onnx, an output of export\n")


def test_folder_that_is_not_the_outputs_is_not_believed(repository, tmp_path):
    """A folder on disk that is another than dvc.lock says tells nothing about the output."""
    copy = shutil.copy(repository.root / "models/export/model.onnx", tmp_path / "copy")
    repository.write("models/export/more.txt", "not the pipeline's")

    assert run_whatis(copy).exit_code == 1


def test_damaged_listing_is_not_believed(repository, tmp_path):
    """A listing in the cache that has another MD5 than its name says tells nothing."""
    copy = shutil.copy(repository.root / "data/raw/test/images.npy", tmp_path / "copy")
    listing = repository.cache("data/raw")
    listing.write_text(listing.read_text(encoding="utf-8").replace("test/images", "test/labels"), encoding="utf-8")
    result = run_whatis(copy)

    assert result.exit_code == 1
    assert "(listings of folders that DVC's cache does not have: 1)" in result.stderr


def test_same_bytes_in_two_outputs_are_both_named(repository):
    """A file that two outputs hold is all of them."""
    repository.write("models/export/labels.npy", "labels")
    repository.reproduce()
    repository.commit("Labels in two places")
    result = run_whatis("data/raw/train/labels.npy")

    assert result.stdout.splitlines()[0] == (
        "data/raw/train/labels.npy: data/raw/train/labels.npy, an output of ingest; "
        "models/export/labels.npy, an output of export; in 2 states, the newest first"
    )
    assert len(read_fields(result.stdout)["dvc.lock"]) == 2
    assert [list(state) for state in read_older(result.stdout)] == [["current", "commits"]]


def test_several_states_tell_what_differs(repository):
    """The newest state is told in full, each older one by what it has and the newest has not."""
    repository.params["train"]["seed"] = 1
    repository.write("models/model.keras", "another network")
    repository.reproduce()
    second = repository.commit("Second state")
    result = run_whatis("data/raw/test/images.npy")
    newest, (oldest,) = read_fields(result.stdout), read_older(result.stdout)

    assert result.stdout.splitlines()[0].endswith("an output of ingest; in 2 states, the newest first")
    assert {"train.seed: 1", "export.seed: 0"} <= set(newest["params"])
    assert newest["dvc.lock"] == [f"data/raw  md5 {repository.md5('data/raw')}"]
    assert newest["commits"] == [second]
    assert oldest == {**NOT_CURRENT, "params": ["train.seed: 0"], "commits": [repository.first]}


def test_file_of_an_older_commit_is_found(repository, tmp_path):
    """A file that the work tree no longer has belongs to the commit that had it, which is not the current state."""
    copy = shutil.copy(repository.root / "models/model.keras", tmp_path / "copy")
    repository.write("models/model.keras", "another network")
    repository.reproduce()
    repository.commit("Second state")

    fields = read_fields(run_whatis(copy).stdout)

    assert fields["commits"] == [repository.first]
    assert fields | NOT_CURRENT == fields


def test_uncommitted_state_is_the_work_tree_alone(repository):
    """What is in no commit yet is found in the dvc.lock on disk."""
    repository.write("models/model.keras", "another network")
    repository.reproduce()

    fields = read_fields(run_whatis("models/model.keras").stdout)

    assert fields["commits"] == ["none"]
    assert fields | CURRENT == fields


def test_change_of_sources_alone_is_no_state(repository):
    """A commit that changes no more than a dep in dvc.lock did not give the file."""
    repository.sources["stages/train.py"] = "2" * 32
    repository.reproduce()
    repository.commit("Rename a variable")

    assert read_fields(run_whatis("models/model.keras").stdout)["commits"] == [repository.first]


def test_state_taken_back_names_each_commit_that_gave_it(repository):
    """A state that was left and came back has two commits."""
    repository.write("models/model.keras", "another network")
    repository.reproduce()
    repository.commit("Second state")
    repository.write("models/model.keras", "network")
    repository.reproduce()
    third = repository.commit("First state again")

    assert read_fields(run_whatis("models/model.keras").stdout)["commits"] == [third, repository.first]


def test_state_of_another_branch_is_found(repository):
    """A commit need not be an ancestor of the one that is checked out."""
    repository.git("checkout", "--quiet", "-b", "branch")
    repository.write("models/model.keras", "network of the branch")
    repository.reproduce()
    on_branch = repository.commit("On the branch")
    repository.git("checkout", "--quiet", "main")

    assert read_fields(run_whatis("models/model.keras").stdout)["commits"] == [on_branch]


def test_merged_branch_is_searched_and_the_merge_not_credited(repository):
    """A state on a branch that a merge overruled is found; the merge gave nothing new."""
    repository.git("checkout", "--quiet", "-b", "branch")
    repository.write("models/model.keras", "network of the branch")
    repository.reproduce()
    on_branch = repository.commit("On the branch")
    repository.git("checkout", "--quiet", "main")
    repository.commit("Something else")
    repository.git("merge", "--quiet", "--strategy", "ours", "--no-edit", "branch")
    repository.git("branch", "--quiet", "--delete", "branch")
    of_branch = read_fields(run_whatis("models/model.keras").stdout)["commits"]
    repository.write("models/model.keras", "network")
    of_main = read_fields(run_whatis("models/model.keras").stdout)["commits"]

    assert of_branch == [on_branch]
    assert of_main == [repository.first]


def test_merge_that_gives_a_new_state_is_named_once(repository):
    """A merge whose dvc.lock neither parent has is the commit that gave the state."""
    repository.git("checkout", "--quiet", "-b", "branch")
    repository.write("models/model.keras", "network of the branch")
    repository.reproduce()
    repository.commit("On the branch")
    repository.git("checkout", "--quiet", "main")
    repository.write("models/export/model.onnx", "export of main")
    repository.write("models/model.keras", "network")
    repository.reproduce()
    repository.commit("On main")
    repository.git("merge", "--quiet", "--no-commit", "--strategy", "ours", "branch")
    repository.write("models/model.keras", "network of the merge")
    repository.reproduce()
    merge = repository.commit("Merge both")

    assert read_fields(run_whatis("models/model.keras").stdout)["commits"] == [merge]


def test_settings_of_git_do_not_change_the_answer(repository):
    """The commits that gave a state are the same whatever a person has set for `git log`."""
    repository.commit("Something else")
    repository.sources["stages/train.py"] = "2" * 32
    repository.reproduce()
    repository.commit("Rename a variable")
    for setting in ("log.follow", "log.showSignature", "log.date", "color.ui"):
        repository.git("config", setting, {"log.date": "relative", "color.ui": "always"}.get(setting, "true"))

    assert read_fields(run_whatis("models/model.keras").stdout)["commits"] == [repository.first]


def test_commit_that_deletes_the_lock_does_not_stop_the_search(repository, tmp_path):
    """A dvc.lock that was deleted is searched as it was before."""
    copy = shutil.copy(repository.root / "models/model.keras", tmp_path / "copy")
    repository.git("rm", "--quiet", "dvc.lock")
    repository.git("commit", "--quiet", "--message", "Start anew")

    assert read_fields(run_whatis(copy).stdout)["commits"] == [repository.first]


@pytest.mark.parametrize(
    "text",
    [
        "<<<<<<< ours\n{md5}\n",
        "{md5}",
        "stages:\n  train:\n    outs: {md5}\n",
        "stages:\n  train:\n    outs:\n    - md5: {md5}\n",
        "stages:\n  train:\n    params: [{md5}]\n",
        "stages: {{train: {{outs: [{{path: a, md5: [{md5}]}}]}}}}",
        "\x00\x01{md5}",
        "",
    ],
)
def test_broken_lock_does_not_stop_the_search(repository, text):
    """A dvc.lock that is damaged in one commit leaves the others to be searched."""
    lock = (repository.root / "dvc.lock").read_text(encoding="utf-8")
    repository.write("dvc.lock", text.format(md5=repository.md5("models/model.keras")))
    repository.commit("Broken")
    repository.write("dvc.lock", lock)
    mended = repository.commit("Mended")
    result = run_whatis("models/model.keras")

    assert result.exit_code == 0
    assert read_fields(result.stdout)["commits"] == [mended, repository.first]


@pytest.mark.parametrize("write", [write_onnx, write_tflite])
def test_export_is_found_by_the_digests_inside_it_without_a_cache(repository, write, tmp_path):
    """Where no listing tells an export's bytes, the digests inside it find its state, and that is said."""
    path = write(tmp_path / "copy.bin", {"upstream": repository.upstream()._asdict()})
    entry = f"models/export  md5 {repository.md5('models/export')}"
    shutil.rmtree(repository.root / "models/export")
    result = run_whatis(path)
    fields = read_fields(result.stdout)

    assert result.exit_code == 0
    assert result.stdout.startswith(f"{path}: one of models/export, as it says itself\n")
    assert fields["found by"] == [
        "the digests inside it; its own bytes were not compared, for the listing of models/export is not in DVC's cache"
    ]
    assert fields["dvc.lock"] == [entry]
    assert fields["commits"] == [repository.first]


def test_changed_export_is_not_called_whole(repository, tmp_path):
    """A file with the digests of a state whose listing names other bytes is said to be damaged or changed."""
    path = write_onnx(tmp_path / "model.onnx", {"upstream": repository.upstream()._asdict()})
    result = run_whatis(path)

    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == (
        f"{path}: NOT a file that the pipeline wrote, but what became of one of models/export: damaged or changed"
    )
    assert read_fields(result.stdout)["found by"] == [
        "the digests inside it; its own bytes are none that the listing of models/export names"
    ]


@pytest.mark.parametrize("name", Upstream._fields)
def test_export_of_another_state_is_not_found(repository, tmp_path, name):
    """A digest inside that is not the state's is another state, and the error says that it is not here."""
    path = write_onnx(tmp_path / "model.onnx", {"upstream": repository.upstream()._replace(**{name: "0"})._asdict()})
    result = run_whatis(path)

    assert result.exit_code == 1
    assert "exported from a state that is not here, as it says itself" in result.stderr


def test_state_without_a_section_is_passed_over(repository, tmp_path):
    """A dvc.lock from before a section of params.yaml was there does not stop the search."""
    path = write_onnx(tmp_path / "model.onnx", {"upstream": repository.upstream()._asdict()})
    del repository.params["normalize"]
    repository.reproduce()
    repository.commit("Without normalize")

    assert read_fields(run_whatis(path).stdout)["commits"] == [repository.first]


def test_foreign_file_is_one_line(repository):
    """A file that no state has ends in one line that says where, expected, got and what to do."""
    result = run_whatis(repository.write("foreign.bin", "foreign"))

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        f"whatis: {repository.root / 'foreign.bin'}: no known state of this pipeline has it: "
        f"MD5 {repository.md5('foreign.bin')}, unknown to dvc.lock (versions: 2); "
        "get the commit (`git fetch`) or experiment (`dvc exp pull`) that made it, or look in the clone that did\n"
    )


def test_source_that_a_stage_depends_on_is_not_an_output(repository):
    """A dep's MD5 in dvc.lock does not make a file one that the pipeline made."""
    path = repository.write("stages/train.py", "source")
    repository.sources["stages/train.py"] = repository.md5(path)
    repository.reproduce()

    assert run_whatis(path).exit_code == 1


@pytest.mark.parametrize(
    ("name", "problem"),
    [("missing.onnx", "no such file"), ("models", "it is a folder"), ("/dev/null", "it is no ordinary file")],
)
@pytest.mark.usefixtures("repository")
def test_what_is_no_file_is_one_line(name, problem):
    """A missing file, a folder or a device ends in one line."""
    result = run_whatis(name)

    assert result.exit_code == 1
    assert result.stderr.startswith(f"whatis: {name}: {problem}; ")
    assert result.stderr.count("\n") == 1


def test_commit_tells_its_own_state(repository):
    """A revision leads to the params and outputs of its own dvc.lock, whatever the work tree has."""
    commit, md5 = repository.git("log", "-1", "--abbrev=7", "--format=%h %cs %s"), repository.md5("models/model.keras")
    repository.write("models/model.keras", "another network")
    repository.reproduce()
    result = run_whatis("HEAD")
    fields = read_fields(result.stdout)

    assert result.stdout.startswith("HEAD: the state ")
    assert fields["commits"] == [commit]
    assert f"models/model.keras  md5 {md5}" in fields["dvc.lock"]
    assert fields["MLflow"] == ["no store here"]
    assert fields | NOT_CURRENT == fields


def test_commit_without_a_lock_is_one_line(repository):
    """A commit from before the first `dvc repro` ends in one line."""
    repository.git("rm", "--quiet", "--cached", "dvc.lock")
    repository.git("commit", "--quiet", "--message", "No lock")
    result = run_whatis("HEAD")

    assert result.exit_code == 1
    assert "dvc.lock: no such file; choose a commit of `git log dvc.lock`" in result.stderr
    assert result.stderr.count("\n") == 1


def test_outside_git_the_work_tree_is_searched(repository):
    """Without git there is still the dvc.lock on disk."""
    shutil.rmtree(repository.root / ".git")

    assert read_fields(run_whatis("models/model.keras").stdout)["commits"] == ["none"]


@pytest.mark.parametrize("has_git", [True, False])
@pytest.mark.usefixtures("_alone")
def test_project_without_any_lock_is_one_line(tmp_path, monkeypatch, has_git):
    """Where no dvc.lock is, neither on disk nor in a commit, the error says what writes it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for name in ("model.onnx", "dvc.yaml"):
        (tmp_path / name).write_text("model", encoding="utf-8")
    if has_git:
        Repository(tmp_path).git("init", "--quiet")
    result = run_whatis("model.onnx")

    assert result.exit_code == 1
    assert result.stderr == ("whatis: dvc.lock: there is none in this project or in a commit; run `dvc repro` first\n")


def test_project_in_a_folder_of_a_repository_is_searched(repository, monkeypatch):
    """The project's root need not be the repository's."""
    (repository.root / "inner").mkdir()
    inner = Repository(repository.root / "inner")
    inner.write("dvc.yaml", "stages: {}\n")
    inner.write("models/model.keras", "inner network")
    inner.reproduce()
    commit = inner.commit("Inner project")
    monkeypatch.chdir(inner.root)

    assert read_fields(run_whatis("models/model.keras").stdout)["commits"] == [commit]


def test_missing_store_is_not_created(repository):
    """Where there is no MLflow store, the answer says so, and leaves it at that."""
    before = sorted(path.name for path in repository.root.iterdir())
    result = run_whatis("models/model.keras")

    assert read_fields(result.stdout)["MLflow"] == ["no store here"]
    assert sorted(path.name for path in repository.root.iterdir()) == before


def test_missing_store_of_the_environment_is_not_created(repository, monkeypatch):
    """A SQLite store that MLFLOW_TRACKING_URI names is not created either."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    result = run_whatis("models/model.keras")

    assert read_fields(result.stdout)["MLflow"] == ["no store here"]
    assert not (repository.root / "other.db").exists()


def test_unusable_store_leaves_the_rest_to_be_told(repository):
    """A store that cannot be read costs one line, not the answer."""
    (repository.root / "mlflow.db").write_bytes(b"not a database at all" * 100)
    result = run_whatis("models/model.keras")
    (line,) = read_fields(result.stdout)["MLflow"]

    assert result.exit_code == 0
    assert line.startswith("not asked: the MLflow store sqlite:///")
    assert read_fields(result.stdout)["commits"] == [repository.first]


# The pipeline itself, once; every check below is on what it left.

EXPERIMENT = "few"


@pytest.fixture(scope="module")
def experimented(reproduced, tmp_path_factory):
    """A reproduced clone, committed, and an experiment whose int8 model is calibrated otherwise."""
    project = reproduced.copy_to(tmp_path_factory.mktemp("copy") / "clone", without=("mlflow.db*", "mlartifacts"))
    project.run("python", "-m", "stages.track")
    project.run("git", "commit", "--quiet", "--all", "--allow-empty", "--message", "Reproduced")
    project.run("dvc", "exp", "run", "--name", EXPERIMENT, "--set-param", "export.representative_samples=123")
    shutil.copy(project.root / "models/export/model_int8.tflite", project.root.parent / "few.tflite")
    project.run("git", "checkout", "--quiet", "--", ".")
    project.run("dvc", "checkout", "--quiet")
    return project


@pytest.fixture
def project(experimented, monkeypatch, _alone):
    """That clone; the tests' current folder."""
    monkeypatch.chdir(experimented.root)
    return experimented


@pytest.fixture
def fresh(project, tmp_path, monkeypatch):
    """What git clones of that clone: no outputs, no cache, no experiments, no store; the tests' current folder."""
    project.run("git", "clone", "--quiet", str(project.root), str(tmp_path / "fresh"))
    monkeypatch.chdir(tmp_path / "fresh")
    return Project(tmp_path / "fresh")


def read_entries(project):
    """The MD5 of each output in the project's dvc.lock."""
    return parse_lock(project.read("dvc.lock")).state.outputs


def test_params_file_and_lock_have_one_digest(project):
    """The params that a stage loads and those that DVC locks are told by the same digest."""
    state = parse_lock(project.read("dvc.lock")).state

    assert digest_params(load_params(project.root / "params.yaml")) == digest_params(state.params)


def list_commits(project):
    """The lines of the commits that changed dvc.lock on main."""
    return project.run("git", "log", "--abbrev=7", "--format=%h %cs %s", "main", "--", "dvc.lock").splitlines()


def test_renamed_network_leads_to_its_state(project, tmp_path):
    """From models/model.keras under another name elsewhere its params, entry and commit are found."""
    copy = shutil.copy(project.root / "models/model.keras", tmp_path / "holiday.jpg")
    result = run_whatis(copy)
    newest = read_fields(result.stdout)

    assert result.stdout.startswith(f"{copy}: models/model.keras, an output of train; in 2 states")
    assert newest["dvc.lock"] == [f"models/model.keras  md5 {read_entries(project)['models/model.keras']}"]
    assert {"ingest.dataset: digits", "train.hidden_units: [20]"} <= set(newest["params"])
    assert newest["commits"] == [list_commits(project)[0]]


def test_commit_leads_to_its_exports_and_its_run(project):
    """From a commit the MD5 of every exported file and the MLflow run of its state are found."""
    fields = read_fields(run_whatis("main").stdout)
    runs = [
        run
        for run in project.list_runs()
        if run.data.tags["pipeline.state"] == parse_lock(project.read("dvc.lock")).state.digest
    ]
    export_md5 = hash_output(project.root / "models/export/model.onnx")

    assert f"models/export/model.onnx  md5 {export_md5}" in fields["dvc.lock"]
    assert [line.split(" (run ")[1][:32] for line in fields["MLflow"]] == [run.info.run_id for run in runs]


def test_run_version_and_champion_are_those_of_the_store(project):
    """The run is the one that carries the MD5, its registered version and the champion are what the registry says."""
    stdout = run_whatis("models/model.keras").stdout
    states = [read_fields(stdout), *read_older(stdout)]
    aliases = project.client.get_registered_model("digits").aliases
    expected = {
        f"{run.info.run_name} (run {run.info.run_id}, experiment digits), digits version {version.version}"
        + "".join(f", {alias}" for alias, number in aliases.items() if str(number) == str(version.version))
        for run in project.list_runs()
        for version in project.client.search_model_versions(f"run_id = '{run.info.run_id}'")
    }

    assert len(expected) == 2
    assert sum(line.endswith(", champion") for line in expected) == 1
    assert {line for state in states for line in state["MLflow"]} == expected


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("data/raw/test/images.npy", "ingest"),
        ("reports/validation/validation.json", "validate"),
        ("data/normalized/train/rows.npy", "normalize"),
        ("reports/history.csv", "train"),
        ("reports/evaluation/confusion.png", "evaluate"),
        ("reports/metrics.json", "evaluate"),
        ("models/export/model.onnx", "export"),
        ("reports/parity.csv", "export"),
    ],
)
def test_file_of_every_stage_is_found(project, path, stage):
    """Whatever a stage wrote, be it alone, in a folder or in git, is found with a commit and a run."""
    result = run_whatis(path)
    newest = read_fields(result.stdout)

    assert result.stdout.startswith(f"{path}: {path}, an output of {stage}")
    assert newest["commits"] == [list_commits(project)[0]]
    assert "(run " in newest["MLflow"][0]


@pytest.mark.parametrize(
    ("path", "name", "stage"),
    [
        ("../few.tflite", "models/export/model_int8.tflite", "export"),
        ("reports/state.json", "reports/state.json", "track"),  # neither git nor DVC brings the former one back
    ],
)
@pytest.mark.usefixtures("project")
def test_file_of_an_experiment_is_found_by_its_name(path, name, stage):
    """What an experiment made and the work tree does not have leads to the experiment and to its run."""
    result = run_whatis(path)
    fields = read_fields(result.stdout)
    (commit,) = fields["commits"]

    assert result.stdout.startswith(f"{path}: {name}, an output of {stage}\n")
    assert "export.representative_samples: 123" in fields["params"]
    assert commit.endswith(f" experiment {EXPERIMENT}")
    assert fields["MLflow"][0].startswith(f"{EXPERIMENT} (run ")


def test_state_that_no_commit_has_is_found_in_the_store(project, tmp_path, monkeypatch):
    """What was never committed, or whose experiment was removed, leads to the run that MLflow keeps."""
    copy = project.copy_to(tmp_path / "copy")
    copy.run("dvc", "exp", "remove", EXPERIMENT)
    monkeypatch.chdir(copy.root)
    result = run_whatis(project.root.parent / "few.tflite")
    fields = read_fields(result.stdout)

    assert "models/export/model_int8.tflite, an output\n" in result.stdout
    assert "export.representative_samples: 123" in fields["params"]
    assert fields["commits"] == ["none"]
    assert fields["MLflow"][0].startswith(f"{EXPERIMENT} (run ")


def test_run_without_a_model_version_is_named_alone(project, tmp_path, monkeypatch):
    """A run of which nothing is registered is told without a version."""
    copy = project.copy_to(tmp_path / "copy")
    copy.client.delete_registered_model("digits")
    monkeypatch.chdir(copy.root)

    assert re.fullmatch(
        r"digits 20 \w+ \(run \w+, experiment digits\)",
        read_fields(run_whatis("models/model.keras").stdout)["MLflow"][0],
    )


def test_fresh_clone_knows_a_single_file_by_its_md5(project, fresh):
    """Without outputs, cache and store the committed dvc.lock is enough for an output that is a file."""
    result = run_whatis(project.root / "models/model.keras")
    fields = read_fields(result.stdout)

    assert fields["commits"] == [list_commits(fresh)[0]]
    assert fields["MLflow"] == ["no store here"]


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite", "model_int8.tflite"])
def test_fresh_clone_knows_an_export_by_the_digests_inside_it(project, fresh, tmp_path, name):
    """Without the listing of models/export, what the export says of its upstream leads to its state."""
    copy = shutil.copy(project.root / "models/export" / name, tmp_path / "image.jpg")
    fields = read_fields(run_whatis(copy).stdout)

    assert fields["found by"][0].startswith("the digests inside it; its own bytes were not compared")
    assert fields["dvc.lock"] == [f"models/export  md5 {read_entries(project)['models/export']}"]
    assert fields["commits"] == [list_commits(fresh)[0]]


@pytest.mark.parametrize("name", ["model.onnx", "model_int8.tflite"])
def test_export_with_a_changed_weight_is_not_called_whole(project, tmp_path, name):
    """Where the listing is there, an export with one changed bit leads to its state, and is said to be changed."""
    content = bytearray((project.root / "models/export" / name).read_bytes())
    content[len(content) // 2] ^= 1  # amid the weights, which are most of the file
    path = tmp_path / name
    path.write_bytes(content)
    result = run_whatis(path)

    assert result.stdout.startswith(f"{path}: NOT a file that the pipeline wrote")
    assert read_fields(result.stdout)["commits"] == [list_commits(project)[0]]


@pytest.mark.usefixtures("fresh")
def test_fresh_clone_says_that_it_lacks_the_listings(project):
    """Where a folder's listing is missing, a file of it is not found, and the error does not blame the file alone."""
    result = run_whatis(project.root / "data/raw/test/images.npy")

    assert result.exit_code == 1
    assert re.search(r"\(listings of folders that DVC's cache does not have: [3-9]\)", result.stderr)


@pytest.mark.parametrize("name", ["models/model.keras", "models/export/model.onnx", "reports/evaluation/confusion.png"])
def test_truncated_copy_is_not_found(project, tmp_path, name):
    """A file that is cut off is none that the pipeline made, and no exception."""
    content = (project.root / name).read_bytes()
    path = tmp_path / "copy"
    path.write_bytes(content[: len(content) // 2])
    result = run_whatis(path)

    assert result.exit_code == 1
    assert "unknown to dvc.lock" in result.stderr
    assert " and to the MLflow store" in result.stderr
    assert result.stderr.count("\n") == 1


def test_command_line_gives_the_same_and_changes_nothing(project):
    """The `pipeline` command in a process of its own prints no more than the answer, and git sees no change."""
    program = "from stages.commands.main import main; main()"
    printed = project.run("python", "-c", program, "whatis", "--params", "models/model.keras")
    again = run_whatis("models/model.keras").stdout

    assert printed == again
    assert project.run("git", "status", "--porcelain") == ""

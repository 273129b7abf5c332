"""`pipeline verify`: what is on disk, in DVC's cache and in a fresh clone is what dvc.lock promises."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from project import Project
from ruamel.yaml import YAML

from stages.commands.main import main
from stages.commands.verify import Promise, judge
from stages.lib.core.dvc_lock import load_graph, load_lock
from stages.lib.core.files import read_json
from stages.lib.verification.integrity import audit, find_uncached
from stages.lib.verification.rebuilds import CPUS, Emulation, find_revision, make_environment, rebuild, vary

CACHE = Path(".dvc/cache/files/md5")

# Three outputs: a folder, a file, and one that DVC does not cache.
GRAPH = {
    "stages": {
        "data": {"cmd": "python data.py", "deps": ["data.py"], "outs": ["data"]},
        "report": {
            "cmd": "python report.py",
            "deps": ["data", "report.py"],
            "outs": ["report.csv"],
            "metrics": [{"metrics.json": {"cache": False}}],
        },
    }
}
SOURCES = {
    "data.py": (
        "from pathlib import Path\n"
        "Path('data/in side').mkdir(parents=True)\n"
        "for name in ('a', 'in side/b'):\n"
        "    Path('data', name).write_text(name)\n"
    ),
    "report.py": (
        "from pathlib import Path\n"
        "Path('report.csv').write_text('epoch,loss\\n1,0.5\\n')\n"
        "Path('metrics.json').write_text('{\"accuracy\": 0.9}\\n')\n"
    ),
}


def run(*command, cwd):
    """What a command prints that must succeed; `python` and `dvc` are this environment's."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Small:
    """A small DVC project, its outputs made; the current folder of the test."""

    def __init__(self, root):
        self.root = root

    def dvc(self, *arguments):
        """What DVC prints."""
        return run("dvc", *arguments, cwd=self.root)

    def git(self, *arguments):
        """What git prints, run as somebody whom every machine knows."""
        identity = ("-c", "user.name=A Tester", "-c", "user.email=tester@example.invalid", "-c", "commit.gpgsign=false")
        return run("git", *identity, *arguments, cwd=self.root)

    def commit(self):
        """Commit all that is there."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "A state")

    def write_graph(self, graph):
        """Write dvc.yaml."""
        with (self.root / "dvc.yaml").open("w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump(graph, file)

    def locate(self, path):
        """The object in the cache of an output or of a file in one."""
        lock = YAML(typ="safe", pure=True).load((self.root / "dvc.lock").read_text(encoding="utf-8"))
        md5s = {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}
        if path not in md5s:
            listing = self.locate(path.split("/")[0]).read_text(encoding="utf-8")
            md5s |= {f"data/{entry['relpath']}": entry["md5"] for entry in YAML(typ="safe", pure=True).load(listing)}
        return CACHE / md5s[path][:2] / md5s[path][2:]

    def list_problems(self):
        """What hashing everything finds, as texts."""
        audited = audit(load_lock().outputs, find_uncached(load_graph()), Path(".dvc/cache"))
        return [str(problem) for problem in audited.problems]

    def verify(self, *arguments):
        """What `pipeline verify` gives."""
        return CliRunner().invoke(main, ["verify", *arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small project, its outputs made once and committed."""
    small = Small(tmp_path_factory.mktemp("made"))
    small.git("init", "--quiet", "--initial-branch=main")
    small.dvc("init", "--quiet")
    small.write_graph(GRAPH)
    for name, text in SOURCES.items():
        (small.root / name).write_text(text, encoding="utf-8")
    small.dvc("repro", "--quiet")
    small.commit()
    return small


@pytest.fixture
def small(made, tmp_path, monkeypatch):
    """A copy of it, the test's current folder."""
    run("cp", "-a", str(made.root), str(tmp_path / "project"), cwd=tmp_path)
    monkeypatch.chdir(tmp_path / "project")
    return Small(tmp_path / "project")


def corrupt(path):
    """Flip the first bit of a file, its protection and its time as they were, as a disk does."""
    before = path.stat()
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def heal(small, problems):
    """Run the first command that each error recommends."""
    for problem in problems:
        run("sh", "-c", re.findall("`([^`]+)`", problem)[0], cwd=small.root)


def hide_hashes(problems):
    """The errors' texts without MD5s, the names of cache objects included."""
    return [re.sub(r"[0-9a-f]{2}/[0-9a-f]{30}|[0-9a-f]{32}", "…", problem) for problem in problems]


def test_sound_outputs_are_counted(small):
    """Where everything is as expected, one line says how much was hashed, and the exit code is 0."""
    result = small.verify("--quick")

    assert result.exit_code == 0
    assert result.output == (
        "on disk and in DVC's cache: 3 outputs, 4 files and 4 cache objects hashed, all as dvc.lock has them\n"
    )


@pytest.mark.parametrize("path", ["report.csv", "data/a", "data/in side/b", "data"])
def test_corrupted_cache_object_is_found(small, path):
    """A bit that flipped in a cache object is told with the file that it is of and what to do."""
    target = small.locate(path)
    corrupt(target)
    (problem,) = small.list_problems()

    assert re.fullmatch(
        rf"{target} \({path}\): expected MD5 {target.parent.name}{target.stem}, got [0-9a-f]{{32}}(\.dir)?; "
        rf"`rm -f {target} && dvc commit {path.split('/')[0]}`",
        problem,
    )


@pytest.mark.parametrize("path", ["report.csv", "data/a", "data"])
def test_missing_cache_object_is_told_from_a_corrupted_one(small, path):
    """An object that is gone is told as such, with the command that puts it back."""
    target = small.locate(path)
    target.unlink()
    md5 = f"{target.parent.name}{target.stem}"

    assert small.list_problems() == [
        f"{target} ({path}): expected MD5 {md5}, got nothing; `dvc commit {path.split('/')[0]}`"
    ]


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("report.csv", "rm -rf report.csv && dvc checkout report.csv"),
        ("data/in side/b", "rm -rf 'data/in side/b' && dvc checkout --force data"),
        ("metrics.json", "rm -rf metrics.json && dvc repro"),
    ],
)
def test_corrupted_output_is_found(small, path, command):
    """A bit that flipped in an output, its size and time as they were, is told with what to do."""
    corrupt(Path(path))
    (problem,) = small.list_problems()

    assert re.fullmatch(rf"{path}: expected MD5 [0-9a-f]{{32}}, got [0-9a-f]{{32}}; `{re.escape(command)}`", problem)


@pytest.mark.parametrize(
    ("path", "command"),
    [("report.csv", "dvc checkout report.csv"), ("data/a", "dvc checkout --force data"), ("metrics.json", "dvc repro")],
)
def test_missing_output_is_found(small, path, command):
    """An output that is gone is told with the command that brings it back."""
    Path(path).unlink()

    assert hide_hashes(small.list_problems()) == [f"{path}: expected MD5 …, got nothing; `{command}`"]


def test_missing_folder_is_one_problem(small):
    """A folder that is gone is told once, not by each of its files."""
    run("rm", "-rf", "data", cwd=small.root)

    assert hide_hashes(small.list_problems()) == ["data: expected MD5 ….dir, got nothing; `dvc checkout --force data`"]


def test_file_that_is_too_many_is_found(small):
    """A file in a folder that dvc.lock does not promise is told."""
    Path("data/more").touch()

    assert hide_hashes(small.list_problems()) == [
        "data/more: expected nothing, got …; `rm -rf data/more && dvc checkout --force data`"
    ]


def test_all_problems_are_listed(small):
    """Every problem has its line, not just the first; with a bad cache, the output is to be made anew."""
    for path in (Path("report.csv"), small.locate("report.csv")):
        corrupt(path)
    for path in (Path("metrics.json"), Path("data/a"), small.locate("data/in side/b"), small.locate("data")):
        path.unlink()
    result = small.verify("--quick")
    refill = "`dvc fetch` if there is a remote, else `dvc repro`"

    assert result.exit_code == 1
    assert hide_hashes(result.output.splitlines()) == [
        f"{CACHE}/….dir (data): expected MD5 …, got nothing; {refill}",
        "data: expected MD5 ….dir, got ….dir; `rm -rf data && dvc repro`",
        "metrics.json: expected MD5 …, got nothing; `dvc repro`",
        f"{CACHE}/… (report.csv): expected MD5 …, got …; `rm -f {CACHE}/…`, then {refill}",
        "report.csv: expected MD5 …, got …; `rm -rf report.csv && dvc repro`",
    ]


def test_commands_heal_what_dvc_does_not_see(small):
    """DVC takes corrupted objects for sound; the recommended commands put them and a missing one right."""
    corrupt(small.locate("report.csv"))
    corrupt(small.locate("data/a"))
    seen_by_dvc = small.dvc("status")
    small.locate("data").unlink()
    problems = small.list_problems()
    heal(small, problems)

    assert "up to date" in seen_by_dvc
    assert len(problems) == 3
    assert small.list_problems() == []


def test_commands_heal_outputs(small):
    """The recommended commands bring back outputs that are corrupted, missing or too many."""
    corrupt(Path("report.csv"))
    corrupt(Path("data/in side/b"))
    Path("data/a").unlink()
    Path("data/more").touch()
    problems = small.list_problems()
    heal(small, problems)

    assert len(problems) == 4
    assert small.list_problems() == []


def test_commands_heal_an_output_whose_object_is_corrupted_too(small):
    """With no valid copy left, the recommended commands have the stage make it anew."""
    corrupt(Path("report.csv"))
    corrupt(small.locate("report.csv"))
    problems = small.list_problems()
    heal(small, problems)

    assert len(problems) == 2
    assert small.list_problems() == []


def test_object_that_outputs_share_is_told_once(small):
    """Where two files have one content, and so one object, its loss is one problem."""
    Path("data.py").write_text(SOURCES["data.py"].replace("write_text(name)", "write_text('same')"), encoding="utf-8")
    small.dvc("repro", "--quiet")
    corrupt(small.locate("data/a"))

    assert len(small.list_problems()) == 1


def test_cache_elsewhere_is_verified(small, tmp_path):
    """The cache is where DVC's configuration says."""
    name = small.locate("report.csv")
    (small.root / ".dvc/cache").rename(tmp_path / "elsewhere")
    small.dvc("config", "--local", "cache.dir", str(tmp_path / "elsewhere"))
    target = tmp_path / "elsewhere" / name.relative_to(".dvc/cache")
    corrupt(target)

    assert small.verify("--quick").output.startswith(f"{target} (report.csv): ")


def test_fresh_clone_is_told_in_one_line(small):
    """Before the first `dvc repro` there is one line that says so, not one for each file."""
    for name in ("data", "report.csv", ".dvc/cache"):
        run("rm", "-rf", name, cwd=small.root)

    (line,) = small.list_problems()
    assert line == (
        "dvc.lock: none of its outputs is on disk or in DVC's cache; "
        "run `dvc pull` if there is a remote, else `dvc repro`"
    )


@pytest.mark.parametrize(
    ("name", "problem", "hint"),
    [
        ("dvc.lock", "it is damaged: ", "run `git checkout dvc.lock`"),
        ("dvc.yaml", "expected stages, got ", "write `key: value` lines"),
    ],
)
def test_missing_or_damaged_graph_is_one_line(small, name, problem, hint):
    """Without a valid dvc.lock or dvc.yaml there is nothing to verify, which is said in one line."""
    Path(name).write_text("<<<<<<< ours\n", encoding="utf-8")
    damaged = small.verify("--quick")
    Path(name).unlink()
    missing = small.verify("--quick")

    assert damaged.exit_code == missing.exit_code == 1
    assert re.fullmatch(rf"verify: {name}: {problem}.+; {hint}\n", damaged.stderr)
    assert missing.stderr.startswith(f"verify: {name}: no such file; run ")
    assert " the project's root folder" in missing.stderr


def test_changed_work_tree_is_not_rebuilt(small):
    """A rebuild is of HEAD: where tracked files differ from it, that is said; what is here is verified all the same."""
    Path("report.py").write_text(SOURCES["report.py"] + "\n", encoding="utf-8")
    result = small.verify()

    assert result.exit_code == 1
    assert result.stdout.startswith("on disk and in DVC's cache: 3 outputs")
    assert result.stderr == (
        "verify: this work tree: HEAD is what is rebuilt, without the changes in report.py; "
        "commit or stash the changes, or add --quick\n"
    )


def test_rebuild_needs_no_outputs(small):
    """In a fresh clone the rebuilds still run, and only what is missing here fails."""
    for name in ("data", "report.csv", ".dvc/cache"):
        run("rm", "-rf", name, cwd=small.root)
    result = small.verify("--repeat", "1")

    assert result.exit_code == 1
    assert result.stdout.endswith("\n1 of 1 rebuilds identical\n")


# A stage that tells of all that a rebuild varies.
TELLING = """
import json, os, time
told = {
    "folder": os.getcwd(),
    "hash": hash("x"),
    "locale": os.environ["LC_ALL"],
    "threads": os.environ["OMP_NUM_THREADS"],
    "umask": os.umask(0),
    "zone": time.strftime("%z"),
}
with open("metrics.json", "w") as file:
    json.dump(told, file)
with open("report.csv", "w") as file:
    file.write("1")
"""


def test_conditions_differ_in_every_respect(small, tmp_path):
    """What a stage can see of a rebuild's conditions differs in each respect from the next one's."""
    Path("report.py").write_text(TELLING, encoding="utf-8")
    small.commit()
    reported = []
    for number, conditions in enumerate(vary(2)):
        done = rebuild(find_revision(), tmp_path / str(number), conditions)
        reported.append(read_json(done.root / "metrics.json"))

    assert reported[0].keys() == reported[1].keys()
    assert [key for key in reported[0] if reported[0][key] == reported[1][key]] == []


def test_lasting_difference_is_named_by_stage_file_and_key(small):
    """A stage that writes the time is named, with the file and the key, against dvc.lock and between the rebuilds."""
    Path("report.py").write_text(
        "import json, time\n"
        "open('report.csv', 'w').write('1')\n"
        "json.dump({'accuracy': 0.9, 'made': {'at': time.time_ns()}}, open('metrics.json', 'w'))\n",
        encoding="utf-8",
    )
    small.dvc("repro", "--quiet")
    small.commit()
    result = small.verify()

    assert result.exit_code == 1
    assert re.findall(r"^report diverges .+\n +(.+): \d+ against \d+$", result.stdout, re.MULTILINE) == [
        "metrics.json: made.at",
        "metrics.json: made.at",
    ]
    assert "\nthe rebuilds differ from each other in report: the same code, other bytes\n" in result.stdout
    assert re.search(r"^\| 2 .+ report diverges from dvc.lock \|$", result.stdout, re.MULTILINE)
    assert result.stdout.endswith("\n0 of 2 rebuilds identical\n")


def test_first_stage_that_diverges_is_named_before_those_after_it(small):
    """Where dvc.lock is of older code, the first stage in the order of the graph is named, and that rebuilds agree."""
    Path("data.py").write_text(SOURCES["data.py"].replace("'in side/b'", "'in side/c'"), encoding="utf-8")
    Path("report.py").write_text(SOURCES["report.py"].replace("0.5", "0.25"), encoding="utf-8")
    small.commit()
    result = small.verify()

    assert result.exit_code == 1
    assert (
        result.stdout.count(
            "\ndata diverges from dvc.lock\n"
            "  data/in side/b: missing\n"
            "  data/in side/c: not expected\n"
            "  after it: report\n"
        )
        == 2
    )
    assert "\nthese rebuilds gave the same bytes as each other: dvc.lock is of other code" in result.stdout


def test_lock_of_other_sources_is_found_though_outputs_are_the_same(small):
    """A source that was edited without `dvc repro` leaves another dvc.lock, even if no output changes."""
    Path("report.py").write_text(f"# A remark.\n{SOURCES['report.py']}", encoding="utf-8")
    small.commit()
    result = small.verify("--repeat", "1")

    assert result.exit_code == 1
    assert re.search(
        r"^the same outputs, another dvc.lock\n  dvc.lock: stages.report.deps.report.py.md5: '\w+' against '\w+'$",
        result.stdout,
        re.MULTILINE,
    )


def test_forgotten_file_is_found(small):
    """What a stage needs and git does not have makes the clone's stage fail, whose last line is shown."""
    Path("words.txt").write_text("0.5", encoding="utf-8")
    Path("report.py").write_text(
        SOURCES["report.py"].replace("'epoch,loss\\n1,0.5\\n'", "open('words.txt').read()"), encoding="utf-8"
    )
    small.dvc("repro", "--quiet")
    small.git("commit", "--quiet", "--all", "--message", "Without words.txt")
    result = small.verify("--repeat", "1")

    assert result.exit_code == 1
    assert "\nreport failed\n  FileNotFoundError: [Errno 2] No such file or directory: 'words.txt'\n" in result.stdout
    assert result.stdout.endswith("\n0 of 1 rebuilds identical\n")


def test_difference_before_a_failure_is_found(small):
    """Where a rebuild fails, the stages that ended before are compared, for they may be why."""
    Path("data.py").write_text(f"{SOURCES['data.py']}Path('data/a').write_text(str(Path.cwd()))\n", encoding="utf-8")
    Path("report.py").write_text("raise SystemExit('report: no ink left')\n", encoding="utf-8")
    small.commit()
    result = small.verify()

    assert result.exit_code == 1
    assert "\ndata diverges from dvc.lock; report failed\n  data/a: line 1: 'a' against " in result.stdout
    assert result.stdout.count("\n  report: no ink left\n") == 2
    assert "\nthe rebuilds differ from each other in data: the same code, other bytes\n" in result.stdout
    assert result.stdout.endswith("\n0 of 2 rebuilds identical\n")


def test_nothing_leads_out_of_a_clone(tmp_path, monkeypatch):
    """MLflow's server, another DVC root or git folder stay out; a mirror's path becomes absolute, an address stays."""
    monkeypatch.chdir(tmp_path)
    base = {"MLFLOW_TRACKING_URI": "https://mlflow.example", "DVC_ROOT": "/", "GIT_DIR": "/", "PYTHONSAFEPATH": "1"}
    (conditions,) = vary(1)
    made = make_environment({**base, "MNIST_MIRROR": "https://mnist.example"}, conditions, tmp_path)

    assert base.keys() & made.keys() == set()
    assert made["MNIST_MIRROR"] == "https://mnist.example"
    monkeypatch.delenv("DVC_ROOT", raising=False)
    assert make_environment({"MNIST_MIRROR": "a"}, conditions, tmp_path)["MNIST_MIRROR"] == str(tmp_path / "a")


def test_downloads_of_this_project_serve_the_clones(tmp_path, monkeypatch):
    """No data set is downloaded again for each rebuild: the files that `ingest` kept are the mirror."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (conditions,) = vary(1)
    before = make_environment({}, conditions, tmp_path)
    for name in ("mnist", "fashion_mnist", "cifar10"):
        (tmp_path / ".cache" / name).mkdir(parents=True)
        variable = f"{name.upper()}_MIRROR"

        assert variable not in before
        assert make_environment({}, conditions, tmp_path)[variable] == str(tmp_path / ".cache" / name)


def test_missing_emulator_is_one_line(small, monkeypatch):
    """Where QEMU is not installed, one line says how to install it, before anything else is done."""
    monkeypatch.setenv("PATH", str(small.root))
    result = small.verify("--cpu", "Haswell")

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        "verify: --cpu: qemu-x86_64 is not on PATH; install it (Debian, Ubuntu: `apt-get install qemu-user`)\n"
    )


def write_emulator(tmp_path, monkeypatch):
    """A log of what is run by a `qemu-x86_64` that starts programs on this machine's own processor."""
    emulator = tmp_path / "bin/qemu-x86_64"
    emulator.parent.mkdir()
    log = tmp_path / "log"
    emulator.write_text(f'#!/bin/sh\necho "$2 $4" >> {shlex.quote(str(log))}\nshift 2\nexec "$@"\n', encoding="utf-8")
    emulator.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(emulator.parent), os.environ["PATH"]]))
    return log


def test_each_processor_is_one_more_rebuild(small, tmp_path, monkeypatch):
    """Each --cpu adds a rebuild whose stages are started through the emulator; identical rebuilds are counted."""
    log = write_emulator(tmp_path, monkeypatch)
    result = small.verify("--repeat", "1", "--cpu", "Haswell", "--cpu", "Haswell,vendor=AuthenticAMD")

    assert result.exit_code == 0
    assert re.findall(
        r"^rebuild (\d) of 3: .+ on an emulated (.+)\ndata \d+ s, report \d+ s\nidentical$", result.stdout, re.MULTILINE
    ) == [("2", "Haswell"), ("3", "Haswell,vendor=AuthenticAMD")]
    assert result.stdout.endswith("\n3 of 3 rebuilds identical\n")
    assert small.git("status", "--porcelain") == ""
    assert log.read_text(encoding="utf-8").splitlines() == [
        *("Haswell -c", "Haswell,vendor=AuthenticAMD -c", "Haswell data.py", "Haswell report.py"),
        *("Haswell,vendor=AuthenticAMD data.py", "Haswell,vendor=AuthenticAMD report.py"),
    ]


def test_usual_processors_are_emulated_where_that_is_possible(small, tmp_path, monkeypatch):
    """`make verify` rebuilds on processors of both cache sizes, each once, and says that AArch64 was not tried."""
    write_emulator(tmp_path, monkeypatch)
    result = small.verify("--repeat", "0", "--emulate", "--cpu", "Haswell")

    assert result.exit_code == 0
    assert re.findall(r"^rebuild \d of 3: .+ on an emulated (.+)$", result.stdout, re.MULTILINE) == list(CPUS)
    assert "not tried: AArch64, for it takes long; `pipeline verify --arch aarch64` does\n" in result.stdout


def test_usual_processors_that_cannot_be_emulated_are_told(small, tmp_path, monkeypatch):
    """Where QEMU is not installed, `make verify` says what it does not try and how it could, and goes on."""
    (tmp_path / "bin").mkdir()
    for program in ("git", "sh"):
        (tmp_path / "bin" / program).symlink_to(shutil.which(program))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    result = small.verify("--repeat", "1", "--emulate")
    why = "--cpu: qemu-x86_64 is not on PATH; install it (Debian, Ubuntu: `apt-get install qemu-user`)"

    assert result.exit_code == 0
    assert result.stdout.splitlines()[:4] == [
        f"not tried: Haswell, which has an L1 data cache of 32 KiB; {why}",
        f"not tried: SapphireRapids-v4, which has one of 48 KiB, and which QEMU 11 knows, not yet 10.0; {why}",
        f"not tried: Haswell,vendor=AuthenticAMD, which has one of 64 KiB; {why}",
        "not tried: AArch64, for it takes long; `pipeline verify --arch aarch64` does",
    ]
    assert result.stdout.endswith("\n1 of 1 rebuilds identical\n")


@pytest.mark.usefixtures("small")
def test_stage_that_is_left_out_is_neither_run_nor_judged(tmp_path):
    """What an architecture cannot run is not missing: the other stages' outputs and dvc.lock are the expected ones."""
    outputs = load_lock().outputs
    promise = Promise(outputs, audit(outputs, find_uncached(load_graph()), Path(".dvc/cache")).files)
    (conditions,) = vary(0, [Emulation("other", [sys.executable], left_out=["report"])])
    done = rebuild(find_revision(), tmp_path / "other", conditions)

    assert done.stages == ["data"]
    assert not (done.root / "report.csv").exists()
    assert judge(promise, done)[0] == "identical"


@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="needs QEMU: apt-get install qemu-user")
def test_unknown_processor_is_one_line(small):
    """A processor that QEMU does not know is refused before anything else is done."""
    result = small.verify("--cpu", "nonsense")

    assert result.exit_code == 1
    assert result.stdout == ""
    assert re.fullmatch(
        r"verify: --cpu: Python does not run on 'nonsense': .+; "
        r"choose another, such as Haswell; `qemu-x86_64 -cpu help` lists them\n",
        result.stderr,
    )


@pytest.mark.parametrize(
    "arguments",
    [["--quick", "--cpu", "Haswell"], ["--quick", "--arch", "aarch64"], ["--quick", "--emulate"], ["--repeat", "0"]],
    ids=" ".join,
)
def test_processor_without_rebuild_is_a_usage_error(small, arguments):
    """--quick rebuilds nothing, so that a processor beside it is a mistake; so is no rebuild without --quick."""
    assert small.verify(*arguments).exit_code == 2


def test_this_pipeline_gives_the_committed_lock_under_other_conditions(tmp_path, monkeypatch):
    """The whole pipeline, in a folder with blanks and umlauts, another locale, zone and umask, gives the same bytes."""
    project = Project.clone(tmp_path / "clone")
    monkeypatch.chdir(project.root)
    result = CliRunner().invoke(main, ["verify", "--repeat", "1"])

    assert result.stdout.endswith("\n1 of 1 rebuilds identical\n"), result.output

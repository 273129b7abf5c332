"""`pipeline promote`: by hand, what the criteria allow; the alias moves in no other way for an experiment."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from imports import ROOT
from stores import GOOD, get_champion, make_candidate
from stores import track as track_in

from stages.commands.main import main
from stages.lib.tracking.registry import roll_back
from stages.lib.tracking.store import open_store

pytestmark = pytest.mark.usefixtures("project")


@pytest.fixture
def project(root):
    """A root with an empty store and the committed params.yaml; the current folder."""
    shutil.copy(ROOT / "params.yaml", root)
    return root


def track(state="s1", candidate=GOOD, **how):
    """What the stage `track` does in the current folder."""
    return track_in(Path.cwd(), state, candidate, **how)


def run_promote(*arguments):
    """What `pipeline promote` gives in the current folder: its exit code, and what it printed."""
    result = CliRunner().invoke(main, ["promote", *arguments])
    return result.exit_code, result.stdout + result.stderr


def test_challenger_is_promoted_by_default():
    """The newest version that is not the champion."""
    track()
    store, *_ = track("s2", make_candidate(*range(4)), is_experiment=True)
    code, printed = run_promote()

    assert (code, get_champion(store)) == (0, "2")
    assert printed.startswith("promote: digits version 2 is the champion: better than champion version 1")


@pytest.mark.parametrize("name", ["2", "run of s2"], ids=["version", "run"])
def test_version_or_run_is_promoted_by_name(name):
    """An experiment's name is that of its run."""
    track()
    track("s2", make_candidate(*range(4)), is_experiment=True)
    store, *_ = track("s3", make_candidate(*range(3)), is_experiment=True)
    code, _ = run_promote(name)

    assert (code, get_champion(store)) == (0, "2")


def test_run_id_names_a_version():
    """As MLflow's pages show it."""
    track()
    store, run, *_ = track("s2", is_experiment=True)

    assert run_promote(run.info.run_id)[0] == 0
    assert get_champion(store) == "2"


def test_refused_version_leaves_the_champion():
    """The criteria hold for a person, too, and the reason is told."""
    track()
    store, *_ = track("s2", make_candidate(*range(12)), is_experiment=True)
    code, printed = run_promote()

    assert (code, get_champion(store)) == (1, "1")
    assert printed.startswith(
        "promote: registered model digits, version 2: significantly worse than champion version 1"
    )


def test_changed_test_data_is_shown_and_asked_about():
    """The accuracies do not compare: what changed is listed, and nothing moves until the change is accepted."""
    track()
    store, *_ = track("s2", make_candidate(*range(4), test_data="b2"))
    code, printed = run_promote()

    assert (code, get_champion(store)) == (1, "1")
    assert printed.splitlines()[:2] == [
        "promote: the test images of digits version 2 are not the champion's:",
        "  the images themselves",
    ]
    assert "add --changed-test-data" in printed


def test_changed_test_data_is_promoted_when_accepted():
    """From then on it is the champion that others are compared with."""
    track()
    store, *_ = track("s2", make_candidate(*range(4), test_data="b2"))
    code, _ = run_promote("--changed-test-data")
    _, _, _, later = track("s3", make_candidate(*range(3), test_data="b2"))

    assert code == 0
    assert later.reason.startswith("better than champion version 2")
    assert get_champion(store) == "3"


def test_another_task_is_refused_whatever_is_accepted():
    """A service that loads the champion must not get answers to another question."""
    track()
    store, *_ = track("s2", GOOD._replace(task="cats and dogs", test_data="b2"))
    code, printed = run_promote("2", "--changed-test-data")

    assert (code, get_champion(store)) == (1, "1")
    assert "answers another task" in printed


def test_version_that_was_rolled_back_is_refused():
    """What a person has rolled back comes back by its own command."""
    track()
    track("s2")
    with open_store() as store:
        roll_back(store, "digits")
    code, printed = run_promote("2")

    assert code == 1
    assert "it was rolled back; `pipeline rollback --to 2` makes it the champion again" in printed


def test_former_champion_can_be_promoted_again():
    """If it stands against the present one."""
    track()
    track("s2")
    code, _ = run_promote("1")

    with open_store() as store:
        assert (code, get_champion(store)) == (0, "1")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("1", "it is the champion already"),
        ("7", "no version and no registered run is called '7'"),
        ("no such run", "no version and no registered run is called 'no such run'"),
    ],
)
def test_name_that_cannot_be_promoted_is_told(name, problem):
    """In one line, with what to name instead."""
    track()
    code, printed = run_promote(name)

    assert code == 1
    assert problem in printed
    assert len(printed.splitlines()) == 1


def test_without_a_challenger_a_name_is_asked_for():
    """When the newest version is the champion there is nothing to promote."""
    track()
    code, printed = run_promote()

    assert code == 1
    assert "no version is the challenger; name a version or a run" in printed


def test_version_that_was_registered_by_hand_is_refused():
    """Nothing is known of what it was measured to be."""
    store, _, version, _ = track()
    by_hand = store.client.create_model_version("digits", version.source)
    code, printed = run_promote(str(by_hand.version))

    assert code == 1
    assert "it has no tag" in printed


def test_without_a_store_nothing_is_made(project):
    """A fresh clone is told to run the pipeline."""
    (project / "mlflow.db").unlink()
    code, printed = run_promote()

    assert code == 1
    assert "run `dvc repro`" in printed
    assert not (project / "mlflow.db").exists()


def test_refusal_leaves_nothing_in_the_store():
    """A model that is not registered is told; no experiment is made on the way."""
    with open_store() as store:
        before = [experiment.name for experiment in store.client.search_experiments()]
    code, printed = run_promote()

    assert code == 1
    assert "it is not in the store" in printed
    with open_store() as store:
        assert [experiment.name for experiment in store.client.search_experiments()] == before

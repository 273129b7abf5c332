"""`pipeline rollback`: the alias goes back to an earlier champion, and stays there."""

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner
from imports import ROOT
from stores import GOOD, enter_root, get_champion, make_candidate, remove_for_good
from stores import track as track_in

from stages.commands.main import main
from stages.lib.tracking.runs import ensure_experiment
from stages.lib.tracking.store import open_store

POOR = GOOD._replace(accepted=False)


def run_rollback(*arguments):
    """What `pipeline rollback` gives in the current folder."""
    return CliRunner().invoke(main, ["rollback", *arguments])


def roll_back(*arguments):
    """The same, for a rollback that must succeed: what it printed."""
    result = run_rollback(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def explain(*arguments):
    """The one line that it ends with, for a rollback that must not succeed."""
    result = run_rollback(*arguments)
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 1
    assert result.stdout == ""
    return line


def track(state="s1", candidate=GOOD):
    """What the stage `track` does in the current folder."""
    return track_in(Path.cwd(), state, candidate)


@pytest.fixture
def project(root):
    """A root with an empty store and the committed params.yaml; the current folder."""
    shutil.copy(ROOT / "params.yaml", root)
    return root


def copy_tables(source, target):
    """Copy a store's tables into the file of another: MLflow keeps its connections to that."""
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as write:
        read.backup(write)


@pytest.fixture(scope="module")
def champions(tmp_path_factory, empty_store):
    """A root with three champions, one after another, and a copy: to make them takes seconds, to copy them does not."""
    folder, copy = tmp_path_factory.mktemp("champions"), tmp_path_factory.mktemp("copies") / "copy"
    with pytest.MonkeyPatch.context() as patch:
        shutil.copy(empty_store, folder / "mlflow.db")
        enter_root(folder, patch)
        for state in ("s1", "s2", "s3"):
            track(state)
    shutil.copy(ROOT / "params.yaml", folder)
    shutil.copytree(folder, copy)
    return folder, copy


@pytest.fixture
def store(champions, monkeypatch):
    """The store of a root with three champions: versions 1, 2 and 3 of states s1, s2 and s3; the current folder."""
    folder, copy = champions
    copy_tables(copy / "mlflow.db", folder / "mlflow.db")
    shutil.copytree(copy / "mlartifacts", folder / "mlartifacts", dirs_exist_ok=True)
    enter_root(folder, monkeypatch)
    with open_store() as opened:
        pass  # a rollback waits until it is closed
    yield opened
    mlflow.set_tracking_uri(None)


def describe(store, version):
    """A version's description."""
    return store.client.get_model_version("digits", str(version)).description


def test_rollback_goes_to_the_champion_before(store):
    """The alias moves to the version that was champion before, and the command says to what, from what."""
    printed = roll_back()

    assert get_champion(store) == "2"
    assert printed == (
        "rollback: digits version 2 is the champion again, version 3 no longer is; `dvc repro` leaves that so, "
        "`pipeline rollback --to 3` takes it back\n"
    )


def test_two_rollbacks_go_two_champions_back(store):
    """A rollback leaves the history, so that the next one does not come back to what it left."""
    roll_back()
    roll_back()

    assert get_champion(store) == "1"


def test_rollback_after_a_promotion_goes_to_the_champion_before_that_promotion(store):
    """What was rolled back earlier is not in between."""
    roll_back()
    track("s4")
    promoted = get_champion(store)
    roll_back()

    assert promoted == "4"
    assert get_champion(store) == "2"


@pytest.mark.usefixtures("project")
def test_rollback_passes_over_versions_that_were_never_champion():
    """A refused version between two champions is no champion before the present one."""
    track("s1")
    track("s2", POOR)
    store, *_ = track("s3")
    roll_back()

    assert get_champion(store) == "1"


def test_rollback_passes_over_deleted_versions(store):
    """A former champion that is no longer registered has left the history."""
    store.client.delete_model_version("digits", "2")
    roll_back()

    assert get_champion(store) == "1"


def test_named_champion_is_the_champion_again(store):
    """--to goes back several champions at once."""
    roll_back("--to", "1")

    assert get_champion(store) == "1"


def test_rollback_to_a_named_champion_rolls_back_those_between(store):
    """--to 1 is as good as two rollbacks: after the next promotion, a rollback comes back to version 1."""
    roll_back("--to", "1")
    track("s4")
    roll_back()

    assert get_champion(store) == "1"


def test_rollback_is_taken_back_by_naming_the_version(store):
    """--to with a version that was rolled back makes it the champion, after the one that it takes over from."""
    roll_back()
    roll_back("--to", "3")
    back = get_champion(store)
    roll_back()

    assert back == "3"
    assert get_champion(store) == "2"


def test_history_is_in_the_order_of_being_champion(store):
    """After versions came back in another order than their numbers', the one before is the one that was before."""
    roll_back("--to", "1")
    roll_back("--to", "3")
    roll_back("--to", "2")
    roll_back()

    assert get_champion(store) == "3"


def test_both_versions_tell_of_the_rollback(store):
    """The description of each gains a dated line below the reason of its promotion."""
    roll_back()
    dated = r"right on the same images as champion version \d \(.+\)\n\n\d{4}-\d\d-\d\d: "

    assert re.fullmatch(dated + "rolled back to version 2", describe(store, 3))
    assert re.fullmatch(dated + "the champion again, in place of version 3", describe(store, 2))


def test_versions_between_tell_of_the_rollback(store):
    """A champion that --to passes over was rolled back, too, and says so."""
    roll_back("--to", "1")

    assert describe(store, 2).endswith("rolled back to version 1")


def test_version_that_stays_in_the_history_is_not_told_as_rolled_back(store):
    """Taking a rollback back is no rollback of the version that was champion in between."""
    roll_back()
    roll_back("--to", "3")

    assert describe(store, 2).endswith(": version 3 is the champion again")
    assert describe(store, 3).endswith(": the champion again, in place of version 2")


@pytest.mark.parametrize("state", ["s3", "s2", "s1"], ids=["left", "passed over", "champion"])
def test_tracking_again_leaves_the_rollback_alone(store, state):
    """Whichever state is tracked once more, the champion stays the one that a person chose."""
    roll_back("--to", "1")
    track(state)

    assert get_champion(store) == "1"


def test_tracking_a_state_that_was_rolled_back_says_how_it_comes_back(store):
    """It is told as not promoted, though once it was, and the recorded decision stays as it was."""
    roll_back()
    before = describe(store, 3)
    _, _, _, decision = track("s3")

    assert decision == (
        False,
        "version 3 of this state was rolled back; `pipeline rollback --to 3` makes it the champion again",
    )
    assert describe(store, 3) == before


def test_state_that_was_rolled_back_is_not_promoted_for_want_of_a_champion(store):
    """Even when no champion is left, a version that a person rejected waits for that person."""
    roll_back()
    store.client.delete_registered_model_alias("digits", "champion")
    track("s3")

    assert store.client.get_registered_model("digits").aliases == {}


def test_new_version_of_a_state_that_was_rolled_back_is_not_promoted(store):
    """A state whose run was deleted gets a new run and a new version, yet it is the state that a person rejected."""
    roll_back()
    deleted = store.client.get_model_version("digits", "3").run_id
    store.client.delete_run(deleted)
    _, _, version, decision = track("s3")

    assert str(version.version) == "4"
    assert get_champion(store) == "2"
    assert not decision.is_promoted
    assert describe(store, 4) == decision.reason


@pytest.mark.usefixtures("store")
def test_state_that_came_back_is_promoted_as_it_was():
    """Once its rollback is taken back, the first decision on a version stands again."""
    roll_back()
    roll_back("--to", "3")
    _, _, _, decision = track("s3")

    assert decision.is_promoted
    assert decision.reason.startswith("right on the same images as champion version 2")


@pytest.mark.usefixtures("project")
def test_next_state_is_compared_with_the_champion_that_came_back():
    """After a rollback to a poorer champion, a candidate need not be as good as the one that was left."""
    track("s1", make_candidate(*range(20)))
    track("s2", make_candidate(*range(5)))
    roll_back()
    store, _, _, decision = track("s3", make_candidate(*range(20)))

    assert get_champion(store) == "3"
    assert decision.reason.startswith("right on the same images as champion version 1")


@pytest.mark.usefixtures("project")
def test_champion_set_by_hand_is_left_for_the_last_that_was_promoted():
    """When the alias was set to a version that was never promoted, a rollback leaves that one for good."""
    track("s1")
    store, *_ = track("s2", POOR)
    store.client.set_registered_model_alias("digits", "champion", "2")
    roll_back()
    champion = get_champion(store)
    _, _, _, decision = track("s2", POOR)

    assert champion == "1"
    assert decision.reason.startswith("version 2 of this state was rolled back")


def test_alias_set_by_hand_to_a_version_that_was_rolled_back_counts(store):
    """A person may bring a version back in MLflow's pages, too: its decision stands again."""
    roll_back()
    store.client.set_registered_model_alias("digits", "champion", "3")
    _, _, _, decision = track("s3")

    assert decision.is_promoted


def test_rollback_without_a_champion_restores_the_last_one(store):
    """When the alias is gone, the champion before is the last that there was."""
    store.client.delete_registered_model_alias("digits", "champion")

    assert roll_back() == "rollback: digits version 3 is the champion again\n"
    assert get_champion(store) == "3"


def test_store_from_before_there_was_an_order_of_champions_can_be_rolled_back(store):
    """Versions that were promoted before their order was recorded came in the order of their numbers."""
    for version in ("1", "2", "3"):
        store.client.delete_model_version_tag("digits", version, "champion.order")
    track("s4")
    roll_back()
    roll_back()

    assert get_champion(store) == "2"


def test_interrupted_rollback_is_finished_by_the_next(store):
    """What was recorded before the alias could move does not lead the next attempt one champion too far."""
    store.client.set_model_version_tag("digits", "3", "rolled_back", "s3")
    roll_back()

    assert get_champion(store) == "2"


def test_champion_whose_run_is_gone_can_be_left(store):
    """A rollback needs the target's files, and nothing of the version that it leaves."""
    run = store.client.get_run(store.client.get_model_version("digits", "3").run_id)
    remove_for_good(Path.cwd(), run)
    roll_back()

    assert get_champion(store) == "2"


FORMER = (
    "rollback: registered model digits, version {}: expected a former champion ({}), got {}; "
    "name one of these with --to"
)


@pytest.mark.parametrize(
    ("target", "got"),
    [
        ("9", "no such version"),
        ("3", "the champion itself"),
        ("4", "one that never was: test accuracy 0.9500 is below evaluate.min_accuracy"),
    ],
    ids=["unknown", "present", "never champion"],
)
def test_target_that_is_no_former_champion_is_refused(store, target, got):
    """Only a version that was champion, and is not, can be named; the line says which are."""
    track("s4", POOR)

    assert explain("--to", target) == FORMER.format(target, "1, 2", got)
    assert get_champion(store) == "3"


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(("target", "got"), [("1", "the champion itself"), ("9", "no such version")])
def test_target_where_there_is_no_former_champion_is_refused(target, got):
    """Where nobody else ever was champion, the line names none to go back to."""
    track()

    assert explain("--to", target) == (
        f"rollback: registered model digits, version {target}: {got}, and there is no former champion to go back to; "
        "train another model with `dvc repro`"
    )


@pytest.mark.usefixtures("project")
def test_first_champion_has_none_before():
    """Where there is no earlier champion, nothing moves."""
    store, *_ = track()

    assert explain() == (
        "rollback: registered model digits: there is no champion before the present one; "
        "keep version 1, or train another"
    )
    assert get_champion(store) == "1"


@pytest.mark.usefixtures("project")
def test_model_that_never_had_a_champion_has_none_before():
    """Where nothing was ever promoted, there is nothing to go back to."""
    track(candidate=POOR)

    assert explain() == "rollback: registered model digits: it never had a champion; run `dvc repro`"


def test_version_without_its_files_is_refused(store):
    """A model that cannot be loaded is no champion; the alias stays, and another can be named."""
    shutil.rmtree(
        Path("mlartifacts/digits/models") / store.client.get_model_version("digits", "2").source.split("/")[-1]
    )

    assert explain() == (
        "rollback: registered model digits, version 2: its files are not where the store looks for them; "
        "name another with --to"
    )
    assert get_champion(store) == "3"
    assert describe(store, 3).count("\n") == 0


@pytest.mark.usefixtures("project")
def test_store_without_the_model_is_told():
    """Without the registered model that params.yaml names there is nothing to roll back."""
    with open_store() as store:
        ensure_experiment(store, "digits")

    assert explain() == (
        "rollback: registered model digits: it is not in the store; "
        "run `dvc repro`, or set track.registered_model to the name of one that is there"
    )


@pytest.mark.parametrize("is_given", [False, True], ids=["default", "MLFLOW_TRACKING_URI"])
def test_missing_store_is_told_and_never_created(project, monkeypatch, is_given):
    """Where there is no store, a rollback makes none, nor a lock beside it."""
    (project / "mlflow.db").unlink()
    if is_given:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    before = sorted(project.iterdir())

    assert explain() == (
        f"rollback: the MLflow store sqlite:///{project / 'mlflow.db'}: no such file; "
        "run `dvc repro` first, or name another in MLFLOW_TRACKING_URI"
    )
    assert sorted(project.iterdir()) == before


def test_unusable_store_is_told_with_what_to_run_again(project):
    """A store that does not answer is told in one line that names this command, not another."""
    (project / "mlflow.db").write_bytes(b"not a database at all" * 100)

    assert explain().endswith("move it away, then `pipeline rollback` again")


def test_other_folder_is_told(root):
    """Outside of a project there is no model to roll back."""
    assert not (root / "params.yaml").exists()
    assert explain().startswith(f"rollback: {root}: it is in no project: there is no dvc.yaml here or above; run `cd ")


@pytest.mark.parametrize("version", ["0", "-1", "two", "1.5"])
def test_version_that_is_no_number_is_a_wrong_use(version):
    """What cannot be a version is refused before anything is read, with click's exit code for wrong use."""
    result = run_rollback("--to", version)

    assert result.exit_code == 2
    assert "Invalid value for '--to'" in result.stderr

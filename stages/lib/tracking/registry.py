"""The model registry: one version for each run, and the champion, to which an alias points."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from stages.lib.core.errors import DataError, TrackingError
from stages.lib.tracking.promotion import (
    PREDICTIONS_PATH,
    Challenger,
    Champion,
    Criteria,
    Decision,
    Predictions,
    decide,
    read_predictions,
)
from stages.lib.tracking.runs import STATE_TAG, find_run, list_version_numbers, set_run_tag
from stages.lib.tracking.store import (
    ModelVersion,
    Run,
    Store,
    create_unless_there,
    get_if_there,
    repeat_if_refused,
    to_path,
)

CHAMPION = "champion"
DECISION_TAG = "promotion"  # of a run and of its version
# Tags of a model version. The history of champions consists of them, so that a deleted version leaves it by itself.
_IS_PROMOTED_TAG = "is_promoted"
_ORDER_TAG = "champion.order"  # the first champion has 1, each later one a number more than any before it
_ROLLED_BACK_TAG = "rolled_back"  # digest of the version's state: a person has put an earlier champion in its place


class Rollback(NamedTuple):
    """What a rollback did: the version that is the champion now, and the one that was before."""

    champion: int
    left: int | None  # none if the alias was gone


def ensure_model_version(store: Store, name: str, run: Run, challenger: Challenger) -> ModelVersion:
    """Register the run's model unless it is registered, and give the version; the first if there are several."""
    if not store.client.search_registered_models(f"name = '{name}'"):
        create_unless_there(lambda: store.client.create_registered_model(name))
    if not list_version_numbers(store, name, run):
        assert run.outputs, "a finished run has its model"
        (output,) = run.outputs.model_outputs
        created = store.client.create_model_version(
            name,
            source=f"models:/{output.model_id}",
            run_id=run.info.run_id,
            model_id=output.model_id,
            tags={"test_accuracy": f"{challenger.accuracy:.4f}", "test_data": challenger.test_data},
        )
        first, *_ = list_version_numbers(store, name, run)
        if first != int(created.version):  # another clone has registered the same run
            store.client.delete_model_version(name, created.version)
    first, *_ = list_version_numbers(store, name, run)
    return store.client.get_model_version(name, str(first))


def register(store: Store, experiment_id: str, name: str, run: Run, challenger: Challenger) -> tuple[Run, ModelVersion]:
    """Register the run's model; give the state's run, which may be another clone's by now, and its version."""
    version = ensure_model_version(store, name, run, challenger)
    first = find_run(store, experiment_id, name, run.data.tags[STATE_TAG])
    assert first, "the run has finished"
    if first.info.run_id == run.info.run_id:
        return run, version
    return first, ensure_model_version(store, name, first, challenger)


def promote(store: Store, run: Run, version: ModelVersion, challenger: Challenger, criteria: Criteria) -> Decision:
    """Decide whether the version becomes the champion, and record the decision with its reason.

    A recorded decision stands as long as there is a champion with its files. A state that a person has rolled back is
    never promoted again here, neither as another version nor where there is no champion.
    """
    name, number = version.name, int(version.version)
    champion = _find_champion(store, name)
    recorded = version.tags.get(DECISION_TAG)
    rolled_back = _find_rolled_back(store, name, run.data.tags[STATE_TAG])
    if rolled_back is not None:
        again = f"`pipeline rollback --to {rolled_back}` makes it the champion again"
        decision = Decision(False, f"version {rolled_back} of this state was rolled back; {again}")
        if recorded:
            return decision
    elif recorded and champion is not None:
        return Decision(_was_promoted(version), recorded)
    else:
        decision = decide(challenger, None if champion is None else _describe_champion(store, champion), criteria)
    if decision.is_promoted:
        _set_champion(store, name, number)
    _add_line(store, name, number, decision.reason)
    set_run_tag(store, run, DECISION_TAG, decision.reason)
    _set_version_tag(store, name, number, _IS_PROMOTED_TAG, str(decision.is_promoted).lower())
    _set_version_tag(store, name, number, DECISION_TAG, decision.reason)
    return decision


def roll_back(store: Store, name: str, target: int | None = None) -> Rollback:
    """Make the champion before the present one, or `target`, the champion again, and record it on both versions.

    Champions after the target count as rolled back from then on: they leave the history, and `promote` does not promote
    them. A target that was rolled back itself comes back as the newest champion, and none leaves.

    Raises:
        TrackingError: there is no such model, no earlier champion, or `target` never was one or has lost its files.
    """
    where = f"registered model {name}"
    if not store.client.search_registered_models(f"name = '{name}'"):
        hint = "run `dvc repro`, or set track.registered_model to the name of one that is there"
        raise TrackingError(where, "it is not in the store", hint)
    versions = _list_versions(store, name)
    left = _find_champion_number(store, name)
    history = _list_champions(versions.values())
    if target is None:
        earlier = history[: history.index(left)] if left in history else history
        if not earlier:
            raise TrackingError(
                where,
                "there is no champion before the present one" if left else "it never had a champion",
                f"keep version {left}, or train another" if left else "run `dvc repro`",
            )
        target = earlier[-1]
    _require_former_champion(store, name, target, left, versions)
    later = history[history.index(target) + 1 :] if target in history else []
    if left is not None and left not in history:  # the alias was set by hand
        later.append(left)
    for number in later:
        _set_version_tag(store, name, number, _ROLLED_BACK_TAG, _find_state(store, versions[number]))
    if target in history:
        _set_alias(store, name, target)
    else:
        store.client.delete_model_version_tag(name, str(target), _ROLLED_BACK_TAG)
        _set_champion(store, name, target)
    today = datetime.now(UTC).date()
    place = f", in place of version {left}" if left else ""
    _add_line(store, name, target, f"{today}: the champion again{place}")
    for number in later:
        _add_line(store, name, number, f"{today}: rolled back to version {target}")
    if left and left not in later:
        _add_line(store, name, left, f"{today}: version {target} is the champion again")
    return Rollback(target, left)


def _require_former_champion(
    store: Store, name: str, target: int, present: int | None, versions: dict[int, ModelVersion]
) -> None:
    """Raise TrackingError unless the target was a champion before and has its files."""
    former = [number for number in sorted(versions) if _was_promoted(versions[number]) and number != present]
    where = f"registered model {name}, version {target}"
    if target not in former:
        if target == present:
            got = "the champion itself"
        elif target in versions:
            got = f"one that never was: {versions[target].tags.get(DECISION_TAG, 'no decision is recorded')}"
        else:
            got = "no such version"
        if not former:
            problem = f"{got}, and there is no former champion to go back to"
            raise TrackingError(where, problem, "train another model with `dvc repro`")
        expected = f"a former champion ({', '.join(map(str, former))})"
        raise TrackingError(where, expected=expected, got=got, hint="name one of these with --to")
    if not _has_files(store, name, target):
        raise TrackingError(where, "its files are not where the store looks for them", "name another with --to")


def _list_versions(store: Store, name: str) -> dict[int, ModelVersion]:
    """All versions of a registered model, by number."""
    return {int(found.version): found for found in store.client.search_model_versions(f"name = '{name}'")}


def _list_champions(versions: Iterable[ModelVersion]) -> list[int]:
    """The versions that became champion and were not rolled back, the earliest champion first."""
    standing = [found for found in versions if _was_promoted(found) and _ROLLED_BACK_TAG not in found.tags]
    return [int(found.version) for found in sorted(standing, key=lambda found: (_get_order(found), int(found.version)))]


def _was_promoted(version: ModelVersion) -> bool:
    return bool(version.tags.get(_IS_PROMOTED_TAG) == "true")


def _get_order(version: ModelVersion) -> int:
    """A version's place in the order of champions; 0 in older stores, where the version's number tells the order."""
    return int(version.tags.get(_ORDER_TAG, "0"))


def _set_champion(store: Store, name: str, number: int) -> None:
    """Make a version the newest champion."""
    order = 1 + max(map(_get_order, _list_versions(store, name).values()))
    _set_version_tag(store, name, number, _ORDER_TAG, str(order))
    _set_alias(store, name, number)


def _set_version_tag(store: Store, name: str, number: int, tag: str, value: str) -> None:
    repeat_if_refused(lambda: store.client.set_model_version_tag(name, str(number), tag, value))


def _set_alias(store: Store, name: str, number: int) -> None:
    repeat_if_refused(lambda: store.client.set_registered_model_alias(name, CHAMPION, str(number)))


def _add_line(store: Store, name: str, number: int, line: str) -> None:
    """Add a line to a version's description."""
    description = store.client.get_model_version(name, str(number)).description
    store.client.update_model_version(name, str(number), "\n\n".join(filter(None, [description, line])))


def _find_state(store: Store, version: ModelVersion) -> str:
    """The digest of a version's pipeline state; `unknown` if its run is gone, or if it never had one."""
    run_id = version.run_id
    run = get_if_there(lambda: store.client.get_run(run_id)) if run_id else None
    return str(run.data.tags.get(STATE_TAG, "unknown")) if run else "unknown"


def _find_rolled_back(store: Store, name: str, state: str) -> int | None:
    """The newest version of a state that a person has rolled back; one that is the champion again does not count."""
    versions = store.client.search_model_versions(f"name = '{name}' and tags.`{_ROLLED_BACK_TAG}` = '{state}'")
    numbers = {int(version.version) for version in versions} - {_find_champion_number(store, name)}
    return max(numbers, default=None)


def _find_champion_number(store: Store, name: str) -> int | None:
    """The number of the version that the alias points to."""
    number = store.client.get_registered_model(name).aliases.get(CHAMPION)
    return None if number is None else int(number)


def _find_champion(store: Store, name: str) -> ModelVersion | None:
    """The champion; none if no version has the alias, or if its files are gone."""
    number = _find_champion_number(store, name)
    if number is None or not _has_files(store, name, number):
        return None
    return store.client.get_model_version(name, str(number))


def _has_files(store: Store, name: str, number: int) -> bool:
    """Whether a version's files exist; on a server they are taken to."""
    location = store.client.get_model_version_download_uri(name, str(number))
    return not location.startswith("file:") or to_path(location).exists()


def _describe_champion(store: Store, champion: ModelVersion) -> Champion:
    """The champion as it stands for comparison; one that was registered by hand names no test data."""
    return Champion(
        version=int(champion.version),
        accuracy=float(champion.tags.get("test_accuracy", "0")),
        test_data=champion.tags.get("test_data", "none"),
        predictions=_fetch_predictions(store, champion.run_id) if champion.run_id else "are gone",
    )


def _fetch_predictions(store: Store, run_id: str) -> Predictions | str:
    """The predictions of a run's model on its test images, or why there are none, as a verb.

    They are gone only if the store says so: a store out of reach is an error.
    """
    name = PREDICTIONS_PATH.as_posix()
    items = get_if_there(lambda: store.client.list_artifacts(run_id, PREDICTIONS_PATH.parent.as_posix())) or []
    if name not in [item.path for item in items]:
        return "are gone"
    with TemporaryDirectory() as folder:
        path = Path(store.client.download_artifacts(run_id, name, folder))
        try:
            return read_predictions(path)
        except DataError:
            return "cannot be read"

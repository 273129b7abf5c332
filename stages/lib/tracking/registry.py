"""The model registry: one version for each run, and two aliases, `champion` and `challenger`, the newest candidate."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from stages.lib.core.errors import DataError, TrackingError
from stages.lib.tracking.promotion import (
    PREDICTIONS_PATH,
    Candidate,
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
CHALLENGER = "challenger"  # the newest version that is not, or not yet, the champion
DECISION_TAG = "promotion"  # of a run and of its version
# Tags of a model version. The history of champions consists of them, so that a deleted version leaves it by itself.
# What a version was measured to be when it was registered: by it, it can be promoted later.
_TASK_TAG, _ACCURACY_TAG, _TEST_DATA_TAG = "task", "test_accuracy", "test_data"
_ACCEPTED_TAG, _PARITY_TAG, _RECALL_TAG = "accepted", "has_parity", "lowest_recall"
_IS_PROMOTED_TAG = "is_promoted"
_ORDER_TAG = "champion.order"  # the first champion has 1, each later one a number more than any before it
_ROLLED_BACK_TAG = "rolled_back"  # digest of the version's state: a person has put an earlier champion in its place


class Rollback(NamedTuple):
    """What a rollback did: the version that is the champion now, and the one that was before."""

    champion: int
    left: int | None  # none if the alias was gone


def ensure_model_version(store: Store, name: str, run: Run, candidate: Candidate) -> ModelVersion:
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
            tags=_describe_candidate(candidate),
        )
        first, *_ = list_version_numbers(store, name, run)
        if first != int(created.version):  # another clone has registered the same run
            store.client.delete_model_version(name, created.version)
        elif _is_of_one_task(store, name, candidate.task):
            _set_alias(store, name, CHALLENGER, first)
    first, *_ = list_version_numbers(store, name, run)
    return store.client.get_model_version(name, str(first))


def _is_of_one_task(store: Store, name: str, task: str) -> bool:
    """Whether the versions that have an alias answer this task, so that one may move."""
    numbers = [_find_alias(store, name, alias) for alias in (CHAMPION, CHALLENGER)]
    versions = [store.client.get_model_version(name, str(number)) for number in numbers if number]
    return all(version.tags.get(_TASK_TAG) == task for version in versions)


def register(store: Store, experiment_id: str, name: str, run: Run, candidate: Candidate) -> tuple[Run, ModelVersion]:
    """Register the run's model; give the state's run, which may be another clone's by now, and its version."""
    version = ensure_model_version(store, name, run, candidate)
    first = find_run(store, experiment_id, name, run.data.tags[STATE_TAG])
    assert first, "the run has finished"
    if first.info.run_id == run.info.run_id:
        return run, version
    return first, ensure_model_version(store, name, first, candidate)


def promote(
    store: Store,
    run: Run,
    version: ModelVersion,
    candidate: Candidate,
    criteria: Criteria,
    *,
    is_experiment: bool = False,
) -> Decision:
    """Decide whether the version becomes the champion, and record the decision with its reason.

    An experiment never becomes it here, for it is an attempt: that is no decision.

    A recorded decision stands as long as there is a champion with its files. A state that a person has rolled back is
    never promoted again here, neither as another version nor where there is no champion. The decision given tells what
    is true now.
    """
    name, number = version.name, int(version.version)
    champion = _find_champion(store, name)
    recorded = version.tags.get(DECISION_TAG)
    rolled_back = _find_rolled_back(store, name, run.data.tags[STATE_TAG])
    if champion is not None and int(champion.version) == number:
        return Decision(True, recorded or "its alias was set by hand")
    if rolled_back is not None:
        again = f"`pipeline rollback --to {rolled_back}` makes it the champion again"
        decision = Decision(False, f"version {rolled_back} of this state was rolled back; {again}")
        if recorded:
            return decision
    elif recorded and champion is not None:
        earlier = "was promoted earlier" if _was_promoted(version) else f"was refused earlier: {recorded}"
        return Decision(False, f"{earlier}; the champion is version {champion.version}")
    elif is_experiment:
        return Decision(False, f"it is an experiment; `pipeline promote {number}` compares it with the champion")
    else:
        decision = decide(candidate, None if champion is None else _describe_champion(store, champion), criteria)
        if (
            champion is not None
            and not decision.is_promoted
            and champion.tags.get(_TEST_DATA_TAG) != candidate.test_data
        ):
            decision = Decision(False, f"{decision.reason}; `pipeline promote {number}` shows what changed")
    _record(store, version, decision)
    return decision


def promote_by_hand(
    store: Store, name: str, version: ModelVersion, criteria: Criteria, *, is_data_change_accepted: bool
) -> Decision:
    """Promote a version that `promote` has refused or not been asked about, if the criteria allow it now.

    Raises:
        TrackingError: it is the champion already, was rolled back, or does not meet the criteria.
    """
    where = f"registered model {name}, version {version.version}"
    champion = _find_champion(store, name)
    if champion is not None and champion.version == version.version:
        raise TrackingError(where, "it is the champion already", "name another version or run")
    if _ROLLED_BACK_TAG in version.tags:
        hint = f"`pipeline rollback --to {version.version}` makes it the champion again"
        raise TrackingError(where, "it was rolled back", hint)
    if not _has_files(store, name, int(version.version)):
        raise TrackingError(where, "its files are not where the store looks for them", "name another version or run")
    candidate = _fetch_candidate(store, version, where)
    decision = decide(
        candidate,
        None if champion is None else _describe_champion(store, champion),
        criteria,
        is_data_change_accepted=is_data_change_accepted,
    )
    if not decision.is_promoted:
        is_data = champion is not None and champion.tags.get(_TEST_DATA_TAG) != candidate.test_data
        hint = "add --changed-test-data to promote it all the same" if is_data else "the champion stays"
        raise TrackingError(where, decision.reason, hint)
    _record(store, version, decision)
    return decision


def find_version(store: Store, name: str, wanted: str | None) -> ModelVersion:
    """The version of a number, or of the run with this id or name; the challenger if none is wanted.

    Raises:
        TrackingError: there is no such model, version or run, or several runs have the name.
    """
    where = f"registered model {name}"
    _require_model(store, name)
    versions = _list_versions(store, name)
    if wanted is None:
        number = _find_alias(store, name, CHALLENGER)
        if number is None:
            raise TrackingError(where, "no version is the challenger", "name a version or a run")
        return versions[number]
    if wanted.isdecimal() and int(wanted) in versions:
        return versions[int(wanted)]
    runs = {number: _fetch_run(store, version) for number, version in sorted(versions.items())}
    found = [number for number, run in runs.items() if run and wanted in (run.info.run_id, run.info.run_name)]
    if not found:
        problem = f"no version and no registered run is called {wanted!r}"
        raise TrackingError(
            where, problem, f"name one of the versions {', '.join(map(str, sorted(versions)))}, or a run"
        )
    if len(found) > 1:
        problem = f"{len(found)} runs are called {wanted!r}"
        raise TrackingError(where, problem, f"name one of their versions: {', '.join(map(str, found))}")
    return versions[found[0]]


def describe_data_change(store: Store, version: ModelVersion) -> list[str]:
    """What differs between the test data of the champion and of a version, a line each; empty if they are the same."""
    champion = _find_champion(store, version.name)
    if champion is None or champion.tags.get(_TEST_DATA_TAG) == version.tags.get(_TEST_DATA_TAG):
        return []
    before, after = (
        _fetch_ingest_params(store, found) | {"test images": _count_predictions(store, found)}
        for found in (champion, version)
    )
    lines = [
        f"{key}: {before.get(key, 'unknown')} → {after.get(key, 'unknown')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    return lines or ["the images themselves"]


def _fetch_ingest_params(store: Store, version: ModelVersion) -> dict[str, str]:
    run = _fetch_run(store, version)
    return {key: value for key, value in run.data.params.items() if key.startswith("ingest.")} if run else {}


def _count_predictions(store: Store, version: ModelVersion) -> str:
    predictions = _fetch_predictions(store, version)
    return "unknown" if isinstance(predictions, str) else str(len(predictions))


def roll_back(store: Store, name: str, target: int | None = None) -> Rollback:
    """Make the champion before the present one, or `target`, the champion again, and record it on both versions.

    Champions after the target count as rolled back from then on: they leave the history, and `promote` does not promote
    them. A target that was rolled back itself comes back as the newest champion, and none leaves.

    Raises:
        TrackingError: there is no such model, no earlier champion, or `target` never was one or has lost its files.
    """
    where = f"registered model {name}"
    _require_model(store, name)
    versions = _list_versions(store, name)
    left = _find_alias(store, name, CHAMPION)
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
        _set_alias(store, name, CHAMPION, target)
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


def _require_model(store: Store, name: str) -> None:
    """Raise TrackingError unless there is a registered model of this name."""
    if not store.client.search_registered_models(f"name = '{name}'"):
        hint = "run `dvc repro`, or set track.registered_model to the name of one that is there"
        raise TrackingError(f"registered model {name}", "it is not in the store", hint)


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
    tasks = [versions[number].tags.get(_TASK_TAG) for number in (target, present or target)]
    if tasks[0] != tasks[1]:
        problem = f"it answers another task ({tasks[0]}) than the champion, version {present} ({tasks[1]})"
        raise TrackingError(where, problem, "set track.registered_model to another name for one of the two")
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
    _set_alias(store, name, CHAMPION, number)
    if _find_alias(store, name, CHALLENGER) == number:
        store.client.delete_registered_model_alias(name, CHALLENGER)


def _set_version_tag(store: Store, name: str, number: int, tag: str, value: str) -> None:
    repeat_if_refused(lambda: store.client.set_model_version_tag(name, str(number), tag, value))


def _set_alias(store: Store, name: str, alias: str, number: int) -> None:
    repeat_if_refused(lambda: store.client.set_registered_model_alias(name, alias, str(number)))


def _add_line(store: Store, name: str, number: int, line: str) -> None:
    """Add a line to a version's description."""
    description = store.client.get_model_version(name, str(number)).description
    store.client.update_model_version(name, str(number), "\n\n".join(filter(None, [description, line])))


def _record(store: Store, version: ModelVersion, decision: Decision) -> None:
    """Move the alias by the decision, and write it and its reason on the version and its run."""
    name, number = version.name, int(version.version)
    if decision.is_promoted:
        _set_champion(store, name, number)
    _add_line(store, name, number, decision.reason)
    run = _fetch_run(store, version)
    if run:
        set_run_tag(store, run, DECISION_TAG, decision.reason)
    _set_version_tag(store, name, number, _IS_PROMOTED_TAG, str(decision.is_promoted).lower())
    _set_version_tag(store, name, number, DECISION_TAG, decision.reason)


def _fetch_run(store: Store, version: ModelVersion) -> Run | None:
    """The run that a version is of; none if it is gone, or if there never was one."""
    run_id = version.run_id
    return get_if_there(lambda: store.client.get_run(run_id)) if run_id else None


def _find_state(store: Store, version: ModelVersion) -> str:
    """The digest of a version's pipeline state; `unknown` if its run is gone, or if it never had one."""
    run = _fetch_run(store, version)
    return str(run.data.tags.get(STATE_TAG, "unknown")) if run else "unknown"


def _find_rolled_back(store: Store, name: str, state: str) -> int | None:
    """The newest version of a state that a person has rolled back; one that is the champion again does not count."""
    versions = store.client.search_model_versions(f"name = '{name}' and tags.`{_ROLLED_BACK_TAG}` = '{state}'")
    numbers = {int(version.version) for version in versions} - {_find_alias(store, name, CHAMPION)}
    return max(numbers, default=None)


def _find_alias(store: Store, name: str, alias: str) -> int | None:
    """The number of the version that an alias points to."""
    number = store.client.get_registered_model(name).aliases.get(alias)
    return None if number is None else int(number)


def _find_champion(store: Store, name: str) -> ModelVersion | None:
    """The champion; none if no version has the alias, or if its files are gone."""
    number = _find_alias(store, name, CHAMPION)
    if number is None or not _has_files(store, name, number):
        return None
    return store.client.get_model_version(name, str(number))


def _has_files(store: Store, name: str, number: int) -> bool:
    """Whether a version's files exist; on a server they are taken to."""
    location = store.client.get_model_version_download_uri(name, str(number))
    return not location.startswith("file:") or to_path(location).exists()


def _describe_champion(store: Store, champion: ModelVersion) -> Champion:
    """The champion as it stands for comparison; one that was registered by hand names no test data."""
    task, test_data = champion.tags.get(_TASK_TAG), champion.tags.get(_TEST_DATA_TAG, "none")
    accuracy = _get_accuracy(champion)
    rivals = [
        version
        for version in _list_versions(store, champion.name).values()
        if _was_promoted(version) and _ROLLED_BACK_TAG not in version.tags
        if (version.tags.get(_TASK_TAG), version.tags.get(_TEST_DATA_TAG)) == (task, test_data)
    ]
    return Champion(
        version=int(champion.version),
        task=task,
        accuracy=accuracy,
        test_data=test_data,
        predictions=_fetch_predictions(store, champion),
        best_accuracy=max([accuracy, *map(_get_accuracy, rivals)]),
    )


def _get_accuracy(version: ModelVersion) -> float:
    return float(version.tags.get(_ACCURACY_TAG, "0"))


def _describe_candidate(candidate: Candidate) -> dict[str, str]:
    """A candidate as tags of its version."""
    return {
        _TASK_TAG: candidate.task,
        _ACCURACY_TAG: f"{candidate.accuracy:.4f}",
        _TEST_DATA_TAG: candidate.test_data,
        _ACCEPTED_TAG: str(candidate.accepted).lower(),
        _PARITY_TAG: str(candidate.has_parity).lower(),
        _RECALL_TAG: "" if candidate.lowest_recall is None else "{:.4f} {}".format(*candidate.lowest_recall),
    }


def _fetch_candidate(store: Store, version: ModelVersion, where: str) -> Candidate:
    """The candidate that a version was registered as.

    Raises:
        TrackingError: it was registered by hand, or has lost its predictions.
    """
    tags: Mapping[str, str] = version.tags
    missing = {_TASK_TAG, _ACCURACY_TAG, _TEST_DATA_TAG, _ACCEPTED_TAG, _PARITY_TAG, _RECALL_TAG} - tags.keys()
    predictions = _fetch_predictions(store, version)
    if missing or isinstance(predictions, str):
        problem = f"it has no tag {min(missing)!r}" if missing else f"its predictions {predictions}"
        raise TrackingError(where, problem, "train it again with `dvc repro`, or name another version")
    recall, _, class_name = tags[_RECALL_TAG].partition(" ")
    return Candidate(
        task=tags[_TASK_TAG],
        accuracy=_get_accuracy(version),
        test_data=tags[_TEST_DATA_TAG],
        accepted=tags[_ACCEPTED_TAG] == "true",
        has_parity=tags[_PARITY_TAG] == "true",
        lowest_recall=(float(recall), class_name) if recall else None,
        predictions=predictions,
    )


def _fetch_predictions(store: Store, version: ModelVersion) -> Predictions | str:
    """The predictions of a version on its test images, or why there are none, as a verb.

    They are gone only if the store says so: a store out of reach is an error.
    """
    name, run_id = PREDICTIONS_PATH.as_posix(), version.run_id
    if not run_id:  # registered by hand
        return "are gone"
    items = get_if_there(lambda: store.client.list_artifacts(run_id, PREDICTIONS_PATH.parent.as_posix()))
    if name not in [item.path for item in items or []]:
        return "are gone"
    with TemporaryDirectory() as folder:
        path = Path(store.client.download_artifacts(run_id, name, folder))
        try:
            return read_predictions(path)
        except DataError:
            return "cannot be read"

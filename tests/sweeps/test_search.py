"""A search asks for each trial once, and for the same ones again, whatever an interruption left."""

import math
from importlib.util import find_spec

import pytest

from stages.lib.sweeps.plan import Asha, Bounds, Goal, Plan, Range
from stages.lib.sweeps.results import Result, Scored, Trial

if find_spec("ray") is None or find_spec("optuna") is None:
    pytest.skip("the optional packages optuna and ray are not installed", allow_module_level=True)

from optuna.trial import TrialState

from stages.lib.sweeps.search import Search, make_scheduler, measure_importances

pytestmark = pytest.mark.heavy

FINISHED = Result("finished", "", {}, {}, 0)
GOAL = Goal("size", is_maximized=False, bounds={"accuracy": Bounds(min=0.5)})
LISTS = {"train.units": [[], [8, 4], [16]], "train.epochs": [5, 10]}
RANGES = {"train.epochs": Range(min=1, max=100), "train.rate": Range(min=1e-3, max=1.0, log=True)}
RANGES["train.epochs"] = Range.model_construct(min=1, max=100, log=False)  # whole numbers, as `read_plan` has them
MANY = 50
ROUND = 3


def make_plan(search, choices, trials, seed=3, asha=None):
    return Plan(search, choices, trials, seed, GOAL, asha, max_epochs=20)


def make_trial(number, settings):
    return Trial(number, settings, {}, {}, str(settings))


def score(trial):
    """A result that depends on the settings alone; more epochs are larger, and less accurate."""
    epochs = trial.settings["train.epochs"]
    return Scored(trial.number, trial.settings, FINISHED, {"size": epochs, "accuracy": 1 - epochs / 100})


def start(plan, scored=None, round_size=ROUND):
    return Search(plan, round_size, make_trial, {} if scored is None else scored, set())


def run(plan, *, scored=None, round_size=ROUND, reverse=False):
    """The settings that a search asks for, where up to a round of trials is at work at a time, and the search."""
    scored = {} if scored is None else scored
    search = start(plan, scored, round_size)
    while search.has_more():
        at_work = []
        while len(at_work) < round_size and search.has_more() and isinstance(found := search.suggest("id"), dict):
            at_work.append(found["trial"])
        for trial in reversed(at_work) if reverse else at_work:
            scored[trial.key] = score(trial)
    return [trial.settings for trial in search.trials.values()], search


def test_grid_is_every_combination():
    """A grid combines all lists, the last key's values changing first."""
    settings, _ = run(make_plan("grid", LISTS, 6))

    assert settings == [
        {"train.units": units, "train.epochs": epochs} for units in ([], [8, 4], [16]) for epochs in (5, 10)
    ]


@pytest.mark.parametrize("search", ["random", "tpe"])
def test_seed_alone_decides(search):
    """Whoever runs the file tries the same, and tries each once."""
    one, _ = run(make_plan(search, RANGES, MANY))
    same, _ = run(make_plan(search, RANGES, MANY))
    other, _ = run(make_plan(search, RANGES, MANY, seed=4))

    assert len({str(settings) for settings in one}) == MANY
    assert one == same
    assert one != other


def test_drawn_numbers_are_of_the_keys_type_and_within():
    """Whole numbers are drawn for a key that takes them; others have four digits."""
    settings, _ = run(make_plan("random", RANGES, MANY))
    rates = [trial["train.rate"] for trial in settings]

    assert all(type(trial["train.epochs"]) is int and 1 <= trial["train.epochs"] <= 100 for trial in settings)
    assert all(type(rate) is float and 1e-3 <= rate <= 1 and rate == float(f"{rate:.4g}") for rate in rates)
    assert 15 < sum(rate < 0.0316 for rate in rates) < 35  # half of them, as the logarithm has it


@pytest.mark.parametrize("search", ["random", "tpe"])
def test_search_ends_where_there_is_nothing_new(search):
    """Suggestions that repeat earlier ones are no trials; once nothing else comes, the search is over."""
    settings, search = run(make_plan(search, {"train.epochs": [1, 2]}, MANY))

    assert sorted(trial["train.epochs"] for trial in settings) == [1, 2]
    assert search.suggest("id") == Search.FINISHED


@pytest.mark.parametrize("search", ["random", "tpe"])
def test_order_in_which_trials_end_changes_nothing(search):
    """TPE is told a whole round at a time, so that the fastest trial of it has no say in what comes next."""
    plan = make_plan(search, RANGES, MANY)

    assert run(plan)[0] == run(plan, reverse=True)[0]


def test_tpe_waits_for_its_round():
    """As long as a trial of the round is at work, TPE asks for no other; random search does not wait."""
    tpe, random = (start(make_plan(search, RANGES, MANY)) for search in ("tpe", "random"))
    asked = {
        name: [search.suggest("id") for _ in range(ROUND + 1)] for name, search in {"tpe": tpe, "r": random}.items()
    }

    assert [found is None for found in asked["tpe"]] == [False] * ROUND + [True]
    assert None not in asked["r"]


@pytest.mark.parametrize("search", ["grid", "random", "tpe"])
def test_interrupted_search_goes_on_as_if_it_had_not_been(search):
    """With some of the trials kept, the same ones are asked for, and only the others are suggested to run."""
    plan = make_plan(search, LISTS if search == "grid" else RANGES, 6 if search == "grid" else MANY)
    whole, searched = run(plan)
    kept = {key: score(trial) for key, trial in list(searched.trials.items())[: len(whole) // 2]}
    resumed = start(plan, dict(kept))
    first = resumed.suggest("id")

    assert first["trial"].number == len(kept) + 1
    assert run(plan, scored=dict(kept))[0] == whole


def test_optuna_learns_what_is_poor():
    """What failed or was stopped counts as poor, and is no result; what misses a bound is told by how far."""
    scored = {}
    search = start(make_plan("tpe", RANGES, MANY), scored)
    trials = [search.suggest("id")["trial"] for _ in range(ROUND)]
    for trial, status in zip(trials, ("finished", "failed", "stopped"), strict=True):
        scored[trial.key] = score(trial)._replace(
            result=FINISHED._replace(status=status), metrics={"size": 7.0, "accuracy": 0.25}
        )
    search.suggest("id")
    told = search._ot_study.trials[:ROUND]  # noqa: SLF001  # what Optuna was told

    assert [trial.state for trial in told] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED]
    assert (told[0].value, told[0].constraints) == (7.0, {"accuracy": 0.25})


def test_tpe_finds_the_smallest_that_is_accurate_enough():
    """It learns: most of its later trials are near the best, and its bounds are minded."""
    plan = make_plan("tpe", RANGES, 40)._replace(goal=GOAL._replace(metric="size", is_maximized=True))
    settings, _ = run(plan)
    later = [trial["train.epochs"] for trial in settings[20:]]

    assert sum(30 <= epochs <= 60 for epochs in later) > len(later) / 2


def test_trial_is_stopped_while_it_trains_alone():
    """ASHA goes by the loss of each epoch; the report of a trial that has ended is no epoch, and never stopped."""
    assert make_scheduler(make_plan("random", RANGES, MANY)) is None

    scheduler = make_scheduler(make_plan("random", RANGES, MANY, asha=Asha(grace_period=2, reduction_factor=2)))
    decisions = []
    for name, loss in (("good", 0.1), ("poor", 0.9)):
        trial = type("Trial", (), {"trial_id": name})
        scheduler.on_trial_add(None, trial)
        reports = [{"epoch": epoch, "loss/validation": loss} for epoch in (1, 2)] + [{"result": "all of it"}]
        decisions.append([scheduler.on_trial_result(None, trial, report) for report in reports])

    assert decisions == [["CONTINUE"] * 3, ["CONTINUE", "STOP", "CONTINUE"]]


def test_importance_is_that_of_what_decides():
    """A parameter that decides a metric has nearly all of its importance, the same each time."""
    plan = make_plan("random", RANGES, MANY)
    _, search = run(plan)
    scored = [score(trial) for trial in search.trials.values()]
    shares = measure_importances(plan, scored, "size")

    assert shares["train.epochs"] > 0.9
    assert math.isclose(sum(shares.values()), 1)
    assert measure_importances(plan, scored[::-1], "size") == shares


def test_importance_needs_results_that_differ():
    """Trials that were stopped are no results, and what never varies is due to nothing."""
    plan = make_plan("random", LISTS, 6)
    _, search = run(plan)
    scored = [score(trial) for trial in search.trials.values()]
    stopped = [trial._replace(result=FINISHED._replace(status="stopped")) for trial in scored]

    assert measure_importances(plan, scored, "size")["train.epochs"] > 0.9
    assert measure_importances(plan, stopped, "size") == {}
    assert measure_importances(plan, scored, "accuracy of another kind") == {}

"""Which trials a sweep runs: what Optuna's samplers ask for, no trial twice; and how much each parameter matters."""

from collections.abc import Callable, Container, Mapping, Sequence
from itertools import count, product
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from stages.lib.sweeps.plan import STOPPING_METRIC, Plan, Settings
from stages.lib.sweeps.results import Scored, Trial
from stages.lib.sweeps.workers import ASHAScheduler, OptunaSearch

# Numbers of a range get this many digits: they read well, and another machine's last bit of `exp` is not seen.
_DIGITS = 4
# So many suggestions in a row that are there already, and the sampler is taken to have no other.
_MAX_REPEATS = 200
# Of the random forest by which importance is measured.
_FOREST_SEED = 0

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Search(OptunaSearch):  # type: ignore[misc]  # Ray's types are not read
    """Suggests a plan's trials to Ray Tune, but for those that have ended before.

    TPE is told results a round at a time: of `round_size` trials, once the last of them has ended. So what it asks for
    depends on the results, but not on the order in which trials end, nor on what an earlier attempt left.

    make_trial: from its number, counted from 1, and its settings. scored, crashed: what has ended, by the trial's key.
    """

    def __init__(
        self,
        plan: Plan,
        round_size: int,
        make_trial: Callable[[int, Settings], Trial],
        scored: Mapping[str, Scored],
        crashed: Container[str],
    ) -> None:
        self.trials: dict[str, Trial] = {}  # by key, in the order in which they were asked for
        self._plan, self._make_trial, self._scored, self._crashed = plan, make_trial, scored, crashed
        self._round_size = round_size if plan.search == "tpe" else float("inf")
        self._round: dict[str, str] = {}  # the trial's key by Optuna's id
        self._ids = map(str, count())
        self._repeats = 0
        self._next: dict[str, Trial] | str | None = None
        sampler = optuna.samplers.TPESampler if plan.search == "tpe" else optuna.samplers.RandomSampler
        super().__init__(
            make_space(plan),
            metric=plan.goal.metric,
            mode="max" if plan.goal.is_maximized else "min",
            sampler=sampler(seed=plan.seed),
            points_to_evaluate=list_points(plan) if plan.search == "grid" else None,
        )

    def has_more(self) -> bool:
        """Whether there is a trial to run."""
        self._next = self._next or self._ask()
        return isinstance(self._next, dict)

    def suggest(self, trial_id: str) -> dict[str, Trial] | str | None:  # noqa: ARG002  # Ray's signature
        """The next trial to run; none as long as the round lasts, and Ray's word for the end at the end."""
        suggestion, self._next = self._next or self._ask(), None
        return suggestion

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Nothing: it is no result that Optuna could compare."""

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: `suggest` tells Optuna of the whole round."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: an interrupted sweep goes on from the trials that were kept."""

    def _ask(self) -> dict[str, Trial] | str | None:
        while len(self.trials) < self._plan.trials and self._repeats < _MAX_REPEATS:
            if len(self._round) >= self._round_size and not self._end_round():
                return None
            name = next(self._ids)
            trial = self._make_trial(len(self.trials) + 1, _to_settings(self._plan, super().suggest(name)))
            self._round[name] = trial.key
            self._repeats = self._repeats + 1 if trial.key in self.trials else 0
            if self._repeats:
                continue
            self.trials[trial.key] = trial
            if trial.key not in self._scored:
                return {"trial": trial}
        return str(self.FINISHED)

    def _end_round(self) -> bool:
        """Tell Optuna what came of the round, if all of it has ended."""
        if not all(key in self._scored or key in self._crashed for key in self._round.values()):
            return False
        for name, key in self._round.items():
            scored = self._scored.get(key)
            result = None
            # Else Optuna takes it for one that was stopped, as poor: it failed, or it was.
            if scored and scored.result.status == "finished" and self._plan.goal.metric in scored.metrics:
                result = {self._plan.goal.metric: scored.metrics[self._plan.goal.metric]}
                for metric, bounds in self._plan.goal.bounds.items():
                    violation = bounds.measure_violation(scored.metrics.get(metric))
                    self._ot_trials[name].set_constraint(metric, violation)
            super().on_trial_complete(name, result)
        self._round.clear()
        return True


def make_scheduler(plan: Plan) -> ASHAScheduler | None:
    """What stops poor trials early, by the reports of their epochs; none if the plan wants all to end.

    The report of a trial that has ended has no epoch, so that it is never stopped then.
    """
    if plan.asha is None:
        return None
    return ASHAScheduler(
        time_attr="epoch",
        metric=STOPPING_METRIC,
        mode="min",
        max_t=max(plan.max_epochs, plan.asha.grace_period),
        grace_period=plan.asha.grace_period,
        reduction_factor=plan.asha.reduction_factor,
        stop_last_trials=False,
    )


def list_points(plan: Plan) -> list[dict[str, int]]:
    """Every combination of the lists, as Optuna knows them, the last key's values changing first."""
    places = [range(len(choice)) for choice in plan.choices.values() if isinstance(choice, list)]
    return [dict(zip(plan.choices, point, strict=True)) for point in product(*places)]


def make_space(plan: Plan) -> dict[str, BaseDistribution]:
    """Optuna's space. It takes no lists as values, so that a value of a list is known by its place there."""
    space: dict[str, BaseDistribution] = {}
    for key, choice in plan.choices.items():
        if isinstance(choice, list):
            space[key] = CategoricalDistribution(range(len(choice)))
        elif isinstance(choice.min, int) and isinstance(choice.max, int):
            space[key] = IntDistribution(choice.min, choice.max, log=choice.log)
        else:
            space[key] = FloatDistribution(choice.min, choice.max, log=choice.log)
    return space


def measure_importances(plan: Plan, scored: Sequence[Scored], metric: str) -> dict[str, float]:
    """Each parameter's share in how the metric varies over the trials, 0..1, by fANOVA; empty if it does not vary.

    fANOVA: https://proceedings.mlr.press/v32/hutter14.html
    """
    space = make_space(plan)
    measured = [trial for trial in scored if trial.result.status == "finished" and metric in trial.metrics]
    if len({trial.metrics[metric] for trial in measured}) < 2:
        return {}
    study = optuna.create_study()
    for trial in sorted(measured, key=lambda trial: trial.number):
        choices = [(key, plan.choices[key], value) for key, value in trial.settings.items()]
        params = {key: of.index(value) if isinstance(of, list) else value for key, of, value in choices}
        study.add_trial(optuna.create_trial(params=params, distributions=space, value=trial.metrics[metric]))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=_FOREST_SEED)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: float(shares.get(key, 0.0)) for key in space}


def _to_settings(plan: Plan, suggestion: Mapping[str, Any]) -> Settings:
    settings: Settings = {}
    for key, choice in plan.choices.items():
        value = suggestion[key]
        if isinstance(choice, list):
            value = choice[value]
        elif isinstance(value, float):
            value = min(max(float(f"{value:.{_DIGITS}g}"), choice.min), choice.max)
        settings[key] = value
    return settings

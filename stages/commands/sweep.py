"""Try many settings of the pipeline on Ray Tune with Optuna's samplers, and find the best of them.

Reads   FILE, params.yaml, dvc.yaml, dvc.lock, stages, data/raw, data/normalized
Writes  reports/sweeps/<name of FILE>/trials.csv        every trial, the best first
        reports/sweeps/<name of FILE>/front.png         accuracy against the size of the int8 model
        reports/sweeps/<name of FILE>/importances.png   how much each parameter matters for what is wanted
        reports/sweeps/<name of FILE>/trials            what each trial gave, for a sweep that goes on later
        the MLflow store: a run for the sweep, and below it one for each trial
        params.yaml, with --write
"""

import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from filelock import FileLock, Timeout

from stages.lib.core.dvc_lock import load_graph, require_reproduced
from stages.lib.core.errors import ExportError, ParamsError, PipelineError, TrainingError
from stages.lib.core.files import write_json
from stages.lib.core.hashing import hash_output
from stages.lib.core.markdown import format_table
from stages.lib.core.params import PARAMS_PATH, Section, load_params, load_section
from stages.lib.runner.stage_times import describe_times
from stages.lib.sweeps.params_editor import edit_params
from stages.lib.sweeps.plan import STOPPING_METRIC, Plan, Settings, apply_settings, describe_settings, read_plan
from stages.lib.sweeps.results import (
    ACCURACY,
    INT8_BYTES,
    Result,
    Scored,
    Status,
    Trial,
    format_metric,
    keep_result,
    list_columns,
    rank,
    read_result,
    write_table,
)

if TYPE_CHECKING:  # MLflow, Ray and Optuna take seconds
    from stages.lib.sweeps.runs import Log
    from stages.lib.sweeps.workers import Ended

# What makes the data that all trials share: other params of these would make other data for each trial.
_DATA_STAGES = ("ingest", "validate", "normalize")
_DATA_DIRS = (Path("data/raw"), Path("data/normalized"))
_TRIAL_STAGES = ("train", "evaluate", "export")
# What dvc.lock would have of a trial, by which it is compared with `dvc repro`.
_OUTPUTS = ("models/model.keras", "models/export", "reports/history.csv", "reports/metrics.json", "reports/parity.csv")
_REPORTS = ("history.csv", "metrics.json", "parity/parity.json", "parity_measured.json")
# What a trial's bytes depend on beside the project's code.
_PACKAGES = ("ai-edge-litert", "keras", "numpy", "onnx", "onnxruntime", "tensorflow", "tf2onnx")
_SOURCE = Path("stages")
_SHOWN_TRIALS = 5  # in the table that is printed
_INTERRUPTED = 130

_EXAMPLE = """\
search: random         # or tpe, which learns as it goes; or grid, all combinations of lists, without trials and seed
trials: 32
seed: 0
params:                # keys of train, evaluate and export in params.yaml: what to try
  train.hidden_units: [[], [8], [12], [16], [20], [24], [32], [48], [32, 16]]
  train.learning_rate: {min: 5.0e-4, max: 1.0e-2, log: true}
  train.epochs: [20, 40]
minimize: export_bytes/model_int8.tflite   # or maximize; a metric as MLflow's runs have it
where:                                     # what the best must meet
  accuracy/validation: {min: 0.96}
"""


class Sweep(NamedTuple):
    """A sweep and what came of it so far."""

    plan: Plan
    path: Path
    folder: Path
    make_trial: Callable[[int, Settings], Trial]
    log: "Log"
    scored: dict[str, Scored]  # by the trial's key
    crashes: dict[str, str]  # why there is no result, by the trial's key


@click.command(epilog=f"An example of FILE:\n\n\b\n{_EXAMPLE}")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--address", metavar="HOST:PORT", help="A Ray cluster that this machine is part of.")
@click.option("--workers", type=click.IntRange(min=1), help="Trials at a time.  [default: one for each processor]")
@click.option("--write", "is_writing", is_flag=True, help="Put the best settings into params.yaml.")
@click.option(
    "--output",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where table, charts and trials go.  [default: reports/sweeps/<name of FILE>]",
)
def sweep(path: Path, address: str | None, workers: int | None, is_writing: bool, folder: Path | None) -> None:
    """Try the settings that the YAML file FILE asks for, each through train, evaluate and export.

    A trial gives the very bytes that `dvc repro` would give with its settings. Each is kept as it ends: after an
    interruption the same command goes on where it was, and a FILE with more trials adds to them. Each is an MLflow run
    below that of the sweep. A network that diverges or an export beyond its budget is a result, not an error.

    \b
    Exit code:
      0    there is a best trial
      1    no trial meets the goal, one could not be run, or there is nothing to try
      130  interrupted
    """  # noqa: D301  # \b is click's mark for lines that stay apart
    if missing := [name for name in ("optuna", "ray") if find_spec(name) is None]:
        hint = "install it: `python -m pip install --editable '.[sweep]'`, or all of requirements.txt"
        raise PipelineError("this environment", f"the optional package {missing[0]} is not installed", hint)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        is_valid = run_sweep(path, folder or Path("reports/sweeps") / path.stem, address, workers, is_writing)
    except KeyboardInterrupt:
        click.echo("sweep: interrupted; what has ended is kept, and the same command goes on from there", err=True)
        sys.exit(_INTERRUPTED)
    sys.exit(0 if is_valid else 1)


def run_sweep(path: Path, folder: Path, address: str | None, workers: int | None, is_writing: bool) -> bool:
    """Plan, run what is not kept yet, tell; whether there is a best trial and each could be run."""
    from stages.ingest import IngestParams, name_dataset  # noqa: PLC0415
    from stages.lib.sweeps.runs import close_log, open_log  # noqa: PLC0415  # MLflow and Ray take seconds
    from stages.lib.sweeps.workers import require_cluster  # noqa: PLC0415
    from stages.track import TrackParams  # noqa: PLC0415

    if address:
        require_cluster(address)
    base = load_params()
    data = require_reproduced(_DATA_STAGES, base)
    sections = load_sections()
    plan = read_plan(path, base, sections, list_metrics(base, sections))
    goal = plan.goal.describe()
    with lock(folder), TemporaryDirectory(prefix="sweep-") as scratch:
        code_dir = copy_source(Path(scratch))
        make_trial = prepare_trials(base, data, code_dir)
        digest = hashlib.sha256(f"{plan} {make_trial(0, {}).key}".encode()).hexdigest()
        params = {"sweep.goal": goal, "sweep.keys": ", ".join(plan.choices), "sweep.search": plan.search}
        dataset = name_dataset(load_section("ingest", IngestParams))
        experiment = load_section("track", TrackParams).name_experiment(dataset)
        log = open_log(experiment, f"sweep {path.stem}", digest, params)
        found = Sweep(plan, path, folder, make_trial, log, {}, {})
        print(f"sweep: {plan.search} of at most {plan.trials} trials; wanted is the {goal}", flush=True)
        try:
            run_all(found, code_dir, address, workers)
        except BaseException:
            close_log(log, "KILLED")
            raise
        best, is_valid = tell(found)
        if is_writing and best and is_valid:
            write_best(found, best, base)
        return is_valid


def load_sections() -> dict[str, type[Section]]:
    """The classes of the sections whose keys may be swept."""
    from stages import evaluate, export, train  # noqa: PLC0415  # TensorFlow takes seconds

    return {"train": train.TrainParams, "evaluate": evaluate.EvaluateParams, "export": export.ExportParams}


def list_metrics(base: Mapping[str, Any], sections: Mapping[str, type[Section]]) -> list[str]:
    """What a trial measures, by the names of `track`, as far as it is the same on every machine."""
    from stages.export import FILES  # noqa: PLC0415  # TensorFlow takes seconds

    for name, section in sections.items():
        load_section(name, section)
    exports = [FILES[artifact] for artifact in base["export"]["artifacts"]]
    splits = ["train", "validation"] if base["normalize"]["validation_fraction"] else ["train"]
    return [
        *(f"{name}/test" for name in ("accuracy", "calibration_error", "loss")),
        *(f"{name}/{split}" for name in ("accuracy", "loss") for split in splits),
        *(f"export_{kind}/{name}" for kind in ("accuracy", "bytes", "same_class") for name in exports),
        *(f"export_arena_bytes/{name}" for name in exports if name == FILES["tflite_int8"]),
    ]


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keep other sweeps out of the folder.

    Raises:
        PipelineError: one is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", blocking=False):
            yield
    except Timeout:
        hint = "wait until it ends, or name another --output"
        raise PipelineError(str(folder), "another sweep is running there", hint) from None


def copy_source(scratch_dir: Path) -> Path:
    """A folder with the project's code as it is now, for all workers: an edit from now on changes no trial."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(_SOURCE, scratch_dir / "code" / _SOURCE, ignore=ignored)).parent


def prepare_trials(
    base: Mapping[str, Any], data: Mapping[str, str], code_dir: Path
) -> Callable[[int, Settings], Trial]:
    """A function that makes a trial of its number and settings; its key is of its data, params, code and packages.

    base: all of params.yaml. data: MD5 by path.
    """
    stages = load_graph()
    deps = {dep for name in _TRIAL_STAGES for dep in stages[name]["deps"] if Path(dep).is_relative_to(_SOURCE)}
    code = {dep: hash_output(code_dir / dep) for dep in sorted(deps)}
    packages = {name: metadata.version(name) for name in _PACKAGES}
    read = {section: base[section] for section in (*_DATA_STAGES, *_TRIAL_STAGES)}

    def make_trial(number: int, settings: Settings) -> Trial:
        params = apply_settings(read, settings)
        made_of = {"code": code, "data": dict(data), "packages": packages, "params": params}
        key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
        return Trial(number, settings, params, packages, key)

    return make_trial


def run_all(found: Sweep, code_dir: Path, address: str | None, workers: int | None) -> None:
    """Run the trials that have no result, and keep, log and tell each as it ends."""
    from stages.lib.sweeps.search import Search, make_scheduler  # noqa: PLC0415  # Ray and Optuna take seconds
    from stages.lib.sweeps.workers import open_ray, run_trials  # noqa: PLC0415

    plan, scratch_dir = found.plan, code_dir.parent

    def recall(number: int, settings: Settings) -> Trial:
        trial = found.make_trial(number, settings)
        result = read_result(found.folder / "trials" / trial.key)
        # Which trials are stopped depends on the others: it is no result where none may be.
        if trial.key not in found.scored and result and (plan.asha or result.status != "stopped"):
            record(found, trial, result)
        return trial

    def end(ended: "Ended") -> None:
        trial = ended.trial
        if ended.problem:
            found.crashes[trial.key] = ended.problem
        else:
            result = ended.report["result"]._replace(retries=ended.retries)
            keep_result(found.folder / "trials" / trial.key, result, ended.report["reports"])
            record(found, trial, result)
        done = len(found.scored) + len(found.crashes)
        left = (time.monotonic() - started) / (done - kept) * (plan.trials - done)
        line = describe_end(found, trial, ended.problem)
        print(f"sweep: {done:>{len(str(plan.trials))}}/{plan.trials}  {line}  {left:.0f} s left", flush=True)

    def make_search(count: int) -> Search:
        return Search(plan, count, recall, found.scored, found.crashes)

    count = workers or os.cpu_count() or 1
    if not make_search(count).has_more():
        return
    # On a cluster, Ray carries the data with the code.
    data_dir = (code_dir if address else scratch_dir) / "data"
    for folder in _DATA_DIRS:
        shutil.copytree(folder, data_dir.parent / folder)
    with open_ray(address, count, code_dir, scratch_dir) as processors:
        count = workers or processors
        search = make_search(count)
        print(f"sweep: {count} at a time; a line for each trial as it ends", flush=True)
        started, kept = time.monotonic(), len(found.scored)
        work = partial(run_trial, Path("data") if address else data_dir)
        if search.has_more():  # another number of workers may ask for others
            run_trials(work, search, make_scheduler(plan), count, scratch_dir, end)


def run_trial(data_dir: Path, trial: Trial, node_dir: Path, report: Callable[[Mapping[str, Any]], None]) -> None:
    """Report what train, evaluate and export make of a trial, in a folder that looks like the project's root.

    Runs in a worker, one trial after the other. After each epoch it reports what it is if it is stopped then, at the
    end what it is. Raises what is no result: an error of the machine or of the code.

    data_dir: absolute, or in `node_dir`, where also the trial's folder is.
    """
    require_packages(trial.packages)
    from stages import evaluate, export, train  # noqa: PLC0415  # TensorFlow takes seconds
    from stages.lib.model.deterministic_tensorflow import keras  # noqa: PLC0415

    seconds: dict[str, float] = {}
    epochs: list[Any] = []

    def end_epoch(epoch: Any) -> None:  # noqa: ANN401  # an Epoch, of a module that is not imported in vain
        epochs.append(epoch)
        train.write_history(Path("reports/history.csv"), epochs)
        so_far = describe_trial("stopped", f"after epoch {epoch.number}", {})
        report({"epoch": epoch.number, STOPPING_METRIC: epoch.val_loss, **so_far})

    stages: dict[str, Callable[[], None]] = {
        "train": lambda: train.run(load_section("train", train.TrainParams), on_epoch_end=end_epoch),
        "evaluate": lambda: evaluate.run(load_section("evaluate", evaluate.EvaluateParams)),
        "export": lambda: export.run(load_section("export", export.ExportParams)),
    }
    with TemporaryDirectory(dir=node_dir, prefix="trial-") as folder, chdir(folder):
        Path("data").symlink_to(node_dir / data_dir)
        write_json(PARAMS_PATH, trial.params)  # JSON is YAML
        try:
            for name, run in stages.items():
                started = time.perf_counter()
                run()
                seconds[name] = round(time.perf_counter() - started, 3)
            ended = describe_trial("finished", "", seconds)
        except (ExportError, ParamsError, TrainingError) as refusal:
            ended = describe_trial("failed", str(refusal), seconds)
        finally:
            # Else every network of this process would stay in memory.
            keras.backend.clear_session()
    report(ended)


def describe_trial(status: Status, problem: str, seconds: dict[str, float]) -> dict[str, Any]:
    """What has become of the trial whose folder is the current one, as it is reported."""
    has_ended = status != "stopped"
    outputs = {path: hash_output(Path(path)) for path in _OUTPUTS if has_ended and Path(path).exists()}
    reports = {name: Path("reports", name).read_bytes() for name in _REPORTS if Path("reports", name).exists()}
    return {"result": Result(status, problem, outputs, seconds, 0), "reports": reports}


def require_packages(packages: Mapping[str, str]) -> None:
    """Refuse a node with other packages than the sweep's own: its trials could have other bytes.

    Raises:
        PipelineError: naming the first that differs.
    """
    installed = {found.name: found.version for found in metadata.distributions()}
    for name, version in packages.items():
        if (got := installed.get(name, "none")) != version:
            hint = "install the same requirements.txt on every node"
            raise PipelineError(f"node {os.uname().nodename}: {name}", expected=version, got=got, hint=hint)


def record(found: Sweep, trial: Trial, result: Result) -> None:
    """Read what a trial measured, and log its run; what is measured at each epoch counts if it came to its last."""
    from stages.lib.sweeps.runs import log_trial  # noqa: PLC0415  # MLflow takes seconds
    from stages.track import collect_history, collect_metrics  # noqa: PLC0415

    folder = found.folder / "trials" / trial.key
    history = collect_history(folder) if (folder / "history.csv").exists() else {}
    is_measured = (folder / "metrics.json").exists() and (folder / "parity/parity.json").exists()
    metrics = collect_metrics(folder) if is_measured else {}
    last = {} if result.status == "stopped" else {name: values[-1] for name, values in history.items()}
    found.scored[trial.key] = Scored(trial.number, trial.settings, result, last | metrics)
    times = describe_times({stage: {"work": work} for stage, work in result.seconds.items()})
    log_trial(found.log, trial, result, metrics | times, history)


def describe_end(found: Sweep, trial: Trial, crash: str) -> str:
    """What came of a trial, in a line."""
    settings = describe_settings(trial.settings)
    if crash:
        return f"{settings}  could not be run: {crash}"
    scored, goal = found.scored[trial.key], found.plan.goal
    tried = f"{settings}  (tried {scored.result.retries + 1} times)" if scored.result.retries else settings
    if scored.result.status != "finished":
        first, *others = scored.result.problem.split("; also ")
        return f"{tried}  {scored.result.status}: {first}{f' (and {len(others)} more)' if others else ''}"
    # An export that is withheld has no metrics.
    shown = {name: format_metric(scored.metrics.get(name)) or "not there" for name in (goal.metric, *goal.bounds)}
    return "  ".join([tried, *(f"{name} {value}" for name, value in shown.items())])


def tell(found: Sweep) -> tuple[Scored | None, bool]:
    """Write table and charts, end the sweep's run, print the best; the best, and whether each could be run, too."""
    from stages.lib.sweeps.runs import close_log  # noqa: PLC0415  # MLflow takes seconds

    goal = found.plan.goal
    ranked = rank(list(found.scored.values()), goal)
    best = ranked[0] if ranked and ranked[0].meets(goal) else None
    statuses = [trial.result.status for trial in ranked]
    counts = {status: statuses.count(status) for status in ("finished", "failed", "stopped")}
    counts |= {"could not be run": len(found.crashes), "retried": sum(trial.result.retries > 0 for trial in ranked)}
    summary = [f"sweep: {', '.join(f'{count} {what}' for what, count in counts.items() if count)}"]
    artifacts = []
    if ranked:
        header, *rows = write_table(found.folder / "trials.csv", ranked, goal, _OUTPUTS)
        artifacts = [found.folder / "trials.csv", *draw_charts(found, ranked, best)]
        summary += ["", *format_table(header, rows[:_SHOWN_TRIALS]), ""]
    summary += [f"sweep: no trial meets the goal: {goal.describe()}"]
    if best:
        metrics = [f"  {metric} {format_metric(best.metrics.get(metric))}" for metric in list_columns(goal)]
        md5s = [f"  MD5 {md5}  {path}" for path, md5 in best.result.outputs.items()]
        summary[-1:] = [f"sweep: best is trial {best.number}: {describe_settings(best.settings)}", *metrics, *md5s]
    is_valid = bool(best) and not found.crashes
    measured = {f"sweep_trials/{what.replace(' ', '_')}": float(count) for what, count in counts.items()}
    close_log(found.log, "FINISHED" if is_valid else "FAILED", "\n".join(summary), measured, [found.path, *artifacts])
    print("\n".join(summary))
    print(f"sweep: see {', '.join(map(str, artifacts))}, and MLflow's run 'sweep {found.path.stem}'")
    if found.crashes:
        print(f"sweep: the same command tries the {len(found.crashes)} again that could not be run")
    return best, is_valid


def draw_charts(found: Sweep, ranked: Sequence[Scored], best: Scored | None) -> list[Path]:
    """Draw accuracy against size, and how much each parameter matters for each metric that the goal names."""
    from stages.lib.plotting.sweep_front import Point, draw_front  # noqa: PLC0415  # matplotlib takes a second
    from stages.lib.plotting.sweep_importances import draw_importances  # noqa: PLC0415
    from stages.lib.sweeps.search import measure_importances  # noqa: PLC0415  # Optuna and Ray take seconds

    paths = [found.folder / "front.png", found.folder / "importances.png"]
    shown = [trial for trial in ranked if {ACCURACY, INT8_BYTES} <= trial.metrics.keys()]
    points = [
        Point(
            trial.metrics[INT8_BYTES],
            trial.metrics[ACCURACY],
            is_valid=trial.result.status == "finished",
            label=describe_settings(trial.settings),
        )
        for trial in shown
    ]
    title = f"{len(ranked)} trials: {', '.join(found.plan.choices)}"
    at = shown.index(best) if best in shown else None
    draw_front(paths[0], title, "int8 model, bytes", "test accuracy", points, at)
    goal = found.plan.goal
    metrics = dict.fromkeys([goal.metric, *goal.bounds, ACCURACY])
    shares = {metric: measure_importances(found.plan, ranked, metric) for metric in metrics}
    draw_importances(paths[1], title, {metric: of_metric for metric, of_metric in shares.items() if of_metric})
    return paths


def write_best(found: Sweep, best: Scored, base: Mapping[str, Any]) -> None:
    """Put the best trial's settings into params.yaml, which then has its params.

    Raises:
        PipelineError: the file was edited meanwhile, so that its bytes would not be the trial's.
    """
    if load_params() != base:
        hint = "run the same command again; what has ended is kept where it still counts"
        raise PipelineError(str(PARAMS_PATH), "it was edited while the sweep ran", hint)
    edit_params(best.settings)
    assert found.make_trial(best.number, best.settings).params.items() <= load_params().items()
    print(f"sweep: {PARAMS_PATH} has the best settings now; `dvc repro` gives the MD5s above", flush=True)

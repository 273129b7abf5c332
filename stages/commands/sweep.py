"""Try many settings of the pipeline on Ray, and find the best of them.

Reads   FILE, params.yaml, dvc.yaml, dvc.lock, stages, data/raw, data/normalized
Writes  reports/sweeps/<name of FILE>/trials.csv    every trial, the best first
        reports/sweeps/<name of FILE>/front.png     accuracy against the size of the int8 model
        reports/sweeps/<name of FILE>/trials        what each trial gave, for a sweep that goes on later
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, NamedTuple, NoReturn

import click
from filelock import FileLock, Timeout

from stages.lib.core.dvc_lock import load_graph, require_reproduced
from stages.lib.core.errors import ExportError, PipelineError, TrainingError
from stages.lib.core.files import write_json
from stages.lib.core.hashing import hash_output
from stages.lib.core.markdown import format_table
from stages.lib.core.params import PARAMS_PATH, Section, load_params, load_section
from stages.lib.runner.stage_times import describe_times
from stages.lib.sweeps.params_editor import edit_params
from stages.lib.sweeps.plan import Plan, Settings, apply_settings, describe_settings, format_value, read_plan
from stages.lib.sweeps.trial_results import (
    ACCURACY,
    INT8_BYTES,
    Result,
    Scored,
    find_front,
    format_metric,
    keep_result,
    list_columns,
    rank,
    read_result,
    tabulate,
    write_table,
)

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
_SHOWN_FRONT = 20  # settings beside the chart
_INTERRUPTED = 130
_TERMINATED = 143

_EXAMPLE = """\
search: random         # or grid: every combination of the lists, without trials and seed
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


class Trial(NamedTuple):
    """One setting of the pipeline, as a worker gets it."""

    number: int  # in the order of the plan, from 1
    settings: Settings
    params: dict[str, Any]  # by section
    packages: dict[str, str]  # version by name
    key: str  # digest of all that it is made of


class Outcome(NamedTuple):
    """What a worker makes of a trial."""

    problem: str  # why the pipeline refuses it; empty if it does not
    outputs: dict[str, str]  # MD5 by path
    seconds: dict[str, float]  # of work, by stage
    reports: dict[str, bytes]  # by file name


class Log(NamedTuple):
    """Where the sweep is in the MLflow store."""

    experiment: str
    run_name: str
    experiment_id: str
    run_id: str
    trial_keys: set[str]  # of the trials that have their run


class Sweep(NamedTuple):
    """A sweep and what came of it so far."""

    plan: Plan
    trials: list[Trial]
    folder: Path
    results: dict[str, Result]  # by the trial's key
    crashes: dict[str, str]  # why there is no result, by the trial's key


@click.command(epilog=f"An example of FILE:\n\n\b\n{_EXAMPLE}")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--address", metavar="HOST:PORT", help="A Ray cluster that this machine is part of.")
@click.option(
    "--workers",
    "count",
    type=click.IntRange(min=1),
    help="Processes on this machine.  [default: one for each processor]",
)
@click.option("--write", "is_writing", is_flag=True, help="Put the best settings into params.yaml.")
@click.option(
    "--output",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where table, chart and trials go.  [default: reports/sweeps/<name of FILE>]",
)
def sweep(path: Path, address: str | None, count: int | None, is_writing: bool, folder: Path | None) -> None:
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
    if address and count:
        raise click.UsageError("--workers is for this machine alone: leave it out, or --address")
    require_ray()
    received: list[int] = []

    def terminate(number: int, _frame: FrameType | None) -> NoReturn:
        received.append(number)  # Ray passes on that there was an interruption, but not which
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    try:
        is_valid = run_sweep(
            path, folder or Path("reports/sweeps") / path.stem, address, count or os.cpu_count() or 1, is_writing
        )
    except KeyboardInterrupt:
        click.echo("sweep: interrupted; what has ended is kept, and the same command goes on from there", err=True)
        sys.exit(_TERMINATED if received else _INTERRUPTED)
    sys.exit(0 if is_valid else 1)


def require_ray() -> None:
    """Refuse to begin without the optional package."""
    if find_spec("ray") is None:
        hint = "install it: `python -m pip install --editable '.[sweep]'`, or all of requirements.txt"
        raise PipelineError("this environment", "the optional package ray is not installed", hint)


def run_sweep(path: Path, folder: Path, address: str | None, count: int, is_writing: bool) -> bool:
    """Plan, run what is not kept yet, tell; whether there is a best trial and each could be run."""
    from stages.lib.sweeps.trials import make_scratch, require_cluster  # noqa: PLC0415  # optional, and takes a second

    if address:
        require_cluster(address)
    base = load_params()
    data = require_reproduced(_DATA_STAGES, base)
    sections = load_sections()
    plan = read_plan(path, base, sections, list_metrics(base, sections))
    with lock(folder), make_scratch(folder / ".scratch") as scratch_dir:
        source_dir = copy_source(scratch_dir)
        trials = make_trials(plan, base, data, source_dir)
        kept = {trial.key: read_result(folder / "trials" / trial.key) for trial in trials}
        found = Sweep(plan, trials, folder, {key: result for key, result in kept.items() if result}, {})
        log = open_log(path, found)
        print("\n".join(describe_start(found)), flush=True)
        try:
            run_trials(found, log, source_dir, address, count)
        except BaseException:
            close_log(log, "KILLED")
            raise
        ranked = rank([score(found, trial) for trial in trials if trial.key in found.results], plan.goal)
        is_valid = tell(found, log, ranked, path)
        if is_writing and is_valid:
            write_best(ranked[0], trials, base)
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
        raise PipelineError(
            str(folder), "another sweep is running there", "wait until it ends, or name another --output"
        ) from None


def copy_source(scratch_dir: Path) -> Path:
    """A folder with the project's code as it is now, for all workers: an edit from now on changes no trial."""
    target = scratch_dir / "source"
    for path in sorted(_SOURCE.rglob("*.py")):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / path)
    return target


def make_trials(plan: Plan, base: Mapping[str, Any], data: Mapping[str, str], source_dir: Path) -> list[Trial]:
    """The plan's trials, each with the digest of its data, params, code and packages."""
    stages = load_graph()
    deps = {dep for name in _TRIAL_STAGES for dep in stages[name]["deps"] if Path(dep).is_relative_to(_SOURCE)}
    code = {dep: hash_output(source_dir / dep) for dep in sorted(deps)}
    packages = {name: metadata.version(name) for name in _PACKAGES}
    sections = (*_DATA_STAGES, *_TRIAL_STAGES)
    trials = []
    for number, settings in enumerate(plan.trials, start=1):
        params = apply_settings({section: base[section] for section in sections}, settings)
        made_of = {"code": code, "data": dict(data), "packages": packages, "params": params}
        key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
        trials.append(Trial(number, settings, params, packages, key))
    return trials


def run_trials(found: Sweep, log: Log, source_dir: Path, address: str | None, count: int) -> None:
    """Run the trials that have no result, and keep, log and tell each as it ends."""
    from stages.lib.sweeps.trials import open_workers  # noqa: PLC0415  # optional, and takes a second

    log_results(log, found)
    waiting = [trial for trial in found.trials if trial.key not in found.results]
    if not waiting:
        return
    files = [path for folder in _DATA_DIRS for path in sorted(folder.rglob("*")) if path.is_file()]
    data = {path.relative_to("data").as_posix(): path for path in files}
    started = time.monotonic()
    with open_workers(address, min(count, len(waiting)), source_dir, data, source_dir.parent) as workers:
        print(f"sweep: {workers.count} at a time; a line for each trial as it ends", flush=True)
        for done, answer in enumerate(workers.run(run_trial, waiting), start=1):
            key = answer.item.key
            if answer.result is None:
                found.crashes[key] = answer.problem
            else:
                outcome: Outcome = answer.result
                result = Result(outcome.problem, outcome.outputs, outcome.seconds, answer.retries)
                keep_result(found.folder / "trials" / key, result, outcome.reports)
                found.results[key] = result
                log_results(log, found)
            left = (time.monotonic() - started) / done * (len(waiting) - done)
            print(f"sweep: {describe_end(found, answer.item, answer.problem)}  {left:.0f} s left", flush=True)


def run_trial(trial: Trial, data_dir: Path, scratch_dir: Path) -> Outcome:
    """What train, evaluate and export make of the trial's params, in a folder that looks like the project's root.

    Runs in a worker, one trial after the other. Raises what is no result: an error of the machine or of the code.
    """
    require_packages(trial.packages)
    from stages import evaluate, export, train  # noqa: PLC0415  # TensorFlow takes seconds
    from stages.lib.model.deterministic_tensorflow import keras  # noqa: PLC0415

    with TemporaryDirectory(dir=scratch_dir, prefix="trial-") as folder, chdir(folder):
        Path("data").symlink_to(data_dir)
        write_json(PARAMS_PATH, trial.params)  # JSON is YAML
        seconds: dict[str, float] = {}
        problem = ""
        try:
            with measure(seconds, "train"):
                train.run(load_section("train", train.TrainParams))
            with measure(seconds, "evaluate"):
                evaluate.run(load_section("evaluate", evaluate.EvaluateParams))
            with measure(seconds, "export"):
                export.run(load_section("export", export.ExportParams))
        except (ExportError, TrainingError) as refusal:
            problem = str(refusal)
        finally:
            # Else every network of this process would stay in memory.
            keras.backend.clear_session()
        outputs = {path: hash_output(Path(path)) for path in _OUTPUTS if Path(path).exists()}
        paths = {name: Path("reports") / name for name in _REPORTS}
        reports = {name: path.read_bytes() for name, path in paths.items() if path.exists()}
    return Outcome(problem, outputs, seconds, reports)


@contextmanager
def measure(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note how long the block took, if it ends well."""
    started = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - started, 3)


def require_packages(packages: Mapping[str, str]) -> None:
    """Refuse a node with other packages than the sweep's own: its trials could have other bytes.

    Raises:
        PipelineError: naming the first that differs.
    """
    for name, version in packages.items():
        try:
            got = metadata.version(name)
        except metadata.PackageNotFoundError:
            got = "none"
        if got != version:
            hint = "install the same requirements.txt on every node"
            raise PipelineError(f"node {os.uname().nodename}: {name}", expected=version, got=got, hint=hint)


def score(found: Sweep, trial: Trial) -> Scored:
    """A trial that has a result, with what it measured; of what is measured at each epoch, the last."""
    from stages.track import collect_metrics  # noqa: PLC0415  # MLflow takes seconds

    folder = found.folder / "trials" / trial.key
    is_measured = (folder / "metrics.json").exists() and (folder / "parity/parity.json").exists()
    last = {name: values[-1] for name, values in read_history(folder).items()}
    metrics = collect_metrics(folder) if is_measured else {}
    return Scored(trial.number, trial.settings, found.results[trial.key], last | metrics)


def read_history(folder: Path) -> dict[str, list[float]]:
    """What a trial measured at each epoch; empty if it never came to the end of training."""
    from stages.track import collect_history  # noqa: PLC0415  # MLflow takes seconds

    return collect_history(folder) if (folder / "history.csv").exists() else {}


def open_log(path: Path, found: Sweep) -> Log:
    """The sweep's run in the MLflow store, that of an earlier attempt if there is one."""
    from stages.ingest import IngestParams, name_dataset  # noqa: PLC0415
    from stages.lib.sweeps.runs import ensure_sweep_run, find_logged_trials  # noqa: PLC0415  # MLflow takes seconds
    from stages.lib.tracking.runs import ensure_experiment  # noqa: PLC0415
    from stages.track import TrackParams  # noqa: PLC0415

    experiment = load_section("track", TrackParams).name_experiment(name_dataset(load_section("ingest", IngestParams)))
    goal = found.plan.goal.describe()
    made_of = json.dumps({"goal": goal, "trials": [trial.key for trial in found.trials]})
    params = {"sweep.goal": goal, "sweep.keys": ", ".join(found.plan.keys), "sweep.trials": len(found.trials)}
    name = f"sweep {path.stem}"
    with open_sweep_store() as store:
        experiment_id = ensure_experiment(store, experiment)
        digest = hashlib.sha256(made_of.encode()).hexdigest()
        run_id = ensure_sweep_run(store, experiment_id, name, digest, params)
        keys = find_logged_trials(store, experiment_id, run_id)
    return Log(experiment, name, experiment_id, run_id, keys)


@contextmanager
def open_sweep_store() -> Iterator[Any]:
    """The MLflow store, as short as can be: a pipeline may run meanwhile."""
    from stages.lib.tracking.store import open_store  # noqa: PLC0415  # MLflow takes seconds

    with hold_interruptions(), open_store(again="the same `pipeline sweep`; what has ended is kept") as store:
        yield store


@contextmanager
def hold_interruptions() -> Iterator[None]:
    """Put off Ctrl-C and SIGTERM to the end of the block: a transaction that they cut short leaves SQLite locked."""
    received: list[tuple[int, FrameType | None]] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append((number, frame))

    handlers = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for first, frame in received[:1]:
        handler = handlers[signal.Signals(first)]
        if callable(handler):
            handler(first, frame)


def log_results(log: Log, found: Sweep) -> None:
    """Make the run of each trial that has a result and no run yet."""
    from stages.lib.sweeps.runs import TrialRun, log_trial  # noqa: PLC0415  # MLflow takes seconds

    missing = [trial for trial in found.trials if trial.key in found.results and trial.key not in log.trial_keys]
    if not missing:
        return
    with open_sweep_store() as store:
        for trial in missing:
            result = found.results[trial.key]
            history = read_history(found.folder / "trials" / trial.key)
            metrics = {name: value for name, value in score(found, trial).metrics.items() if name not in history}
            record = TrialRun(
                name=f"{trial.number}: {' '.join(map(format_value, trial.settings.values()))}",
                key=trial.key,
                is_failed=bool(result.problem),
                tags={
                    "sweep.status": result.status,
                    "sweep.retries": str(result.retries),
                    **({"sweep.problem": result.problem} if result.problem else {}),
                    **{f"md5/{path}": md5 for path, md5 in result.outputs.items()},
                },
                params=trial.params,
                metrics=metrics | describe_times({stage: {"work": work} for stage, work in result.seconds.items()}),
                history=history,
                seconds=sum(result.seconds.values()),
            )
            log_trial(store, log.experiment_id, log.run_id, record)
            log.trial_keys.add(trial.key)


def close_log(
    log: Log,
    status: str,
    note: str = "",
    metrics: Mapping[str, float] | None = None,
    artifacts: Sequence[Path] = (),
) -> None:
    """End the sweep's run. status: FINISHED, FAILED or KILLED."""
    from stages.lib.sweeps.runs import end_sweep_run  # noqa: PLC0415  # MLflow takes seconds

    with open_sweep_store() as store:
        end_sweep_run(store, log.run_id, status, note, metrics or {}, artifacts)


def describe_start(found: Sweep) -> list[str]:
    """What is asked for, and what of it is there already."""
    plan = found.plan
    left_out = f", {plan.duplicates} repeated ones left out" if plan.duplicates else ""
    kept = f"; {len(found.results)} are kept from before" if found.results else ""
    noun = "trial" if len(found.trials) == 1 else "trials"
    return [f"sweep: {len(found.trials)} {noun}{left_out}{kept}", f"sweep: wanted is the {plan.goal.describe()}"]


def describe_end(found: Sweep, trial: Trial, crash: str) -> str:
    """What came of a trial, in a line."""
    ended = len(found.results) + len(found.crashes)
    count = f"{ended:>{len(str(len(found.trials)))}}/{len(found.trials)}"
    settings = describe_settings(trial.settings)
    if crash:
        return f"{count}  {settings}  could not be run: {crash}"
    result = found.results[trial.key]
    retried = f"  (tried {result.retries + 1} times)" if result.retries else ""
    if result.problem:
        first, *others = result.problem.split("; also ")
        more = f" (and {len(others)} more)" if others else ""
        return f"{count}  {settings}{retried}  failed: {first}{more}"
    metrics, goal = score(found, trial).metrics, found.plan.goal
    shown = {metric: format_metric(metrics.get(metric)) for metric in (goal.metric, *goal.bounds)}
    return "  ".join([count, settings + retried, *(f"{metric} {value}" for metric, value in shown.items())])


def tell(found: Sweep, log: Log, ranked: Sequence[Scored], path: Path) -> bool:
    """Write table and chart, end the sweep's run, print the best; whether there is one and each could be run."""
    goal = found.plan.goal
    best = ranked[0] if ranked and ranked[0].meets(goal) else None
    counts = {
        "finished": sum(not trial.result.problem for trial in ranked),
        "failed": sum(bool(trial.result.problem) for trial in ranked),
        "could not be run": len(found.crashes),
        "retried": sum(trial.result.retries > 0 for trial in ranked),
    }
    summary = [f"sweep: {', '.join(f'{count} {what}' for what, count in counts.items() if count)}"]
    artifacts = [path]
    if ranked:
        artifacts += [found.folder / "trials.csv", found.folder / "front.png"]
        write_table(artifacts[1], ranked, goal, _OUTPUTS)
        draw_trials(artifacts[2], ranked, best)
        header, *rows = tabulate(ranked[:_SHOWN_TRIALS], goal)
        summary += ["", *format_table(header, rows), ""]
    summary += describe_best(best, found) if best else [f"sweep: no trial meets the goal: {goal.describe()}"]
    metrics = {f"sweep_trials/{what.replace(' ', '_')}": float(count) for what, count in counts.items()}
    is_valid = bool(best) and not found.crashes
    close_log(log, "FINISHED" if is_valid else "FAILED", "\n".join(summary), metrics, artifacts)
    print("\n".join(summary))
    print(f"sweep: see {', '.join(map(str, artifacts[1:]))}, MLflow's run {log.run_name!r} in {log.experiment!r}")
    if found.crashes:
        print(f"sweep: the same command tries the {len(found.crashes)} again that could not be run")
    return is_valid


def describe_best(best: Scored, found: Sweep) -> list[str]:
    """The best trial's settings, what it measured, and the MD5s that `dvc repro` will give."""
    metrics = (f"{metric} {format_metric(best.metrics.get(metric))}" for metric in list_columns(found.plan.goal))
    return [
        f"sweep: best is trial {best.number}: {describe_settings(best.settings)}",
        *(f"  {metric}" for metric in metrics),
        *(f"  MD5 {md5}  {path}" for path, md5 in best.result.outputs.items()),
    ]


def draw_trials(path: Path, ranked: Sequence[Scored], best: Scored | None) -> None:
    """Draw the accuracy of every trial against the size of its int8 model, with the Pareto front."""
    from stages.lib.plotting.sweep_front import Point, draw_front  # noqa: PLC0415  # matplotlib takes a second

    shown = [trial for trial in ranked if ACCURACY in trial.metrics and INT8_BYTES in trial.metrics]
    valid = [trial for trial in shown if not trial.result.problem]
    front = [valid[at] for at in find_front([(trial.metrics[INT8_BYTES], trial.metrics[ACCURACY]) for trial in valid])]
    labels = {
        trial.number: f"{trial.metrics[ACCURACY]:.4f}  {trial.metrics[INT8_BYTES]:>9,.0f}  "
        f"{describe_settings(trial.settings)}"
        for trial in front[-_SHOWN_FRONT:]
    }
    draw_front(
        path,
        f"{len(ranked)} trials: {', '.join(ranked[0].settings)}",
        "int8 model, bytes",
        "test accuracy",
        [
            Point(
                trial.metrics[INT8_BYTES],
                trial.metrics[ACCURACY],
                is_valid=not trial.result.problem,
                label=labels.get(trial.number, ""),
            )
            for trial in shown
        ],
        shown.index(best) if best in shown else None,
    )


def write_best(best: Scored, trials: Sequence[Trial], base: Mapping[str, Any]) -> None:
    """Put the best trial's settings into params.yaml.

    Raises:
        PipelineError: the file was edited meanwhile, so that its bytes would not be the trial's.
    """
    if load_params() != base:
        raise PipelineError(
            str(PARAMS_PATH),
            "it was edited while the sweep ran",
            "run the same command again; what has ended is kept where it still counts",
        )
    edit_params(best.settings)
    (trial,) = (trial for trial in trials if trial.number == best.number)
    assert trial.params.items() <= load_params().items()
    print(f"sweep: {PARAMS_PATH} has the best settings now; `dvc repro` gives the MD5s above", flush=True)

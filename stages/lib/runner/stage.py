"""How a stage is run from the command line: its section of params.yaml in, one line per error out."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from stages.lib.core.dvc_lock import require_valid_inputs
from stages.lib.core.errors import PipelineError, describe_os_error
from stages.lib.core.files import require_space
from stages.lib.core.params import PARAMS_PATH, Section, load_params, take_section
from stages.lib.runner.signals import end_on_signal
from stages.lib.runner.stage_lock import hold_stage_lock
from stages.lib.runner.stage_times import record_times

S = TypeVar("S", bound=Section)

# What any stage writes beside data and models, which it says itself how large they will be: reports, charts, times.
_REPORTS_BYTES = 1 << 23


def main(
    name: str,
    section: type[S],
    run: Callable[[S], None],
    also_reads: Sequence[str] = (),
    warn: Callable[[S, Mapping[str, Any]], Iterable[str]] | None = None,
) -> None:
    """Run one stage with its section of params.yaml; exits with 1 and one line on anything a person caused.

    also_reads: other sections that the stage's outputs depend on. warn: what can be told before the stage runs, from
    its own and from all sections; no output depends on it.
    """
    sections = {name, *also_reads}
    try:
        with end_on_signal(name):
            params = load_params()
            before = _take_snapshot(sections, params)
            own = take_section(params, name, section)
            with hold_stage_lock(name), record_times(name, params):
                if "DVC_STAGE" in os.environ:  # by hand, a stage takes what is there
                    require_valid_inputs(name)
                require_space(Path("reports"), _REPORTS_BYTES)
                for line in warn(own, params) if warn else ():
                    print(f"{name}: {line}", file=sys.stderr, flush=True)
                run(own)
                _require_unchanged(sections, before)
    except PipelineError as error:
        sys.exit(f"{name}: {error}")
    except OSError as error:  # disk full, no permission, …
        sys.exit(f"{name}: {describe_os_error(error)}")


def _take_snapshot(sections: set[str], params: Mapping[str, Any]) -> dict[str, object]:
    """What DVC takes for this stage's inputs beside its data: its params and the sources it has imported."""
    sources = {
        module.__file__: Path(module.__file__).read_bytes()
        for name, module in list(sys.modules.items())
        if (name == "__main__" or name.split(".")[0] == "stages") and module.__spec__ and module.__file__
    }
    return {**_name_sections(sections, params), **sources}


def _name_sections(sections: set[str], params: Mapping[str, Any]) -> dict[str, object]:
    return {f"{PARAMS_PATH}: {name}": params.get(name) for name in sorted(sections)}


def _require_unchanged(sections: set[str], before: dict[str, object]) -> None:
    """Refuse to end well when an input was edited midway: dvc.lock would record the new text for the old output."""
    params_now = _name_sections(sections, load_params())
    for source, was in before.items():
        is_now = params_now[source] if source in params_now else Path(source).read_bytes()
        if is_now != was:
            raise PipelineError(source, "it was edited while the stage ran", "run `dvc repro` again")

"""What the benchmarks share: what figures were measured with, how far they spread, and one dated JSON file of them."""

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from stages.lib.core.errors import PipelineError
from stages.lib.core.files import write_json
from stages.lib.tracking.manifest import describe_environment

RESULTS_DIR = Path(__file__).parent / "results"
# In the order in which they run; a result has its keys sorted.
STAGES = ("ingest", "validate", "normalize", "train", "evaluate", "export", "track")


def describe_machine(*also: str) -> dict[str, Any]:
    """The day (UTC), the machine, the settings and the packages' versions: what figures cannot be compared without.

    also: installed packages that the pipeline itself does without.
    """
    environment = describe_environment({})
    del environment["seconds"]  # those of a run's stages
    environment["packages"] |= {package: metadata.version(package) for package in also}
    return {"date": datetime.now(UTC).date().isoformat(), **environment}


def describe_spread(values: Sequence[float], decimals: int = 3) -> dict[str, float]:
    """The median of the values, the smallest and the largest of them."""
    spread = {"median": median(values), "min": min(values), "max": max(values)}
    return {name: round(value, decimals) for name, value in spread.items()}


def describe_ratios(values: Sequence[float], references: Sequence[float], decimals: int = 3) -> dict[str, float]:
    """The spread of value / reference, round by round: what slowed a whole round down is in both, and cancels."""
    return describe_spread([value / reference for value, reference in zip(values, references, strict=True)], decimals)


def tell_machine(result: Mapping[str, Any], packages: Sequence[str]) -> str:
    """The day, the machine and the versions of these packages in one line, from what `describe_machine` gave."""
    versions = ", ".join(f"{package} {result['packages'].get(package, 'not installed')}" for package in packages)
    return f"{result['date']}, {result['processor']}, {result['cores']} cores, Python {result['python']}; {versions}."


def write_result(name: str, result: Mapping[str, Any], output_path: Path | None = None) -> None:
    """Write the result whole, by default to benchmarks/results/<name>-<day>.json."""
    write_json(output_path or RESULTS_DIR / f"{name}-{result['date']}.json", result)


def print_lines(lines: Sequence[str]) -> None:
    """Print to standard output for as long as somebody reads: `… | head` is no error."""
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:
        # What Python still holds back would fail once more as the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def run_benchmark() -> Iterator[None]:
    """End the process with 1 and one line on anything a person caused in the block, be it the wish to stop it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as KeyboardInterrupt: what was begun is cleared away
    try:
        yield
    except PipelineError as error:
        sys.exit(f"bench: {error}")
    except OSError as error:  # disk full, no permission, …
        sys.exit(f"bench: {error.filename or 'input or output'}: {error.strerror or error}; fix it, run again")
    except KeyboardInterrupt:
        sys.exit("bench: interrupted; nothing was written")

"""What of a person's environment reaches a stage: the names listed here, and nothing else.

Packages read hundreds of variables, many of which change their answers or end them in a traceback, and each release
adds some. So the list is of what is let through, with the reason; all else is taken out before the first large package
is imported. Settings that Python reads when it starts, before any of this, are undone in the process itself.

It imports from the standard library alone, and little of that: every stage waits for it.
"""

import locale
import os
import re
import sys
import time
import warnings
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path

_ALLOWED = (
    # The system: where programs are, what they are linked with, a person's own files (`~` in ingest.path, what
    # git, DVC and the clients of a store read there), names of people, temporary files, Windows itself.
    "PATH|LD_LIBRARY_PATH|DYLD_.*|HOME|USERPROFILE|XDG_CONFIG_HOME|USER|LOGNAME|TMPDIR|TEMP|TMP|SYSTEMROOT",
    # How wide and how colourful a terminal is, and what a shell asks to complete a command.
    "TERM|COLUMNS|LINES|NO_COLOR|_PIPELINE_COMPLETE|COMP_.*",
    # Which Python a process started by a stage has.
    "VIRTUAL_ENV|PYTHONPATH|PYTHONHOME|PYTHONDONTWRITEBYTECODE|PYTHONPYCACHEPREFIX",
    # DVC's word for which stage, project and experiment this is, and where its own folders are.
    "DVC_.*",
    # Where published data sets may be had, and the way out of a network that lets nobody out.
    "(MNIST|FASHION_MNIST|CIFAR10)_MIRROR|((HTTPS?|ALL|NO)_PROXY)|((https?|all|no)_proxy)",
    "SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|NETRC",
    # The store of a team: its address, who asks, over what kind of line, how long to wait for an answer.
    "MLFLOW_TRACKING_(URI|USERNAME|PASSWORD|TOKEN|AUTH|AWS_SIGV4|INSECURE_TLS|(SERVER|CLIENT)_CERT_PATH)",
    "MLFLOW_HTTP_REQUEST_.*",
    # The same of where it keeps its files.
    "MLFLOW_S3_.*|AWS_.*|AZURE_STORAGE_.*|GOOGLE_APPLICATION_CREDENTIALS",
    # What git may trust and how it reaches out. Not which repository it takes: that is the one around the stage.
    "GIT_(CONFIG.*|EXEC_PATH|CEILING_DIRECTORIES|DISCOVERY_ACROSS_FILESYSTEM|TEST_ASSUME_DIFFERENT_OWNER)",
    # The C compiler with which the exported C is checked; what is exported does not depend on it.
    "CC",
    # The processes of a sweep, on this machine or on many.
    "RAY_.*",
)
_REACHES = re.compile("|".join(_ALLOWED))

# The same for everyone, also where nobody has set anything: what packages find out by themselves differs, too.
_FIXED = {
    # No window system's, nor a notebook's.
    "MPLBACKEND": "agg",
    # Letters that the bundled fonts lack are left out, not taken from a font that another machine may not have.
    "MPL_IGNORE_SYSTEM_FONTS": "1",
    # A folder that cannot be: no file in it says channels_first or float64, and none is written.
    "KERAS_HOME": os.devnull,
    # As many threads as there are processors would add up in an order of this machine's own.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # It would give this machine a number and tell its makers what it runs.
    "ORT_DISABLE_TELEMETRY": "1",
    # Sorting, decimal points, the language of messages; the day that it is.
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC0",
}

# Where DVC runs experiments, in copies of the project.
_EXPERIMENTS = Path(".dvc/tmp/exps")
# Python's own limit, https://docs.python.org/3/library/stdtypes.html#int-max-str-digits
_INT_DIGITS = 4300


def isolate() -> None:
    """Let the listed part of the environment reach this process, and undo what the rest has done already."""
    _open_standard_streams()
    escape_output()
    _reset_warnings()
    _prefer_own_packages(os.environ.get("PYTHONPATH", ""))
    for name in [name for name in os.environ if not _REACHES.fullmatch(name)]:
        del os.environ[name]
    if not _is_own_root(os.environ.get("DVC_ROOT", "")):
        # Another project's DVC is at work around this one: neither its folder nor its experiment is meant.
        for name in ("DVC_ROOT", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
            os.environ.pop(name, None)
    os.environ.update(_FIXED)
    root = Path(os.environ.get("DVC_ROOT", "")).absolute()
    if (root / ".dvc").is_dir():
        # Matplotlib's list of fonts: in the user's folder it would be one that any Matplotlib has made.
        os.environ["MPLCONFIGDIR"] = str(root / ".cache" / "matplotlib")
    if not _has_account():
        # Packages ask for the home folder as they are imported, and for a name; what is written there is lost.
        os.environ.setdefault("HOME", os.sep)
        os.environ.setdefault("USER", "unknown")
    if hasattr(time, "tzset"):  # Windows has none
        time.tzset()
    with suppress(locale.Error):  # the few systems that lack it keep their own
        locale.setlocale(locale.LC_ALL, os.environ["LC_ALL"])
    sys.set_int_max_str_digits(_INT_DIGITS)


def _has_account() -> bool:
    """Whether the system knows the user; containers run as ones that it does not."""
    try:
        import pwd  # noqa: PLC0415  # Windows has none
    except ImportError:
        return True
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True


def escape_output() -> None:
    """Let what standard output and standard error cannot show be escaped: after all the work it would be an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _open_standard_streams() -> None:
    """Give each of the three standard streams that is closed a place that keeps nothing.

    The next file to be opened would have its number, and what C++ code says to standard error would go into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            os.set_inheritable(number, True)  # git's, too
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # to the end of the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _reset_warnings() -> None:
    """Put back the filters with which Python starts: PYTHONWARNINGS may make errors of other packages' warnings.

    https://docs.python.org/3/library/warnings.html#default-warning-filter
    """
    sys.warnoptions.clear()  # packages look whether there are any
    warnings.resetwarnings()
    for ignored in (ResourceWarning, ImportWarning, PendingDeprecationWarning, DeprecationWarning):
        warnings.simplefilter("ignore", ignored)
    warnings.filterwarnings("default", category=DeprecationWarning, module="__main__")


def _prefer_own_packages(python_path: str) -> None:
    """Look into the folders of PYTHONPATH last: they may add to what this environment has, never take its place."""
    folders = {os.path.realpath(folder) for folder in python_path.split(os.pathsep) if folder}
    # The first entry is the project's folder, or the one of the script.
    first, others = sys.path[:1], sys.path[1:]
    sys.path[:] = first + sorted(others, key=lambda folder: os.path.realpath(folder) in folders)


def _is_own_root(root: str) -> bool:
    """Whether DVC means this project: its folder, or a copy of it that DVC has made for an experiment."""
    here, given = Path.cwd().resolve(), Path(root).resolve()
    return here == given or here.is_relative_to(given / _EXPERIMENTS)

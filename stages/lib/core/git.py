"""What git knows of the project, and why it does not tell."""

import os
import subprocess
from pathlib import Path

from stages.lib.core.errors import PipelineError

# How git begins to say that there is nothing to refuse; the rest of the sentence depends on the file system.
_NO_REPOSITORY = "fatal: not a git repository (or any"


def run_git(*arguments: str) -> str | None:
    """What git prints, without the last line's end; none if it fails or is not there."""
    done = _start_git(*arguments)
    return done.stdout.rstrip("\n") if done and done.returncode == 0 else None


def find_commit(revision: str) -> str | None:
    """The SHA of the commit that a revision names; none if there is no such commit."""
    return run_git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")


def read_at(commit: str, path: Path) -> str | None:
    """The text of the project's file as a commit has it; none if it has none."""
    # A path that begins with a dot is relative to this folder, which need not be the repository's root.
    return run_git("show", f"{commit}:./{path.as_posix()}")


def require_repository(hint: str) -> None:
    """Refuse a folder in which git shows no repository.

    hint: what to do where there is none at all.

    Raises:
        PipelineError: there is none, or git is not there, or it does not open it.
    """
    done = _start_git("rev-parse", "--git-dir")
    if done is None:
        raise PipelineError("git", "it is not on PATH", "install git and run again")
    require_no_refusal()
    if done.returncode:
        raise PipelineError("this folder", "it is in no git repository", hint)


def require_no_refusal() -> None:
    """Let a folder pass that has a repository, or has none, but not one that git does not open.

    Raises:
        PipelineError: there is one, of another user's or damaged; the reason is told in git's own words.
    """
    done = _start_git("rev-parse", "--git-dir")
    if done and done.returncode and not done.stderr.startswith(_NO_REPOSITORY):
        reason = done.stderr.strip() or f"exit code {done.returncode}"
        raise PipelineError("this folder", f"git refuses it: {reason}", "run again once `git status` works here")


def _start_git(*arguments: str) -> subprocess.CompletedProcess[str] | None:
    """What came of it; none if git is not there. Files may hold any bytes, and git's own words are English."""
    try:
        return subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except (FileNotFoundError, PermissionError):  # not on PATH, or what is there is no program
        return None

"""What git knows of the project."""

import subprocess


def run_git(*arguments: str) -> str | None:
    """What git prints, without the last line's end; none if it fails or is not there."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    except FileNotFoundError:
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None

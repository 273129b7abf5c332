"""On which machines the committed bytes were tried."""

import platform
import sys

_TESTED = {("Linux", "x86_64"), ("Linux", "aarch64")}
_PYTHONS = {(3, 11), (3, 12), (3, 13)}


def find_untested(system: str, machine: str, python: tuple[int, int]) -> str:
    """What of a machine no one has tried the committed bytes on; empty if they were tried on such a machine.

    system, machine: as `platform` names them. python: its major and minor version.
    """
    if (system, machine) not in _TESTED:
        return f"{system} on {machine}"
    return "" if python in _PYTHONS else f"Python {python[0]}.{python[1]}"


def find_untested_here() -> str:
    """The same of this machine."""
    return find_untested(platform.system(), platform.machine(), sys.version_info[:2])

"""How Sphinx builds the documentation: `make docs`, without a network."""

import sys
from importlib.metadata import version as find_version
from pathlib import Path
from typing import Any

DOCS_DIR = Path(__file__).parent
# The pages are filled from the code of this folder, whatever else is installed.
sys.path[:0] = [str(DOCS_DIR), str(DOCS_DIR.parent)]

from generate import complete_page  # noqa: E402  # found by the line above

project = "Same answers"
author = "the Same answers contributors"
project_copyright = "the Same answers contributors"
release = version = find_version("same-answers")

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
# The signatures name types of Python and NumPy, whose documentation is elsewhere.
nitpick_ignore_regex = [("py:.*", ".*")]
suppress_warnings = ["ref.python"]  # two classes of one name, in different packages
toc_object_entries = False

html_theme = "furo"
html_title = "Same answers"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_copy_source = False
html_show_sphinx = False


def setup(app: Any) -> None:  # noqa: ANN401  # Sphinx is not needed to read this file
    """Have each page completed as Sphinx reads it."""
    app.connect("source-read", _complete)


def _complete(_app: object, _name: str, source: list[str]) -> None:
    source[0] = complete_page(source[0])

"""Keys of params.yaml set by a program, the rest of the file as a person wrote it."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from stages.lib.core.files import write_text
from stages.lib.core.params import PARAMS_PATH

# Longer than any line: a comment is never broken.
_WIDTH = 10_000


def edit_params(settings: Mapping[str, Any], path: Path = PARAMS_PATH) -> None:
    """Set the keys of dotted names, which are there, and leave comments, order and layout as they are."""
    yaml = YAML()
    yaml.width = _WIDTH
    yaml.preserve_quotes = True
    yaml.representer.add_representer(type(None), _write_null)  # else it is left out
    document = yaml.load(path.read_text(encoding="utf-8"))
    for name, value in settings.items():
        *parents, key = name.split(".")
        section = document
        for parent in parents:
            section = section[parent]
        # A number that is there already stays as a person wrote it: 1.0e-3.
        if (section[key], isinstance(section[key], float)) != (value, isinstance(value, float)):
            section[key] = _write_in_brackets(value) if isinstance(value, list) else value
    text = io.StringIO()
    yaml.dump(document, text)
    write_text(path, text.getvalue())


def _write_null(representer: Any, _value: None) -> Any:  # noqa: ANN401  # ruamel's
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _write_in_brackets(values: list[Any]) -> CommentedSeq:
    sequence = CommentedSeq(values)
    sequence.fa.set_flow_style()
    return sequence

"""`pipeline apply`: write the settings of a recipe into params.yaml.

Exits with 0 when all are set, with 1 and one line when one of them is not a key of params.yaml, which then stays as it
was.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from stages.lib.core.errors import ParamsError
from stages.lib.core.params import PARAMS_PATH, flatten_params, load_mapping, load_params, suggest
from stages.lib.sweeps.params_editor import edit_params


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
def apply(recipe: Path) -> None:
    """Write the settings of RECIPE, a file of docs/recipes or your own, into params.yaml; `dvc repro` then runs it.

    RECIPE has keys of params.yaml, in sections as there. Keys that it does not name stay as they are.
    """
    settings, current = flatten_params(load_mapping(recipe, "sections of params.yaml")), flatten_params(load_params())
    require_known(settings, current, recipe)
    changed = {key: value for key, value in settings.items() if current[key] != value}
    edit_params(changed)
    for key, value in changed.items():
        click.echo(f"{key}: {current[key]} → {value}")
    click.echo(f"{len(changed)} of {len(settings)} settings changed; `dvc repro` runs them, `git diff` shows them")


def require_known(settings: Mapping[str, Any], current: Mapping[str, Any], recipe: Path) -> None:
    """Refuse settings that params.yaml has no key for; both by dotted key.

    Raises:
        ParamsError: naming each.
    """
    problems = [
        ParamsError(
            f"{recipe}: {key}",
            expected=f"a key of {PARAMS_PATH}",
            got="another",
            hint=suggest(key, current, "remove it"),
        )
        for key in settings
        if key not in current
    ]
    if problems:
        raise ParamsError.join(problems)

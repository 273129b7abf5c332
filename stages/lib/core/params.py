"""Sections of params.yaml as frozen, strict, typed objects."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from reprlib import Repr
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.lib.core.errors import ParamsError

PARAMS_PATH = Path("params.yaml")


# Aliases of aliases are a few bytes in YAML and gigabytes in words.
_SHORT = Repr()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = 10
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 200
_SHORT.maxlevel = 2


class Section(BaseModel):
    """One section of params.yaml; each field's `description` says what is allowed.

    Strict: no coercion, no unknown keys, no NaN or infinity, and no defaults.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


S = TypeVar("S", bound=Section)


def load_params(path: Path = PARAMS_PATH) -> dict[str, Any]:
    """All of params.yaml, by the rules of YAML 1.2, as DVC reads it.

    Raises:
        ParamsError: there is no such file, or it is not a YAML mapping.
    """
    return load_mapping(path, "one section per stage")


def load_mapping(path: Path, expected: str) -> dict[str, Any]:
    """A YAML file's mapping, by the same rules.

    expected: what the mapping holds.

    Raises:
        ParamsError: there is no such file, or it is not a YAML mapping.
    """
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(str(path), expected="a file", got="none", hint="run from the project's root folder") from None
    except ValueError as error:  # bytes that are no text are one, too
        raise ParamsError(str(path), expected="valid YAML", got=str(error), hint="correct the file") from None
    if not isinstance(document, dict):
        raise ParamsError(str(path), expected=expected, got=_describe(document), hint="correct the file")
    return document


def parse_yaml(text: str) -> Any:  # noqa: ANN401  # any value that YAML has
    """The value in a YAML text, by the same rules.

    Raises:
        ValueError: the text is no valid YAML.
    """
    try:
        return YAML(typ="safe", pure=True).load(text)
    # Beside its own errors: a date that is none, a tag without a value, a thousand brackets.
    except Exception as error:  # noqa: BLE001
        raise ValueError(str(error) if isinstance(error, (YAMLError, ValueError)) else type(error).__name__) from None


def load_section(name: str, section: type[S], path: Path = PARAMS_PATH) -> S:
    """The section `name` of params.yaml as an object of the class `section`.

    Raises:
        ParamsError: naming each offending dotted path, its value and what is allowed.
    """
    return take_section(load_params(path), name, section, path)


def take_section(document: Mapping[str, Any], name: str, section: type[S], path: Path = PARAMS_PATH) -> S:
    """The same of all sections, as they were read from `path`."""
    if name not in document:
        raise ParamsError(f"{path}: {name}", expected="a section", got="none", hint=suggest(name, document, "add it"))
    return validate_section(document[name], section, f"{path}: {name}.")


def validate_section(value: object, section: type[S], where: str) -> S:
    """The value as an object of the class `section`.

    where: the beginning of each offending path.

    Raises:
        ParamsError: naming each offending dotted path, its value and what is allowed.
    """
    try:
        return section.model_validate(value)
    except ValidationError as error:
        raise ParamsError.join(_list_problems(where, section, error)) from None


def flatten_params(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Sections as one mapping with dotted keys."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= flatten_params(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return flat


def _list_problems(where: str, section: type[Section], error: ValidationError) -> list[ParamsError]:
    """One error for each finding of pydantic, misspelt keys first."""
    unknown, missing, others = [], [], []
    for finding in error.errors(include_url=False, include_context=False):
        location = finding["loc"]
        *parents, key = location or ("",)
        path = f"{where}{'.'.join(map(str, location))}".rstrip(".: ")
        if finding["type"] in ("extra_forbidden", "invalid_key"):
            allowed = sorted(_find_section(section, parents).model_fields)
            unknown.append(
                ParamsError(
                    path,
                    expected=f"one of the keys {', '.join(allowed)}",
                    got=_SHORT.repr(key),
                    hint=suggest(str(key), allowed, "remove it"),
                )
            )
        elif finding["type"] == "missing":
            missing.append(
                ParamsError(path, expected=_describe_allowed(section, location), got="no such key", hint="add it")
            )
        else:
            others.append(
                ParamsError(
                    path,
                    expected=_describe_allowed(section, location),
                    got=_describe(finding["input"]),
                    hint="correct it",
                )
            )
    # A misspelt key shows up as a missing one, too: once is enough.
    return unknown + others + (missing if len(missing) > len(unknown) else [])


def _find_section(section: type[Section], keys: Sequence[int | str]) -> type[Section]:
    for key in keys:
        inner = section.model_fields[str(key)].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, Section)
        section = inner
    return section


def _describe_allowed(section: type[Section], location: Sequence[int | str]) -> str:
    keys = [key for key in location if isinstance(key, str)]
    description = _find_section(section, keys[:-1]).model_fields[keys[-1]].description if keys else None
    return description or "a mapping of keys to values"


def _describe(value: object) -> str:
    try:
        shown = _SHORT.repr(value)
    except ValueError:  # Python puts no number of more than 4,300 digits into words
        shown = "a very large one"
    return f"{shown} ({type(value).__name__})"


def suggest(word: str, known: Iterable[str], otherwise: str) -> str:
    """What to do about a word that is not one of those known."""
    likely = get_close_matches(word, list(map(str, known)), n=1)
    return f"did you mean {likely[0]}?" if likely else otherwise

"""Sections of params.yaml as frozen, strict, typed objects."""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from reprlib import Repr
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.lib.core.errors import ParamsError

PARAMS_PATH = Path("params.yaml")


# Aliases of aliases are a few bytes in YAML and gigabytes in words.
_SHORT = Repr()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = 10
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 200
_SHORT.maxlevel = 2

_NUMBER = re.compile(r"[+-]?[\d.]+(e[+-]?\d+)?", re.IGNORECASE)
_QUOTED = re.compile(r"'([^']*)'")


class Section(BaseModel):
    """One section of params.yaml; each field's `description` says what is allowed.

    Strict: no coercion, no unknown keys, no NaN or infinity, and no defaults.

    renamed: the new names of keys by their old ones, for people whose params.yaml has the old ones.
    """

    renamed: ClassVar[dict[str, str]] = {}

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
        hint = f"run in the project's root folder, or `git checkout {path.name}` if it was deleted"
        raise ParamsError(str(path), "no such file", hint) from None
    except ValueError as error:  # bytes that are no text are one, too
        is_text = not isinstance(error, UnicodeDecodeError)
        hint = f"correct it; `git diff {path}` shows what was changed" if is_text else "save it as UTF-8"
        raise ParamsError(str(path), f"not valid YAML: {error}", hint) from None
    if not isinstance(document, dict):
        raise ParamsError(str(path), expected=expected, got=_describe(document), hint="write `key: value` lines")
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
        likely = _find_likely(name, document)
        rename = f"rename {likely} to {name}, or " if likely else ""
        hint = f"{rename}copy it from `git show HEAD:./{PARAMS_PATH}`"
        raise ParamsError(f"{path}: {name}", "no such section", hint)
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
    """One error for each finding of pydantic: old names of keys first, then misspelt ones."""
    renamed, unknown, missing, others = [], [], [], []
    replaced: set[tuple[int | str, ...]] = set()  # the new keys whose old ones are there
    for finding in error.errors(include_url=False):
        location = finding["loc"]
        *parents, key = location or ("",)
        path = f"{where}{'.'.join(map(str, location))}".rstrip(".: ")
        if finding["type"] in ("extra_forbidden", "invalid_key"):
            holder = _find_section(section, parents)
            allowed = sorted(holder.model_fields)
            if key in holder.renamed:
                renamed.append(ParamsError(path, "an old name", f"renamed to {holder.renamed[str(key)]}"))
                replaced.add((*parents, holder.renamed[str(key)]))
                continue
            unknown.append(
                ParamsError(
                    path,
                    expected=f"one of the keys {', '.join(allowed)}",
                    got=_SHORT.repr(key),
                    hint=suggest(str(key), allowed, "remove it"),
                )
            )
        elif finding["type"] == "missing":
            hint = f"add it: {_describe_allowed(section, location)}"
            missing.append((location, ParamsError(path, "no such key", hint)))
        else:
            others.append(
                ParamsError(
                    path,
                    expected=_describe_allowed(section, location),
                    got=_describe(finding["input"]),
                    hint=_suggest_value(_find_holder(section, location), finding),
                )
            )
    absent = [problem for location, problem in missing if location not in replaced]
    # A misspelt key shows up as a missing one, too: once is enough.
    return renamed + unknown + others + (absent if len(absent) > len(unknown) else [])


def _find_section(section: type[Section], keys: Sequence[int | str]) -> type[Section]:
    for key in keys:
        inner = section.model_fields[str(key)].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, Section)
        section = inner
    return section


def _find_holder(section: type[Section], location: Sequence[int | str]) -> type[Section]:
    """The section that has the key of a location, which may go on into the key's value."""
    return _find_section(section, [key for key in location if isinstance(key, str)][:-1])


def _describe_allowed(section: type[Section], location: Sequence[int | str]) -> str:
    keys = [key for key in location if isinstance(key, str)]
    description = _find_holder(section, location).model_fields[keys[-1]].description if keys else None
    return description or "a mapping of keys to values"


def _suggest_value(holder: type[Section], finding: ErrorDetails) -> str:
    """What to do about a value that is not allowed."""
    value = finding["input"]
    if not isinstance(value, str):
        return "change this value"
    if value in holder.renamed:
        return f"renamed to {holder.renamed[value]}"
    if finding["type"] in ("int_type", "float_type") and _NUMBER.fullmatch(value):
        return "remove the quotes"
    allowed = _QUOTED.findall(finding["ctx"]["expected"]) if finding["type"] == "literal_error" else []
    return suggest(value, allowed, "change this value")


def _describe(value: object) -> str:
    try:
        shown = _SHORT.repr(value)
    except ValueError:  # Python puts no number of more than 4,300 digits into words
        shown = "a very large one"
    return f"{shown} ({type(value).__name__})"


def suggest(word: str, known: Iterable[str], otherwise: str) -> str:
    """What to do about a word that is not one of those known."""
    likely = _find_likely(word, known)
    return f"did you mean {likely}?" if likely else otherwise


def _find_likely(word: str, known: Iterable[object]) -> str | None:
    return next(iter(get_close_matches(word, list(map(str, known)), n=1)), None)

"""Names of classes as charts show them: by number where the charts' font lacks one of their letters."""

from collections.abc import Sequence

from stages.lib.plotting.png import has_letters

# Classes that a line names.
_NAMED = 20


def find_numbered(class_names: Sequence[str]) -> dict[str, str]:
    """The names that charts cannot show, each with what stands in their place, such as `class 3`."""
    return {name: f"class {label}" for label, name in enumerate(class_names) if not has_letters(name)}


def label_classes(class_names: Sequence[str]) -> list[str]:
    """The names by class id, those that charts cannot show by number."""
    numbered = find_numbered(class_names)
    return [numbered.get(name, name) for name in class_names]


def explain_numbered(class_names: Sequence[str]) -> str:
    """Which number is which class, in one line; empty if charts show every name."""
    numbered = [f"{number} is {name}" for name, number in find_numbered(class_names).items()]
    if not numbered:
        return ""
    shown = numbered[:_NAMED] + ["and so on, as data/raw/dataset.json lists them"] * (len(numbered) > _NAMED)
    return f"the charts' font lacks letters of these names: {', '.join(shown)}"

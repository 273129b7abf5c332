"""Which modules of this project a module imports, read from its source."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent


def list_imports(path: Path) -> set[str]:
    """The dotted names that the module in `path` imports, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def find_source(module: str) -> Path | None:
    """The file of a module of this project; none if it is not one."""
    path = ROOT / module.replace(".", "/")
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if module.split(".", maxsplit=1)[0] == "stages" and candidate.exists():
            return candidate
    return None


def find_dependencies(module: str) -> set[str]:
    """The files of `module` and of all that it imports, directly or not, as paths relative to the root.

    Packages' `__init__.py` count where they hold more than a docstring: nothing else in them can change a result.
    """
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        source = find_source(name)
        parents = name.split(".")[:-1]
        if parents:
            waiting.append(".".join(parents))
        if source and source not in found:
            found.add(source)
            waiting += sorted(list_imports(source))
    return {
        str(path.relative_to(ROOT))
        for path in found
        if path.name != "__init__.py" or len(ast.parse(path.read_text(encoding="utf-8")).body) > 1
    }

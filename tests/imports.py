"""The stages of this project, and which of its modules a module imports, read from its source."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
STAGES = ["ingest", "validate", "normalize", "train", "evaluate", "export", "track"]


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


def read_constant(path: Path, value: ast.expr) -> object:
    """The value of an expression in the module in `path`: a literal, or a name of one, there or where it comes from."""
    if not isinstance(value, ast.Name):
        return ast.literal_eval(value)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and value.id in map(ast.unparse, node.targets):
            return read_constant(path, node.value)
        if isinstance(node, ast.ImportFrom) and value.id in [alias.name for alias in node.names]:
            source = find_source(str(node.module))
            assert source, f"{node.module} is not a module of this project"
            return read_constant(source, value)
    raise AssertionError(f"{path} gives {value.id} no value")


def find_package(path: Path) -> Path:
    """What a stage that uses the module in `path` depends on: its package in `stages/lib`, or the module itself."""
    parts = path.relative_to(ROOT).parts
    return Path(*parts[:3]) if parts[:2] == ("stages", "lib") else Path(*parts)


def find_dependencies(module: str) -> set[str]:
    """The packages and modules that `module` consists of and imports, directly or not, relative to the root.

    A package's own imports count as a whole. An `__init__.py` that holds a docstring alone cannot change a result.
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
        str(find_package(path))
        for path in found
        if path.name != "__init__.py" or len(ast.parse(path.read_text(encoding="utf-8")).body) > 1
    }

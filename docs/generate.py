"""The parts of the documentation that are read from the code, so that they cannot differ from it.

A page has a line such as `<!-- generate: params -->`. What a function here makes takes its place when Sphinx reads the
page; nothing is written to the pages themselves. Everything is Markdown, and nothing asks a network.
"""

import ast
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path

import click
from ruamel.yaml import YAML

from stages.commands.main import main
from stages.lib.core.params import Section
from stages.lib.model.boards import BOARDS

ROOT = Path(__file__).parent.parent
# Documents beside README.md that the built pages have, too, by the page that includes each.
_PAGES = {
    "CHANGELOG.md": "/project/changelog.md",
    "CONTRIBUTING.md": "/project/contributing.md",
    "README.md": "/index.md",
    "SECURITY.md": "/project/security.md",
}
_HELP_WIDTH = 90
# Of the DAG's drawing, in pixels.
_NODE_WIDTH, _NODE_HEIGHT, _ROW, _ARC = 120, 30, 56, 36


def complete_page(text: str) -> str:
    """The page's Markdown with all that is generated in its place."""
    makers: dict[str, Callable[..., str]] = {
        "api": describe_api,
        "boards": describe_boards,
        "commands": describe_commands,
        "document": include_document,
        "params": describe_params,
        "stages": describe_stages,
    }
    logging.disable(logging.INFO)  # what packages say while they are imported
    try:
        completed = re.sub(
            r"^<!-- generate: (\w+) ?(\S*) -->$",
            lambda match: makers[match[1]](*filter(None, [match[2]])),
            text,
            flags=re.MULTILINE,
        )
    finally:
        logging.disable(logging.NOTSET)
    return re.sub(
        rf"\]\((?:\.\./)*({'|'.join(map(re.escape, _PAGES))})(#[\w-]+)?\)",
        lambda match: f"]({_PAGES[match[1]]}{match[2] or ''})",
        completed,
    )


def include_document(name: str) -> str:
    """A document of the project's root folder, its links as they are from the root of the pages."""
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"\]\(docs/", "](/", text)
    text = re.sub(r"\]\((\.github/images/|params\.yaml)", r"](/../\1", text)
    return re.sub(r"```mermaid\n.*?```\n", draw_graph(read_graph()), text, flags=re.DOTALL)


# --- params.yaml --------------------------------------------------------------------------------------------------


def describe_boards() -> str:
    """A table of the boards that params.yaml may name."""
    rows = [
        f"| `{name}` | {board.ram_bytes >> 10:,} KiB | {board.flash_bytes >> 10:,} KiB | {_escape(board.source)} |"
        for name, board in BOARDS.items()
    ]
    return "\n".join(["| board | RAM | flash | source |", "|---|---:|---:|---|", *rows])


def describe_params() -> str:
    """A table for each section of params.yaml: each key, its committed value, what is allowed, and what it means."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    values, comments = read_params(text)
    parts = []
    for stage in YAML(typ="safe", pure=True).load(text):
        section = getattr(import_module(f"stages.{stage}"), f"{stage.capitalize()}Params")
        rows = [
            f"| `{key}` | {_quote(values.get(f'{stage}.{key}', ''))} | {_escape(allowed)} "
            f"| {_escape(comments.get(f'{stage}.{key}', ''))} |"
            for key, allowed in list_fields(section)
        ]
        parts += [
            f"## {stage}\n",
            f"{_escape(comments[stage])}\n" if comments[stage] else "",
            "| key | committed | allowed | meaning |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    return "\n".join(parts)


def read_params(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """The values of params.yaml as they are typed, and the comments above and behind each, by dotted key."""
    values: dict[str, str] = {}
    comments: dict[str, str] = {}
    above: list[str] = []
    keys: list[str] = []
    for line in text.splitlines():
        if match := re.fullmatch(r" *# (.*)", line):
            above.append(match[1])
            continue
        if match := re.fullmatch(r"( *)(\w+):(?: (?!#)(.*?))?(?:  # (.*))?", line):
            indent, key, value, behind = match.groups()
            keys = [*keys[: len(indent) // 2], key]
            values[".".join(keys)] = value or ""
            comments[".".join(keys)] = " ".join([*above, *filter(None, [behind])])
        above = []
    return values, comments


def list_fields(section: type[Section], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each key of a section and what it allows. Sections of one class within it are taken apart once."""
    known: set[type] = set()
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}", field.description or ""
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section) and inner not in known:
            known.add(inner)
            yield from list_fields(inner, f"{prefix}{name}.")


def _quote(code: str) -> str:
    return f"`{code}`" if code else ""


def _escape(text: str) -> str:
    """Text that is no Markdown but for code in backticks, for a cell of a table or a paragraph."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part.replace("|", "\\|") if number % 2 else re.sub(r"([\\*_\[\]<>|{}#])", r"\\\1", part)
        for number, part in enumerate(parts)
    )


# --- commands -----------------------------------------------------------------------------------------------------


def describe_commands() -> str:
    """What `pipeline` and each of its commands print with `--help`."""
    context = click.Context(main, info_name="pipeline")
    names = main.list_commands(context)
    commands = [(name, main.get_command(context, name)) for name in names]
    helps = [("pipeline", main), *((f"pipeline {name}", command) for name, command in commands if command)]
    return "\n".join(f"## {title}\n\n```text\n{_read_help(command, title)}\n```\n" for title, command in helps)


def _read_help(command: click.Command, title: str) -> str:
    context = click.Context(command, info_name=title, terminal_width=_HELP_WIDTH, help_option_names=["-h", "--help"])
    return command.get_help(context)


# --- stages -------------------------------------------------------------------------------------------------------


def read_graph() -> dict[str, set[str]]:
    """The stages that each stage takes data from, by name, in the order of dvc.yaml."""
    stages = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    owners = {
        Path(path if isinstance(path, str) else next(iter(path))): name
        for name, stage in stages.items()
        for path in stage.get("outs", []) + stage.get("metrics", [])
    }
    return {
        name: {owner for output, owner in owners.items() for dep in stage["deps"] if Path(dep).is_relative_to(output)}
        for name, stage in stages.items()
    }


def draw_graph(graph: Mapping[str, set[str]]) -> str:
    """The DAG as an SVG in HTML, without a script: the stages below each other, an arrow or an arc for each edge."""
    rows = {name: number for number, name in enumerate(graph)}
    edges = [(upstream, name) for name in graph for upstream in sorted(graph[name], key=rows.__getitem__)]
    arrows = [
        f'<path d="{_draw_edge(rows[upstream], rows[name])}" marker-end="url(#head)">'
        f"<title>{upstream} to {name}</title></path>"
        for upstream, name in edges
    ]
    boxes = [
        f'<rect x="1" y="{_ROW * row + 1}" width="{_NODE_WIDTH - 2}" height="{_NODE_HEIGHT}" rx="5"/>'
        f'<text x="{_NODE_WIDTH // 2}" y="{_ROW * row + 20}" text-anchor="middle" stroke="none" fill="currentColor">'
        f"{name}</text>"
        for name, row in rows.items()
    ]
    size = f'width="{_NODE_WIDTH + _ARC * len(rows)}" height="{_ROW * len(rows)}"'
    shapes = "\n".join([*arrows, *boxes])
    return f"""```{{raw}} html
<svg role="img" aria-label="The DAG of the stages" {size}
     style="stroke: currentColor; fill: none; font: 14px monospace">
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0 L8 4 L0 8 z" fill="currentColor" stroke="none"/></marker></defs>
{shapes}
</svg>
```
"""


def _draw_edge(start: int, end: int) -> str:
    """An SVG path from one row to another: straight between neighbours, else an arc on the right."""
    if end - start == 1:
        return f"M{_NODE_WIDTH // 2} {_ROW * start + _NODE_HEIGHT} V{_ROW * end}"
    # Arrows leave a box below its middle and reach one above it.
    leave, reach = _ROW * start + _NODE_HEIGHT * 0.7, _ROW * end + _NODE_HEIGHT * 0.3
    bulge = _NODE_WIDTH + _ARC * (end - start)
    return f"M{_NODE_WIDTH} {leave} C{bulge} {leave} {bulge} {reach} {_NODE_WIDTH} {reach}"


def describe_stages() -> str:
    """What each stage reads and writes, as the docstring of its module says it."""
    parts = []
    for name in read_graph():
        opening, _, files = _read_docstring(ROOT / "stages" / f"{name}.py").partition("\nReads ")
        parts += [f"## {name}\n", _escape(opening.strip()), "", "```text", f"Reads {files.strip()}", "```", ""]
    return "\n".join(parts)


# --- the library --------------------------------------------------------------------------------------------------


def describe_api() -> str:
    """Each public function and class of stages/lib with its signature and docstring, by package and module."""
    parts = []
    for package in sorted(path.parent for path in (ROOT / "stages/lib").glob("*/__init__.py")):
        parts += [f"## {package.name}\n", _escape(_read_docstring(package / "__init__.py")), ""]
        for path in sorted(package.glob("[!_]*.py")):
            source = path.read_text(encoding="utf-8")
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            parts += [f"### {package.name}.{path.stem}\n", *_render_docstring(_read_docstring(path))]
            for node in ast.parse(source).body:
                if isinstance(node, ast.FunctionDef):
                    parts += _describe_function(node, module)
                elif isinstance(node, ast.ClassDef):
                    parts += _describe_class(node, module, source.splitlines())
    return "\n".join(parts)


def _read_docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def _describe_function(node: ast.FunctionDef, module: str, owner: str = "") -> list[str]:
    """The Markdown of a function or method; nothing of one that is not public."""
    if node.name.startswith("_"):
        return []
    arguments = ast.unparse(node.args)
    returned = ast.unparse(node.returns) if node.returns else "None"
    if owner:
        name, kind = f"{owner}.{node.name}", "method"
        arguments = re.sub(r"^(self|cls)(, )?", "", arguments)
    else:
        name, kind = node.name, "function"
    docstring = _render_docstring(ast.get_docstring(node) or "")
    return [f"```{{py:{kind}}} {name}({arguments}) -> {returned}", f":module: {module}", "", *docstring, "```", ""]


def _describe_class(node: ast.ClassDef, module: str, source: Sequence[str]) -> list[str]:
    """The Markdown of a class: its docstring, its fields as they are written, its methods; nothing of a private one."""
    if node.name.startswith("_"):
        return []
    fields = [
        line.strip()
        for field in node.body
        if isinstance(field, ast.AnnAssign)
        for line in source[field.lineno - 1 : field.end_lineno]
    ]
    methods = [
        line
        for method in node.body
        if isinstance(method, ast.FunctionDef)
        for line in _describe_function(method, module, node.name)
    ]
    shown = ["```python", *fields, "```", ""] if fields else []
    docstring = _render_docstring(ast.get_docstring(node) or "")
    return [f"````{{py:class}} {node.name}", f":module: {module}", "", *docstring, *shown, *methods, "````", ""]


def _render_docstring(docstring: str) -> list[str]:
    """A docstring's paragraphs and its `Raises:` as Markdown."""
    lines: list[str] = []
    for paragraph in docstring.split("\n\n"):
        first, *others = paragraph.splitlines() or [""]
        if first == "Raises:":
            lines += [first, "", *(f"- {_escape(item)}" for item in _join_items(others))]
        elif any(line.startswith(" ") for line in others):  # a list of ours, or a table
            lines += ["```text", paragraph, "```"]
        else:
            lines.append(_escape(paragraph))
        lines.append("")
    return lines


def _join_items(lines: Sequence[str]) -> list[str]:
    """The items of an indented list, each with the lines that go on with it."""
    items: list[str] = []
    for line in lines:
        if line.startswith(" " * 8) and items:
            items[-1] += f" {line.strip()}"
        else:
            items.append(line.strip())
    return items

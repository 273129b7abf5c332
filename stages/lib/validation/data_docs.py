"""Data Docs: what each expectation found, on pages for people that are the same bytes at every run.

Great Expectations has such pages, too. They load styles, icons and scripts from seven servers, without which they do
not show which expectation holds; they have times and random ids in them; and a table that is checked in parts is
several there. So only the words for an expectation are Great Expectations'.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from stages.lib.core.files import atomic_write
from stages.lib.validation.expectations import Finding, describe

_INDEX = "index.html"
_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Data Docs: {title}</title>
<style>
body {{ margin: 2rem; color: #212529; font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }}
a {{ color: #0056b3; margin-right: 1rem; }}
a[aria-current] {{ font-weight: bold; text-decoration: none; }}
h1 {{ padding: 0.6rem 1rem; font-size: 1.1rem; }}
h2 {{ font-size: 1.1rem; }}
table {{ border-collapse: collapse; margin: 0.5rem 0; }}
th, td {{ border: 1px solid #dee2e6; padding: 0.25rem 0.75rem; text-align: left; vertical-align: top; }}
.holds {{ color: #155724; background: #d4edda; }}
.warns {{ color: #664d03; background: #fff3cd; }}
.stops {{ color: #721c24; background: #f8d7da; }}
</style>
<nav>
{links}
</nav>
{body}
</html>
"""
_SIGNS = {"holds": "✔", "warns": "⚠", "stops": "✘"}


def write_data_docs(findings: Sequence[Finding], folder: Path) -> None:
    """Write a page for each table, and `index.html`: whether the data passed, what stops, what warns, and links.

    folder: written whole; it holds nothing else afterwards.
    """
    tables: dict[str, list[Finding]] = {}
    for finding in findings:
        tables.setdefault(finding.table, []).append(finding)
    titles = {_INDEX: "Verdict"} | {_name_page(table): table for table in tables}
    bodies = {_INDEX: _render_index(tables)} | {_name_page(table): _render_table(of) for table, of in tables.items()}
    with atomic_write(folder) as partial:
        partial.mkdir()
        for name, body in bodies.items():
            links = [_link(page, title, is_current=page == name) for page, title in titles.items()]
            text = _PAGE.format(title=titles[name], links="\n".join(links), body="\n".join(body))
            (partial / name).write_text(text, encoding="utf-8", newline="\n")


def _name_page(table: str) -> str:
    return f"{table}.html"


def _link(page: str, title: str, *, is_current: bool = False) -> str:
    current = ' aria-current="page"' if is_current else ""
    return f'<a href="{page}"{current}>{title}</a>'


def _judge(finding: Finding) -> str:
    """Whether the expectation holds, warns, or stops the pipeline."""
    return "holds" if finding.holds else "stops" if finding.stops else "warns"


def _count(findings: Iterable[Finding], judgement: str) -> int:
    return sum(_judge(finding) == judgement for finding in findings)


def _render_index(tables: Mapping[str, Sequence[Finding]]) -> list[str]:
    """The verdict, each broken expectation with a link to its table, and a row for each table."""
    findings = [finding for of_table in tables.values() for finding in of_table]
    lines = [_render_verdict(findings)]
    for title, judgement in (("What stops the pipeline", "stops"), ("What only warns", "warns")):
        rows = [
            [_link(_name_page(finding.table), finding.table), escape(finding.rule), _count_rows(finding)]
            for finding in findings
            if _judge(finding) == judgement
        ]
        if rows:
            lines += [f"<h2>{title}</h2>", *_tabulate(["Table", "Rule", "Broken by"], rows)]
    counted = [
        [
            _link(_name_page(table), table),
            f"{max(finding.checked for finding in of):,}",
            *map(str, [len(of), _count(of, "stops"), _count(of, "warns")]),
        ]
        for table, of in tables.items()
    ]
    header = ["Table", "Rows", "Expectations", "Broken: stop", "Broken: warn"]
    return [*lines, "<h2>What was looked at</h2>", *_tabulate(header, counted)]


def _render_table(findings: Sequence[Finding]) -> list[str]:
    """The verdict on one table, and what each expectation found in it."""
    rows = [
        [
            f'<span class="{_judge(finding)}">{_SIGNS[_judge(finding)]}</span>',
            "\n".join([escape(describe(finding)), *_tabulate_unexpected(finding)]),
            _count_rows(finding),
            escape(finding.rule),
            "stops the pipeline" if finding.stops else "warns only",
        ]
        for finding in findings
    ]
    header = ["Status", "Expectation", "Broken by", "Rule", "If broken"]
    return [_render_verdict(findings), *_tabulate(header, rows)]


def _render_verdict(findings: Sequence[Finding]) -> str:
    stops, warns = _count(findings, "stops"), _count(findings, "warns")
    warnings = f"{warns} warning{'s' * (warns != 1)}"
    if stops:
        text = f"Failed: {stops} of {len(findings)} expectations broken that stop the pipeline; {warnings}"
    elif warns:
        text = f"Passed, with {warnings}; all other of {len(findings)} expectations hold"
    else:
        text = f"Passed: all {len(findings)} expectations hold"
    return f'<h1 class="{"stops" if stops else "warns" if warns else "holds"}">{text}</h1>'


def _count_rows(finding: Finding) -> str:
    return f"{finding.unexpected:,} of {finding.checked:,} rows"


def _tabulate_unexpected(finding: Finding) -> list[str]:
    """The first rows that break an expectation; their first columns say which rows they are."""
    rows: Sequence[Mapping[str, Any]] = finding.first_unexpected
    if not rows:
        return []
    keys = sorted(rows[0], key=lambda key: (key != "split", key != "index", key))
    table = _tabulate(map(escape, keys), ([escape(str(row[key])) for key in keys] for row in rows))
    is_cut = finding.unexpected > len(rows)
    return [f"<br>The first {len(rows)} of {finding.unexpected:,}:", *table] if is_cut else table


def _tabulate(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """A table in HTML; so are its cells."""
    return [
        "<table>",
        "".join(["<tr>", *(f"<th>{cell}</th>" for cell in header), "</tr>"]),
        *("".join(["<tr>", *(f"<td>{cell}</td>" for cell in row), "</tr>"]) for row in rows),
        "</table>",
    ]

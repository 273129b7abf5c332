"""Great Expectations' Data Docs about findings: pages for people, the same bytes at every run, read without a network.

The contents are Great Expectations' own: its words for an expectation, its tables. Around them is a page of ours, for
its own takes styles, icons and scripts from five servers and has times and random ids in it.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.lib.validation.expectations import Finding  # first, for it says how Great Expectations is loaded

# isort: split
from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.render import (
    RenderedDocumentContent,
    RenderedHeaderContent,
    RenderedSectionContent,
    RenderedStringTemplateContent,
    RenderedTableContent,
)
from great_expectations.render.renderer.content_block import ValidationResultsTableContentBlockRenderer
from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
from great_expectations.render.view import DefaultJinjaPageView

from stages.lib.core.files import atomic_write

_INDEX = "index.html"
# In the place of Great Expectations' page.j2. What is filled in here is escaped; what `section.j2` fills in is not, but
# for the words in a sentence.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ page_title }}</title>
<style>{{ style | safe }}</style>
</head>
<body>
<nav>
{%- for name, address in links %}
<a href="{{ address }}"{% if address == here %} aria-current="page"{% endif %}>{{ name }}</a>
{%- endfor %}
</nav>
<main>
{%- for section in sections %}
{%- set section_loop = loop %}
{% include 'section.j2' %}
{%- endfor %}
</main>
</body>
</html>
"""
# What Bootstrap and Font Awesome would make of the classes that Great Expectations gives its elements.
_STYLE = """
body { margin: 0; color: #212529; background: #fff; font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
nav { display: flex; gap: 0.5rem; padding: 0.75rem 2rem; background: #f8f9fa; border-bottom: 1px solid #dee2e6; }
nav a { padding: 0.25rem 0.75rem; border-radius: 4px; color: #0056b3; text-decoration: none; }
nav a[aria-current] { color: #fff; background: #0056b3; }
main { max-width: 75rem; padding: 1rem 2rem 3rem; }
a { color: #0056b3; }
h5, h6 { margin: 0; font-size: 1.1rem; }
h6 { font-size: 1rem; font-weight: normal; }
.alert { padding: 0.6rem 1rem; border-radius: 4px; background: #e2e3e5; margin: 1.5rem 0 0.75rem; }
.alert-success { background: #d4edda; color: #155724; }
.alert-warning { background: #fff3cd; color: #664d03; }
.alert-danger { background: #f8d7da; color: #721c24; }
table { border-collapse: collapse; margin: 0.25rem 0; }
th, td { padding: 0.5rem 0.75rem; text-align: left; vertical-align: top; overflow-wrap: break-word; }
main table { width: 100%; table-layout: fixed; }
main table.narrow { width: auto; table-layout: auto; }
th:nth-child(1) { width: 4rem; }
th:nth-child(2) { width: 45%; }
.narrow th { width: auto !important; }
td { border-top: 1px solid #dee2e6; }
thead th { border-bottom: 2px solid #dee2e6; }
td .narrow { margin-top: 0.5rem; }
td .narrow th, td .narrow td { padding: 0.1rem 0.75rem; border: 1px solid #dee2e6; }
.show-scrollbars { overflow-x: auto; }
.badge { padding: 0.1rem 0.4rem; border-radius: 4px; color: #fff; background: #5a6268; font-size: 0.85em; }
.badge-primary { background: #0056b3; }
.text-danger { color: #b02a37; }
.text-warning { color: #946200; }
.text-success { color: #1a7f37; }
.fas { font-style: normal; font-weight: bold; }
.fa-check-circle::before { content: "\\2714"; }
.fa-times::before { content: "\\2718"; }
.fa-exclamation-triangle::before { content: "\\26A0"; }
"""


def write_data_docs(findings: Sequence[Finding], folder: Path) -> None:
    """Write a page for each table, and `index.html`: whether the data passed, what stops, what warns, and links.

    folder: written whole; it holds nothing else afterwards.
    """
    tables = {
        table: [finding for finding in findings if finding.table == table]
        for table in dict.fromkeys(finding.table for finding in findings)
    }
    page = DefaultJinjaPageView().env.from_string(_PAGE)
    links = [("Verdict", _INDEX), *((table, _name_page(table)) for table in tables)]
    documents = {_INDEX: _render_index(tables)}
    documents |= {_name_page(table): _render_table(table, of_table) for table, of_table in tables.items()}
    with atomic_write(folder) as partial:
        partial.mkdir()
        for name, document in documents.items():
            text = page.render(document.to_json_dict(), links=links, here=name, style=_STYLE)
            lines = [line.rstrip() for line in text.split("\n") if line.strip()]
            (partial / name).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def _name_page(table: str) -> str:
    return f"{table}.html"


def _select_broken(findings: Sequence[Finding], *, stops: bool) -> list[Finding]:
    return [finding for finding in findings if not finding.holds and finding.stops is stops]


def _render_index(tables: Mapping[str, Sequence[Finding]]) -> RenderedDocumentContent:
    """The verdict, each broken expectation with a link to its table, and a row for each table."""
    findings = [finding for of_table in tables.values() for finding in of_table]
    blocks = [_render_verdict(findings)]
    for title, stops in (("What stops the pipeline", True), ("What only warns", False)):
        rows = [
            [_link(finding.table), html.escape(finding.rule), f"{finding.unexpected:,} of {finding.checked:,} rows"]
            for finding in _select_broken(findings, stops=stops)
        ]
        if rows:
            blocks += [_render_header(title), _render_rows(["Table", "Rule", "Broken by"], rows)]
    rows = [
        [
            _link(table),
            f"{max(finding.checked for finding in of_table):,}",
            *map(str, [len(of_table), *(len(_select_broken(of_table, stops=stops)) for stops in (True, False))]),
        ]
        for table, of_table in tables.items()
    ]
    header = ["Table", "Rows", "Expectations", "Broken: stop", "Broken: warn"]
    blocks += [_render_header("What was looked at"), _render_rows(header, rows)]
    return RenderedDocumentContent(
        renderer_type="SiteIndexPageRenderer",
        page_title="Data Docs",
        sections=[RenderedSectionContent(section_name="Verdict", content_blocks=blocks)],
    )


def _render_table(table: str, findings: Sequence[Finding]) -> RenderedDocumentContent:
    """Great Expectations' page of validation results for one table, the verdict in place of its overview."""
    renderer = ValidationResultsPageRenderer(
        column_section_renderer={
            "class_name": "ValidationResultsColumnSectionRenderer",
            "table_renderer": {"class_name": _ResultsRenderer.__name__, "module_name": __name__},
        },
        run_info_at_end=True,
    )
    # Its own overview, which is left out, asks for these.
    counts = ("evaluated_expectations", "successful_expectations", "unsuccessful_expectations", "success_percent")
    document = renderer.render(
        ExpectationSuiteValidationResult(
            success=all(finding.holds for finding in findings),
            results=[_to_result(finding) for finding in findings],
            suite_name=table,
            statistics=dict.fromkeys(counts, 0),
        )
    )
    # The first section has links into a store of such pages, the last versions and times.
    overview = RenderedSectionContent(section_name="Overview", content_blocks=[_render_verdict(findings)])
    document.sections = [overview, *document.sections[1:-1]]
    document.page_title = f"Data Docs: {table}"
    return document


def _to_result(finding: Finding) -> ExpectationValidationResult:
    """The finding as Great Expectations has it, with what its page needs."""
    return ExpectationValidationResult(
        success=finding.holds,
        expectation_config=ExpectationConfiguration(
            type=finding.expectation,
            kwargs=dict(finding.arguments),
            meta={"finding": finding},
        ),
        result={
            "element_count": finding.checked,
            "unexpected_count": finding.unexpected,
            "unexpected_percent": 100 * finding.unexpected / max(finding.checked, 1),
        },
        exception_info={"raised_exception": False, "exception_message": None, "exception_traceback": None},
    )


class _ResultsRenderer(ValidationResultsTableContentBlockRenderer):  # type: ignore[misc]  # untyped
    """Great Expectations' table of results, with the rule, the rows that break it, and what then happens."""

    @classmethod
    def _get_custom_columns(cls, _results: Sequence[ExpectationValidationResult]) -> list[str]:
        return ["Rule", "If Broken"]

    @classmethod
    def _get_content_block_fn(
        cls, expectation_type: str, expectation_config: ExpectationConfiguration | None = None
    ) -> Callable[..., list[list[Any]]]:
        render_row = super()._get_content_block_fn(expectation_type, expectation_config)

        def render(**arguments: Any) -> list[list[Any]]:  # noqa: ANN401  (Great Expectations')
            (row,) = render_row(**arguments)
            finding: Finding = arguments["result"].expectation_config.meta["finding"]
            if not finding.holds and not finding.stops:
                row[0] = _render_sign("fa-exclamation-triangle", "text-warning")
            if finding.first_unexpected:
                sentence = row[1] if isinstance(row[1], list) else [row[1]]
                row[1] = [*sentence, _tabulate_rows(finding.first_unexpected, finding.unexpected)]
            return [[*row, html.escape(finding.rule), "stops the pipeline" if finding.stops else "warns only"]]

        return render


def _tabulate_rows(rows: Sequence[Mapping[str, Any]], count: int) -> RenderedTableContent:
    """The rows that a finding names, of `count` there are; first the columns that say which they are."""
    keys = sorted(rows[0], key=lambda key: (key != "split", key != "index", key))
    cells = [[html.escape(str(row[key])) for key in keys] for row in rows]
    block = _render_rows([html.escape(key) for key in keys], cells)
    if count > len(rows):
        block.subheader = f"The first {len(rows)} of {count:,}:"
    return block


def _render_verdict(findings: Sequence[Finding]) -> RenderedHeaderContent:
    stops, warns = (len(_select_broken(findings, stops=stops)) for stops in (True, False))
    warnings = f"{warns} warning{'s' * (warns != 1)}"
    if stops:
        kind = "danger"
        text = f"Failed: {stops} of {len(findings)} expectations broken that stop the pipeline; {warnings}"
    elif warns:
        kind, text = "warning", f"Passed, with {warnings}; all other of {len(findings)} expectations hold"
    else:
        kind, text = "success", f"Passed: all {len(findings)} expectations hold"
    return _render_header(text, kind)


def _render_header(text: str, kind: str = "secondary") -> RenderedHeaderContent:
    return RenderedHeaderContent(header=text, styling={"header": {"classes": ["alert", f"alert-{kind}"]}})


def _render_rows(header: Sequence[str], rows: Sequence[Sequence[object]]) -> RenderedTableContent:
    """A table; its cells are HTML."""
    return RenderedTableContent(
        header_row=list(header), table=[list(row) for row in rows], styling={"body": {"classes": ["table", "narrow"]}}
    )


def _render_sign(*classes: str) -> RenderedStringTemplateContent:
    return RenderedStringTemplateContent(
        string_template={
            "template": "$icon",
            "params": {"icon": ""},
            "styling": {"params": {"icon": {"classes": ["fas", *classes], "tag": "i"}}},
        }
    )


def _link(table: str) -> str:
    return f'<a href="{html.escape(_name_page(table))}">{html.escape(table)}</a>'

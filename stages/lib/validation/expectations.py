"""Great Expectations on a table, with results that are the same bytes at every run."""

import os
from collections.abc import Iterable
from string import Template
from typing import Any, NamedTuple

import pandas as pd

from stages.lib.core.lean_imports import import_lean

# Read while the package is imported: it would send usage statistics otherwise.
os.environ["GX_ANALYTICS_ENABLED"] = "false"

# The tables are in memory, not in a database; what needs statistics or draws is not asked for.
with import_lean("sqlalchemy", later=("altair", "scipy.stats")):
    import great_expectations as gx
    import great_expectations.expectations as gxe
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.expectations.expectation import Expectation
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    from great_expectations.expectations.registry import get_renderer_impl
    from great_expectations.render import LegacyRendererType

__all__ = ["Expectation", "Finding", "check", "describe", "gxe"]

# Offending rows that a report names for each expectation.
_NAMED_OFFENDERS = 10


class Finding(NamedTuple):
    """What one expectation found in one table."""

    table: str
    expectation: str  # Great Expectations' name for its type
    arguments: dict[str, Any]
    holds: bool
    checked: int  # rows looked at
    unexpected: int  # rows that break it
    first_unexpected: list[dict[str, Any]]  # where the first of these rows are, and their value
    rule: str  # what a person calls it: the `rule` of the expectation's `meta`
    stops: bool  # whether data that breaks it must not go on: its severity is critical, not a warning


def check(
    name: str, tables: Iterable[pd.DataFrame], expectations: list[Expectation], row_key: list[str]
) -> list[Finding]:
    """Check a table against expectations.

    tables: the table, or as many parts of it, one after the other, as it takes for each to fit into memory.
    row_key: the columns that tell a person which row it is.
    """
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    definition = (
        context.data_sources.add_pandas("pandas").add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    )
    suite = gx.ExpectationSuite(name, expectations=expectations)
    parts = []
    for table in tables:
        result = definition.get_batch({"dataframe": table}).validate(
            suite,
            result_format={
                "result_format": "SUMMARY",
                "unexpected_index_column_names": row_key,
                "partial_unexpected_count": _NAMED_OFFENDERS,
                "return_unexpected_index_query": False,
            },
        )
        # Ids and times of a run stay behind: a finding holds only what the data and the arguments decide.
        findings = [_to_finding(name, outcome) for outcome in result.results]
        parts.append(sorted(findings, key=lambda finding: (finding.expectation, str(finding.arguments))))
    return [_join(of_parts) for of_parts in zip(*parts, strict=True)]


def _join(parts: tuple[Finding, ...]) -> Finding:
    """The finding of one expectation on a table, from its findings on the table's parts.

    It holds by Great Expectations' own rule for `mostly`.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    checked, unexpected = sum(part.checked for part in parts), sum(part.unexpected for part in parts)
    return first._replace(
        holds=(checked - unexpected) / checked >= first.arguments.get("mostly", 1),
        checked=checked,
        unexpected=unexpected,
        first_unexpected=[row for part in parts for row in part.first_unexpected][:_NAMED_OFFENDERS],
    )


def describe(finding: Finding) -> str:
    """The expectation in Great Expectations' words, as one sentence."""
    _, render = get_renderer_impl(finding.expectation, LegacyRendererType.PRESCRIPTIVE)
    config = ExpectationConfiguration(type=finding.expectation, kwargs=finding.arguments)
    (content,) = render(configuration=config, runtime_configuration={"include_column_name": True})
    return Template(content.string_template["template"]).safe_substitute(content.string_template["params"])


def _to_finding(table: str, outcome: Any) -> Finding:  # noqa: ANN401  (untyped in Great Expectations)
    config = outcome.expectation_config.to_json_dict()
    if outcome.exception_info.get("raised_exception"):
        # A table that an expectation cannot be asked of is an error of this code, never of a person's data.
        raise RuntimeError(f"{config['type']}: {outcome.exception_info['exception_message']}")
    result = outcome.to_json_dict()["result"]
    return Finding(
        table=table,
        expectation=config["type"],
        arguments={key: value for key, value in config["kwargs"].items() if key != "batch_id"},
        holds=bool(outcome.success),
        checked=result["element_count"],
        unexpected=result["unexpected_count"],
        first_unexpected=result["partial_unexpected_index_list"] or [],
        rule=config["meta"]["rule"],
        stops=config["severity"] == "critical",
    )

"""Look at every ingested image: bad data stops here, doubtful data is named.

Great Expectations checks tables that say of each image, class and split what there is to know. A rule that is broken
stops the pipeline or warns, as params.yaml says. Whatever rule an image breaks makes it a flagged image.

Reads   data/raw
        data/accepted.json   the data sets as they were accepted, of which this one may have drifted
Writes  reports/validation/validation.json   each expectation, whether it holds, and the first images that break it
        reports/validation/data_docs         each expectation on pages for people; begin with index.html
        reports/validation/flagged_images    flagged_images.csv: every flagged image with its reasons;
                                             contact_sheet.png: the first of them, if there are any
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import pandas as pd
from pydantic import Field

from stages.lib.core.errors import DataError
from stages.lib.core.files import read_json, write_json
from stages.lib.core.params import Section
from stages.lib.runner.stage import main
from stages.lib.validation.data_docs import write_data_docs
from stages.lib.validation.drift import ACCEPTED_PATH, describe_profile, load_accepted, measure_drift
from stages.lib.validation.expectations import Expectation, Finding, check, gxe
from stages.lib.validation.flagged_images import (
    STRUCTURE,
    FlaggedImage,
    Offender,
    Rule,
    Source,
    load_source,
    name_flagged_images,
    note_offenders,
    write_flagged_images,
)
from stages.lib.validation.image_tables import (
    DEVIATIONS,
    describe_classes,
    describe_drift,
    describe_splits,
    find_image_facts,
    iterate_image_tables,
)

# Offending rows that a message names; the report names more.
_NAMED_ROWS = 3
# Columns that mean something of drawings alone, which have a background.
_BACKGROUND_COLUMNS = ("other_polarity", "foreground_fraction", "foreground_robust_z")
# Columns that say which row it is.
_PLACE = ("split", "index", "file", "since")

# A rule and its threshold have one name.
RuleName = Literal[
    "min_images_per_class",
    "max_class_ratio",
    "min_contrast",
    "min_foreground_fraction",
    "max_foreground_fraction",
    "max_robust_z",
    "max_mixed_polarity_fraction",
    "max_mixed_resolution_fraction",
    "max_duplicate_fraction",
    "max_leaked_fraction",
    "max_near_leaked_fraction",
    "max_label_conflict_fraction",
    "max_class_drift",
    "max_grey_level_drift",
]


class ValidateParams(Section):
    """The `validate` section of params.yaml."""

    renamed: ClassVar[dict[str, str]] = {
        "stops": "fail_on",
        "min_ink_fraction": "min_foreground_fraction",
        "max_ink_fraction": "max_foreground_fraction",
        "max_deviation": "max_robust_z",
        "max_conflicting_fraction": "max_label_conflict_fraction",
    }

    fail_on: list[RuleName] = Field(description="a list of the names of this section's thresholds")
    min_images_per_class: int = Field(ge=1, description="a whole number of images, at least 1")
    max_class_ratio: float = Field(ge=1, description="a ratio of image counts, at least 1")
    min_contrast: int = Field(ge=1, le=255, description="a whole number of levels from 1 to 255")
    min_foreground_fraction: float = Field(ge=0, le=1, description="a share of pixels from 0 to 1")
    max_foreground_fraction: float = Field(ge=0, le=1, description="a share of pixels from 0 to 1")
    max_robust_z: float = Field(gt=0, description="a number of robust standard deviations above 0")
    max_mixed_polarity_fraction: float = Field(ge=0, le=1, description="a share of images from 0 to 1")
    max_mixed_resolution_fraction: float = Field(ge=0, le=1, description="a share of images from 0 to 1")
    max_duplicate_fraction: float = Field(ge=0, le=1, description="a share of images from 0 to 1")
    max_leaked_fraction: float = Field(ge=0, le=1, description="a share of images from 0 to 1")
    max_near_leaked_fraction: float = Field(ge=0, le=1, description="a share of images from 0 to 1")
    max_label_conflict_fraction: float = Field(ge=0, le=1, description="a share of images from 0 to 1")
    max_class_drift: float = Field(ge=0, le=1, description="a share of images from 0 to 1")
    max_grey_level_drift: float = Field(ge=0, le=1, description="a share of pixels from 0 to 1")


class Validation(NamedTuple):
    """All that was found in a data set."""

    findings: list[Finding]
    flagged_images: list[FlaggedImage]
    source: Source
    not_asked: list[str]  # columns of the image table that mean nothing here

    @property
    def stopping(self) -> list[Finding]:
        """The broken expectations that stop the pipeline."""
        return [finding for finding in self.findings if not finding.holds and finding.stops]

    @property
    def warnings(self) -> list[Finding]:
        """The broken expectations that only warn."""
        return [finding for finding in self.findings if not finding.holds and not finding.stops]


def list_class_rules(params: ValidateParams) -> list[Rule]:
    """What should hold of each class in each split."""
    return [
        Rule("min_images_per_class", "images", least=params.min_images_per_class),
        Rule("max_class_ratio", "ratio_to_largest", least=1 / params.max_class_ratio),
    ]


def list_image_rules(params: ValidateParams, image_size: Sequence[int], class_count: int) -> list[Rule]:
    """What should hold of each image."""
    height, width = image_size
    return [
        Rule(STRUCTURE, "height", height, height),
        Rule(STRUCTURE, "width", width, width),
        Rule(STRUCTURE, "label", 0, class_count - 1),
        Rule("min_contrast", "contrast", least=params.min_contrast),
        Rule("max_label_conflict_fraction", "label_conflicts", most=0, allowed=params.max_label_conflict_fraction),
        Rule("max_leaked_fraction", "leaks", most=0, allowed=params.max_leaked_fraction),
        Rule("max_near_leaked_fraction", "near_leaks", most=0, allowed=params.max_near_leaked_fraction),
        Rule("max_duplicate_fraction", "repeats", most=0, allowed=params.max_duplicate_fraction),
        Rule("max_mixed_polarity_fraction", "other_polarity", most=0, allowed=params.max_mixed_polarity_fraction),
        Rule("min_foreground_fraction", "foreground_fraction", least=params.min_foreground_fraction),
        Rule("max_foreground_fraction", "foreground_fraction", most=params.max_foreground_fraction),
        *(Rule("max_robust_z", f"{what}_robust_z", most=params.max_robust_z) for what in DEVIATIONS),
        Rule("max_mixed_resolution_fraction", "other_resolution", most=0, allowed=params.max_mixed_resolution_fraction),
    ]


def list_drift_rules(params: ValidateParams) -> list[Rule]:
    """How far the data may have moved from the version that was accepted."""
    return [
        Rule("max_class_drift", "class_drift", most=params.max_class_drift),
        Rule("max_grey_level_drift", "grey_level_drift", most=params.max_grey_level_drift),
    ]


def expect_of_splits(channels: int) -> list[Expectation]:
    """What must hold of each split before its images can be looked at; 1 channel, grey, has no dimension of its own."""
    must: dict[str, Any] = {"severity": "critical", "meta": {"rule": STRUCTURE}}
    of_colours = [gxe.ExpectColumnValuesToBeInSet(column="channels", value_set=[channels], **must)]
    return [
        gxe.ExpectColumnValuesToBeInSet(column="pixel_type", value_set=["uint8"], **must),
        gxe.ExpectColumnValuesToBeInSet(column="image_dimensions", value_set=[3 if channels == 1 else 4], **must),
        *(of_colours if channels > 1 else []),
        gxe.ExpectColumnValuesToBeInSet(column="label_dimensions", value_set=[1], **must),
        gxe.ExpectColumnValuesToBeInSet(column="label_kind", value_set=["integer"], **must),
        gxe.ExpectColumnPairValuesToBeEqual(column_A="images", column_B="labels", **must),
        gxe.ExpectColumnPairValuesToBeEqual(column_A="images", column_B="expected", **must),
    ]


def expect_within(rule: Rule, fail_on: Sequence[str]) -> Expectation:
    """The rule as an expectation; it is critical if it is one of those that stop the pipeline."""
    limits = {"min_value": rule.least, "max_value": rule.most, "mostly": 1 - rule.allowed}
    return gxe.ExpectColumnValuesToBeBetween(
        column=rule.column,
        **{name: limit for name, limit in limits.items() if limit is not None},
        severity="critical" if rule.name in (STRUCTURE, *fail_on) else "warning",
        meta={"rule": rule.name},
    )


def validate(raw_dir: Path, params: ValidateParams, accepted_path: Path = ACCEPTED_PATH) -> Validation:
    """Every expectation's finding, and the flagged images; images are looked at only once their arrays are valid.

    Raises:
        DataError: a file of `raw_dir`, or the accepted profiles, cannot be read.
    """

    def check_within(name: str, tables: Iterable[pd.DataFrame], rules: list[Rule], key: list[str]) -> list[Finding]:
        return check(name, tables, [expect_within(rule, params.fail_on) for rule in rules], key)

    dataset = read_json(raw_dir / "dataset.json")
    source = load_source(raw_dir, dataset["class_names"])
    splits, class_count = source.rows.splits, len(source.class_names)
    # Data from before there was colour do not tell.
    of_splits = expect_of_splits(dataset.get("channels", 1))
    findings = check("splits", [describe_splits(splits, dataset["expected"])], of_splits, ["split"])
    if not all(finding.holds for finding in findings):
        return Validation(findings, [], source, [])
    classes = describe_classes(splits, source.class_names)
    findings += check_within("classes", [classes], list_class_rules(params), ["split", "class"])
    facts = find_image_facts(source.rows, source.sizes)
    rules, not_asked = choose_rules(
        list_image_rules(params, dataset["image_size"], class_count), facts.measures.has_backgrounds, params.fail_on
    )
    offenders: dict[Rule, list[Offender]] = {rule: [] for rule in rules}
    tables = note_offenders(iterate_image_tables(source.rows, facts, source.files), offenders)
    key = ["split", "index", "file"] if source.files else ["split", "index"]
    findings += check_within("images", tables, list(offenders), key)
    accepted = load_accepted(dataset["name"], accepted_path)
    if accepted and all(finding.holds for finding in findings if finding.rule == STRUCTURE):
        drift = measure_drift(accepted, describe_profile(splits, source.class_names))
        findings += check_within("drift", [describe_drift(drift)], list_drift_rules(params), ["since"])
    broken = {(finding.rule, finding.arguments.get("column")) for finding in findings if not finding.holds}
    flagged = {rule: rows for rule, rows in offenders.items() if (rule.name, rule.column) in broken}
    flagged_images = name_flagged_images(flagged, source, facts.duplicates.duplicate_of, params.fail_on)
    return Validation(findings, flagged_images, source, not_asked)


def explain_not_asked(validation: Validation) -> str:
    """Why rules were left out, and which."""
    return f"most images have no plain background, so {', '.join(validation.not_asked)} are not looked at"


def choose_rules(rules: Sequence[Rule], has_backgrounds: bool, fail_on: Sequence[str]) -> tuple[list[Rule], list[str]]:
    """The rules that mean something of these images, and the columns of the others.

    What a photograph's border is like, and how much of it is on the other side of grey, is no fault: the rules about
    the background would flag 0.53 of CIFAR-10. A rule that a person lets stop the pipeline is always asked.
    """
    asked = [
        rule for rule in rules if has_backgrounds or rule.column not in _BACKGROUND_COLUMNS or rule.name in fail_on
    ]
    return asked, list(dict.fromkeys(rule.column for rule in rules if rule not in asked))


def explain(finding: Finding, where: Path | str) -> DataError:
    """A broken expectation in one line: what was expected, how many rows are otherwise, and where the first ones are.

    where: the data set, as a person knows it.
    """
    rows = "; ".join(_name_row(row) for row in finding.first_unexpected[:_NAMED_ROWS])
    return DataError(
        f"{where} {finding.table}",
        expected=_state(finding.arguments),
        got=f"{finding.unexpected} of {finding.checked} otherwise ({rows})",
        hint=_suggest(finding),
    )


def _suggest(finding: Finding) -> str:
    """What to do about a broken expectation."""
    if finding.rule == STRUCTURE:
        return "run `dvc repro --force ingest`, which writes data/raw again"
    if finding.rule == "min_images_per_class" and finding.arguments["min_value"] == 1:  # it cannot be lower
        return "add images to these classes, or leave the classes out"
    change = f"{'lower' if finding.rule.startswith('min_') else 'raise'} validate.{finding.rule}"
    match finding.table:
        case "classes":
            return f"add images to these classes, or {change}"
        case "drift":
            return f"run `pipeline accept` if these data are as they should be, or {change}"
    return f"remove, replace or move these images, or {change}"


def _state(arguments: Mapping[str, Any]) -> str:
    """An expectation's arguments in words: `contrast of at least 32`, `repeats of at most 0 in 0.99 of all rows`."""
    match arguments:
        case {"column_A": column, "column_B": other}:
            return f"as many {column} as {other}"
        case {"column": column, "value_set": [value]}:
            return f"{column} {value}"
        case {"column": column, "min_value": least, "max_value": most}:
            limits = f"{least:g}" if least == most else f"{least:g} to {most:g}"
        case {"column": column, "min_value": least}:
            limits = f"at least {least:g}"
        case {"column": column, "max_value": most}:
            limits = f"at most {most:g}"
    share = arguments.get("mostly", 1)
    return f"{column} of {limits}" + ("" if share == 1 else f" in {share:.6g} of all rows")


def _name_row(row: Mapping[str, Any]) -> str:
    """`train[3] a/1.png contrast=0` for an image, `train images=0 class=a` for a class in a split."""
    place = [f"{row['split']}[{row['index']}]" if "index" in row else row.get("split", ""), row.get("file", "")]
    values = [
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in row.items()
        if key not in _PLACE
    ]
    return " ".join([*filter(None, place), *values])


def point_to(validation: Validation, reports_dir: Path) -> str:
    """Where a person sees the flagged images, as the end of a sentence; nothing if there are none."""
    if not validation.flagged_images:
        return ""
    return f"; {len(validation.flagged_images):,} flagged images in {reports_dir / 'flagged_images'}"


def write_reports(validation: Validation, reports_dir: Path) -> None:
    """Write what was found for programs and for people."""
    findings = validation.findings
    write_json(
        reports_dir / "validation.json",
        {
            "expectations": [finding._asdict() for finding in findings],
            "statistics": {
                "broken": len(validation.stopping) + len(validation.warnings),
                "checked": len(findings),
                "stopping": len(validation.stopping),
                "flagged_images": len(validation.flagged_images),
            },
            "success": not validation.stopping,
        },
    )
    write_flagged_images(validation.flagged_images, validation.source, reports_dir / "flagged_images")
    write_data_docs(findings, reports_dir / "data_docs")


def run(
    params: ValidateParams,
    raw_dir: Path = Path("data/raw"),
    accepted_path: Path = ACCEPTED_PATH,
    reports_dir: Path = Path("reports/validation"),
) -> None:
    """Check the data set and write the reports, then stop the pipeline if a rule that stops it is broken."""
    validation = validate(raw_dir, params, accepted_path)
    write_reports(validation, reports_dir)
    if validation.not_asked:
        print(f"validate: {explain_not_asked(validation)}")
    for finding in validation.warnings:
        print(f"validate: warning: {explain(finding, raw_dir)}")
    if validation.stopping:
        print(f"validate: {len(validation.stopping)} broken rules stop the pipeline{point_to(validation, reports_dir)}")
        raise DataError.join([explain(finding, raw_dir) for finding in validation.stopping])
    count = len(validation.findings)
    print(
        f"validate: {count - len(validation.warnings)} of {count} expectations hold{point_to(validation, reports_dir)}"
    )


if __name__ == "__main__":
    main("validate", ValidateParams, run)

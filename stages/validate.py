"""Let Great Expectations look at every ingested image; bad data stops here.

Reads   data/raw
Writes  reports/validation.json   each expectation, whether it holds, and the first images that break it
"""

from pathlib import Path
from typing import Any

from pydantic import Field

from stages.lib.arrays import Split, load_array
from stages.lib.errors import DataError
from stages.lib.expectations import Expectation, Finding, check, gxe
from stages.lib.files import read_json, write_json
from stages.lib.image_tables import describe_classes, describe_splits, iterate_image_tables
from stages.lib.params import Section
from stages.lib.stage import main

# Offending rows that a message names; the report names more.
_NAMED_ROWS = 3


class ValidateParams(Section):
    """The `validate` section of params.yaml."""

    min_images_per_class: int = Field(ge=1, description="a whole number of images, at least 1")
    max_class_ratio: float = Field(ge=1, description="a ratio of image counts, at least 1")
    min_contrast: int = Field(ge=1, le=255, description="a whole number of grey levels from 1 to 255")
    min_ink_fraction: float = Field(ge=0, le=1, description="a share of pixels from 0 to 1")
    max_ink_fraction: float = Field(ge=0, le=1, description="a share of pixels from 0 to 1")
    max_duplicate_fraction: float = Field(ge=0, le=1, description="a share of images from 0 to 1")
    max_leaked_fraction: float = Field(ge=0, le=1, description="a share of images from 0 to 1")


def expect_of_splits() -> list[Expectation]:
    """What must hold of each split before its images can be looked at."""
    return [
        gxe.ExpectColumnValuesToBeInSet(column="pixel_type", value_set=["uint8"]),
        gxe.ExpectColumnValuesToBeInSet(column="image_dimensions", value_set=[3]),
        gxe.ExpectColumnValuesToBeInSet(column="label_dimensions", value_set=[1]),
        gxe.ExpectColumnValuesToBeInSet(column="label_kind", value_set=["integer"]),
        gxe.ExpectColumnPairValuesToBeEqual(column_A="images", column_B="labels"),
        gxe.ExpectColumnPairValuesToBeEqual(column_A="images", column_B="promised"),
    ]


def expect_of_classes(params: ValidateParams) -> list[Expectation]:
    """What must hold of each class in each split."""
    return [
        gxe.ExpectColumnValuesToBeBetween(column="images", min_value=params.min_images_per_class),
        gxe.ExpectColumnValuesToBeBetween(column="ratio_to_largest", min_value=1 / params.max_class_ratio),
    ]


def expect_of_images(params: ValidateParams, image_size: tuple[int, int], class_count: int) -> list[Expectation]:
    """What must hold of each image: size, label, not blank, not inverted, not a copy."""
    height, width = image_size
    return [
        gxe.ExpectColumnValuesToBeInSet(column="height", value_set=[height]),
        gxe.ExpectColumnValuesToBeInSet(column="width", value_set=[width]),
        gxe.ExpectColumnValuesToBeInSet(column="label", value_set=list(range(class_count))),
        gxe.ExpectColumnValuesToBeBetween(column="contrast", min_value=params.min_contrast),
        gxe.ExpectColumnValuesToBeBetween(
            column="ink_fraction", min_value=params.min_ink_fraction, max_value=params.max_ink_fraction
        ),
        gxe.ExpectColumnValuesToBeInSet(column="repeats", value_set=[0], mostly=1 - params.max_duplicate_fraction),
        gxe.ExpectColumnValuesToBeInSet(column="leaks", value_set=[0], mostly=1 - params.max_leaked_fraction),
    ]


def find_faults(raw_dir: Path, params: ValidateParams) -> list[Finding]:
    """Every expectation's finding; the images are looked at only once their arrays are sound."""
    dataset = read_json(raw_dir / "dataset.json")
    splits = {
        name: Split(load_array(raw_dir / name / "images.npy"), load_array(raw_dir / name / "labels.npy"))
        for name in ("train", "test")
    }
    class_count = len(dataset["class_names"])
    findings = check("splits", [describe_splits(splits, dataset["promised"])], expect_of_splits(), ["split"])
    if all(finding.holds for finding in findings):
        findings += check(
            "classes", [describe_classes(splits, class_count)], expect_of_classes(params), ["split", "label"]
        )
        findings += check(
            "images",
            iterate_image_tables(splits),
            expect_of_images(params, dataset["image_size"], class_count),
            ["split", "index"],
        )
    return findings


def explain(finding: Finding, raw_dir: Path) -> DataError:
    """A broken expectation in one line: which, how many rows, and where the first ones are."""
    arguments = ", ".join(f"{key}={value}" for key, value in sorted(finding.arguments.items()))
    rows = "; ".join(_name_row(row) for row in finding.first_unexpected[:_NAMED_ROWS])
    return DataError(
        f"{raw_dir} {finding.table}",
        expected=f"{finding.expectation}({arguments})",
        got=f"{finding.unexpected} of {finding.checked} otherwise ({rows})",
        do="correct the data or the threshold",
    )


def _name_row(row: dict[str, Any]) -> str:
    """`train[3] contrast=0` for an image, `train contrast=0` for a whole split."""
    index = f"[{row['index']}]" if "index" in row else ""
    values = [f"{key}={value}" for key, value in row.items() if key not in ("split", "index")]
    return " ".join([f"{row['split']}{index}", *values])


def run(
    params: ValidateParams,
    raw_dir: Path = Path("data/raw"),
    report_path: Path = Path("reports/validation.json"),
) -> None:
    """Check the data set and write the report, then stop the pipeline if an expectation is broken."""
    findings = find_faults(raw_dir, params)
    broken = [finding for finding in findings if not finding.holds]
    write_json(
        report_path,
        {
            "expectations": [finding._asdict() for finding in findings],
            "statistics": {"checked": len(findings), "broken": len(broken)},
            "success": not broken,
        },
    )
    if broken:
        raise DataError.join([explain(finding, raw_dir) for finding in broken])
    print(f"validate: all {len(findings)} expectations hold")


if __name__ == "__main__":
    main("validate", ValidateParams, run)

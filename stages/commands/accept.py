"""Take the ingested data as the version that later ones are compared with.

Reads   data/raw, reports/validation/validation.json
Writes  data/accepted.json   the classes' counts and a histogram of each channel's levels, by the data set's name
"""

from pathlib import Path

import click

from stages.lib.core.errors import DataError
from stages.lib.core.files import read_json
from stages.lib.validation.drift import ACCEPTED_PATH, describe_profile, save_accepted
from stages.lib.validation.flagged_images import load_source

_RAW_DIR = Path("data/raw")
_REPORT_PATH = Path("reports/validation/validation.json")


@click.command()
def accept() -> None:
    """Write what data/raw looks like to data/accepted.json: `validate` then tells how far later versions have moved.

    Commit the file: it is the record of a decision. Data that `validate` stops is refused.
    """
    if not read_json(_REPORT_PATH).get("success"):
        hint = "run `dvc repro validate`: it names what is wrong, and what to do"
        raise DataError(str(_REPORT_PATH), "the data did not pass `validate`", hint)
    dataset = read_json(_RAW_DIR / "dataset.json")
    source = load_source(_RAW_DIR, dataset["class_names"])
    save_accepted(dataset["name"], describe_profile(source.rows.splits, source.class_names))
    click.echo(
        f"accept: {dataset['name']}, {source.rows.total:,} images in {len(source.class_names)} classes; "
        f"commit {ACCEPTED_PATH}, then `dvc repro`"
    )

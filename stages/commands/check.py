"""List everything that is wrong with images, without DVC and training.

Reads   the images, params.yaml (ingest and validate), data/accepted.json
Writes  reports/check   the reports that `validate` writes
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import click

from stages.ingest import IngestParams, load_dataset, name_dataset, write_dataset
from stages.lib.core.errors import DataError
from stages.lib.core.params import load_section
from stages.lib.data.datasets import Dataset
from stages.lib.data.own_images import read_folder
from stages.validate import ValidateParams, explain, explain_not_asked, validate, write_reports

_SCRATCH_DIR = Path(".cache")


@click.command()
@click.argument("path", metavar="[DIR]", required=False, type=click.Path())
@click.option(
    "--reports",
    "reports_dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("reports/check"),
    show_default=True,
    help="Where the reports go: the flagged images, validation.json.",
)
def check(path: str | None, reports_dir: Path) -> None:
    """Look at all images in DIR (a folder of images, IDX files or an .npz file) as `ingest` and `validate` would.

    Without DIR, at the data set that params.yaml names. Every error is listed: files that are no valid images, and
    what the valid ones break of the rules in params.yaml. Nothing of the pipeline changes. Exit code 1 if something
    would stop it.
    """
    params = load_section("ingest", IngestParams)
    if path is not None:
        params = params.model_copy(update={"dataset": "folder", "path": path})
    dataset, problems = read_dataset(params)
    for problem in problems:
        click.echo(f"stops: {problem}")
    stopping = len(problems)
    if dataset:
        _SCRATCH_DIR.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=_SCRATCH_DIR, prefix="check.") as scratch:
            raw_dir = Path(scratch) / "raw"
            write_dataset(dataset, name_dataset(params), raw_dir)
            validation = validate(raw_dir, load_section("validate", ValidateParams))
            write_reports(validation, reports_dir)
            if validation.not_asked:
                click.echo(f"check: {explain_not_asked(validation)}")
            where = params.path if params.dataset == "folder" else params.dataset
            for word, findings in (("stops", validation.stopping), ("warns", validation.warnings)):
                for finding in findings:
                    click.echo(f"{word}: {explain(finding, where)}")
        stopping += len(validation.stopping)
        click.echo(
            f"check: {validation.source.rows.total:,} images in {len(dataset.class_names)} classes; "
            f"errors that stop the pipeline: {stopping:,}, warnings: {len(validation.warnings)}, "
            f"flagged images: {len(validation.flagged_images):,}; see {reports_dir}"
        )
    else:
        click.echo(f"check: no data set can be made of it; errors that stop the pipeline: {stopping:,}")
    if stopping:
        raise click.exceptions.Exit(1)


def read_dataset(params: IngestParams) -> tuple[Dataset | None, list[DataError]]:
    """Read the valid part of the data set that the params name, and list every error."""
    if params.dataset == "folder":
        return read_folder(params.path, params.image_shape, params.test_fraction, params.seed, heading="check")
    return load_dataset(params), []

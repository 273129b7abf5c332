"""Make an earlier champion the champion again.

Reads   params.yaml, the MLflow store
Writes  the registered model's alias `champion`, and a line on the versions that it leaves and comes to
"""

import click

from stages.ingest import IngestParams, name_dataset
from stages.lib.core.params import load_section
from stages.lib.tracking.registry import roll_back
from stages.lib.tracking.store import open_store
from stages.track import TrackParams


@click.command()
@click.option(
    "--to",
    "version",
    type=click.IntRange(min=1),
    metavar="VERSION",
    help="A version that was champion once.  [default: the champion before the present one]",
)
def rollback(version: int | None) -> None:
    """Move the alias `champion` of the registered model back to the champion before the present one, or to VERSION.

    Two rollbacks go two champions back. A version that was rolled back is not promoted again by `dvc repro`; naming it
    with --to makes it the champion again. Exit code 1 if there is nothing to roll back to.
    """
    name = load_section("track", TrackParams).name_model(name_dataset(load_section("ingest", IngestParams)))
    with open_store(create=False, again="`pipeline rollback` again") as store:
        champion, left = roll_back(store, name, version)
    click.echo(f"rollback: {name} version {champion} is the champion again{describe_left(left)}")


def describe_left(left: int | None) -> str:
    """The version that no longer is the champion, and what becomes of it, as the end of a sentence."""
    if left is None:
        return ""
    return f", version {left} no longer is; `dvc repro` leaves that so, `pipeline rollback --to {left}` takes it back"

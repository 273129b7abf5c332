"""Make a version of the registered model the champion, if the criteria allow it.

Reads   params.yaml, the MLflow store
Writes  the registered model's alias `champion`, and the decision on the version and its run
"""

import click

from stages.ingest import IngestParams, name_dataset
from stages.lib.core.params import load_section
from stages.lib.tracking.registry import describe_data_change, find_version, promote_by_hand
from stages.lib.tracking.store import open_store
from stages.track import TrackParams


@click.command()
@click.argument("wanted", metavar="[VERSION|RUN]", required=False)
@click.option(
    "--changed-test-data",
    "is_data_change_accepted",
    is_flag=True,
    help="Promote it although its test images are not the champion's: the accuracies do not compare.",
)
def promote(wanted: str | None, is_data_change_accepted: bool) -> None:
    """Make VERSION, or the version of RUN (its id or name), the champion if it meets the criteria of `track`.

    Without either: the version with the alias `challenger`, which is the newest one that is not the champion. An
    experiment (`dvc exp run`) becomes champion in no other way. Exit code 1, with the reason, if it is refused.
    """
    params = load_section("track", TrackParams)
    name = params.name_model(name_dataset(load_section("ingest", IngestParams)))
    with open_store(create=False, again="`pipeline promote` again") as store:
        version = find_version(store, name, wanted)
        change = describe_data_change(store, version)
        if change:
            click.echo(f"promote: the test images of {name} version {version.version} are not the champion's:")
            click.echo("\n".join(f"  {line}" for line in change))
        decision = promote_by_hand(
            store, name, version, params.criteria, is_data_change_accepted=is_data_change_accepted
        )
    click.echo(f"promote: {name} version {version.version} is the champion: {decision.reason}")

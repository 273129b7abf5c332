"""The `pipeline` command line: its subcommands, and how their errors end."""

from importlib import import_module
from typing import Any

import click

from stages.lib.core.errors import PipelineError, describe_os_error
from stages.lib.runner.environment import isolate

# A subcommand, its module in stages.commands and its function in there have one name. What it does is said here, too,
# because `pipeline --help` imports no subcommand: some of them need TensorFlow or MLflow.
_SUBCOMMANDS = {
    "accept": "Take the ingested data as the version that later ones are compared with.",
    "check": "List everything that is wrong with images, without DVC and training.",
    "predict": "Classify images with an exported model.",
    "promote": "Make a version of the registered model the champion, if the criteria allow it.",
    "report": "Compare params, metrics, parity and outputs with a revision.",
    "rollback": "Make an earlier champion the champion again.",
    "sweep": "Try many settings, on this machine or on many.",
    "verify": "Prove that the committed dvc.lock holds: hash everything anew, rebuild it.",
    "whatis": "Find the state, commits and runs that a file or a commit belongs to.",
}


class LazyGroup(click.Group):
    """A group that imports a subcommand when it is called, and ends an error of the pipeline with one line."""

    def main(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401  # click's signature
        """Run what the command line says, in an environment like a stage's; tests give arguments of their own."""
        if not args and "args" not in extra:
            isolate()
        return super().main(*args, **extra)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """The names of the subcommands."""
        return list(_SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The subcommand, imported; none if there is no such one."""
        if cmd_name not in _SUBCOMMANDS:
            return None
        command: click.Command = getattr(import_module(f"stages.commands.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write what each subcommand does, without importing it."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUBCOMMANDS.items()))

    def invoke(self, ctx: click.Context) -> object:
        """Run the subcommand; exits with 1 and one line on anything a person caused."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of standard output has seen enough: click ends quietly
            raise
        except OSError as error:  # no permission, disk full, …
            problem = describe_os_error(error)
        except PipelineError as error:
            problem = str(error)
        click.echo(f"{ctx.invoked_subcommand}: {problem}", err=True)
        raise click.exceptions.Exit(1)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Commands beside `dvc repro`. Run them in the project's root folder."""


if __name__ == "__main__":
    main()

"""The `pipeline` command line: its subcommands, and how their errors end."""

import copy
import os
import shlex
from contextlib import chdir
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from stages.lib.core.errors import PipelineError, describe_os_error
from stages.lib.core.paths import find_project
from stages.lib.runner.environment import isolate

# A subcommand, its module in stages.commands and its function in there have one name. What it does is said here, too,
# because `pipeline --help` imports no subcommand: some of them need TensorFlow or MLflow.
_SUBCOMMANDS = {
    "accept": "Accept the ingested data: later versions are compared with it.",
    "apply": "Write the settings of a recipe into params.yaml.",
    "check": "List all errors in a folder of images, without DVC and training.",
    "demo": "Serve the page for browsers, with every runtime's answers beside its own.",
    "predict": "Classify images, or folders of images, with an exported model.",
    "promote": "Make a version of the registered model the champion, if the criteria allow it.",
    "replay": "Send the golden images to a device over a serial line, and compare its answers.",
    "report": "Compare params, metrics, parity and outputs with a revision.",
    "rollback": "Make an earlier version of the model the champion again.",
    "sweep": "Try many settings, on this machine or on many.",
    "verify": "Prove that the outputs are those in dvc.lock: hash all of them again, then rebuild them.",
    "whatis": "Find the run, the commits and the params that a file or a commit belongs to.",
}
# It needs a model and images alone, and names the images as they were typed.
_RUN_ANYWHERE = ("predict",)


class LazyGroup(click.Group):
    """A group that imports a subcommand when it is called, and ends an error of the pipeline with one line."""

    def main(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401  # click's signature
        """Run what the command line says, in an environment like a stage's; tests give arguments of their own."""
        if not args and "args" not in extra:
            with chdir(find_project(Path.cwd()) or Path()):
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
        return command if cmd_name in _RUN_ANYWHERE else run_in_project(command)

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


def run_in_project(command: click.Command) -> click.Command:
    """The command, run in the project's root folder wherever below it is typed; paths are as where they were typed.

    Raises:
        PipelineError: when it is run outside of a project.
    """
    run, here = command.callback, copy.copy(command)
    assert run

    def run_in_root(**values: Any) -> object:  # noqa: ANN401  # whatever the command takes
        typed_in = Path.cwd()
        root = find_project(typed_in)
        if root is None:
            raise PipelineError(
                str(typed_in), "it is in no project: there is no dvc.yaml here or above", _suggest_project()
            )
        os.chdir(root)
        context = click.get_current_context()
        for parameter in command.params:
            name, value = str(parameter.name), values[str(parameter.name)]
            is_typed = context.get_parameter_source(name) == ParameterSource.COMMANDLINE
            is_path = isinstance(value, Path) or isinstance(parameter.type, click.Path)
            if is_typed and is_path and root != typed_in and not Path(value).is_absolute():
                values[name] = type(value)(os.path.relpath(typed_in / value))
        return run(**values)

    here.callback = run_in_root
    return here


def _suggest_project() -> str:
    """Where to go: to the project whose code this is, if it is one."""
    root = find_project(Path(__file__).resolve().parent)
    return f"run `cd {shlex.quote(str(root))}` first" if root else "go to the project's folder first"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Commands beside `dvc repro`. Run them in the project's folder or in any folder below it."""


if __name__ == "__main__":
    main()

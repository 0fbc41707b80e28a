"""The haven command. Sub-commands are imported when they run, so that help answers at once."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from haven.cli.failure import Failure

__all__ = ["main"]

COMMANDS = {
    # name: (module of this room, or the whole path of another's, one line of help)
    "up": ("up", "Start a cluster on this machine."),
    "down": ("down", "Stop the cluster; its state stays."),
    "status": ("status", "Show what runs and whether it is well."),
    "reset": ("reset", "Remove the cluster and all it left on this machine."),
    "doctor": ("doctor", "Check what this machine lacks, and say how to mend it."),
    "kubeconfig": ("kubeconfig", "Print a kubeconfig for the cluster's admin."),
    "kubectl": ("kubectl", "Run kubectl against this cluster."),
    "image": ("image", "Load, list and make container images."),
    "logs": ("logs", "Show the log of a component."),
    "server": ("server", "Run the control plane in the foreground."),
    "agent": ("agent", "Run the node's part in the foreground."),
    "api": ("haven.testing.command", "Run a cluster for tests, gone with the command."),
    "version": ("version", "Print the version."),
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = COMMANDS[cmd_name][0]
        module = importlib.import_module(name if "." in name else f"haven.cli.{name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
def haven() -> None:
    """Kubernetes, in Python. A haven for your containers."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a Failure prints one sentence and ends with its exit status."""
    try:
        haven.main(args=list(arguments) if arguments is not None else None, prog_name="haven", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Failure as error:
        click.echo(f"haven: {error}", err=True)
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()

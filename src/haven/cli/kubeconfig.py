"""haven kubeconfig: print a kubeconfig for the cluster's admin."""

from __future__ import annotations

import click

from haven.cli.failure import Failure
from haven.cli.settings import ClusterSettings

__all__ = ["command"]


@click.command(help="Print a kubeconfig for the cluster's admin.")
def command() -> None:
    path = ClusterSettings.load().places.admin_kubeconfig
    try:
        click.echo(path.read_text(), nl=False)
    except FileNotFoundError:
        raise Failure("there is no cluster on this machine: haven up makes one") from None
    except PermissionError:
        raise Failure(f"{path} cannot be read: run sudo haven kubeconfig") from None

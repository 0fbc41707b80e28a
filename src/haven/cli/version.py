"""haven version"""

from __future__ import annotations

import json

import click

from haven import __version__

KUBERNETES_VERSION = "v1.36.2"


@click.command(help="Print the version.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", help="How to print it.")
def command(output: str) -> None:
    if output == "json":
        click.echo(json.dumps({"haven": __version__, "kubernetes": KUBERNETES_VERSION}))
    else:
        click.echo(f"haven {__version__} (Kubernetes {KUBERNETES_VERSION})")

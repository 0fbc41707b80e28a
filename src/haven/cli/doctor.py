"""haven doctor: what this machine lacks, and how to mend it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from haven.cli.settings import ClusterSettings
from haven.cluster.preflight import Check, Host, PackageManager, check_all

__all__ = ["command", "findings"]


def findings(settings: ClusterSettings, *, running: bool) -> list[Check]:
    """Return all checks; ports are checked only while the cluster itself does not hold them."""
    ports = [] if running else [settings.api_port, settings.kubelet_port]
    host = Host(cni_bin=settings.places.cni_bin, data=settings.places.data)
    return check_all(host, ports, PackageManager.of_this_machine())


@click.command(help="Check what this machine lacks, and say how to mend it.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", help="How to print it.")
def command(output: str) -> None:
    from haven.cli.processes import is_running

    settings = ClusterSettings.load()
    checks = findings(settings, running=is_running(settings.places))
    failed = [check for check in checks if not check.ok and check.required]
    if output == "json":
        click.echo(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        for check in checks:
            mark = (
                click.style("✓", fg="green") if check.ok else click.style("✗", fg="red" if check.required else "yellow")
            )
            click.echo(f"{mark} {check.name:14} {check.found}")
            if not check.ok:
                click.echo(f"  {'':14} mend it: {check.fix}")
    sys.exit(1 if failed else 0)

"""haven logs: show the log of a component."""

from __future__ import annotations

import os
import shutil

import click

from haven.cli.failure import Failure
from haven.cli.settings import ClusterSettings

__all__ = ["command"]


@click.command(help="Show the log of a component.")
@click.argument("component", type=click.Choice(["server", "agent", "containerd", "supervisor"]))
@click.option("-f", "--follow", is_flag=True, help="Go on as it grows.")
@click.option("--tail", type=int, default=100, show_default=True, help="How many of the last lines.")
def command(component: str, follow: bool, tail: int) -> None:
    places = ClusterSettings.load().places
    path = places.containerd / "containerd.log" if component == "containerd" else places.log(component)
    if not path.exists():
        raise Failure(f"there is no log of the {component} yet: haven up starts it")
    program = shutil.which("tail")
    if program is None:
        raise Failure(f"tail is not installed; the log is {path}")
    os.execv(program, [program, "-n", str(tail), *(["-F"] if follow else []), str(path)])

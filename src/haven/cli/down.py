"""haven down: stop the cluster. Its state stays; haven up brings the same workloads back."""

from __future__ import annotations

import click

from haven.cli import processes
from haven.cli.failure import Failure
from haven.cli.progress import step
from haven.cli.settings import ClusterSettings

__all__ = ["command"]

SUPERVISOR_SECONDS_MAX = 45.0


@click.command(help="Stop the cluster; its state stays.")
def command() -> None:
    import os

    if os.geteuid() != 0:
        raise Failure("the cluster belongs to root: run sudo haven down")
    settings = ClusterSettings.load()
    stop_cluster(settings)


def stop_cluster(settings: ClusterSettings) -> None:
    """Stop the control plane, the agent, the containers and containerd."""
    from haven.cli.node import stop_node

    pid = processes.supervisor_pid(settings.places)
    if pid:
        with step("stopping the control plane and the agent"):
            processes.stop(pid, "haven.cli.supervisor", seconds=SUPERVISOR_SECONDS_MAX)
    with step("stopping containers"):
        stop_node(settings)

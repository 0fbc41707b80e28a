"""haven down: stop the cluster. Its state stays; haven up brings the same workloads back."""

from __future__ import annotations

import os

import click

from haven.cli import processes
from haven.cli.failure import Failure
from haven.cli.network import remove_network
from haven.cli.progress import step
from haven.cli.settings import ClusterSettings
from haven.cli.supervisor import orphans, stop_orphans

__all__ = ["command", "stop_cluster", "stop_programs"]

SUPERVISOR_SECONDS_MAX = 45.0


@click.command(help="Stop the cluster; its state stays.")
def command() -> None:
    if os.geteuid() != 0:
        raise Failure("the cluster belongs to root: run sudo haven down")
    settings = ClusterSettings.load()
    with processes.exclusive(settings.places):
        stop_cluster(settings)


def stop_cluster(settings: ClusterSettings) -> None:
    """Stop the control plane, the agent, the containers and containerd."""
    from haven.cli.node import stop_node
    from haven.cri.errors import RuntimeFailure
    from haven.kubelet.containerd import MissingRuntime

    stop_programs(settings)
    with step("stopping containers"):
        try:
            stop_node(settings)
        except (RuntimeFailure, MissingRuntime, TimeoutError) as error:
            click.echo(f"not all containers ended ({error}): haven up takes over what still runs", err=True)
            return
    with step("removing service rules and addresses"):
        remove_network(settings)


def stop_programs(settings: ClusterSettings) -> None:
    """Stop the supervisor with what it keeps running, and what a killed one left running."""
    state = settings.places.supervisor_state
    pid = processes.supervisor_pid(settings.places)
    if pid or orphans(state):
        with step("stopping the control plane and the agent"):
            if pid:
                processes.stop(pid, "haven.cli.supervisor", seconds=SUPERVISOR_SECONDS_MAX)
            stop_orphans(state)

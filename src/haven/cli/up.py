"""haven up: start a cluster on this machine and wait until it is well."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from haven.cli import processes
from haven.cli.doctor import findings
from haven.cli.failure import Failure
from haven.cli.progress import step
from haven.cli.settings import ClusterSettings
from haven.cli.supervisor import Child, Plan, start_detached

__all__ = ["command"]

READY_SECONDS_MAX = 60.0
NODE_SECONDS_MAX = 90.0
COMMAND_LINK = Path("/usr/local/bin/haven")


@click.command(help="Start a cluster on this machine.")
@click.option("--node-name", help="What the node is called; the machine's name by default.")
@click.option("--listen", help="The address of the API server; 127.0.0.1 by default, so that nobody else reaches it.")
@click.option("--api-port", type=int, help="The port of the API server; 6443 by default.")
@click.option("--kubelet-port", type=int, help="The port of the kubelet; 10250 by default.")
@click.option("--pod-cidr", help="The addresses of Pods; 10.244.0.0/24 by default.")
@click.option("--service-cidr", help="The addresses of Services; 10.96.0.0/16 by default.")
@click.option("--dns-address", help="The address of the cluster's DNS; 10.96.0.10 by default.")
@click.option("--runtime", type=click.Choice(["crun", "runc"]), help="The OCI runtime; crun where it is installed.")
@click.option("--example", is_flag=True, help="Run examples/hello and show that it answers.")
def command(example: bool, **chosen: Any) -> None:
    settings = _settings({name: value for name, value in chosen.items() if value is not None})
    running = processes.is_running(settings.places)
    with step("checking this machine"):
        failed = [item for item in findings(settings, running=running) if item.required and not item.ok]
        if failed:
            raise Failure("; ".join(f"{item.name}: {item.found} (mend it: {item.fix})" for item in failed))
    settings.save()
    if not running:
        with step("starting the cluster"):
            start_detached(plan_of(settings), settings.places.log("supervisor"))
    try:
        with step("waiting for the API server"):
            _wait_api(settings)
        with step("waiting for the node"):
            _wait_node(settings)
    except BaseException:
        if not running:
            _stop_again(settings)
        raise
    link_command()
    if example:
        from haven.cli.example import run as run_example

        run_example(settings)
    show_next(settings)


def _settings(chosen: dict[str, Any]) -> ClusterSettings:
    settings = ClusterSettings.load()
    changed = [name for name, value in chosen.items() if getattr(settings, name) != value]
    if changed and settings.places.store.exists():
        names = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
        raise Failure(f"this cluster was made with other values of {names}: leave them out, or run haven reset first")
    settings = replace(settings, **chosen)
    complaints = settings.complaints()
    if complaints:
        raise Failure("; ".join(complaints))
    return settings


def plan_of(settings: ClusterSettings) -> Plan:
    """Return what the supervisor keeps running."""
    places = settings.places
    program = (sys.executable, "-m", "haven.cli.main")
    return Plan(
        children=(
            Child("server", (*program, "server"), str(places.log("server"))),
            Child("agent", (*program, "agent"), str(places.log("agent"))),
        ),
        state=str(places.supervisor_state),
        pid_file=str(places.supervisor_pid),
    )


def _wait_api(settings: ClusterSettings) -> None:
    from haven.cli.api import Api

    deadline = time.monotonic() + READY_SECONDS_MAX
    why = "it does not listen"
    while time.monotonic() < deadline:
        _check_supervisor(settings)
        if settings.places.admin_kubeconfig.exists():
            with contextlib.suppress(OSError, ValueError):
                status, body = Api(settings).request("GET", "/readyz")
                if status == 200:
                    return
                why = body.decode(errors="replace")[:300]
        time.sleep(0.05)
    raise Failure(f"the API server is not ready after {READY_SECONDS_MAX:.0f} s ({why}); haven logs server tells more")


def _wait_node(settings: ClusterSettings) -> None:
    from haven.cli.api import Api

    api = Api(settings)
    deadline = time.monotonic() + NODE_SECONDS_MAX
    why = "it has not registered"
    while time.monotonic() < deadline:
        _check_supervisor(settings)
        status, node = api.get_json(f"/api/v1/nodes/{settings.node_name}")
        if status == 200:
            ready = next((c for c in node["status"].get("conditions", []) if c["type"] == "Ready"), None)
            if ready and ready["status"] == "True" and _is_fresh(api, settings):
                return
            why = ready["message"] if ready else "it has not reported"
        time.sleep(0.1)
    raise Failure(f"the node is not ready after {NODE_SECONDS_MAX:.0f} s ({why}); haven logs agent tells more")


def _is_fresh(api: Any, settings: ClusterSettings) -> bool:
    """Tell whether the node reported since this start: its old word may lie in the store."""
    from haven.apimachinery import times

    status, lease = api.get_json(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{settings.node_name}")
    if status != 200:
        return False
    return times.parse(lease["spec"]["renewTime"]) >= settings.places.supervisor_pid.stat().st_mtime - 1


def _check_supervisor(settings: ClusterSettings) -> None:
    if not processes.is_running(settings.places):
        log = settings.places.log("supervisor")
        last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
        raise Failure(f"the cluster ended while it started: {' '.join(last) or 'see haven logs supervisor'}")


def _stop_again(settings: ClusterSettings) -> None:
    pid = processes.supervisor_pid(settings.places)
    if pid:
        processes.stop(pid, "haven.cli.supervisor", seconds=30)


def link_command() -> None:
    """Put the command on the PATH, where that is allowed and nothing else is there."""
    own = Path(sys.executable).parent / "haven"
    if not own.exists() or (COMMAND_LINK.exists() and not COMMAND_LINK.is_symlink()):
        return
    with contextlib.suppress(OSError):
        if COMMAND_LINK.is_symlink():
            if COMMAND_LINK.readlink() == own:
                return
            COMMAND_LINK.unlink()
        COMMAND_LINK.symlink_to(own)


def show_next(settings: ClusterSettings) -> None:
    """Print how to go on."""
    click.echo(f"export KUBECONFIG={settings.places.admin_kubeconfig}")
    click.echo("kubectl get pods -A")
    if os.environ.get("HAVEN_DATA_DIR"):
        click.echo(f"export HAVEN_DATA_DIR={settings.places.data}")

"""haven up: start a cluster on this machine and wait until it is well; one that does not come up is taken down."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from haven.cli import processes
from haven.cli.doctor import findings, free_networks
from haven.cli.down import stop_cluster, stop_programs
from haven.cli.failure import Failure
from haven.cli.places import Places
from haven.cli.progress import step
from haven.cli.settings import ClusterSettings, kept_settings
from haven.cli.supervisor import Child, Plan, orphans, read_state, start_detached

__all__ = ["command"]

READY_SECONDS_MAX = 180.0  # A process that ends is noticed at once; this is for slow machines.
NODE_SECONDS_MAX = 180.0
STARTS_MAX = 3
COMMAND_LINK = Path("/usr/local/bin/haven")
MOVABLE = {"listen", "api_port", "kubelet_port", "shutdown_grace_seconds", "shutdown_grace_critical_seconds"}
"""What may change in a cluster that exists: nobody keeps these elsewhere, but for kubeconfig files and the node."""


@click.command(help="Start a cluster on this machine.")
@click.option("--node-name", help="What the node is called; the machine's name by default.")
@click.option("--listen", help="The address of the API server; 127.0.0.1 by default, so that nobody else reaches it.")
@click.option("--api-port", type=int, help="The port of the API server; 6443 by default.")
@click.option("--kubelet-port", type=int, help="The port of the kubelet; 10250 by default.")
@click.option("--pod-cidr", help="The addresses of Pods; 10.244.0.0/24, or what is free on this machine.")
@click.option("--service-cidr", help="The addresses of Services; 10.96.0.0/16, or what is free on this machine.")
@click.option("--dns-address", help="The address of the cluster's DNS; the tenth of Services by default.")
@click.option("--etcd-servers", help="Keep the state in this etcd (addresses with commas between), not in SQLite.")
@click.option("--etcd-cafile", help="The authority of etcd's certificate.")
@click.option("--etcd-certfile", help="The certificate shown to etcd.")
@click.option("--etcd-keyfile", help="Its key.")
@click.option("--server-workers", type=int, help="Processes of the control plane that share its port; needs etcd.")
@click.option("--runtime", type=click.Choice(["crun", "runc"]), help="The OCI runtime; crun where it is installed.")
@click.option("--shutdown-grace-seconds", type=int, help="How long a shutdown waits for Pods (systemd); 0 by default.")
@click.option("--shutdown-grace-critical-seconds", type=int, help="What of it is kept for critical Pods; 0 by default.")
@click.option(
    "--renew-authority", is_flag=True, help="Sign the cluster's certificate authority anew, with its own key."
)
@click.option("--example", is_flag=True, help="Run examples/hello and show that it answers.")
def command(example: bool, renew_authority: bool, **chosen: Any) -> None:
    before = ClusterSettings.load()
    with processes.exclusive(before.places):
        if renew_authority:
            _renew_authority(before)
        settings = start(before, {name: value for name, value in chosen.items() if value is not None})
    if example:
        from haven.cli.example import run as run_example

        run_example(settings)
    show_next(settings)


def start(before: ClusterSettings, chosen: dict[str, Any]) -> ClusterSettings:
    """Bring the cluster up and return how it is; raise Failure, leaving the machine as it was."""
    places = before.places
    fresh = not before.is_made
    prepared = _Prepared.of(places)
    left = orphans(places.supervisor_state)
    running = processes.is_running(places)
    with step("checking this machine"):
        settings = _settings(before, chosen, fresh=fresh)
        failed = [
            item
            for item in findings(settings, running=running or bool(left), fresh=fresh, load_modules=True)
            if item.required and not item.ok
        ]
        if failed:
            raise Failure("; ".join(f"{item.name}: {item.found} (mend it: {item.fix})" for item in failed))
    if (running or left) and settings != before:
        stop_programs(settings)  # Pods go on.
        running, left = False, {}
    try:
        if not running:
            with step("starting the cluster"):
                settings.save()
                start_detached(plan_of(settings), places.log("supervisor"))
        with step("waiting for the API server"):
            _wait_api(settings)
        with step("waiting for the node"):
            _wait_node(settings, reports_anew=not running and "agent" not in left)
    except OSError as error:
        _undo(settings, prepared, fresh=fresh, running=running)
        raise Failure(f"{error.filename or places.data}: {error.strerror}: mend that, then haven up again") from error
    except BaseException:
        _undo(settings, prepared, fresh=fresh, running=running)
        raise
    link_command()
    return settings


def _renew_authority(settings: ClusterSettings) -> None:
    from haven.cli.server import pki_settings
    from haven.cluster.pki import PkiError, renew_authorities

    stop_programs(settings)  # They read it when they start.
    try:
        renew_authorities(pki_settings(settings), time.time())
    except PkiError as error:
        raise Failure(str(error)) from error


def _settings(before: ClusterSettings, chosen: dict[str, Any], *, fresh: bool) -> ClusterSettings:
    """Return what the cluster shall be; what nobody chose is chosen at its first start, by what is free here."""
    changed = {name: value for name, value in chosen.items() if getattr(before, name) != value}
    fixed = sorted(set(changed) - MOVABLE)
    if fixed and not fresh:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in fixed)
        raise Failure(f"this cluster was made with other values of {names}: leave them out, or run haven reset first")
    settings = replace(before, **chosen)
    if fresh and not settings.complaints():
        settings = free_networks(settings, keep={*chosen, *kept_settings(before.places)})
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
            *(
                Child(name, (*program, "server"), str(places.log(name)))
                for name in ("server", *(f"server-{number}" for number in range(2, settings.server_workers + 1)))
            ),
            Child("agent", (*program, "agent"), str(places.log("agent"))),
        ),
        state=str(places.supervisor_state),
        pid_file=str(places.supervisor_pid),
        logs=(str(places.containerd / "containerd.log"), str(places.log("supervisor"))),
    )


def _wait_api(settings: ClusterSettings) -> None:
    from haven.cli.api import Api

    deadline = time.monotonic() + READY_SECONDS_MAX
    why = "it does not listen"
    while time.monotonic() < deadline:
        _check_processes(settings)
        if settings.places.admin_kubeconfig.exists():
            with contextlib.suppress(OSError, ValueError):
                # What cannot be read of the store is for `haven status` to tell: it keeps nothing else from working.
                status, body = Api(settings).request("GET", "/readyz?exclude=informer-sync")
                if status == 200:
                    return
                why = body.decode(errors="replace")[:300]
        time.sleep(0.05)
    raise Failure(f"the API server is not ready after {READY_SECONDS_MAX:.0f} s ({why}); haven logs server tells more")


def _wait_node(settings: ClusterSettings, *, reports_anew: bool) -> None:
    from haven.cli.api import Api

    api = Api(settings)
    deadline = time.monotonic() + NODE_SECONDS_MAX
    why = "it has not registered"
    while time.monotonic() < deadline:
        _check_processes(settings)
        status, node = api.get_json(f"/api/v1/nodes/{settings.node_name}")
        if status == 200:
            ready = next((c for c in node["status"].get("conditions", []) if c["type"] == "Ready"), None)
            if ready and ready["status"] == "True" and (not reports_anew or _is_fresh(api, settings)):
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


def _check_processes(settings: ClusterSettings) -> None:
    """Do not wait for what will not come: raise Failure with the reason that a part gave when it ended."""
    places = settings.places
    if not processes.is_running(places):
        log = places.log("supervisor")
        last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
        raise Failure(f"the cluster ended while it started: {' '.join(last) or 'see haven logs supervisor'}")
    for name, facts in read_state(places.supervisor_state).items():
        if facts.get("said"):
            raise Failure(facts["said"])
        if facts.get("last_exit") is not None and facts.get("starts", 0) >= STARTS_MAX:
            raise Failure(f"the {name} keeps ending (exit status {facts['last_exit']}); haven logs {name} tells more")


@dataclass(frozen=True)
class _Prepared:
    """What the user put into the data directory before the first start; it outlives one that fails."""

    paths: frozenset[Path]
    settings: bytes | None

    @classmethod
    def of(cls, places: Places) -> _Prepared:
        paths = frozenset(places.data.iterdir()) if places.data.is_dir() else frozenset()
        return cls(
            paths - {places.run, places.logs}, places.settings.read_bytes() if places.settings.exists() else None
        )


def _undo(settings: ClusterSettings, prepared: _Prepared, *, fresh: bool, running: bool) -> None:
    """Leave the machine as it was: without a cluster before the first start, with a stopped one afterwards."""
    if running:
        return
    from haven.cli.reset import reset

    places = settings.places
    with contextlib.suppress(Exception):  # The first failure is the one to tell.
        if not fresh:
            stop_cluster(settings)
            return
        reset(settings, keep=prepared.paths | {places.logs})
        if prepared.settings is not None:
            places.settings.write_bytes(prepared.settings)


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

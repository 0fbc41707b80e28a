"""haven status: what runs and whether it is well."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

import click

from haven.cli import processes
from haven.cli.settings import ClusterSettings
from haven.cli.supervisor import orphans, read_state

__all__ = ["command"]


@click.command(help="Show what runs and whether it is well.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", help="How to print it.")
def command(output: str) -> None:
    settings = ClusterSettings.load()
    report = collect(settings)
    if output == "json":
        click.echo(json.dumps(report, indent=1))
    else:
        _show(report)
    sys.exit(0 if report["well"] else 1)


def collect(settings: ClusterSettings) -> dict[str, Any]:
    """Return the state of every part; `well` only if all are."""
    from haven.cli.api import Api
    from haven.cli.failure import Failure

    supervised = processes.is_running(settings.places)
    left = {} if supervised else orphans(settings.places.supervisor_state)
    running = supervised or bool(left)
    components: dict[str, Any] = read_state(settings.places.supervisor_state) if running else {}
    for facts in components.values():
        facts.pop("command", None)
    nodes: list[dict[str, str]] = []
    ready = False
    unreadable = ""
    pods: dict[str, int] = {}
    if running:
        try:
            api = Api(settings)
            ready = api.get_json("/readyz")[0] == 200
            if not ready:
                with contextlib.suppress(OSError):  # Nobody answers: then nothing is known of that either.
                    status, text = api.request("GET", "/readyz/informer-sync")
                    unreadable = text.decode(errors="replace").strip() if status == 500 else ""
            _, found = api.get_json("/api/v1/nodes")
            for node in (found or {}).get("items", []):
                conditions = {c["type"]: c["status"] for c in node["status"].get("conditions", [])}
                nodes.append({"name": node["metadata"]["name"], "ready": conditions.get("Ready", "Unknown")})
            _, listed = api.get_json("/api/v1/pods")
            for pod in (listed or {}).get("items", []):
                phase = pod["status"].get("phase", "Unknown")
                pods[phase] = pods.get(phase, 0) + 1
        except Failure as error:
            components["api"] = {"error": str(error)}
    well = supervised and ready and bool(nodes) and all(node["ready"] == "True" for node in nodes)
    return {
        "running": running,
        "supervised": supervised,
        "api": ready,
        "unreadable": unreadable,
        "components": components,
        "nodes": nodes,
        "pods": pods,
        "well": well,
    }


def _show(report: dict[str, Any]) -> None:
    def mark(ok: bool) -> str:
        return click.style("✓", fg="green") if ok else click.style("✗", fg="red")

    if not report["running"]:
        click.echo(f"{mark(False)} not running: haven up starts it")
        return
    if not report["supervised"]:
        click.echo(f"{mark(False)} the supervisor is gone, its programs go on: haven up watches over them again")
    for name, facts in report["components"].items():
        pid, starts = facts.get("pid", 0), facts.get("starts", 0)
        again = f", started {starts} times, last exit {facts.get('last_exit')}" if starts > 1 else ""
        why = f": {facts['said']}" if not pid and facts.get("said") else ""
        click.echo(f"{mark(bool(pid))} {name:8} pid {pid}{again}{why}")
    because = f": {report['unreadable'].removeprefix('internal server error: ')}" if report["unreadable"] else ""
    click.echo(f"{mark(report['api'])} API server {'ready' if report['api'] else f'not ready{because}'}")
    for node in report["nodes"]:
        click.echo(f"{mark(node['ready'] == 'True')} node {node['name']}")
    click.echo("  pods " + (", ".join(f"{count} {phase}" for phase, count in sorted(report["pods"].items())) or "none"))

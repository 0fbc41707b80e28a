"""haven doctor: what this machine lacks, and how to mend it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace

import click

from haven.cli.failure import Failure
from haven.cli.settings import ClusterSettings
from haven.cluster.networks import NoFreeNetwork, Taken, choose, dns_address_of, taken
from haven.cluster.preflight import Check, Endpoint, Host, PackageManager, check_all, check_network

__all__ = ["command", "findings", "free_networks"]


def findings(
    settings: ClusterSettings, *, running: bool, fresh: bool = False, load_modules: bool = False
) -> list[Check]:
    """Return all checks; addresses and ports only while the cluster itself does not hold them."""
    if load_modules:
        from haven.cni.driver import load_modules as load

        load()
    host = Host(cni_bin=settings.places.cni_bin, data=settings.places.data)
    checks = check_all(host, [] if running else _endpoints(settings), PackageManager.of_this_machine(), fresh=fresh)
    if running:
        return checks
    others = _others(settings)
    return [*checks, *_network_checks(settings, others, fresh=fresh)]


def _endpoints(settings: ClusterSettings) -> list[Endpoint]:
    found = [Endpoint("API server", settings.listen, settings.api_port, "--api-port")]
    if settings.pod_side_address:
        found.append(Endpoint("API server for Pods", settings.pod_side_address, settings.api_port, "--api-port"))
    found.append(Endpoint("kubelet", "127.0.0.1", settings.kubelet_port, "--kubelet-port"))
    # Nothing moves the DNS to another port: resolvers ask at 53.
    return [*found, *(Endpoint("DNS", settings.dns_address, 53, udp=udp) for udp in (True, False))]


def _others(settings: ClusterSettings) -> list[Taken]:
    return taken(own_link=settings.places.bridge, own_label=settings.places.address_label)


def _network_checks(settings: ClusterSettings, others: list[Taken], *, fresh: bool) -> list[Check]:
    checks = []
    for what, cidr in (("Pods", settings.pod_cidr), ("Services", settings.service_cidr)):
        try:
            free = choose(what.lower(), cidr, others)
        except NoFreeNetwork as error:
            free, fix = cidr, str(error)
        options = f"--pod-cidr {free}" if what == "Pods" else (
            f"--service-cidr {free} --dns-address {dns_address_of(free)}"
        )  # fmt: skip
        fix = f"haven up {options}" if fresh else f"end the other one, or haven reset and then haven up {options}"
        checks.append(check_network(what, cidr, others, fix))
    return checks


def free_networks(settings: ClusterSettings, *, keep: set[str]) -> ClusterSettings:
    """Return the settings of a new cluster with networks that nothing on this machine uses; `keep` names those that
    the user chose."""
    others = _others(settings)
    try:
        if "pod_cidr" not in keep:
            settings = replace(settings, pod_cidr=choose("pods", settings.pod_cidr, others))
        if "service_cidr" not in keep:
            others = [*others, Taken(settings.pod_network, "the Pods of this cluster")]
            settings = replace(settings, service_cidr=choose("services", settings.service_cidr, others))
    except NoFreeNetwork as error:
        raise Failure(str(error)) from error
    if "dns_address" not in keep:
        settings = replace(settings, dns_address=dns_address_of(settings.service_cidr))
    return settings


@click.command(help="Check what this machine lacks, and say how to mend it.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", help="How to print it.")
def command(output: str) -> None:
    from haven.cli.processes import is_running
    from haven.cli.supervisor import orphans

    settings = ClusterSettings.load()
    running = is_running(settings.places) or bool(orphans(settings.places.supervisor_state))
    checks = findings(settings, running=running, fresh=not settings.is_made)
    failed = [check for check in checks if not check.ok and check.required]
    if output == "json":
        click.echo(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        for check in checks:
            mark = (
                click.style("✓", fg="green") if check.ok else click.style("✗", fg="red" if check.required else "yellow")
            )
            click.echo(f"{mark} {check.name:19} {check.found}")
            if not check.ok:
                click.echo(f"  {'':19} mend it: {check.fix}")
    sys.exit(1 if failed else 0)

"""haven agent: what a node runs: containerd, the kubelet with its server, the service proxy, DNS."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import random
import signal
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from haven import telemetry
from haven.cli.failure import Failure
from haven.cli.settings import ClusterSettings

__all__ = ["command", "serve"]

PAUSE_IMAGE = "haven.local/pause:1"
_log = telemetry.logger("agent")


@click.command(help="Run the node's part in the foreground.")
@click.option("--log-level", default="info", show_default=True, help="debug, info, warning or error.")
def command(log_level: str) -> None:
    import uvloop

    from haven.kubelet.containerd import MissingRuntime
    from haven.kubelet.delegation import DelegationError
    from haven.kubeproxy.driver import NftablesError

    settings = ClusterSettings.load()
    telemetry.configure(level=log_level, stream=sys.stderr)
    known = (DelegationError, MissingRuntime, NftablesError, OSError)
    try:
        uvloop.run(serve(settings))
    except known as error:
        raise Failure(_sentence(error)) from error
    except BaseExceptionGroup as group:
        reasons = list(leaves(group))
        if not all(isinstance(error, known) for error in reasons):
            raise
        raise Failure("; ".join(_sentence(error) for error in reasons)) from group


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}; mend that, the agent is started again by itself"
    return str(error)


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """Yield the errors of a group, however deep they lie."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error


async def serve(settings: ClusterSettings) -> None:
    """Serve until SIGTERM or SIGINT; Pods go on running."""
    from haven.cli.node import containerd_of
    from haven.cli.server import run_until
    from haven.client.sharedinformers import SharedInformers
    from haven.client.typed import RestClient
    from haven.clock import SystemClock
    from haven.cluster.pki import Pki
    from haven.cluster.renewal import follow
    from haven.dns.runner import Dns
    from haven.kubelet.imagemounts import ImageMounts
    from haven.kubelet.runner import Kubelet
    from haven.kubelet.server.access import Access
    from haven.kubelet.server.server import KubeletServer, ServerSettings
    from haven.kubeproxy.driver import Conntrack, Nftables
    from haven.kubeproxy.runner import KubeProxy

    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    clock, chance, keys = SystemClock(), random.Random(), Pki(settings.places.pki)
    containerd = containerd_of(settings)
    await run_until(stopping, [functools.partial(_prepare, settings, keys, containerd, clock)])
    if stopping.is_set():
        return

    runtime = containerd.runtime()
    transports = [_transport(keys.component(name), name) for name in ("kubelet", "kube-proxy")]
    client, network_client = (RestClient(transport, managed_fields=False) for transport in transports)
    informers = SharedInformers(network_client, clock=clock, chance=chance)
    kubelet = Kubelet(kubelet_settings(settings), client, runtime, clock, chance, image_mounts=ImageMounts(containerd))
    server = KubeletServer(
        ServerSettings(settings.node_name, port=settings.kubelet_port, devices=("lo", settings.places.bridge)),
        kubelet,
        runtime,
        Access(settings.node_name, client, clock),
        clock,
        _serving_context(keys),
    )
    proxy = KubeProxy(_proxy_settings(settings), informers, Nftables(), Conntrack(), clock)
    dns = Dns(_dns_settings(settings), informers, chance)
    # With renewed credentials the agent begins anew: it is started again at once, and Pods do not notice.
    credentials = [keys.component("kubelet"), keys.component("kube-proxy"), *keys.kubelet_serving]
    renewed = functools.partial(follow, credentials, clock, stopping.set)
    works: list[Callable[[], Any]] = [
        containerd.run,
        informers.run,
        kubelet.run,
        server.run,
        proxy.run,
        dns.run,
        renewed,
    ]
    await run_until(stopping, works)
    await runtime.close()
    for transport in transports:
        await transport.close()


async def _prepare(settings: ClusterSettings, keys: Any, containerd: Any, clock: Any) -> None:
    """Make what the works stand on: credentials, the kernel's settings, containerd with the pause image, addresses.

    Told to stop meanwhile, it leaves nothing running that is not written down.
    """
    from haven.cli.node import delegation_of
    from haven.cni.driver import prepare_kernel
    from haven.dns.driver import own_address
    from haven.kubelet import imagearchive, ociimage

    await _wait_kubeconfig(keys.component("kubelet"), settings.api_url, clock)
    _remember(settings, prepare_kernel())

    await asyncio.to_thread(delegation_of(settings).ensure)
    await containerd.start()
    runtime = containerd.runtime()
    try:
        if await runtime.image_status(PAUSE_IMAGE) is None:
            await imagearchive.load_images(containerd, [ociimage.pause_image(PAUSE_IMAGE)])
    finally:
        await runtime.close()
    label = settings.places.address_label
    await own_address(settings.dns_address, label)
    if settings.pod_side_address:
        await own_address(settings.pod_side_address, label)  # The bridge has it too, but only once a Pod has run.


def _transport(kubeconfig: Path, user_agent: str) -> Any:
    from haven.client.connection import from_kubeconfig
    from haven.client.http import HttpTransport

    return HttpTransport(from_kubeconfig(kubeconfig), user_agent=user_agent)


def kubelet_settings(settings: ClusterSettings) -> Any:
    """Return how the kubelet of this machine works."""
    from haven.cli.node import delegation_of
    from haven.kubelet.settings import Settings
    from haven.kubelet.shutdownplan import ShutdownSettings

    places = settings.places
    return Settings(
        node_name=settings.node_name,
        root_directory=places.kubelet,
        pod_logs_directory=places.pod_logs,
        container_logs_directory=places.container_logs,
        manifest_directory=places.manifests,
        cni_conf_directory=places.cni_conf,
        cni_data_directory=str(places.cni_state),
        cni_bridge=places.bridge,
        cni_network=places.cni_network,
        cgroup_root=f"{delegation_of(settings).path}/{places.cgroup}",
        pod_cidr=settings.pod_cidr,
        cluster_dns=(settings.dns_address,),
        cluster_domain=settings.cluster_domain,
        server_port=settings.kubelet_port,
        shutdown=ShutdownSettings(settings.shutdown_grace_seconds, settings.shutdown_grace_critical_seconds),
    )


def _proxy_settings(settings: ClusterSettings) -> Any:
    from haven.kubeproxy.rules import Layout
    from haven.kubeproxy.runner import Settings

    # Until machines are joined, NodePorts answer this host and its Pods only, like everything else here.
    interfaces = (settings.places.bridge,) if settings.listen.startswith("127.") else ()
    layout = Layout(
        (settings.pod_cidr,),
        (settings.service_cidr,),
        node_port_interfaces=interfaces,
        table=settings.places.nft_table,
    )
    return Settings(settings.node_name, layout, answered_here=frozenset({settings.dns_address}))


def _dns_settings(settings: ClusterSettings) -> Any:
    from haven.dns.resolvconf import find_resolvers
    from haven.dns.runner import Settings

    resolvers, why = find_resolvers({settings.dns_address})
    if why:
        _log.warning("outside names will not resolve", because=why)
    return Settings(settings.dns_address, domain=settings.cluster_domain, resolvers=resolvers)


def _serving_context(keys: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*keys.kubelet_serving)
    context.load_verify_locations(keys.ca_certificate)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


async def _wait_kubeconfig(path: Path, url: str, clock: Any) -> None:
    """Return once the server has written the agent's credentials for where it listens now.

    A file from before the API server moved to another port would send the agent to the old one.
    """
    while True:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if f"server: {url}\n" in path.read_text():
                return
        await clock.sleep(0.05)


def _remember(settings: ClusterSettings, changed: dict[str, str]) -> None:
    """Keep the kernel's former settings, so that haven reset can bring them back."""
    path = settings.places.journal
    known: dict[str, str] = {}
    with contextlib.suppress(FileNotFoundError, ValueError):  # Half-written on a full disk: what it said is lost.
        known = json.loads(path.read_text())
    fresh = {name: value for name, value in changed.items() if name not in known}
    if fresh:
        path.write_text(json.dumps({**known, **fresh}))

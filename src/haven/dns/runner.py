"""The DNS of one node: informers feed the zone, the server answers."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from haven.api.core import v1 as core
from haven.api.discovery import v1 as discovery
from haven.client.sharedinformers import SharedInformers
from haven.dns.forward import Forwarder
from haven.dns.server import Resolver, Server, Statistics
from haven.dns.zone import Zone

__all__ = ["Dns", "Settings"]

SERVICE_NAME_LABEL = "kubernetes.io/service-name"


@dataclass(frozen=True)
class Settings:
    """What the DNS of a node serves and where."""

    address: str
    port: int = 53
    domain: str = "cluster.local"
    resolvers: Sequence[str] = ()


class Dns:
    """Serves the cluster zone from informers. `run` does the work until cancelled."""

    def __init__(self, settings: Settings, informers: SharedInformers, chance: random.Random) -> None:
        self._services = informers.informer(core.Service)
        self._slices = informers.informer(discovery.EndpointSlice)
        self._namespaces = informers.informer(core.Namespace)
        self._services.add_index("cluster-ip", _cluster_ips)
        self._slices.add_index("service", _service_of)
        self._slices.add_index("address", _addresses)
        self._forwarder = Forwarder(settings.resolvers, chance)
        self._serial = int(time.time())
        zone = Zone(
            domain=settings.domain,
            services=self._services.get,
            slices=self._slices_of,
            has_namespace=lambda name: self._namespaces.get("", name) is not None,
            reverse=self._reverse,
            serial=lambda: self._serial,
        )
        self._resolver = Resolver(zone, self._forwarder)
        self.server = Server(self._resolver, settings.address, settings.port)

    def statistics(self) -> Statistics:
        """Return a snapshot for metrics."""
        return self._resolver.statistics()

    async def run(self, *, ready: asyncio.Event | None = None) -> None:
        """Serve until cancelled; `ready` is set once queries are answered."""
        informers = (self._services, self._slices, self._namespaces)
        removers = [informer.add_handler(self._changed) for informer in informers]
        try:
            for informer in informers:
                await informer.wait_synced()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.server.run(ready=ready), name="dns-server")
                tasks.create_task(self._forwarder.find_loop(), name="dns-loop-probe")
        finally:
            for remove in removers:
                remove()

    def _changed(self, _old: object, _new: object) -> None:
        self._serial += 1
        self._resolver.changed()

    def _slices_of(self, namespace: str, name: str) -> Iterable[discovery.EndpointSlice]:
        return self._slices.indexed("service", f"{namespace}/{name}")

    def _reverse(self, address: str) -> str | None:
        """Return the name of a Service by its address, or of an endpoint of a headless one, without the domain."""
        for service in self._services.indexed("cluster-ip", address):
            return f"{service.metadata.name}.{service.metadata.namespace}.svc"
        for item in self._slices.indexed("address", address):
            namespace, name = item.metadata.namespace, item.metadata.labels.get(SERVICE_NAME_LABEL, "")
            known = self._services.get(namespace, name)
            if known is None or known.spec.cluster_ip != "None":
                continue
            for endpoint in item.endpoints or ():
                if address in (endpoint.addresses or ()):
                    hostname = endpoint.hostname or address.replace(".", "-").replace(":", "-")
                    return f"{hostname}.{name}.{namespace}.svc"
        return None


def _cluster_ips(service: core.Service) -> tuple[str, ...]:
    addresses = service.spec.cluster_ips or [service.spec.cluster_ip]
    return tuple(address for address in addresses if address not in ("", "None"))


def _service_of(item: discovery.EndpointSlice) -> tuple[str, ...]:
    name = item.metadata.labels.get(SERVICE_NAME_LABEL)
    return (f"{item.metadata.namespace}/{name}",) if name else ()


def _addresses(item: discovery.EndpointSlice) -> tuple[str, ...]:
    return tuple({address for endpoint in item.endpoints or () for address in endpoint.addresses or ()})

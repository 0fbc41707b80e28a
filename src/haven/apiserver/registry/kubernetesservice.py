"""The Service `kubernetes` in the namespace default: how Pods find this API server.

The Service has the first address of the service network; its Endpoints and EndpointSlice name the address that the
server is reached at from nodes. Checked again and again, so that whoever deletes them gets them back.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import Any, Protocol

from haven import telemetry
from haven.api import scheme
from haven.api.core import v1 as core
from haven.api.discovery import v1 as discovery
from haven.api.scheme import Resource
from haven.apimachinery import apierrors, meta, serialization
from haven.client.interface import Client
from haven.clock import Clock

__all__ = ["KubernetesService", "primary_address"]

INTERVAL_SECONDS = 10.0
_LABELS = {"component": "apiserver", "provider": "kubernetes"}
_NAMESPACE, _NAME = "default", "kubernetes"
_log = telemetry.logger("apiserver")


class _Network(Protocol):
    @property
    def version(self) -> int: ...

    @property
    def network_address(self) -> Any: ...


def primary_address(host: str) -> str:
    """Return an address that others reach this machine at: `host` if it is one, else that of the default route."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if address is not None and not address.is_loopback and not address.is_unspecified:
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # Sends nothing: it only asks the kernel for a route.
            return str(probe.getsockname()[0])
        except OSError:
            return ""


class KubernetesService:
    """Keeps the three objects as they should be."""

    def __init__(self, client: Client, clock: Clock, *, networks: Sequence[_Network], address: str, port: int) -> None:
        self._client = client
        self._clock = clock
        self._network = networks[0]
        self._address = address
        self._port = port

    async def run(self) -> None:
        """Reconcile until cancelled."""
        while True:
            try:
                await self.reconcile()
            except apierrors.ApiError as error:
                _log.warning("The Service kubernetes could not be kept.", error=str(error))
            await self._clock.sleep(INTERVAL_SECONDS)

    async def reconcile(self) -> None:
        """Bring the objects to what they should be."""
        await self._keep(scheme.resource_of(core.Service), self._service(), _merge_service)
        if not self._address:
            return
        await self._keep(scheme.resource_of(core.Endpoints), self._endpoints(), _merge_endpoints)
        await self._keep(scheme.resource_of(discovery.EndpointSlice), self._slice(), _merge_slice)

    async def _keep(self, resource: Resource[Any], wanted: Any, merge: Any) -> None:
        try:
            found = await self._client.get(resource, _NAMESPACE, _NAME)
        except apierrors.NotFound:
            await self._client.create(resource, wanted)
            return
        new = serialization.copy(found)
        merge(new, wanted)
        if new != found:
            await self._client.update(resource, new)

    def _service(self) -> core.Service:
        address = str(self._network.network_address + 1)
        return core.Service(
            metadata=meta.ObjectMeta(name=_NAME, namespace=_NAMESPACE, labels=dict(_LABELS)),
            spec=core.ServiceSpec(
                ports=[core.ServicePort(name="https", protocol="TCP", port=443, target_port=self._port)],
                cluster_ip=address,
                ip_family_policy="SingleStack",
                session_affinity="None",
                type="ClusterIP",
            ),
        )

    def _endpoints(self) -> core.Endpoints:
        return core.Endpoints(
            metadata=meta.ObjectMeta(
                name=_NAME, namespace=_NAMESPACE, labels={"endpointslice.kubernetes.io/skip-mirror": "true"}
            ),
            subsets=[
                core.EndpointSubset(
                    addresses=[core.EndpointAddress(ip=self._address)],
                    ports=[core.EndpointPort(name="https", port=self._port, protocol="TCP")],
                )
            ],
        )

    def _slice(self) -> discovery.EndpointSlice:
        family = "IPv6" if ":" in self._address else "IPv4"
        return discovery.EndpointSlice(
            metadata=meta.ObjectMeta(name=_NAME, namespace=_NAMESPACE, labels={"kubernetes.io/service-name": _NAME}),
            address_type=family,
            endpoints=[
                discovery.Endpoint(addresses=[self._address], conditions=discovery.EndpointConditions(ready=True))
            ],
            ports=[discovery.EndpointPort(name="https", port=self._port, protocol="TCP")],
        )


def _merge_service(new: core.Service, wanted: core.Service) -> None:
    new.metadata.labels = {**new.metadata.labels, **wanted.metadata.labels}
    if [(port.name, port.port, port.target_port) for port in new.spec.ports] != [
        (port.name, port.port, port.target_port) for port in wanted.spec.ports
    ]:
        new.spec.ports = wanted.spec.ports


def _merge_endpoints(new: core.Endpoints, wanted: core.Endpoints) -> None:
    new.metadata.labels = {**new.metadata.labels, **wanted.metadata.labels}
    new.subsets = wanted.subsets


def _merge_slice(new: discovery.EndpointSlice, wanted: discovery.EndpointSlice) -> None:
    new.metadata.labels = {**new.metadata.labels, **wanted.metadata.labels}
    new.endpoints, new.ports = wanted.endpoints, wanted.ports

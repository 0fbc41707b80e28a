"""Where a Service can be reached from the API server: at its cluster IP, or at one of its endpoints.

Source: https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/ (--enable-aggregator-routing)
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from haven.api.core import v1 as core
from haven.api.discovery import v1 as discovery
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors
from haven.apimachinery.goformat import quote
from haven.apiserver.admission.interface import Objects
from haven.apiserver.webhooks.target import ServiceTarget

__all__ = ["ClusterAddresses", "EndpointAddresses", "ServiceAddresses", "Unroutable"]

_SERVICES, _SLICES = resource_of(core.Service), resource_of(discovery.EndpointSlice)
_ROUTED = ("ClusterIP", "LoadBalancer", "NodePort")


class Unroutable(Exception):
    """The Service has no address to connect to; the message is upstream's."""


class ServiceAddresses(Protocol):
    """Knows where Services are."""

    def resolve(self, service: ServiceTarget) -> tuple[str, int]:
        """Return (host, port); raise Unroutable or ApiError."""
        ...


def _service(objects: Objects, target: ServiceTarget) -> core.Service:
    found = objects.get(_SERVICES, target.namespace, target.name)
    if found is None:
        # What a lister of Go says; it has no plural to show.
        raise apierrors.NotFound.of(apierrors.GroupResource("", "service"), target.name)
    return found


def _port(service: core.Service, number: int) -> core.ServicePort:
    for port in service.spec.ports:
        if port.port == number:
            return port
    name = quote(service.metadata.name)
    raise apierrors.ServiceUnavailable(f"no service port {number} found for service {name}")


class ClusterAddresses:
    """Connects to cluster IPs, which kube-proxy on this machine leads on; upstream's default."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def resolve(self, service: ServiceTarget) -> tuple[str, int]:
        found = _service(self._objects, service)
        spec = found.spec
        if spec.type == "ExternalName":
            return spec.external_name, service.port
        if spec.type not in _ROUTED:
            raise Unroutable(f"unsupported service type {quote(spec.type)}")
        if spec.cluster_ip == "None":
            raise Unroutable('cannot route to service with ClusterIP "None"')
        return spec.cluster_ip, _port(found, service.port).port


class EndpointAddresses:
    """Connects to ready endpoints, any of them; needs no kube-proxy on the API server's machine."""

    def __init__(self, objects: Objects, chance: random.Random) -> None:
        self._objects = objects
        self._chance = chance

    def resolve(self, service: ServiceTarget) -> tuple[str, int]:
        found = _service(self._objects, service)
        if found.spec.type not in _ROUTED:
            raise Unroutable(f"unsupported service type {quote(found.spec.type)}")
        port = _port(found, service.port)
        slices = [
            one
            for one in self._objects.list(_SLICES, service.namespace)
            if one.metadata.labels.get("kubernetes.io/service-name") == service.name
        ]
        families = found.spec.ip_families or [""]
        slices.sort(key=lambda one: one.address_type != families[0])
        for preferred in (True, False):
            choice = [item for item in _ready(slices, port.name) if (item[0] == families[0]) == preferred]
            if choice:
                _, host, number = self._chance.choice(choice)
                return host, number
        raise apierrors.ServiceUnavailable(f"no endpoints available for service {quote(service.name)}")


def _ready(slices: Sequence[discovery.EndpointSlice], port_name: str) -> list[tuple[str, str, int]]:
    return [
        (one.address_type, endpoint.addresses[0], port.port)
        for one in slices
        for port in one.ports or ()
        if (port.name or "") == port_name and port.port is not None
        for endpoint in one.endpoints or ()
        if endpoint.conditions.ready is not False and endpoint.addresses
    ]

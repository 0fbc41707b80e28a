"""Say that a ServiceCIDR is ready, and keep it while Services have addresses that only it holds.

Source: https://kubernetes.io/docs/tasks/network/extend-service-ip-ranges/ and KEP-1880
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from haven.api.networking import v1 as networking
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, times
from haven.apimachinery.names import NamespacedName
from haven.client.interface import Patch, PatchType
from haven.controllers.actions import Change, Requeue, Steps, Wiring, key_from
from haven.controllers.pods import seconds_of

__all__ = ["ServiceCIDRController", "may_go"]

FINALIZER = "networking.k8s.io/service-cidr-finalizer"
MANAGER = "service-cidr-controller"
MANAGED_BY = "ipaddress.kubernetes.io/managed-by"
ALLOCATOR = "ipallocator.k8s.io"
DELETION_GRACE_SECONDS = 10.0  # An allocation that was under way when the deletion began shows up by then.
TERMINATING = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"

Network = IPv4Network | IPv6Network


def _networks(cidr: networking.ServiceCIDR) -> list[Network]:
    return [ip_network(text) for text in cidr.spec.cidrs]


def _contains(outer: Network, inner: Network) -> bool:
    return outer.version == inner.version and outer.supernet_of(inner)  # type: ignore[arg-type]


def may_go(
    cidr: networking.ServiceCIDR,
    every: Iterable[networking.ServiceCIDR],
    addresses: Iterable[IPv4Address | IPv6Address],
) -> bool:
    """Tell whether every address in use would still be in some ServiceCIDR, be that one on its way out too."""
    others = [network for other in every if other.metadata.name != cidr.metadata.name for network in _networks(other)]
    mine = _networks(cidr)
    if all(any(_contains(other, network) for other in others) for network in mine):
        return True
    return not any(
        any(address in network for network in mine) and not any(address in other for other in others)
        for address in addresses
    )


class ServiceCIDRController:
    """Keys are ServiceCIDRs."""

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._cidrs = wiring.reader(networking.ServiceCIDR)
        self._addresses = wiring.reader(networking.IPAddress)
        self._cidrs.add_handler(self._cidr_changed)
        self._addresses.add_handler(self._address_changed)

    def _cidr_changed(self, old: networking.ServiceCIDR | None, new: networking.ServiceCIDR | None) -> None:
        if new is not None:
            self._wiring.enqueue(key_from(new))
        if old is None or new is None or new.metadata.deletion_timestamp is not None:
            self._wake_terminating()

    def _address_changed(self, old: networking.IPAddress | None, new: networking.IPAddress | None) -> None:
        if new is None:
            self._wake_terminating()

    def _wake_terminating(self) -> None:
        for cidr in self._cidrs.list():
            if cidr.metadata.deletion_timestamp is not None:
                self._wiring.enqueue(key_from(cidr))

    def sync(self, key: NamespacedName) -> Steps[None]:
        cidr = self._cidrs.get(*key)
        if cidr is None:
            return
        if cidr.metadata.deletion_timestamp is None:
            if FINALIZER not in cidr.metadata.finalizers:
                yield from _patch_finalizer(key, {"finalizers": [FINALIZER]})
            yield from self._set_ready(cidr, "True", "", "Kubernetes Service CIDR is ready")
            return
        addresses = [
            ip_address(each.metadata.name)
            for each in self._addresses.list()
            if each.metadata.labels.get(MANAGED_BY) == ALLOCATOR
        ]
        if not may_go(cidr, self._cidrs.list(), addresses):
            yield from self._set_ready(cidr, "False", "Terminating", TERMINATING)
            return
        since = seconds_of(cidr.metadata.deletion_timestamp)
        left = since + DELETION_GRACE_SECONDS - self._wiring.now_seconds()
        if left > 0:
            yield Requeue(left)
        elif FINALIZER in cidr.metadata.finalizers:
            yield from _patch_finalizer(key, {"$deleteFromPrimitiveList/finalizers": [FINALIZER]})

    def _set_ready(self, cidr: networking.ServiceCIDR, status: str, reason: str, message: str) -> Steps[None]:
        for each in cidr.status.conditions:
            if each.type == "Ready" and (each.status, each.reason, each.message) == (status, reason, message):
                return
        condition = {
            "type": "Ready",
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": times.format_time(self._wiring.now_seconds()),
        }
        body = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": {"name": cidr.metadata.name},
            "status": {"conditions": [condition]},
        }
        patch = Patch(PatchType.APPLY, body, field_manager=MANAGER, force=True)
        yield Change(resource_of(networking.ServiceCIDR), "", cidr.metadata.name, patch, "status")


def _patch_finalizer(key: NamespacedName, metadata: dict[str, list[str]]) -> Steps[None]:
    patch = Patch(PatchType.STRATEGIC, {"metadata": metadata})
    try:
        yield Change(resource_of(networking.ServiceCIDR), "", key.name, patch)
    except apierrors.NotFound:
        return

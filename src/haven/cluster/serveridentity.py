"""Each API server says by a Lease in kube-system that it is there: who asks for the servers of a cluster lists them.

Processes of one machine share its Lease: while one keeps it the others leave it alone. Leases that ran out are removed.
Source: https://kubernetes.io/docs/concepts/architecture/leases/#api-server-identity
"""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import NoReturn

from haven import telemetry
from haven.api.coordination import v1
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta, serialization, times
from haven.client.interface import Client
from haven.clock import Clock

__all__ = ["NAMESPACE", "ServerIdentity", "identity_name", "is_over", "kept"]

NAMESPACE = "kube-system"
LABEL = "apiserver.kubernetes.io/identity"
COMPONENT = "kube-apiserver"
PEER_ADDRESS = "kubernetes.io/peer-advertise-address"
"""Where other servers of the cluster reach this one."""
LEASE_SECONDS = 3600
RENEW_SECONDS = 10.0
CLEAN_SECONDS = 3600.0
_SIBLING_SECONDS = 3 * RENEW_SECONDS

_LEASES = resource_of(v1.Lease)
_log = telemetry.logger("cluster")


def identity_name(hostname: str) -> str:
    """Return a server's name, which outlives its process."""
    parts = (hostname.encode(), COMPONENT.encode())
    digest = hashlib.sha256(b"".join(struct.pack(">H", len(part)) + part for part in parts)).digest()
    return "apiserver-" + base64.b32encode(digest[:16]).decode().rstrip("=").lower()


def kept(seen: v1.Lease | None, *, hostname: str, holder: str, now: float, address: str = "") -> v1.Lease | None:
    """Return the Lease to write, None if another process of this machine keeps it."""
    name = identity_name(hostname)
    lease = v1.Lease(metadata=meta.ObjectMeta(name=name, namespace=NAMESPACE))
    if seen is not None:
        spec = seen.spec
        fresh = spec.renew_time is not None and now - times.parse(spec.renew_time) < _SIBLING_SECONDS
        if spec.holder_identity != holder and fresh:
            return None
        lease = serialization.copy(seen)
    lease.metadata.labels = {**(lease.metadata.labels or {}), LABEL: COMPONENT, "kubernetes.io/hostname": hostname}
    if address:
        lease.metadata.annotations = {**lease.metadata.annotations, PEER_ADDRESS: address}
    lease.spec.holder_identity = holder
    lease.spec.lease_duration_seconds = LEASE_SECONDS
    lease.spec.renew_time = times.format_micro_time(now)
    return lease


def is_over(lease: v1.Lease, now: float) -> bool:
    """Tell whether a Lease ran out."""
    spec = lease.spec
    if spec.renew_time is None or spec.lease_duration_seconds is None:
        return True
    return times.parse(spec.renew_time) + spec.lease_duration_seconds < now


class ServerIdentity:
    """Keeps the Lease of this process's machine, and removes those of servers that are no more."""

    def __init__(self, client: Client, *, hostname: str, process: str, clock: Clock, address: str = "") -> None:
        self._address = address
        self._client = client
        self._hostname = hostname
        self._name = identity_name(hostname)
        self._holder = f"{self._name}_{process}"
        self._clock = clock

    async def run(self) -> NoReturn:
        """Renew and clean until cancelled."""
        clean_at = self._clock.monotonic_seconds() + CLEAN_SECONDS
        while True:
            try:
                await self.renew()
                if self._clock.monotonic_seconds() >= clean_at:
                    clean_at += CLEAN_SECONDS
                    await self.clean()
            except apierrors.ApiError as error:
                _log.warning("the server's identity was not renewed", lease=self._name, because=str(error))
            await self._clock.sleep(RENEW_SECONDS)

    async def renew(self) -> None:
        """Renew the Lease once, or make it."""
        try:
            seen = await self._client.get(_LEASES, NAMESPACE, self._name)
        except apierrors.NotFound:
            seen = None
        lease = kept(
            seen, hostname=self._hostname, holder=self._holder, now=self._clock.now_seconds(), address=self._address
        )
        if lease is None:
            return
        if seen is None:
            await self._client.create(_LEASES, lease, namespace=NAMESPACE)
        else:
            await self._client.update(_LEASES, lease)

    async def clean(self) -> None:
        """Remove the Leases that ran out."""
        found = await self._client.list(_LEASES, NAMESPACE, label_selector=f"{LABEL}={COMPONENT}")
        for lease in found.items:
            if is_over(lease, self._clock.now_seconds()):
                try:
                    await self._client.delete(_LEASES, NAMESPACE, lease.metadata.name)
                except apierrors.NotFound:
                    continue  # Another server cleans, too.

"""Take servers that are no more out of StorageVersions, and delete StorageVersions that none is left of.

A server is one as long as it has an identity Lease. Source: the storage-version-garbage-collector of
kube-controller-manager (KEP-2339).
"""

from __future__ import annotations

from haven.api.apiserverinternal import v1alpha1
from haven.api.apiserverinternal.encodings import with_servers
from haven.api.coordination import v1 as coordination
from haven.api.scheme import resource_of
from haven.controllers.actions import Delete, Fetch, Steps, Update, Wiring

__all__ = ["StorageVersionGarbageCollector"]

NAMESPACE = "kube-system"
LABEL, COMPONENT = "apiserver.kubernetes.io/identity", "kube-apiserver"
_LEASES = resource_of(coordination.Lease)
_VERSIONS = resource_of(v1alpha1.StorageVersion)


class StorageVersionGarbageCollector:
    """Keys are names of StorageVersions."""

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._versions = wiring.reader(v1alpha1.StorageVersion)
        self._versions.add_handler(self._changed)
        wiring.reader(coordination.Lease).add_handler(self._lease_changed)

    def _changed(self, _old: v1alpha1.StorageVersion | None, new: v1alpha1.StorageVersion | None) -> None:
        if new is not None:
            self._wiring.enqueue(new.metadata.name)

    def _lease_changed(self, old: coordination.Lease | None, new: coordination.Lease | None) -> None:
        if new is not None or old is None or not _is_identity(old):
            return
        for one in self._versions.list():
            if any(server.api_server_id == old.metadata.name for server in one.status.storage_versions):
                self._wiring.enqueue(one.metadata.name)

    def sync(self, key: str) -> Steps[None]:
        seen = self._versions.get("", key)
        if seen is None:
            return
        servers = seen.status.storage_versions
        known: set[str] = set()
        for name in dict.fromkeys(server.api_server_id for server in servers):
            # Asked for, as a server says what it stores right after its Lease is made.
            lease = yield Fetch(_LEASES, NAMESPACE, name)
            if lease is not None and _is_identity(lease):
                known.add(name)
        left = [server for server in servers if server.api_server_id in known]
        if len(left) == len(servers):
            return
        if left:
            yield Update(with_servers(seen, left, self._wiring.now_seconds()), "status")
        else:
            yield Delete(_VERSIONS, "", key, uid=seen.metadata.uid)


def _is_identity(lease: coordination.Lease) -> bool:
    metadata = lease.metadata
    return metadata.namespace == NAMESPACE and (metadata.labels or {}).get(LABEL) == COMPONENT

"""What a StorageVersion says: which server of a cluster stores a resource in which version, and whether all agree.

Source: KEP-2339 and the behaviour of k8s.io/apiserver's storageversion package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from haven.api.apiserverinternal import v1alpha1
from haven.apimachinery import meta, serialization, times

__all__ = ["Stored", "recorded", "with_servers"]

AGREED = "AllEncodingVersionsEqual"


@dataclass(frozen=True, slots=True)
class Stored:
    """How a server stores a resource; versions are those of its group, as in apps/v1."""

    group: str
    plural: str
    encoding: str
    decodable: tuple[str, ...]
    served: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the StorageVersion is called."""
        return f"{self.group or 'core'}.{self.plural}"


def recorded(seen: v1alpha1.StorageVersion | None, stored: Stored, server: str, now: float) -> v1alpha1.StorageVersion:
    """Return a StorageVersion with what a server says of itself; `seen` is what there is already."""
    own = v1alpha1.ServerStorageVersion(
        api_server_id=server,
        encoding_version=stored.encoding,
        decodable_versions=list(stored.decodable),
        served_versions=list(stored.served),
    )
    if seen is None:
        seen = v1alpha1.StorageVersion(metadata=meta.ObjectMeta(name=stored.name))
    known = seen.status.storage_versions
    servers = [own if one.api_server_id == server else one for one in known]
    return with_servers(seen, servers if own in servers else [*servers, own], now)


def with_servers(
    seen: v1alpha1.StorageVersion, servers: Sequence[v1alpha1.ServerStorageVersion], now: float
) -> v1alpha1.StorageVersion:
    """Return a StorageVersion of these servers, with the version that they have in common and whether there is one."""
    result = serialization.copy(seen)
    status = result.status
    before, status.storage_versions = status.common_encoding_version, list(servers)
    encodings = {one.encoding_version for one in servers}
    status.common_encoding_version = encodings.pop() if len(encodings) == 1 else None
    is_set = status.common_encoding_version is not None
    condition = v1alpha1.StorageVersionCondition(
        type=AGREED,
        status="True" if is_set else "False",
        observed_generation=seen.metadata.generation,
        last_transition_time=times.format_time(now),
        reason="CommonEncodingVersionSet" if is_set else "CommonEncodingVersionUnset",
        message=f"Common encoding version {'set' if is_set else 'unset'}",
    )
    old = next((one for one in status.conditions if one.type == AGREED), None)
    changes = before is not None and is_set and before != status.common_encoding_version
    if old is not None and old.status == condition.status and not changes:
        condition.last_transition_time = old.last_transition_time
    status.conditions = [*(one for one in status.conditions if one.type != AGREED), condition]
    return result

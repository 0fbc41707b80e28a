"""Keep the status of every ResourceQuota true: what it allows, and how much of that is used.

The API server adds what it admits; this controller takes off what ended or was deleted, and settles what was counted
while an object was on its way. Only resources that some quota limits are watched.
Source: https://kubernetes.io/docs/concepts/policy/resource-quotas/
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from haven.api.core import v1 as core
from haven.api.core.quotausage import IGNORED, SPECIAL, Counting, calculate, counting_of, covers
from haven.api.scheme import Resource, table
from haven.apimachinery import serialization
from haven.apimachinery.apierrors import GroupResource
from haven.apimachinery.names import NamespacedName
from haven.apimachinery.quantity import Quantity
from haven.controllers.actions import Reader, Requeue, Steps, Update, Wiring, key_from
from haven.controllers.discovery import Discovered, discover

__all__ = ["ResourceQuotaController"]

RESYNC_SECONDS = 300.0  # Some things end by time alone, such as Pods on lost nodes.
SETTLE_SECONDS = 0.5  # Several objects created one after the other cost one pass.
UNKNOWN_SECONDS = 30.0  # A resource that nobody serves may be a CRD yet to come.
SYNC_CHECK_SECONDS = 0.1


class ResourceQuotaController:
    """Keys are places of ResourceQuotas."""

    workers = 5

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._quotas = wiring.reader(core.ResourceQuota)
        self._readers: dict[GroupResource, Reader[Any]] = {}
        self._found: Discovered | None = None
        self._quotas.add_handler(self._quota_changed)

    def _quota_changed(self, old: core.ResourceQuota | None, new: core.ResourceQuota | None) -> None:
        if new is not None and (old is None or old.spec != new.spec or old.status.hard != new.status.hard):
            self._wiring.enqueue(key_from(new))

    def sync(self, key: NamespacedName) -> Steps[None]:
        quota = self._quotas.get(key.namespace, key.name)
        if quota is None:
            return
        missing = yield from self._watch(quota)
        if not self._wiring.is_synced():
            yield Requeue(SYNC_CHECK_SECONDS)
            return
        counted = calculate(quota, self._objects_of(key.namespace), self._wiring.now_seconds())
        unknown = {name for each in missing for name in counting_of(each).names(quota.spec.hard)}
        used = {name: amount for name, amount in quota.status.used.items() if name in quota.spec.hard}
        used |= {name: amount for name, amount in counted.items() if name not in unknown}
        if quota.status.hard != quota.spec.hard or quota.status.used != used or not quota.status.used:
            changed = serialization.copy(quota)
            changed.status.hard = dict(quota.spec.hard)
            changed.status.used = used
            if changed.status != quota.status:
                yield Update(changed, "status")
        yield Requeue(UNKNOWN_SECONDS if missing else RESYNC_SECONDS)

    def _objects_of(self, namespace: str) -> Any:
        def objects_of(resource: GroupResource) -> Iterable[Any]:
            reader = self._readers.get(resource)
            return reader.list(namespace) if reader is not None else ()

        return objects_of

    # Watching what quotas limit

    def _watch(self, quota: core.ResourceQuota) -> Steps[list[GroupResource]]:
        """See that everything that a quota limits is watched; return resources that nobody serves."""
        missing = []
        for resource in _limited(quota.spec.hard):
            if resource in self._readers:
                continue
            found = _built_in(resource) or (yield from self._discover(resource))
            if found is None:
                missing.append(resource)
                continue
            typed = resource in SPECIAL
            reader = self._wiring.reader(found) if typed else self._wiring.metadata_reader(found)
            self._readers[resource] = reader
            reader.add_handler(self._object_handler(counting_of(resource)))
        return missing

    def _discover(self, resource: GroupResource) -> Steps[Resource[Any] | None]:
        self._found = yield from discover()
        for each in self._found.having("create", "list", "watch", "delete"):
            if each.group_resource == resource and each.namespaced:
                return each
        return None

    def _object_handler(self, counting: Counting) -> Any:
        def changed(old: Any, new: Any) -> None:
            metadata = (new if new is not None else old).metadata
            for quota in self._quotas.list(metadata.namespace):
                if not counting.names(quota.spec.hard):
                    continue
                if new is None:
                    self._wiring.enqueue(key_from(quota))
                elif old is None or self._counts_differ(counting, quota, old, new):
                    self._wiring.enqueue_after(key_from(quota), SETTLE_SECONDS)

        return changed

    def _counts_differ(self, counting: Counting, quota: core.ResourceQuota, old: Any, new: Any) -> bool:
        now = self._wiring.now_seconds()
        before, after = (
            counting.usage(each, now) if covers(counting, quota, quota.spec.hard, each) else {} for each in (old, new)
        )
        return before != after


def _limited(hard: dict[str, Quantity]) -> list[GroupResource]:
    """Return the resources whose objects count for any of these names."""
    core_names = ("configmaps", "resourcequotas", "replicationcontrollers", "secrets")
    candidates = dict.fromkeys([*SPECIAL, *(GroupResource("", name) for name in core_names)])
    for name in hard:
        kind, slash, resource = name.partition("/")
        if kind == "count" and slash:
            plural, _, group = resource.partition(".")
            candidates[GroupResource(group, plural)] = None
    return [each for each in candidates if each not in IGNORED and counting_of(each).names(hard)]


def _built_in(resource: GroupResource) -> Resource[Any] | None:
    """Return the stable version of a resource of Haven's own, which is always served."""
    for each in table().values():
        if each.group_resource == resource and each.version == "v1" and each.namespaced:
            return each
    return None

"""Recount what a namespace uses of what its ResourceQuotas limit.

Admission charges each request; this recount notices what went away. Source:
https://kubernetes.io/docs/concepts/policy/resource-quotas/
"""

from __future__ import annotations

from typing import Any

from haven.api.core import v1 as core
from haven.api.scheme import Resource, resource_of
from haven.apimachinery import serialization
from haven.apimachinery.names import NamespacedName
from haven.apimachinery.quantity import Quantity
from haven.controllers.actions import ListNow, Steps, Update, Wiring, key_from
from haven.controllers.quotausage import counted_resources, usage_of

__all__ = ["ResourceQuotaController"]

SETTLE_SECONDS = 0.05  # A burst of deletions is counted once.


class ResourceQuotaController:
    """Keys are ResourceQuotas."""

    workers = 5

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._quotas = wiring.reader(core.ResourceQuota)
        self._watched: set[Resource[Any]] = set()
        self._quotas.add_handler(self._quota_changed)

    def _quota_changed(self, old: core.ResourceQuota | None, new: core.ResourceQuota | None) -> None:
        if new is None:
            return
        if old is not None and old.spec == new.spec and old.status.used == new.status.used:
            return
        for resource in counted_resources(new.spec.hard):
            self._watch(resource)
        self._wiring.enqueue(key_from(new))

    def _watch(self, resource: Resource[Any]) -> None:
        """Look at a resource only once some quota counts it."""
        if resource in self._watched:
            return
        self._watched.add(resource)

        def changed(old: Any, new: Any) -> None:
            is_shrunk = new is None
            is_other = old is not None and new is not None and resource in _CHANGING and _facts(old) != _facts(new)
            if not is_shrunk and not is_other and old is not None:
                return
            namespace = (old if new is None else new).metadata.namespace
            for quota in self._quotas.list(namespace):
                self._wiring.enqueue_after(key_from(quota), SETTLE_SECONDS)

        self._wiring.reader(resource).add_handler(changed)

    def sync(self, key: NamespacedName) -> Steps[None]:
        quota = self._quotas.get(*key)
        if quota is None:
            return
        used: dict[str, Quantity] = dict.fromkeys(quota.spec.hard, Quantity.ZERO)
        for resource in counted_resources(quota.spec.hard):
            for obj in (yield ListNow(resource, key.namespace)):
                for name, amount in usage_of(resource, obj, quota, self._wiring.now_seconds()).items():
                    if name in used:
                        used[name] = used[name] + amount
        status = core.ResourceQuotaStatus(hard=quota.spec.hard, used=used)
        if status != quota.status:
            changed = serialization.copy(quota)
            changed.status = status
            yield Update(changed, "status")


_CHANGING = frozenset({resource_of(core.Pod), resource_of(core.Service), resource_of(core.PersistentVolumeClaim)})


def _facts(obj: Any) -> tuple[object, ...]:
    if isinstance(obj, core.Pod):
        return (obj.status.phase, obj.metadata.deletion_timestamp, obj.spec)
    return (obj.spec,)

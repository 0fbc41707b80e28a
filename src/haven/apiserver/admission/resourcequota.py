"""ResourceQuota: what a request adds is reserved in the quotas of its namespace, or it is refused.

Requests of one namespace that wait at the same moment are judged together, one after the other, and their sum is
written in one update of each quota's status. If somebody else changed a quota in between, the judgement is repeated
against the newest state. What is reserved for a request that fails later is given back by the quota controller.
Source: https://kubernetes.io/docs/concepts/policy/resource-quotas/
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from haven.api import scheme
from haven.api.core import v1 as core
from haven.api.core.quotausage import (
    IGNORED,
    Counting,
    Usage,
    counting_of,
    covers,
    is_terminating,
    scope_selectors,
)
from haven.apimachinery import serialization
from haven.apimachinery.apierrors import ApiError, Conflict, GroupResource
from haven.apimachinery.quantity import Quantity
from haven.apiserver.admission.interface import (
    CREATE,
    UPDATE,
    AdmissionRequest,
    Objects,
    PluginFailure,
    forbidden,
)
from haven.apiserver.admission.limitedresources import LimitedResource
from haven.clock import Clock

__all__ = ["ResourceQuota", "reserve"]

ATTEMPTS_MAX = 4
_PODS, _SERVICES = GroupResource("", "pods"), GroupResource("", "services")
_CLAIMS = GroupResource("", "persistentvolumeclaims")
_NAMESPACES = GroupResource("", "namespaces")


@dataclass(slots=True, eq=False)
class _Waiter:
    request: AdmissionRequest
    decided: bool = False
    error: ApiError | None = None

    def decide(self, error: ApiError | None) -> None:
        self.decided, self.error = True, error


@dataclass(slots=True)
class _Queue:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiters: list[_Waiter] = field(default_factory=list)


class ResourceQuota:
    """The last to judge, so that nothing is reserved for requests that others refuse."""

    name = "ResourceQuota"
    resources: frozenset[GroupResource] | None = None
    only_refuses = True

    def __init__(self, objects: Objects, clock: Clock, limited: Sequence[LimitedResource] = ()) -> None:
        self._objects = objects
        self._clock = clock
        self._limited = tuple(limited)
        self._quotas = scheme.resource_of(core.ResourceQuota)
        self._queues: dict[str, _Queue] = {}

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE)

    def is_idle(self, request: AdmissionRequest) -> bool:
        if not request.namespace:
            return True
        return not self._limited and not self._objects.list(self._quotas, request.namespace)

    async def validate(self, request: AdmissionRequest) -> None:
        namespace, resource = request.namespace, request.resource.group_resource
        if not namespace or resource == _NAMESPACES or resource in IGNORED or not _counts(request):
            return
        if self.is_idle(request):
            return
        queue = self._queues.setdefault(namespace, _Queue())
        waiter = _Waiter(request)
        queue.waiters.append(waiter)
        try:
            async with queue.lock:
                # Whoever comes first decides for all that came meanwhile.
                if not waiter.decided:
                    await self._decide(namespace, [one for one in queue.waiters if not one.decided])
        finally:
            queue.waiters.remove(waiter)
            if not queue.waiters:
                self._queues.pop(namespace, None)
        if waiter.error is not None:
            raise waiter.error

    async def _decide(self, namespace: str, waiters: Sequence[_Waiter]) -> None:
        quotas = sorted(self._objects.list(self._quotas, namespace), key=lambda quota: quota.metadata.name)
        now = self._clock.now_seconds()
        for attempt in range(ATTEMPTS_MAX):
            used = {quota.metadata.name: quota.status.used for quota in quotas}
            for waiter in waiters:
                if waiter.decided:
                    continue
                try:
                    after = reserve(waiter.request, quotas, used, now, self._limited)
                except ApiError as error:
                    waiter.decide(error)
                    continue
                if waiter.request.dry_run or after == used:
                    waiter.decide(None)
                else:
                    used = after
            conflicts, conflict = await self._write(quotas, used)
            if not conflicts:
                break
            if attempt == ATTEMPTS_MAX - 1:
                for waiter in waiters:
                    if not waiter.decided:
                        waiter.decide(conflict)
                break
            # What is written already holds: only the others have to be judged again.
            fresh = [await self._objects.get_fresh(self._quotas, namespace, name) for name in conflicts]
            quotas = [quota for quota in fresh if quota is not None]
        for waiter in waiters:
            if not waiter.decided:
                waiter.decide(None)

    async def _write(
        self, quotas: Sequence[core.ResourceQuota], used: Mapping[str, Usage]
    ) -> tuple[list[str], Conflict | None]:
        """Write the quotas that changed; return the names of those that somebody else changed as well."""
        conflicts: list[str] = []
        last: Conflict | None = None
        for quota in quotas:
            name = quota.metadata.name
            if quota.status.used == used[name]:
                continue
            changed = serialization.copy(quota)
            changed.status.used = dict(used[name])
            try:
                await self._objects.update_status(self._quotas, changed)
            except Conflict as error:
                conflicts.append(name)
                last = error
        return conflicts, last


def _counts(request: AdmissionRequest) -> bool:
    """Tell whether a request can change what its object counts for."""
    resource, subresource, creates = request.resource.group_resource, request.subresource, request.operation == CREATE
    if resource == _PODS:
        if subresource == "resize":
            return not creates
        if subresource:
            return False
        return creates or is_terminating(request.object) != is_terminating(request.old)
    if resource == _CLAIMS:
        if subresource == "status":
            return not creates and _replenishes(request.object, request.old)
        return not subresource
    if resource == _SERVICES or resource == GroupResource("resource.k8s.io", "resourceclaims"):
        return not subresource
    return creates and not subresource


def _replenishes(new: core.PersistentVolumeClaim, old: core.PersistentVolumeClaim) -> bool:
    return (
        new.status.allocated_resources != old.status.allocated_resources
        or new.status.current_volume_attributes_class_name != old.status.current_volume_attributes_class_name
        or new.status.modify_volume_status != old.status.modify_volume_status
    )


def reserve(
    request: AdmissionRequest,
    quotas: Sequence[core.ResourceQuota],
    used: Mapping[str, Usage],
    now: float,
    limited: Sequence[LimitedResource] = (),
) -> dict[str, Usage]:
    """Return what is used of each quota, by its name, once the request is granted; raise Forbidden if it cannot be.

    What is `limited` is granted only if a quota covers it.
    """
    counting = counting_of(request.resource.group_resource)
    obj: Any = request.object
    interesting: list[core.ResourceQuota] = []
    for quota in quotas:
        hard = quota.status.hard
        if not covers(counting, quota, hard, obj):
            continue
        names = counting.names(hard)
        name = quota.metadata.name
        missing = counting.missing(names, obj)
        if missing:
            raise forbidden(request, f"failed quota: {name}: {missing}")
        if any(limited not in used[name] for limited in names):
            raise forbidden(request, f"status unknown for quota: {name}, resources: {','.join(names)}")
        interesting.append(quota)
    result = dict(used)
    own = [one for one in limited if one.resource == request.resource.group_resource]
    if not interesting and not own:
        return result
    usage = counting.usage(obj, now)
    negative = sorted(name for name, amount in usage.items() if amount < Quantity.ZERO)
    if negative:
        raise forbidden(request, f"quota usage is negative for resource(s): {','.join(negative)}")
    before = counting.usage(request.old, now) if request.operation == UPDATE else {}
    if own and (_added(usage, before) if interesting or request.operation == CREATE else {}):
        _check_covered(request, counting, quotas, interesting, usage, own)
    for quota in interesting:
        name, hard = quota.metadata.name, quota.status.hard
        counted_before = bool(before) and covers(counting, quota, hard, request.old)
        added = _added(usage, before if counted_before else {})
        asked = {one: amount for one, amount in added.items() if one in hard}
        after = dict(used[name])
        for one, amount in asked.items():
            after[one] = after[one] + amount if one in after else amount
        if request.subresource != "status":
            exceeded = sorted(one for one in asked if after[one] > hard[one])
            if exceeded:
                raise forbidden(
                    request,
                    f"exceeded quota: {name}, requested: {_show(asked, exceeded)}, used: {_show(used[name], exceeded)},"
                    f" limited: {_show(hard, exceeded)}",
                )
        result[name] = after
    return result


def _check_covered(
    request: AdmissionRequest,
    counting: Counting,
    quotas: Sequence[core.ResourceQuota],
    interesting: Sequence[core.ResourceQuota],
    usage: Usage,
    limited: Sequence[LimitedResource],
) -> None:
    """Raise what refuses a request that uses something which only quotas may grant."""
    needed = {
        name
        for one in limited
        for name, amount in usage.items()
        if amount > Quantity.ZERO and any(part in name for part in one.match_contains)
    }
    covered = {name for quota in interesting for name in counting.names(quota.status.hard)}
    if needed - covered:
        raise forbidden(request, f"insufficient quota to consume: {','.join(sorted(needed - covered))}")
    obj = request.object
    known = {one.scope_name for quota in quotas for one in scope_selectors(quota) if counting.in_scope(one, obj)}
    uncovered = [
        one
        for limit in limited
        for one in limit.match_scopes
        if counting.in_scope(one, obj) and one.scope_name not in known
    ]
    if uncovered:
        shown = " ".join(f"{{{one.scope_name} {one.operator} [{' '.join(one.values)}]}}" for one in uncovered)
        raise PluginFailure(f"insufficient quota to match these scopes: [{shown}]")


def _added(usage: Usage, before: Usage) -> Usage:
    """Return what a request adds; what it gives back is left to the controller."""
    added = {name: amount - before[name] if name in before else amount for name, amount in usage.items()}
    return {name: amount for name, amount in added.items() if amount > Quantity.ZERO}


def _show(amounts: Mapping[str, Quantity], names: Iterable[str]) -> str:
    return ",".join(f"{name}={amounts[name]}" for name in names if name in amounts)

"""Delete what lost all its owners; let owners go in the foreground or as orphans' parents.

Every decision to delete is checked against the server first: the graph may be behind, the server is not.
Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import Any

from haven.api.apiextensions import v1 as apiextensions
from haven.api.apiregistration import v1 as apiregistration
from haven.api.core import v1 as core
from haven.api.scheme import Resource
from haven.apimachinery import apierrors, meta
from haven.apimachinery.names import UID
from haven.client.interface import Patch, PatchType
from haven.client.metadata import metadata_only
from haven.controllers.actions import Change, Delete, Emit, Fetch, Requeue, Retry, Steps, Together, Wiring
from haven.controllers.discovery import Discovered, discover
from haven.controllers.gcgraph import FOREGROUND, ORPHAN, Graph, GraphKey, Node

__all__ = ["GarbageCollector"]

ABSENT_OWNERS_MAX = 500
DISCOVER = "discover"
SETTLE_SECONDS = 1.0  # A new CRD is served a moment after it is written.
SYNC_SECONDS_MAX = 30.0  # A resource whose first list takes longer no longer holds up the rest.
SYNC_CHECK_SECONDS = 0.1

# Written much, owned never, and without dependents: not worth watching. Upstream leaves these out as well.
IGNORED = frozenset({("", "events"), ("events.k8s.io", "events")})


class _Owner(Enum):
    SOLID = "solid"
    DANGLING = "dangling"
    WAITING = "waiting"


class GarbageCollector:
    """Keys are GraphKeys, and DISCOVER."""

    workers = 20

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._graph = Graph()
        self._found: Discovered | None = None
        self._monitored: dict[Resource[Any], float] = {}
        self._absent: OrderedDict[tuple[str, str, str, str, UID], None] = OrderedDict()
        for kind in (apiextensions.CustomResourceDefinition, apiregistration.APIService):
            wiring.reader(kind).add_handler(self._resources_changed)
        wiring.enqueue(DISCOVER)

    def _resources_changed(self, old: Any, new: Any) -> None:
        if old is None or new is None or old.status != new.status or old.spec != new.spec:
            self._wiring.enqueue_after(DISCOVER, SETTLE_SECONDS)

    def sync(self, key: GraphKey | str) -> Steps[None]:
        if not isinstance(key, GraphKey):
            yield from self._discover()
            return
        if not self._is_ready():
            yield Requeue(SYNC_CHECK_SECONDS)
            return
        node = self._graph.node(key.uid)
        if node is None:
            return
        if key.task == "orphan":
            yield from self._orphan(node)
        else:
            yield from self._collect(node)

    # Watching everything

    def _discover(self) -> Steps[None]:
        self._found = yield from discover()
        wanted = {
            each for each in self._found.having("delete", "list", "watch") if (each.group, each.plural) not in IGNORED
        }
        for resource in sorted(self._monitored.keys() - wanted, key=str):
            del self._monitored[resource]
            self._wiring.forget(resource)
        for resource in sorted(wanted - self._monitored.keys(), key=str):
            self._monitored[resource] = self._wiring.now_seconds()
            self._watch(resource)

    def _watch(self, resource: Resource[Any]) -> None:
        def changed(old: Any, new: Any) -> None:
            if new is not None:
                keys = self._graph.put(resource, new.metadata)
            else:
                keys = self._graph.remove(old.metadata.uid)
            for key in keys:
                self._wiring.enqueue(key)

        self._wiring.metadata_reader(resource).add_handler(changed)

    def _is_ready(self) -> bool:
        """Deciding on half a graph would orphan or delete too much."""
        if self._found is None:
            return False
        if self._wiring.is_synced():
            return True
        newest = max(self._monitored.values(), default=0.0)
        return self._wiring.now_seconds() - newest > SYNC_SECONDS_MAX

    # One object

    def _collect(self, node: Node) -> Steps[None]:
        if node.is_being_deleted and not node.is_deleting_dependents:
            return
        resource = metadata_only(node.resource)
        latest = yield Fetch(resource, node.namespace, node.name)
        if latest is None or latest.metadata.uid != node.uid:
            return  # The cache will hear of it soon.
        if node.is_deleting_dependents:
            yield from self._wait_for_dependents(node, latest)
            return
        owners: dict[_Owner, list[meta.OwnerReference]] = {each: [] for each in _Owner}
        for reference in latest.metadata.owner_references:
            state = yield from self._classify(node, reference)
            if state is None:
                return
            owners[state].append(reference)
        if not latest.metadata.owner_references:
            return
        gone = [*owners[_Owner.DANGLING], *owners[_Owner.WAITING]]
        if owners[_Owner.SOLID]:
            if gone:
                yield from self._drop_references(node, latest, {reference.uid for reference in gone})
            return
        policy = "Background"
        if owners[_Owner.WAITING] and (dependents := self._graph.dependents(node.uid)):
            if any(each.is_deleting_dependents for each in dependents):
                # A cycle may be waiting for itself: stop blocking the owners.
                latest = yield from self._unblock(node, latest)
            policy = "Foreground"
        elif ORPHAN in latest.metadata.finalizers:
            policy = "Orphan"
        elif FOREGROUND in latest.metadata.finalizers:
            policy = "Foreground"
        yield Delete(
            resource,
            node.namespace,
            node.name,
            uid=node.uid,
            resource_version=latest.metadata.resource_version,
            propagation_policy=policy,
        )

    def _classify(self, node: Node, reference: meta.OwnerReference) -> Steps[_Owner | None]:
        """Return what became of an owner; None if the reference makes no sense and nothing should be done."""
        known = self._graph.node(reference.uid)
        if known is not None and known.is_at(reference, node.namespace):
            return _Owner.WAITING if known.is_deleting_dependents else _Owner.SOLID
        if known is not None and known.namespace not in ("", node.namespace):
            yield Emit(
                _reference_to(node),
                "Warning",
                "OwnerRefInvalidNamespace",
                f"ownerRef [{reference.api_version}/{reference.kind}, namespace: {node.namespace}, "
                f"name: {reference.name}, uid: {reference.uid}] does not exist in namespace "
                f'"{node.namespace}"',
            )
        assert self._found is not None
        resource = self._found.by_kind.get((reference.api_version, reference.kind))
        if resource is None:
            self._wiring.enqueue_after(DISCOVER, SETTLE_SECONDS)
            raise Retry(f"unable to get REST mapping for {reference.api_version}/{reference.kind}.")
        if resource.namespaced and not node.namespace:
            return None  # A cluster-scoped object cannot have a namespaced owner; it must not be deleted for it.
        namespace = node.namespace if resource.namespaced else ""
        place = (reference.api_version, reference.kind, namespace, reference.name, reference.uid)
        if place in self._absent:
            return _Owner.DANGLING
        owner = yield Fetch(metadata_only(resource), namespace, reference.name)
        if owner is None or owner.metadata.uid != reference.uid:
            self._absent[place] = None
            if len(self._absent) > ABSENT_OWNERS_MAX:
                self._absent.popitem(last=False)
            return _Owner.DANGLING
        is_waiting = owner.metadata.deletion_timestamp is not None and FOREGROUND in owner.metadata.finalizers
        return _Owner.WAITING if is_waiting else _Owner.SOLID

    def _wait_for_dependents(self, node: Node, latest: Any) -> Steps[None]:
        blocking = self._graph.blocking_dependents(node.uid)
        if not blocking:
            yield from _remove_finalizer(node, latest, FOREGROUND)
            return
        for dependent in blocking:
            if not dependent.is_deleting_dependents:
                self._wiring.enqueue(GraphKey("collect", dependent.uid))

    def _orphan(self, node: Node) -> Steps[None]:
        dependents = self._graph.dependents(node.uid)
        results = yield Together([_fetch(each) for each in dependents], first_batch=50)
        for dependent, latest in zip(dependents, results, strict=False):
            if isinstance(latest, apierrors.ApiError):
                raise latest
            if latest is not None and latest.metadata.uid == dependent.uid:
                yield from self._drop_references(dependent, latest, {node.uid})
        latest = yield Fetch(metadata_only(node.resource), node.namespace, node.name)
        if latest is not None and latest.metadata.uid == node.uid:
            yield from _remove_finalizer(node, latest, ORPHAN)

    def _drop_references(self, node: Node, latest: Any, uids: set[UID]) -> Steps[None]:
        kept = [each for each in latest.metadata.owner_references if each.uid not in uids]
        if len(kept) < len(latest.metadata.owner_references):
            yield from _write_references(node, latest, kept)

    def _unblock(self, node: Node, latest: Any) -> Steps[Any]:
        references = [_unblocking(each) for each in latest.metadata.owner_references]
        return (yield from _write_references(node, latest, references))


def _fetch(node: Node) -> Fetch:
    return Fetch(metadata_only(node.resource), node.namespace, node.name)


def _unblocking(reference: meta.OwnerReference) -> meta.OwnerReference:
    return meta.OwnerReference(
        api_version=reference.api_version,
        kind=reference.kind,
        name=reference.name,
        uid=reference.uid,
        controller=reference.controller,
        block_owner_deletion=False,
    )


def _write_references(node: Node, latest: Any, references: list[meta.OwnerReference]) -> Steps[Any]:
    """Replace the owner references of the object as it was read; a change meanwhile is a Conflict."""
    metadata = {
        "uid": node.uid,
        "resourceVersion": latest.metadata.resource_version,
        "ownerReferences": references or None,
    }
    patch = Patch(PatchType.MERGE, {"metadata": metadata})
    try:
        return (yield Change(metadata_only(node.resource), node.namespace, node.name, patch))
    except apierrors.NotFound:
        return latest


def _remove_finalizer(node: Node, latest: Any, finalizer: str) -> Steps[None]:
    if finalizer not in latest.metadata.finalizers:
        return
    kept = [each for each in latest.metadata.finalizers if each != finalizer]
    metadata = {"resourceVersion": latest.metadata.resource_version, "finalizers": kept or None}
    patch = Patch(PatchType.MERGE, {"metadata": metadata})
    try:
        yield Change(metadata_only(node.resource), node.namespace, node.name, patch)
    except apierrors.NotFound:
        return


def _reference_to(node: Node) -> core.ObjectReference:
    return core.ObjectReference(
        kind=node.resource.kind,
        namespace=node.namespace,
        name=node.name,
        uid=node.uid,
        api_version=node.resource.api_version,
    )

"""Who depends on whom: the owner references of every object, as a graph by UID.

Pure. Objects come in as metadata; what must be looked at again comes out. An owner that was never seen is not in the
graph; whether it exists is asked when its dependents are worked on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from haven.api.scheme import Resource
from haven.apimachinery import meta
from haven.apimachinery.names import UID

__all__ = ["FOREGROUND", "ORPHAN", "Graph", "GraphKey", "Node"]

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"


class GraphKey(NamedTuple):
    """Work to do: "collect" an object (see whether it should go), or let its dependents go ("orphan")."""

    task: str
    uid: UID


@dataclass(slots=True, eq=False)
class Node:
    """An object as far as garbage collection is concerned."""

    resource: Resource[Any]
    namespace: str
    name: str
    uid: UID
    owners: list[meta.OwnerReference] = field(default_factory=list)
    is_being_deleted: bool = False
    is_deleting_dependents: bool = False
    is_orphaning: bool = False

    def is_at(self, reference: meta.OwnerReference, namespace: str) -> bool:
        """Tell whether a reference from that namespace means this object."""
        return (
            reference.uid == self.uid
            and reference.api_version == self.resource.api_version
            and reference.kind == self.resource.kind
            and reference.name == self.name
            and self.namespace in ("", namespace)
        )


class Graph:
    """Nodes and the edges between them. Invariant: an edge is held exactly for each owner reference of a node."""

    def __init__(self) -> None:
        self._nodes: dict[UID, Node] = {}
        self._dependents: dict[UID, dict[UID, Node]] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def node(self, uid: UID) -> Node | None:
        """Return the object with this UID."""
        return self._nodes.get(uid)

    def dependents(self, uid: UID) -> list[Node]:
        """Return the objects that name this one as an owner."""
        return list(self._dependents.get(uid, {}).values())

    def blocking_dependents(self, uid: UID) -> list[Node]:
        """Return the dependents that must be gone before this object may be."""
        return [
            node
            for node in self.dependents(uid)
            if any(reference.uid == uid and reference.block_owner_deletion for reference in node.owners)
        ]

    def put(self, resource: Resource[Any], metadata: meta.ObjectMeta) -> list[GraphKey]:
        """Take over an object's metadata; return what to look at because of it."""
        node = self._nodes.get(metadata.uid)
        is_new = node is None
        if node is None:
            node = Node(resource, metadata.namespace, metadata.name, metadata.uid)
            self._nodes[metadata.uid] = node
        before = {reference.uid: reference for reference in node.owners}
        after = {reference.uid: reference for reference in metadata.owner_references}
        node.owners = list(metadata.owner_references)
        keys: list[GraphKey] = []
        for uid in before.keys() - after.keys():
            self._remove_edge(uid, node)
        for uid in after.keys() - before.keys():
            self._dependents.setdefault(uid, {})[node.uid] = node
        if before != after:
            keys += self._look_at_owners(node, before, after)
        keys += self._transitions(node, metadata, is_new=is_new)
        return keys

    def remove(self, uid: UID) -> list[GraphKey]:
        """Forget an object; return its dependents, and its owners that wait for it."""
        node = self._nodes.pop(uid, None)
        if node is None:
            return []
        for reference in node.owners:
            self._remove_edge(reference.uid, node)
        keys = [GraphKey("collect", each.uid) for each in self.dependents(uid)]
        return keys + self._waiting(reference.uid for reference in node.owners)

    def check(self) -> None:
        """Assert the invariant; for tests and simulations."""
        edges = {(reference.uid, node.uid) for node in self._nodes.values() for reference in node.owners}
        held = {(owner, uid) for owner, dependents in self._dependents.items() for uid in dependents}
        assert edges == held, edges ^ held
        assert all(self._dependents.values())

    def _look_at_owners(
        self, node: Node, before: dict[UID, meta.OwnerReference], after: dict[UID, meta.OwnerReference]
    ) -> list[GraphKey]:
        keys = []
        for uid, reference in after.items():
            owner = self._nodes.get(uid)
            if uid not in before and (
                owner is None or not owner.is_at(reference, node.namespace) or owner.is_deleting_dependents
            ):
                keys.append(GraphKey("collect", node.uid))
        unblocked = [
            uid
            for uid, reference in before.items()
            if reference.block_owner_deletion and (uid not in after or not after[uid].block_owner_deletion)
        ]
        return keys + self._waiting(unblocked)

    def _transitions(self, node: Node, metadata: meta.ObjectMeta, *, is_new: bool) -> list[GraphKey]:
        is_going = metadata.deletion_timestamp is not None
        is_orphaning = is_going and ORPHAN in metadata.finalizers
        is_deleting_dependents = is_going and FOREGROUND in metadata.finalizers
        keys: list[GraphKey] = []
        if is_orphaning and not node.is_orphaning:
            keys.append(GraphKey("orphan", node.uid))
        elif is_deleting_dependents and not node.is_deleting_dependents:
            keys += [GraphKey("collect", each.uid) for each in self.dependents(node.uid)]
            keys.append(GraphKey("collect", node.uid))
        if is_new:
            # Those who named this object before it was seen may have meant another one.
            keys += [
                GraphKey("collect", each.uid)
                for each in self.dependents(node.uid)
                if any(ref.uid == node.uid and not node.is_at(ref, each.namespace) for ref in each.owners)
            ]
        node.is_being_deleted = is_going
        node.is_orphaning = is_orphaning
        node.is_deleting_dependents = is_deleting_dependents
        return keys

    def _waiting(self, uids: Iterable[UID]) -> list[GraphKey]:
        owners = [self._nodes.get(uid) for uid in uids]
        return [GraphKey("collect", each.uid) for each in owners if each is not None and each.is_deleting_dependents]

    def _remove_edge(self, owner_uid: UID, node: Node) -> None:
        edges = self._dependents.get(owner_uid)
        if edges is not None:
            edges.pop(node.uid, None)
            if not edges:
                del self._dependents[owner_uid]

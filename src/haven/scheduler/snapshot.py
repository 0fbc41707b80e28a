"""The nodes of the cluster as arrays: one row per node, resources first ([R, N]), so that a filter is one pass.

The snapshot is always current: it changes in place as nodes and Pods come and go, and the cycle reads it between two
changes (one owner, one event loop). `generation` grows with every change; `moved_since` lets caches of numbers reckon
only the rows that moved.

Invariants, verified by `check`: requested equals the sum of the row's Pods; a free row has no Pods.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from haven.api.core import v1 as core
from haven.apimachinery.names import UID
from haven.scheduler.podinfo import HostPort, PodInfo, amounts_of

__all__ = ["CPU", "EPHEMERAL", "MEMORY", "PODS", "Ints", "Mask", "NodeRow", "Snapshot"]

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
CPU, MEMORY, EPHEMERAL, PODS = 0, 1, 2, 3
_FIXED = ("cpu", "memory", "ephemeral-storage", "pods")
_ROWS_FIRST = 64
_MOVES_MAX = 1024


class NodeRow:
    """One node's facts that are not numbers."""

    __slots__ = ("images", "index", "name", "node", "pods", "ports", "version")

    def __init__(self, index: int, name: str) -> None:
        self.index = index
        self.name = name
        self.node: core.Node | None = None  # None while only Pods of the node are known.
        self.pods: dict[UID, PodInfo] = {}
        self.ports: Counter[HostPort] = Counter()
        self.images: dict[str, int] = {}
        self.version = 0

    @property
    def labels(self) -> dict[str, str]:
        return self.node.metadata.labels if self.node else {}


class Snapshot:
    """All nodes and the Pods on them."""

    def __init__(self) -> None:
        self.resources: dict[str, int] = {name: index for index, name in enumerate(_FIXED)}
        self.allocatable: Ints = np.zeros((len(_FIXED), _ROWS_FIRST), np.int64)
        self.requested: Ints = np.zeros((len(_FIXED), _ROWS_FIRST), np.int64)
        self.scored: Ints = np.zeros((2, _ROWS_FIRST), np.int64)
        self.alive: Mask = np.zeros(_ROWS_FIRST, np.bool_)
        self.rows: list[NodeRow | None] = [None] * _ROWS_FIRST
        self.by_name: dict[str, NodeRow] = {}
        self.row_of_pod: dict[UID, NodeRow] = {}
        self.generation = 0
        self.nodes_generation = 0
        self.images: dict[str, set[int]] = {}
        self.claim_users: Counter[str] = Counter()  # By namespace/name of the claim.
        self.with_affinity: dict[UID, tuple[NodeRow, PodInfo]] = {}
        self._free = list(range(_ROWS_FIRST - 1, -1, -1))
        self._caches: list[Callable[[int], None]] = []
        self._moves: list[int] = []  # The rows whose numbers changed, the last `_MOVES_MAX` at least.
        self._moves_dropped = 0
        self._node_count = 0

    @property
    def version(self) -> int:
        """How many times a row's numbers changed."""
        return self._moves_dropped + len(self._moves)

    def moved_since(self, version: int) -> list[int] | None:
        """Return the rows whose numbers changed since a version, some of them twice; None if that is long ago."""
        if version < self._moves_dropped:
            return None
        return self._moves[version - self._moves_dropped :]

    def _moved(self, index: int) -> None:
        self._moves.append(index)
        if len(self._moves) >= 2 * _MOVES_MAX:
            del self._moves[:_MOVES_MAX]
            self._moves_dropped += _MOVES_MAX

    @property
    def width(self) -> int:
        """How many rows the arrays have, free ones included."""
        return len(self.rows)

    @property
    def node_count(self) -> int:
        return self._node_count

    def on_node_change(self, forget: Callable[[int], None]) -> None:
        """Call `forget(row)` whenever a node's own facts (labels, taints, flags) change."""
        self._caches.append(forget)

    def live_rows(self) -> Iterator[NodeRow]:
        """Yield every node that exists, in row order."""
        for index in np.flatnonzero(self.alive):
            row = self.rows[index]
            assert row is not None
            yield row

    def set_node(self, node: core.Node) -> None:
        """Add a node or take over its newest state."""
        row = self._row(node.metadata.name)
        row.node = node
        row.version += 1
        allocatable = amounts_of(node.status.allocatable or node.status.capacity)
        for name in allocatable:
            self._resource(name)
        self.allocatable[:, row.index] = 0
        for name, amount in allocatable.items():
            self.allocatable[self.resources[name], row.index] = amount
        self._node_count += not self.alive[row.index]
        self.alive[row.index] = True
        self._set_images(row, node)
        self._node_changed(row)

    def remove_node(self, name: str) -> None:
        """Forget a node; Pods that are still bound to it stay known until they go."""
        row = self.by_name.get(name)
        if row is None:
            return
        row.node = None
        self._node_count -= bool(self.alive[row.index])
        self.alive[row.index] = False
        self.allocatable[:, row.index] = 0
        for image in row.images:
            self.images[image].discard(row.index)
        row.images = {}
        self._node_changed(row)
        self._release(row)

    def add_pod(self, info: PodInfo, node_name: str) -> None:
        """Count a Pod on a node, replacing what was known of it."""
        self.remove_pod(info.uid)
        row = self._row(node_name)
        row.pods[info.uid] = info
        self.row_of_pod[info.uid] = row
        self._count(row.index, info, 1)
        for port in info.host_ports:
            row.ports[port] += 1
        for place in info.claim_places if info.claims else ():
            self.claim_users[place] += 1
        affinity = info.pod.spec.affinity
        if affinity is not None and (affinity.pod_affinity or affinity.pod_anti_affinity):
            self.with_affinity[info.uid] = (row, info)
        self.generation += 1

    def remove_pod(self, uid: UID) -> None:
        """Forget a Pod; one that is not known is no error."""
        row = self.row_of_pod.pop(uid, None)
        if row is None:
            return
        info = row.pods.pop(uid)
        self._count(row.index, info, -1)
        for port in info.host_ports:
            row.ports[port] -= 1
            if not row.ports[port]:
                del row.ports[port]
        for place in info.claim_places if info.claims else ():
            self.claim_users[place] -= 1
            if not self.claim_users[place]:
                del self.claim_users[place]
        self.with_affinity.pop(uid, None)
        self.generation += 1
        self._release(row)

    def check(self) -> None:
        """Verify the invariants."""
        for row in self.by_name.values():
            expected = np.zeros(len(self.resources), np.int64)
            for info in row.pods.values():
                for name, amount in info.amounts.items():
                    expected[self.resources[name]] += amount
                expected[PODS] += 1
            assert (self.requested[:, row.index] == expected).all(), row.name
            assert self.rows[row.index] is row
        assert self._node_count == int(self.alive.sum())
        for index in self._free:
            assert self.rows[index] is None
            assert not self.requested[:, index].any()

    def resource_index(self, name: str) -> int:
        """Return a resource's place in the first axis, making one if it is new."""
        return self._resource(name)

    def _count(self, index: int, info: PodInfo, sign: int) -> None:
        for name, amount in info.amounts.items():
            resource = self._resource(name)  # First: a new one makes new arrays.
            self.requested[resource, index] += sign * amount
        self.requested[PODS, index] += sign
        self.scored[0, index] += sign * info.scored_cpu
        self.scored[1, index] += sign * info.scored_memory
        self._moved(index)

    def _resource(self, name: str) -> int:
        index = self.resources.get(name)
        if index is None:
            index = self.resources[name] = len(self.resources)
            zeros = np.zeros((1, self.width), np.int64)
            self.allocatable = np.vstack((self.allocatable, zeros))
            self.requested = np.vstack((self.requested, zeros))
        return index

    def _row(self, name: str) -> NodeRow:
        row = self.by_name.get(name)
        if row is None:
            if not self._free:
                self._grow()
            row = NodeRow(self._free.pop(), name)
            self.rows[row.index] = row
            self.by_name[name] = row
        return row

    def _release(self, row: NodeRow) -> None:
        if row.node is None and not row.pods:
            del self.by_name[row.name]
            self.rows[row.index] = None
            self._free.append(row.index)

    def _grow(self) -> None:
        old = self.width
        self.allocatable = np.pad(self.allocatable, ((0, 0), (0, old)))
        self.requested = np.pad(self.requested, ((0, 0), (0, old)))
        self.scored = np.pad(self.scored, ((0, 0), (0, old)))
        self.alive = np.pad(self.alive, (0, old))
        self.rows.extend([None] * old)
        self._free.extend(range(2 * old - 1, old - 1, -1))

    def _node_changed(self, row: NodeRow) -> None:
        self.generation += 1
        self.nodes_generation += 1
        self._moved(row.index)
        for forget in self._caches:
            forget(row.index)

    def _set_images(self, row: NodeRow, node: core.Node) -> None:
        for image in row.images:
            self.images[image].discard(row.index)
        row.images = {name: image.size_bytes for image in node.status.images for name in image.names or ()}
        for image_name in row.images:
            self.images.setdefault(image_name, set()).add(row.index)

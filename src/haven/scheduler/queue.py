"""Which Pod is next: by priority, then by age; failed ones wait for a change that may help, and back off.

Three places: *active* (a heap), *backoff* (until a time) and *waiting* (until an event of a kind that the plugins which
ruled the Pod out care about, at most five minutes). Pods with scheduling gates are not in the queue at all.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

from haven.apimachinery.names import UID
from haven.scheduler.podinfo import PodInfo

__all__ = ["ClusterEvent", "Queue", "Statistics"]

BACKOFF_FIRST_SECONDS = 1.0
BACKOFF_MAX_SECONDS = 10.0
WAITING_MAX_SECONDS = 300.0


class ClusterEvent(Enum):
    """What changed in the cluster, as far as it may help Pods that did not fit."""

    NODE_ADDED = "node added"
    NODE_CHANGED = "node changed"
    POD_GONE = "pod gone"
    POD_PLACED = "pod placed"
    CLAIM = "claim"
    VOLUME = "volume"
    STORAGE_CLASS = "storage class"
    CSI = "CSI driver, its nodes and its capacity"
    DETACHED = "volume detached"
    OTHER = "other"


_FAILED = "ScheduleAttemptFailure"
_EVENTS = {
    ClusterEvent.NODE_ADDED: "NodeAdd",
    ClusterEvent.NODE_CHANGED: "NodeUpdate",
    ClusterEvent.POD_GONE: "AssignedPodDelete",
    ClusterEvent.POD_PLACED: "AssignedPodAdd",
    ClusterEvent.CLAIM: "PersistentVolumeClaimUpdate",
    ClusterEvent.VOLUME: "PersistentVolumeUpdate",
    ClusterEvent.STORAGE_CLASS: "StorageClassAdd",
    ClusterEvent.CSI: "CSINodeUpdate",
    ClusterEvent.DETACHED: "VolumeAttachmentDelete",
    ClusterEvent.OTHER: "*All",
}
"""What upstream calls them."""

# The events that may change a plugin's mind; a plugin that is not listed is asked again after every event.
_HELPS: dict[str, frozenset[ClusterEvent]] = {
    "NodeUnschedulable": frozenset({ClusterEvent.NODE_ADDED, ClusterEvent.NODE_CHANGED}),
    "NodeName": frozenset({ClusterEvent.NODE_ADDED}),
    "TaintToleration": frozenset({ClusterEvent.NODE_ADDED, ClusterEvent.NODE_CHANGED}),
    "NodeAffinity": frozenset({ClusterEvent.NODE_ADDED, ClusterEvent.NODE_CHANGED}),
    "NodePorts": frozenset({ClusterEvent.NODE_ADDED, ClusterEvent.POD_GONE}),
    "NodeResourcesFit": frozenset({ClusterEvent.NODE_ADDED, ClusterEvent.NODE_CHANGED, ClusterEvent.POD_GONE}),
    "VolumeRestrictions": frozenset({ClusterEvent.NODE_ADDED, ClusterEvent.POD_GONE, ClusterEvent.CLAIM}),
    "NodeVolumeLimits": frozenset(
        {
            ClusterEvent.NODE_ADDED,
            ClusterEvent.POD_GONE,
            ClusterEvent.CLAIM,
            ClusterEvent.CSI,
            ClusterEvent.DETACHED,
        }
    ),
    "VolumeBinding": frozenset(
        {
            ClusterEvent.NODE_ADDED,
            ClusterEvent.NODE_CHANGED,
            ClusterEvent.CLAIM,
            ClusterEvent.VOLUME,
            ClusterEvent.STORAGE_CLASS,
            ClusterEvent.CSI,
        }
    ),
    "VolumeZone": frozenset(
        {
            ClusterEvent.NODE_ADDED,
            ClusterEvent.NODE_CHANGED,
            ClusterEvent.CLAIM,
            ClusterEvent.VOLUME,
            ClusterEvent.STORAGE_CLASS,
        }
    ),
}


@dataclass(slots=True)
class _Entry:
    info: PodInfo
    added_seconds: float
    attempts: int = 0
    rejected_by: frozenset[str] = frozenset()
    due_seconds: float = 0.0
    first_seconds: float | None = None
    """When it was first tried."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """How many Pods are where."""

    active: int
    backoff: int
    waiting: int


@dataclass
class Queue:
    """Pods to be scheduled. Pure: the time is passed in.

    Invariant: an entry is in exactly one place; heaps may hold stale tickets, which are skipped.
    """

    _entries: dict[UID, _Entry] = field(default_factory=dict)
    _active: list[tuple[int, float, int, UID]] = field(default_factory=list)
    _in_active: set[UID] = field(default_factory=set)
    _backoff: list[tuple[float, int, UID]] = field(default_factory=list)
    _in_backoff: set[UID] = field(default_factory=set)
    _waiting: set[UID] = field(default_factory=set)
    _missed: set[tuple[ClusterEvent, str]] = field(default_factory=set)
    _order: itertools.count[int] = field(default_factory=itertools.count)
    incoming: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many Pods came into which place, by what brought them there: (event, place) as upstream calls them."""

    def add(self, info: PodInfo, now_seconds: float) -> None:
        """Put a Pod in, or take over its newest state; a changed Pod is tried again at once."""
        entry = self._entries.get(info.uid)
        if entry is None:
            self._entries[info.uid] = entry = _Entry(info, now_seconds)
            self._activate(entry, "UnschedulablePodAdd")
            return
        changed = entry.info.pod.spec != info.pod.spec or entry.info.pod.metadata.labels != info.pod.metadata.labels
        entry.info = info
        if info.uid in self._waiting and changed:
            self._waiting.discard(info.uid)
            self._activate(entry, "UnschedulablePodUpdate")

    def remove(self, uid: UID) -> None:
        """Take a Pod out: it was placed, deleted, or is somebody else's."""
        self._entries.pop(uid, None)
        self._in_active.discard(uid)
        self._in_backoff.discard(uid)
        self._waiting.discard(uid)

    def pop(self, now_seconds: float) -> PodInfo | None:
        """Return the next Pod to try; None if none is due."""
        self._wake(now_seconds)
        while self._active:
            *_, uid = heapq.heappop(self._active)
            if uid in self._in_active:
                self._in_active.discard(uid)
                entry = self._entries[uid]
                entry.attempts += 1
                if entry.first_seconds is None:
                    entry.first_seconds = now_seconds
                self._missed.clear()
                return entry.info
        return None

    def failed(self, uid: UID, rejected_by: frozenset[str], now_seconds: float, *, retry: bool = False) -> None:
        """Put a Pod back that found no node. With `retry` (an error, not a verdict) it only backs off."""
        entry = self._entries.get(uid)
        if entry is None or uid in self._in_active:
            return
        entry.rejected_by = rejected_by
        entry.due_seconds = now_seconds + min(
            BACKOFF_FIRST_SECONDS * 2 ** min(entry.attempts - 1, 10), BACKOFF_MAX_SECONDS
        )
        if retry or any(self._helps(event, claim, entry) for event, claim in self._missed):
            self._back_off(entry, _FAILED)
        else:
            self._waiting.add(uid)
            self.incoming[_FAILED, "unschedulable"] += 1

    def happened(self, event: ClusterEvent, now_seconds: float, *, claim: str = "") -> None:
        """Move Pods that the event may help from waiting to the queue, after what is left of their backoff.

        What happened to a `claim` (namespace/name) helps those alone that use it.
        """
        self._missed.add((event, claim))
        for uid in [uid for uid in self._waiting if self._helps(event, claim, self._entries[uid])]:
            self._waiting.discard(uid)
            entry = self._entries[uid]
            if entry.due_seconds <= now_seconds:
                self._activate(entry, _EVENTS[event])
            else:
                self._back_off(entry, _EVENTS[event])

    def next_due_seconds(self, now_seconds: float) -> float | None:
        """Return how long until `pop` may have something without an event; 0 if it has now, None if never."""
        if self._in_active:
            return 0.0
        while self._backoff and self._backoff[0][2] not in self._in_backoff:
            heapq.heappop(self._backoff)  # A stale ticket hides the others, whose time nobody would then wait for.
        times = [due for due, _, _ in self._backoff[:1]]
        times += [self._entries[uid].due_seconds + WAITING_MAX_SECONDS for uid in self._waiting]
        return max(0.0, min(times) - now_seconds) if times else None

    def holds(self, uid: UID) -> bool:
        """Tell whether a Pod is known to the queue."""
        return uid in self._entries

    def attempts(self, uid: UID) -> int:
        """Return how many attempts a Pod has had, the present one included."""
        entry = self._entries.get(uid)
        return entry.attempts if entry is not None else 1

    def first_seconds(self, uid: UID) -> float | None:
        """Return when a Pod was first tried."""
        entry = self._entries.get(uid)
        return entry.first_seconds if entry is not None else None

    def ruled_out(self) -> Counter[str]:
        """Return how many Pods wait because of each plugin."""
        waiting = (*self._waiting, *self._in_backoff)
        return Counter(plugin for uid in waiting for plugin in self._entries[uid].rejected_by)

    def statistics(self) -> Statistics:
        return Statistics(len(self._in_active), len(self._in_backoff), len(self._waiting))

    def check(self) -> None:
        """Verify the invariant."""
        places = [self._in_active, self._in_backoff, self._waiting]
        assert sum(map(len, places)) == len(set().union(*places))
        assert set().union(*places) <= set(self._entries)

    def _helps(self, event: ClusterEvent, claim: str, entry: _Entry) -> bool:
        if claim and all(f"{entry.info.namespace}/{use.name}" != claim for use in entry.info.claims):
            return False
        return not entry.rejected_by or any(
            event in _HELPS.get(plugin, frozenset(ClusterEvent)) for plugin in entry.rejected_by
        )

    def _activate(self, entry: _Entry, event: str) -> None:
        info = entry.info
        self.incoming[event, "active"] += 1
        self._in_active.add(info.uid)
        heapq.heappush(self._active, (-info.priority, entry.added_seconds, next(self._order), info.uid))

    def _back_off(self, entry: _Entry, event: str) -> None:
        self.incoming[event, "backoff"] += 1
        self._in_backoff.add(entry.info.uid)
        heapq.heappush(self._backoff, (entry.due_seconds, next(self._order), entry.info.uid))

    def _wake(self, now_seconds: float) -> None:
        while self._backoff and (self._backoff[0][0] <= now_seconds or self._backoff[0][2] not in self._in_backoff):
            _, _, uid = heapq.heappop(self._backoff)
            if uid in self._in_backoff:
                self._in_backoff.discard(uid)
                self._activate(self._entries[uid], "BackoffComplete")
        for uid in [u for u in self._waiting if self._entries[u].due_seconds + WAITING_MAX_SECONDS <= now_seconds]:
            self._waiting.discard(uid)
            self._activate(self._entries[uid], "UnschedulableTimeout")

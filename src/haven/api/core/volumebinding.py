"""Which volume suits which claim, and what binds the two. Pure.

Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#binding
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence

from haven.api.core import v1 as core
from haven.api.core.nodeselection import matches_selector
from haven.api.storage import v1 as storage
from haven.apimachinery import selectors, serialization
from haven.apimachinery.names import UID
from haven.apimachinery.quantity import Quantity

__all__ = [
    "BIND_COMPLETED",
    "BOUND_BY_CONTROLLER",
    "PROVISIONED_BY",
    "SELECTED_NODE",
    "FreeVolumes",
    "best_match",
    "bound_to",
    "class_of_claim",
    "class_of_volume",
    "default_class",
    "has_class",
    "is_bound_to",
    "is_fully_bound",
    "is_reachable",
    "mismatch",
    "modes_differ",
    "unbound",
]

BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
_HOSTNAME = "kubernetes.io/hostname"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
_CLASS = "volume.beta.kubernetes.io/storage-class"
_DEFAULT = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")


def has_class(claim: core.PersistentVolumeClaim) -> bool:
    """Tell whether a claim names a storage class, be it ""."""
    return _CLASS in claim.metadata.annotations or claim.spec.storage_class_name is not None


def class_of_claim(claim: core.PersistentVolumeClaim) -> str:
    """Return the storage class of a claim, "" for none."""
    return claim.metadata.annotations.get(_CLASS, claim.spec.storage_class_name or "")


def class_of_volume(volume: core.PersistentVolume) -> str:
    """Return the storage class of a volume, "" for none."""
    return volume.metadata.annotations.get(_CLASS, volume.spec.storage_class_name)


def default_class(classes: Iterable[storage.StorageClass]) -> storage.StorageClass | None:
    """Return the class for claims that name none: of several marked ones the newest, then the first by name."""
    marked = [each for each in classes if any(each.metadata.annotations.get(name) == "true" for name in _DEFAULT)]
    marked.sort(key=lambda each: each.metadata.name)
    marked.sort(key=lambda each: each.metadata.creation_timestamp or "", reverse=True)
    return marked[0] if marked else None


def is_bound_to(volume: core.PersistentVolume, claim: core.PersistentVolumeClaim) -> bool:
    """Tell whether a volume is meant for a claim: by name, and by UID where the volume has one."""
    reference = volume.spec.claim_ref
    if reference is None:
        return False
    if (reference.namespace, reference.name) != (claim.metadata.namespace, claim.metadata.name):
        return False
    return not reference.uid or reference.uid == claim.metadata.uid


def is_fully_bound(claim: core.PersistentVolumeClaim) -> bool:
    """Tell whether both sides of a binding are written."""
    return bool(claim.spec.volume_name) and BIND_COMPLETED in claim.metadata.annotations


def is_reachable(volume: core.PersistentVolume, node_labels: Mapping[str, str]) -> bool:
    """Tell whether a volume's node affinity lets a node with such labels use it."""
    affinity = volume.spec.node_affinity
    if affinity is None or affinity.required is None:
        return True
    return matches_selector(affinity.required, "", node_labels)


def modes_differ(volume: core.PersistentVolume, claim: core.PersistentVolumeClaim) -> bool:
    """Tell whether one is a file system and the other a block device."""
    return (claim.spec.volume_mode or "Filesystem") != (volume.spec.volume_mode or "Filesystem")


def mismatch(volume: core.PersistentVolume, claim: core.PersistentVolumeClaim) -> str:
    """Return why a volume that a claim asks for by name does not do, "" if it does."""
    if volume.metadata.deletion_timestamp is not None:
        return f'the volume is marked for deletion "{volume.metadata.name}"'
    if _capacity(volume).value < _request(claim).value:
        return "requested PV is too small"
    if class_of_volume(volume) != class_of_claim(claim):
        return "storageClassName does not match"
    if _attributes(volume) != _attributes(claim):
        return "volumeAttributesClassName does not match"
    if modes_differ(volume, claim):
        return "incompatible volumeMode"
    if not set(claim.spec.access_modes) <= set(volume.spec.access_modes):
        return "incompatible accessMode"
    return ""


def best_match(
    claim: core.PersistentVolumeClaim, volumes: Sequence[core.PersistentVolume], *, is_delayed: bool
) -> core.PersistentVolume | None:
    """Return the volume meant for a claim, else the smallest free one with the fewest access modes, else None.

    If binding is delayed until a Pod is scheduled, only a volume that is meant for the claim will do: the scheduler
    chooses among the others.
    """
    wanted = set(claim.spec.access_modes)
    groups: dict[tuple[int, str], list[core.PersistentVolume]] = {}
    for volume in volumes:
        modes = set(volume.spec.access_modes)
        if wanted <= modes:
            groups.setdefault((len(modes), ",".join(sorted(modes))), []).append(volume)
    for _, group in sorted(groups.items()):
        found = _best_of(claim, group, is_delayed=is_delayed)
        if found is not None:
            return found
    return None


def _best_of(
    claim: core.PersistentVolumeClaim, volumes: Iterable[core.PersistentVolume], *, is_delayed: bool
) -> core.PersistentVolume | None:
    wanted = _Wanted(claim)
    best: core.PersistentVolume | None = None
    for volume in sorted(volumes, key=lambda each: each.metadata.name):
        if not wanted.is_met_by(volume):
            continue
        if is_bound_to(volume, claim):
            return volume
        if is_delayed or not wanted.may_take(volume):
            continue
        if best is None or _capacity(volume) < _capacity(best):
            best = volume
    return best


class _Wanted:
    """What a claim asks of a volume, parsed once for many of them."""

    def __init__(self, claim: core.PersistentVolumeClaim) -> None:
        self._claim = claim
        self._requested = _request(claim)
        self._class = class_of_claim(claim)
        selector = claim.spec.selector
        self._selector = selectors.from_label_selector(selector) if selector is not None else None

    def is_met_by(self, volume: core.PersistentVolume) -> bool:
        """Tell whether a volume that is meant for the claim, or for nobody, is fit for it."""
        claim = self._claim
        if volume.spec.claim_ref is not None and not is_bound_to(volume, claim):
            return False
        if volume.metadata.deletion_timestamp is not None or _attributes(volume) != _attributes(claim):
            return False
        return _capacity(volume) >= self._requested and not modes_differ(volume, claim)

    def may_take(self, volume: core.PersistentVolume) -> bool:
        """Tell whether a volume that is meant for nobody is to be had."""
        if volume.status.phase != "Available" or class_of_volume(volume) != self._class:
            return False
        return self._selector is None or self._selector.matches(volume.metadata.labels)


class FreeVolumes:
    """The volumes that would do for a claim, to be asked for node by node.

    Most volumes of many are local: kept by the host that they name, a node sees few of them.
    """

    def __init__(self, claim: core.PersistentVolumeClaim, volumes: Iterable[core.PersistentVolume]) -> None:
        wanted, modes = _Wanted(claim), set(claim.spec.access_modes)
        self._meant: core.PersistentVolume | None = None
        self._anywhere: list[core.PersistentVolume] = []
        self._by_host: dict[str, list[core.PersistentVolume]] = {}
        for volume in sorted(volumes, key=_by_capacity):
            if not wanted.is_met_by(volume):
                continue
            if is_bound_to(volume, claim):
                self._meant = self._meant or volume
            elif wanted.may_take(volume) and modes <= set(volume.spec.access_modes):
                hosts = _hosts(volume)
                for host in sorted(hosts or ()):
                    self._by_host.setdefault(host, []).append(volume)
                if hosts is None:
                    self._anywhere.append(volume)

    def on_node(self, node_labels: Mapping[str, str], *, taken: Collection[str] = ()) -> core.PersistentVolume | None:
        """Return the volume meant for the claim, else the smallest free one, if a node reaches it; none of `taken`."""
        if self._meant is not None:
            is_free = self._meant.metadata.name not in taken
            return self._meant if is_free and is_reachable(self._meant, node_labels) else None
        here = self._by_host.get(node_labels.get(_HOSTNAME, ""), [])
        for volume in heapq.merge(here, self._anywhere, key=_by_capacity):
            if volume.metadata.name not in taken and is_reachable(volume, node_labels):
                return volume
        return None


def _by_capacity(volume: core.PersistentVolume) -> tuple[Quantity, str]:
    return (_capacity(volume), volume.metadata.name)


def _hosts(volume: core.PersistentVolume) -> set[str] | None:
    """Return the hosts that a volume's node affinity names; None if other nodes may reach it too."""
    required = volume.spec.node_affinity.required if volume.spec.node_affinity else None
    if required is None:
        return None
    found: set[str] = set()
    for term in required.node_selector_terms or ():
        named = [each for each in term.match_expressions if each.key == _HOSTNAME and each.operator == "In"]
        if not named:
            return None
        found |= set(named[0].values)
    return found


def bound_to(volume: core.PersistentVolume, claim: core.PersistentVolumeClaim) -> core.PersistentVolume | None:
    """Return a volume bound to a claim; None if it is so already."""
    reference = volume.spec.claim_ref
    if is_bound_to(volume, claim) and reference is not None and reference.uid == claim.metadata.uid:
        return None
    changed = serialization.copy(volume)
    if not is_bound_to(volume, claim):
        # Says that we chose it, so that we may take it back.
        changed.metadata.annotations.setdefault(BOUND_BY_CONTROLLER, "yes")
    changed.spec.claim_ref = core.ObjectReference(
        kind="PersistentVolumeClaim",
        api_version="v1",
        namespace=claim.metadata.namespace,
        name=claim.metadata.name,
        uid=claim.metadata.uid,
        resource_version=claim.metadata.resource_version,
    )
    return changed


def unbound(volume: core.PersistentVolume) -> core.PersistentVolume:
    """Return a volume free again; one that its maker meant for a claim stays meant for it."""
    changed = serialization.copy(volume)
    if changed.metadata.annotations.pop(BOUND_BY_CONTROLLER, None) is not None:
        changed.spec.claim_ref = None
    elif changed.spec.claim_ref is not None:
        changed.spec.claim_ref.uid = UID("")
    return changed


def _capacity(volume: core.PersistentVolume) -> Quantity:
    return volume.spec.capacity.get("storage", Quantity.ZERO)


def _request(claim: core.PersistentVolumeClaim) -> Quantity:
    return claim.spec.resources.requests.get("storage", Quantity.ZERO)


def _attributes(obj: core.PersistentVolume | core.PersistentVolumeClaim) -> str:
    return obj.spec.volume_attributes_class_name or ""

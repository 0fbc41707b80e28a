"""What the scheduler knows of claims and volumes: what the API server told, and what it has decided since.

A decision about a claim (bind it to this volume, have it provisioned for that node) is *assumed* at once, so that the
next Pod does not choose the same volume, and is forgotten when the API server shows a newer version of the object or
when the decision fails. Pure: reads from listers, writes nothing.
Source: https://kubernetes.io/docs/concepts/storage/storage-classes/#volume-binding-mode
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from haven.api.core import v1 as core
from haven.api.core.volumebinding import (
    SELECTED_NODE,
    bound_to,
    class_of_claim,
    class_of_volume,
    is_fully_bound,
    is_reachable,
)
from haven.api.storage import v1 as storage
from haven.apimachinery import serialization
from haven.scheduler.podinfo import PodInfo

__all__ = [
    "BindingFailed",
    "Claim",
    "Lister",
    "Listers",
    "PodClaims",
    "PodVolumes",
    "StaticBinding",
    "Volume",
    "Volumes",
]

Claim = core.PersistentVolumeClaim
Volume = core.PersistentVolume
T_co = TypeVar("T_co", covariant=True)
K = TypeVar("K")
O = TypeVar("O", Claim, Volume)

_BY_CLASS = "storage-class"
_BY_NODE = "node-name"


class Lister(Protocol[T_co]):
    """Reads objects of one kind; an informer is one."""

    def get(self, namespace: str, name: str) -> T_co | None:
        """Return an object; None if there is none."""
        ...

    def list(self, namespace: str = "") -> Sequence[T_co]:
        """Return all objects."""
        ...

    def indexed(self, index: str, value: str) -> Collection[T_co]:
        """Return the objects that an index holds under a value."""
        ...

    def add_index(self, index: str, function: Callable[[T_co], Iterable[str]]) -> None:
        """Add an index, or do nothing if it is there."""
        ...


@dataclass(frozen=True)
class Listers:
    """Where the objects of storage are read."""

    claims: Lister[Claim]
    volumes: Lister[Volume]
    classes: Lister[storage.StorageClass]
    csi_nodes: Lister[storage.CSINode]
    csi_drivers: Lister[storage.CSIDriver]
    capacities: Lister[storage.CSIStorageCapacity]
    attachments: Lister[storage.VolumeAttachment]


@dataclass(frozen=True, slots=True)
class PodClaims:
    """A Pod's claims: bound ones, those whose volume is chosen with the node, those that should be bound already."""

    bound: tuple[Claim, ...]
    delayed: tuple[Claim, ...]
    immediate: tuple[Claim, ...]


@dataclass(frozen=True, slots=True)
class StaticBinding:
    """This free volume is to become this claim's."""

    volume: Volume
    claim: Claim


@dataclass(frozen=True, slots=True)
class PodVolumes:
    """What a Pod on a certain node needs done before it is bound; both empty: nothing."""

    bindings: tuple[StaticBinding, ...] = ()
    provisions: tuple[Claim, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.bindings or self.provisions)


class BindingFailed(Exception):
    """The volumes of a Pod could not be bound; the Pod must be scheduled anew."""


class Volumes:
    """Claims and volumes with the scheduler's own decisions applied."""

    def __init__(self, listers: Listers) -> None:
        self.listers = listers
        self._assumed_volumes: dict[str, Volume] = {}
        self._assumed_claims: dict[tuple[str, str], Claim] = {}
        listers.volumes.add_index(_BY_CLASS, _class_of)
        listers.attachments.add_index(_BY_NODE, _node_of)

    def claim(self, namespace: str, name: str) -> Claim | None:
        """Return a claim, as assumed where the API server has not gone further."""
        return _latest(self._assumed_claims, (namespace, name), self.listers.claims.get(namespace, name))

    def volume(self, name: str) -> Volume | None:
        """Return a volume, as assumed where the API server has not gone further."""
        return _latest(self._assumed_volumes, name, self.listers.volumes.get("", name))

    def volumes_of_class(self, name: str) -> list[Volume]:
        """Return the volumes of a storage class, by name."""
        found = (self.volume(each.metadata.name) for each in self.listers.volumes.indexed(_BY_CLASS, name))
        return sorted((each for each in found if each is not None), key=lambda each: each.metadata.name)

    def attachments_of(self, node_name: str) -> Collection[storage.VolumeAttachment]:
        """Return what is attached, or being attached, to a node."""
        return self.listers.attachments.indexed(_BY_NODE, node_name)

    def claims_of(self, info: PodInfo) -> PodClaims:
        """Sort the claims of a Pod by what is left to do; claims that do not exist are left out."""
        bound: list[Claim] = []
        delayed: list[Claim] = []
        immediate: list[Claim] = []
        for use in info.claims:
            claim = self.claim(info.namespace, use.name)
            if claim is None:
                continue
            if is_fully_bound(claim):
                bound.append(claim)
            elif not claim.spec.volume_name and self._is_delayed(claim):
                delayed.append(claim)
            else:
                immediate.append(claim)
        return PodClaims(tuple(bound), tuple(delayed), tuple(immediate))

    def assume(self, node_name: str, wanted: PodVolumes) -> PodVolumes:
        """Take a decision into account from now on; return it with the objects as they are to be written."""
        bindings: list[StaticBinding] = []
        for binding in wanted.bindings:
            changed = bound_to(binding.volume, binding.claim)
            if changed is not None:
                self._assumed_volumes[changed.metadata.name] = changed
            bindings.append(StaticBinding(changed or binding.volume, binding.claim))
        provisions: list[Claim] = []
        for claim in wanted.provisions:
            chosen = serialization.copy(claim)
            chosen.metadata.annotations[SELECTED_NODE] = node_name
            self._assumed_claims[chosen.metadata.namespace, chosen.metadata.name] = chosen
            provisions.append(chosen)
        return PodVolumes(tuple(bindings), tuple(provisions))

    def forget(self, assumed: PodVolumes) -> None:
        """Take a decision back."""
        for binding in assumed.bindings:
            self._assumed_volumes.pop(binding.volume.metadata.name, None)
        for claim in assumed.provisions:
            self._assumed_claims.pop((claim.metadata.namespace, claim.metadata.name), None)

    def is_done(self, node: core.Node, written: PodVolumes) -> bool:
        """Tell whether everything that was written has been bound; raise BindingFailed if it never will be.

        Looks at what the API server shows, not at assumptions: the volume binder and the provisioner act on that.
        """
        for binding in written.bindings:
            name = binding.volume.metadata.name
            volume = self.listers.volumes.get("", name)
            claim = self.listers.claims.get(binding.claim.metadata.namespace, binding.claim.metadata.name)
            if volume is None or claim is None:
                kind, gone = ("PV", name) if volume is None else ("PVC", binding.claim.metadata.name)
                raise BindingFailed(f'failed to check binding: could not find {kind} "{gone}"')
            if _version(volume) < _version(binding.volume):
                return False  # Our own write is not seen yet.
            _check_reachable(volume, node)
            if volume.spec.claim_ref is None or not volume.spec.claim_ref.uid:
                raise BindingFailed(f'ClaimRef got reset for pv "{name}"')
            if not is_fully_bound(claim):
                return False
        return all(self._is_provisioned(node, each) for each in written.provisions)

    def _is_provisioned(self, node: core.Node, written: Claim) -> bool:
        name = written.metadata.name
        claim = self.listers.claims.get(written.metadata.namespace, name)
        if claim is None:
            raise BindingFailed(f'failed to check provisioning pvc: could not find PVC "{name}"')
        if _version(claim) < _version(written):
            return False
        if claim.metadata.annotations.get(SELECTED_NODE) != node.metadata.name:
            raise BindingFailed(f'provisioning failed for PVC "{name}"')  # So a provisioner asks for another node.
        if claim.spec.volume_name:
            volume = self.listers.volumes.get("", claim.spec.volume_name)
            if volume is None:
                return False
            _check_reachable(volume, node)
        return is_fully_bound(claim)

    def _is_delayed(self, claim: Claim) -> bool:
        name = class_of_claim(claim)
        storage_class = self.listers.classes.get("", name) if name else None
        return storage_class is not None and storage_class.volume_binding_mode == "WaitForFirstConsumer"


def _check_reachable(volume: Volume, node: core.Node) -> None:
    if not is_reachable(volume, node.metadata.labels):
        raise BindingFailed(
            f'pv "{volume.metadata.name}" node affinity doesn\'t match node "{node.metadata.name}": '
            "no matching NodeSelectorTerms"
        )


def _latest(assumed: dict[K, O], key: K, known: O | None) -> O | None:
    mine = assumed.get(key)
    if mine is None:
        return known
    if known is None or _version(known) > _version(mine):
        del assumed[key]
        return known
    return mine


def _version(obj: Claim | Volume) -> int:
    return int(obj.metadata.resource_version or 0)


def _class_of(volume: Volume) -> Iterable[str]:
    return (class_of_volume(volume),)


def _node_of(attachment: storage.VolumeAttachment) -> Iterable[str]:
    return (attachment.spec.node_name,)

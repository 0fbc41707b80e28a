"""Who controls an object: controller references, and adopting or releasing by selector.

At most one owner reference of an object has `controller` set. An owner adopts orphans that its selector matches and
releases what it controls but no longer matches. Source:
https://kubernetes.io/docs/concepts/overview/working-with-objects/owners-dependents/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from haven.api.scheme import GroupVersionKind
from haven.apimachinery import meta
from haven.apimachinery.names import UID
from haven.client.cache import metadata_of
from haven.client.interface import Patch, PatchType

__all__ = [
    "Adopt",
    "Claim",
    "Release",
    "adoption_patch",
    "claim",
    "controller_of",
    "controller_reference",
    "is_controlled_by",
    "release_patch",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Adopt(Generic[T]):
    """Make the object ours, after checking with the server that the owner is not being deleted."""

    obj: T


@dataclass(frozen=True, slots=True)
class Release(Generic[T]):
    """Let the object go: it is ours but no longer matches."""

    obj: T


@dataclass(frozen=True, slots=True)
class Claim(Generic[T]):
    """What an owner has, and what it should do about the rest."""

    owned: list[T]
    adopt: list[Adopt[T]]
    release: list[Release[T]]


def controller_of(obj: object) -> meta.OwnerReference | None:
    """Return the reference to the owner that controls an object."""
    for reference in metadata_of(obj).owner_references:
        if reference.controller:
            return reference
    return None


def is_controlled_by(obj: object, owner_uid: UID) -> bool:
    """Tell whether an object is controlled by this owner."""
    reference = controller_of(obj)
    return reference is not None and reference.uid == owner_uid


def controller_reference(owner: object, kind: GroupVersionKind) -> meta.OwnerReference:
    """Return the reference that an object gets which this owner creates."""
    metadata = metadata_of(owner)
    return meta.OwnerReference(
        api_version=kind.api_version,
        kind=kind.kind,
        name=metadata.name,
        uid=metadata.uid,
        controller=True,
        block_owner_deletion=True,
    )


def claim(owner: object, objects: Iterable[T], matches: Callable[[T], bool]) -> Claim[T]:
    """Sort objects of the owner's namespace into what it owns, should adopt and should release.

    An owner that is being deleted neither adopts nor releases; an object that is being deleted is not adopted.
    """
    owner_metadata = metadata_of(owner)
    result: Claim[T] = Claim([], [], [])
    for obj in objects:
        reference = controller_of(obj)
        if reference is not None:
            if reference.uid != owner_metadata.uid:
                continue
            if matches(obj):
                result.owned.append(obj)
            elif owner_metadata.deletion_timestamp is None:
                result.release.append(Release(obj))
        elif owner_metadata.deletion_timestamp is None and metadata_of(obj).deletion_timestamp is None and matches(obj):
            result.adopt.append(Adopt(obj))
    return result


def adoption_patch(obj: object, reference: meta.OwnerReference, finalizers: Iterable[str] = ()) -> Patch:
    """Return the change that makes an object ours. The UID in it is a precondition: never adopt a later namesake."""
    tree: dict[str, Any] = {
        "uid": metadata_of(obj).uid,
        "ownerReferences": [
            {
                "apiVersion": reference.api_version,
                "kind": reference.kind,
                "name": reference.name,
                "uid": reference.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    if finalizers := list(finalizers):
        tree["finalizers"] = finalizers
    return Patch(PatchType.STRATEGIC, {"metadata": tree})


def release_patch(obj: object, owner_uid: UID, finalizers: Iterable[str] = ()) -> Patch:
    """Return the change that lets an object go; the UID in it is a precondition."""
    tree: dict[str, Any] = {
        "uid": metadata_of(obj).uid,
        "ownerReferences": [{"$patch": "delete", "uid": owner_uid}],
    }
    if finalizers := list(finalizers):
        tree["$deleteFromPrimitiveList/finalizers"] = finalizers
    return Patch(PatchType.STRATEGIC, {"metadata": tree})

"""Adopting and releasing: who owns what a selector matches. haven.client.owner has the rules; here they are acted on.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/owners-dependents/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from haven.api.scheme import Resource, resource_of
from haven.apimachinery import apierrors
from haven.client.owner import adoption_patch, claim, controller_of, controller_reference, release_patch
from haven.controllers.actions import Change, Fetch, Reader, Retry, Steps

__all__ = ["claimed", "owner_by_reference", "owners_of_orphan"]

T = TypeVar("T")


def claimed(
    owner: Any, objects: Iterable[T], matches: Callable[[T], bool], *, finalizers: Iterable[str] = ()
) -> Steps[list[T]]:
    """Adopt and release, then return what the owner owns, in the order of `objects`."""
    objects = list(objects)
    owner_resource: Resource[Any] = resource_of(type(owner))
    found = claim(owner, objects, matches)
    for release in found.release:
        yield from _release(owner, release.obj, finalizers)
    adopted: list[T] = []
    if found.adopt:
        # The cache may not show yet that the owner is going; ask before taking anything.
        fresh = yield Fetch(owner_resource, owner.metadata.namespace, owner.metadata.name)
        if fresh is None or fresh.metadata.uid != owner.metadata.uid:
            raise Retry(f"original {owner_resource.kind} {owner.metadata.name} is gone")
        if fresh.metadata.deletion_timestamp is not None:
            raise Retry(f"{owner_resource.kind} {owner.metadata.name} has just been deleted")
        reference = controller_reference(owner, owner_resource.gvk)
        for adopt in found.adopt:
            obj: Any = adopt.obj
            patch = adoption_patch(obj, reference, finalizers)
            try:
                new = yield Change(resource_of(type(obj)), obj.metadata.namespace, obj.metadata.name, patch)
            except apierrors.NotFound:
                continue
            adopted.append(new)
    return found.owned + adopted


def _release(owner: Any, obj: Any, finalizers: Iterable[str]) -> Steps[None]:
    patch = release_patch(obj, owner.metadata.uid, finalizers)
    try:
        yield Change(resource_of(type(obj)), obj.metadata.namespace, obj.metadata.name, patch)
    except (apierrors.NotFound, apierrors.Invalid):
        return  # Gone, or replaced by one with another UID, or released by someone else: all are what we wanted.


def owner_by_reference(reader: Reader[T], obj: Any, kind: str) -> T | None:
    """Return the cached owner that controls an object, None if it is another kind, gone, or has another UID."""
    reference = controller_of(obj)
    if reference is None or reference.kind != kind:
        return None
    owner: Any = reader.get(obj.metadata.namespace, reference.name)
    return owner if owner is not None and owner.metadata.uid == reference.uid else None


def owners_of_orphan(reader: Reader[T], obj: Any, matches: Callable[[T], bool]) -> list[T]:
    """Return the owners that may want an orphan: those of its namespace whose selector matches."""
    if not obj.metadata.labels:
        return []
    return [owner for owner in reader.list(obj.metadata.namespace) if matches(owner)]

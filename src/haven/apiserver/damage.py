"""Stored values that cannot be read, because their key is missing or they are no objects: what is said of them.

One such value costs its kind, not the server: the object cannot be read or changed, lists that would hold it fail and
nobody can watch its kind, for nothing may be left out of what is shown. All else goes on. It is mended by the key that
is missing, or by deleting the object unread (feature gate AllowUnsafeMalformedObjectDeletion).
Source: KEP-3926, https://kubernetes.io/docs/reference/using-api/api-concepts/#force-deletion
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from haven.api.scheme import Resource
from haven.apimachinery import apierrors, meta
from haven.apimachinery.goformat import quote
from haven.apimachinery.names import Revision
from haven.apimachinery.unstructured import Unstructured

if TYPE_CHECKING:
    from haven.apiserver.watchcache import Entry

__all__ = ["FIX", "Damage", "StorageReadError", "Unreadable", "not_listed", "not_watched"]

FIX = (
    "start with an --encryption-provider-config that has its key, or delete it unread with the feature gate "
    "AllowUnsafeMalformedObjectDeletion and ignoreStoreReadErrorWithClusterBreakingPotential"
)
_CAUSES_MAX = 100
_RETRY_SECONDS = 1


class Damage(NamedTuple):
    """A stored value that cannot be read. `last` is what was known of its object before, if anything was."""

    namespace: str
    name: str
    key: str
    revision: Revision
    because: str
    is_decrypted: bool
    last: Entry | None = None

    @property
    def cause(self) -> str:
        """What is wrong, as the gate has it told."""
        if self.is_decrypted:
            return f"object not decodable revision={self.revision}: {self.because}"
        return f"data from the storage is not transformable revision=0: {self.because}"

    def storage_error(self, key: str) -> str:
        """Return the same with the object's key."""
        head = f"StorageError: corrupt object, Code: 7, Key: {key}, ResourceVersion: 0"
        return f"{head}, AdditionalErrorMsg: {self.cause}"


class StorageReadError(apierrors.ApiError):
    """Some objects of a list cannot be read; the causes name them."""

    code, reason = 500, "StorageReadError"


class _Plain(apierrors.ApiError):
    """What upstream's decoders say, without a reason."""


class Unreadable(apierrors.InternalError):
    """A stored object cannot be read."""

    def __init__(self, damage: Damage) -> None:
        text = damage.because
        if not damage.is_decrypted:
            text = f"unable to transform key {quote(damage.key)}: {text}"
        details = meta.StatusDetails(causes=[meta.StatusCause(message=text)])
        super().__init__(f"Internal error occurred: {text}", details)
        self.damage = damage

    def of_read(self, *, gated: bool) -> apierrors.ApiError:
        """Return the answer to a GET or a DELETE. `gated` tells whether the gate is on."""
        damage = self.damage
        if gated:
            return apierrors.InternalError.because(damage.storage_error(damage.key.removeprefix("/registry")))
        return self._bare()

    def of_update(self, *, gated: bool) -> apierrors.ApiError:
        """Return the answer to a write."""
        if gated:
            return apierrors.InternalError.because(self.damage.cause)
        return self._bare()

    def _bare(self) -> apierrors.ApiError:
        if self.damage.is_decrypted:
            return _Plain(self.damage.because)
        return apierrors.InternalError.because(self.damage.because)


def not_listed(resource: Resource[Any], found: Sequence[Damage], *, gated: bool) -> apierrors.ApiError:
    """Return the answer to a list of which some objects, in the order of their keys, cannot be read."""
    if not gated:
        first = Unreadable(found[0])
        return _Plain(found[0].because) if found[0].is_decrypted else first
    causes = [
        meta.StatusCause(reason="UnexpectedServerResponse", message=one.storage_error(one.key), field=one.key)
        for one in found[:_CAUSES_MAX]
    ]
    if len(found) > _CAUSES_MAX:
        causes.append(meta.StatusCause(reason="FieldValueTooMany", message="too many errors, the list is truncated"))
    kind = resource.group_resource
    details = meta.StatusDetails(name="list", group=kind.group, kind=kind.resource, causes=causes)
    return StorageReadError(f"failed to read one or more {kind} from the storage", details)


def not_watched(resource: Resource[Any], found: Sequence[Damage], *, gated: bool) -> apierrors.ApiError:
    """Return the answer to a watch, or to a list that takes what the watch cache has: it has nothing whole."""
    error = not_listed(resource, found, gated=gated)
    kind = f"{resource.group.partition('.')[0] or 'core'}.{resource.kind}"
    if resource.type is Unstructured:
        kind = "unstructured.Unstructured"
    because = error.message.removeprefix("Internal error occurred: ")
    return apierrors.TooManyRequests.after(
        f"storage is (re)initializing: failed to list *{kind}: {because}", _RETRY_SECONDS
    )

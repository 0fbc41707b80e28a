"""DELETE of objects and collections: grace periods, finalizers, dependents, preconditions.

Source: k8s.io/apiserver's registry/generic (Store.Delete) and registry/rest (BeforeDelete).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from haven.apimachinery import apierrors, meta, times
from haven.apiserver.admission.chain import AdmissionChain
from haven.apiserver.admission.interface import DELETE, AdmissionRequest
from haven.apiserver.registry.bodies import decode_delete_options
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.registry.options import DeleteParameters, delete_parameters, list_parameters
from haven.apiserver.registry.output import answer_form, entry_response, list_response, object_response
from haven.apiserver.registry.reading import Reading
from haven.apiserver.registry.storage import Storages, Write
from haven.apiserver.registry.unreaddeletion import UnreadDeletion
from haven.apiserver.registry.writing import Writing
from haven.apiserver.request import Request, Response
from haven.apiserver.watchcache import Entry
from haven.clock import Clock
from haven.store.interface import TransactionFailed

__all__ = ["FOREGROUND", "ORPHAN", "Deletion", "Outcome"]

ORPHAN, FOREGROUND = "orphan", "foregroundDeletion"
_ORPHANING = frozenset({("batch", "jobs"), ("", "replicationcontrollers")})
"""Kinds whose dependents stay by default, as their first versions promised."""
_PAGE = 10_000  # How many objects upstream deletes from one list.
_SYSTEM_PRIORITY_CLASSES = frozenset({"system-node-critical", "system-cluster-critical"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a deletion did: the object it left, or the last state of the one it removed.

    `shows_object` tells that the client gets the object even where a Status is usual, because it is still there.
    """

    deleted: bool
    object: Any
    entry: Entry | None = None
    shows_object: bool = False


class Deletion:
    """DELETE of stored resources."""

    def __init__(
        self,
        storages: Storages,
        admission: AdmissionChain,
        reading: Reading,
        writing: Writing,
        clock: Clock,
        unread: UnreadDeletion | None = None,
    ) -> None:
        self._storages = storages
        self._unread = unread
        """How to delete what cannot be read; None unless the gate is on."""
        self._admission = admission
        self._reading = reading
        self._writing = writing
        self._clock = clock

    async def delete(self, request: Request, endpoint: Endpoint) -> Response:
        """Answer a DELETE of an object."""
        form = answer_form(request, endpoint)
        parameters = self._parameters(request)
        _warn_of_orphans(request, endpoint, parameters)
        if parameters.unread:
            assert self._unread is not None
            answer = await self._unread.delete(request, endpoint)
            return object_response(request, endpoint, replace(form, kind=""), answer, served=True)
        outcome = await self.delete_one(request, endpoint, request.info.namespace, request.info.name, parameters)
        status = 202 if not outcome.deleted and parameters.orphan_dependents is False else 200
        if endpoint.returns_deleted or outcome.shows_object:
            if outcome.entry is not None:
                return entry_response(request, endpoint, form, outcome.entry, status)
            return object_response(request, endpoint, form, outcome.object, status)
        metadata = outcome.object.metadata
        details = meta.StatusDetails(
            name=metadata.name, group=endpoint.resource.group, kind=endpoint.resource.plural, uid=metadata.uid
        )
        answer = meta.Status(status="Success", details=details)
        if request.local:
            return Response(status, object=answer)
        return object_response(request, endpoint, replace(form, kind=""), answer, status, served=True)

    def _parameters(self, request: Request, *, of_collection: bool = False) -> DeleteParameters:
        body = request.object
        if not isinstance(body, meta.DeleteOptions):
            body = decode_delete_options(request.body, request.headers.get("content-type", ""))
        is_gated = self._unread is not None
        return delete_parameters(request.query, body, is_gated=is_gated, of_collection=of_collection)

    async def delete_collection(self, request: Request, endpoint: Endpoint) -> Response:
        """Answer a DELETE of a collection with the objects as they were listed."""
        form = answer_form(request, endpoint)
        selection = list_parameters(request.query)
        if selection.resource_version not in ("", "0") and not selection.limit:
            selection = replace(selection, limit=_PAGE)  # Page by page, so the version must still be held.
        parameters = self._parameters(request, of_collection=True)
        _warn_of_orphans(request, endpoint, parameters)
        page = await self._reading.page(endpoint, selection, request.info.namespace, request.info.name)
        for entry in list(page.entries):
            try:
                await self.delete_one(request, endpoint, entry.namespace, entry.name, parameters.copy())
            except apierrors.NotFound:
                continue
        return list_response(
            request,
            endpoint,
            form,
            page.entries,
            revision=page.revision,
            continue_=page.continue_,
            remaining=page.remaining,
        )

    async def delete_one(
        self,
        request: Request,
        endpoint: Endpoint,
        namespace: str,
        name: str,
        parameters: DeleteParameters,
        *,
        is_admitted: bool = False,
    ) -> Outcome:
        """Delete an object, or mark it as being deleted; raise what refuses it.

        Admission is not asked if it has agreed to more than that already (an eviction).
        """
        if not endpoint.resource.namespaced:
            namespace = ""
        while True:
            entry = endpoint.storage.get(namespace, name)
            if entry is None:
                raise endpoint.not_found(name)
            try:
                shown = await endpoint.show(entry)
                return await self._attempt(request, endpoint, shown, parameters.copy(), is_admitted=is_admitted)
            except TransactionFailed:
                continue  # It changed meanwhile; look again.

    async def _attempt(
        self, request: Request, endpoint: Endpoint, entry: Entry, parameters: DeleteParameters, *, is_admitted: bool
    ) -> Outcome:
        old = entry.decoded()
        self._check_preconditions(endpoint, entry, parameters)
        of_collection = not request.info.name
        if endpoint.resource.kind == "PriorityClass" and entry.name in _SYSTEM_PRIORITY_CLASSES and not of_collection:
            because = "this is a system priority class and cannot be deleted"
            raise apierrors.Forbidden.of(endpoint.group_resource, entry.name, because)
        if endpoint.storage.resource.plural == "namespaces" and not endpoint.resource.group:
            return await self._delete_namespace(request, endpoint, entry, old, parameters)
        if endpoint.strategy.mark_deleted is not None and not old.metadata.deletion_timestamp:
            await self._admit(self._admission_request(request, endpoint, entry, parameters))
            old.metadata.deletion_timestamp = times.format_time(self._clock.now_seconds())
            endpoint.strategy.mark_deleted(old)
            return await self._store_mark(endpoint, entry, old, parameters)
        graceful, pending = self._before_delete(endpoint, old, parameters)
        if pending:
            return Outcome(False, old, entry)
        admission = None if is_admitted else self._admission_request(request, endpoint, entry, parameters)
        finalizers = self._finalizers(endpoint, old, parameters)
        changed = finalizers != old.metadata.finalizers
        if graceful or old.metadata.finalizers or changed:
            await self._admit(admission)
            old.metadata.finalizers = finalizers
            if not graceful and finalizers:
                self._mark(old)
            if graceful or finalizers:
                grace = parameters.grace_period_seconds or 0
                if finalizers or grace > 0:
                    return await self._store_mark(endpoint, entry, old, parameters)
                return await self._mark_and_remove(endpoint, entry, old, parameters)
        else:
            await self._admit(admission)
        return await self._remove(endpoint, entry, old, parameters)

    async def _admit(self, admission: AdmissionRequest | None) -> None:
        if admission is None:
            return
        await self._admission.admit(admission)
        await self._admission.validate(admission)

    def _admission_request(
        self, request: Request, endpoint: Endpoint, entry: Entry, parameters: DeleteParameters
    ) -> AdmissionRequest:
        return AdmissionRequest(
            operation=DELETE,
            resource=endpoint.resource,
            subresource="",
            namespace=entry.namespace or (entry.name if endpoint.storage.resource.kind == "Namespace" else ""),
            name=request.info.name,
            user=request.user,
            old=entry.decoded(),
            dry_run=parameters.dry_run,
            options=parameters.tree,
            warnings=request.warnings,
            audit_annotations=request.audit_annotations,
            audit_details=request.audit_details,
            delays=request.waits(),
        )

    @staticmethod
    def _check_preconditions(endpoint: Endpoint, entry: Entry, parameters: DeleteParameters) -> None:
        kind = apierrors.GroupResource(endpoint.resource.group, endpoint.resource.kind)
        if parameters.uid is not None and parameters.uid != entry.uid:
            because = (
                f"the UID in the precondition ({parameters.uid}) does not match the UID in record ({entry.uid}). "
                "The object might have been deleted and then recreated"
            )
            raise apierrors.Conflict.of(kind, entry.name, because)
        wanted = parameters.resource_version
        if wanted is not None and wanted != str(entry.revision):
            because = (
                f"the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record "
                f"({entry.revision}). The object might have been modified"
            )
            raise apierrors.Conflict.of(kind, entry.name, because)

    def _before_delete(self, endpoint: Endpoint, old: Any, parameters: DeleteParameters) -> tuple[bool, bool]:
        """Mark an object that dies gracefully; return (it is to be kept for now, its death was already agreed)."""
        if parameters.grace_period_seconds is not None and parameters.grace_period_seconds < 0:
            parameters.grace_period_seconds = 1
        metadata = old.metadata
        grace_of = endpoint.strategy.grace_period_seconds
        if grace_of is None:
            return False, False
        now = self._clock.now_seconds()
        if metadata.deletion_timestamp:
            remaining = metadata.deletion_grace_period_seconds
            if not remaining:
                return False, False
            period = parameters.grace_period_seconds
            if period is None:
                parameters.grace_period_seconds = remaining
                return False, True
            if period >= remaining:
                return False, True
            ends = times.parse(metadata.deletion_timestamp) - remaining + period
            if ends < now:
                ends = now
                if period:
                    period = 1
            metadata.deletion_timestamp = times.format_time(ends)
            metadata.deletion_grace_period_seconds = period
            return True, False
        period = grace_of(old, parameters.grace_period_seconds)
        parameters.grace_period_seconds = period
        metadata.deletion_timestamp = times.format_time(now + period)
        metadata.deletion_grace_period_seconds = period
        if metadata.generation > 0:
            metadata.generation += 1
        return True, False

    def _mark(self, old: Any) -> None:
        """Mark an object that only waits for its finalizers."""
        metadata = old.metadata
        if not metadata.deletion_timestamp and metadata.generation > 0:
            metadata.generation += 1
        now = self._clock.now_seconds()
        if not metadata.deletion_timestamp or times.parse(metadata.deletion_timestamp) > now:
            metadata.deletion_timestamp = times.format_time(now)
        metadata.deletion_grace_period_seconds = 0

    @staticmethod
    def _finalizers(endpoint: Endpoint, old: Any, parameters: DeleteParameters) -> list[str]:
        """Return the finalizers that the wish about dependents leads to."""
        found: list[str] = old.metadata.finalizers
        kept = [name for name in found if name not in (ORPHAN, FOREGROUND)]
        if not endpoint.supports_garbage_collection:
            return kept if kept != found else found
        policy = parameters.propagation_policy
        if parameters.orphan_dependents is not None:
            orphan, foreground = parameters.orphan_dependents, False
        elif policy is not None:
            orphan, foreground = policy == "Orphan", policy == "Foreground"
        else:
            first = next((name for name in found if name in (ORPHAN, FOREGROUND)), "")
            orphan, foreground = first == ORPHAN, first == FOREGROUND
            if not first:
                orphan = (endpoint.resource.group, endpoint.resource.plural) in _ORPHANING
        if orphan:
            kept.append(ORPHAN)
        if foreground:
            kept.append(FOREGROUND)
        return found if set(kept) == set(found) else kept

    async def _store_mark(self, endpoint: Endpoint, entry: Entry, old: Any, parameters: DeleteParameters) -> Outcome:
        if parameters.dry_run:
            return Outcome(False, old, shows_object=True)
        if endpoint.view is not None and entry.decoded() == old:
            return Outcome(False, old, entry, shows_object=True)
        write = self._write(endpoint, entry, await endpoint.stored(old))
        if entry.holds(write.value):
            return Outcome(False, old, entry, shows_object=True)
        await self._storages.commit([write])
        left = endpoint.storage.get(entry.namespace, entry.name)
        return Outcome(False, old, await endpoint.show(left) if left is not None else None, shows_object=True)

    @staticmethod
    def _write(endpoint: Endpoint, entry: Entry, obj: Any) -> Write:
        storage = endpoint.storage
        return Write(storage, storage.key(entry.namespace, entry.name), obj, expected=entry.revision)

    async def _remove(self, endpoint: Endpoint, entry: Entry, old: Any, parameters: DeleteParameters) -> Outcome:
        if parameters.dry_run:
            return Outcome(True, old)
        hooks = self._writing.hooks.get(endpoint.storage.resource.group_resource)
        extra = hooks.delete(old) if hooks is not None else ()
        revision = await self._storages.commit([self._write(endpoint, entry, None), *extra])
        old.metadata.resource_version = str(revision)
        return Outcome(True, old)

    async def _mark_and_remove(
        self, endpoint: Endpoint, entry: Entry, old: Any, parameters: DeleteParameters
    ) -> Outcome:
        """Remove what dies gracefully but has no time left: watchers first see it dying, then gone."""
        marked = await self._store_mark(endpoint, entry, old, parameters)
        if parameters.dry_run or marked.entry is None:
            return Outcome(True, old)  # Somebody else was faster: it is gone, as was asked for.
        parameters.resource_version = None  # It held for what we found; our own mark is newer.
        return await self._remove(endpoint, marked.entry, marked.entry.decoded(), parameters)

    async def _delete_namespace(
        self, request: Request, endpoint: Endpoint, entry: Entry, old: Any, parameters: DeleteParameters
    ) -> Outcome:
        """Put a namespace into Terminating; it goes when its content and its finalizers have gone."""
        if parameters.uid is None:  # This namespace is meant, and no later one of its name.
            preconditions = {**(parameters.tree.get("preconditions") or {}), "uid": entry.uid}
            parameters.tree = {**parameters.tree, "preconditions": preconditions}
        admission = self._admission_request(request, endpoint, entry, parameters)
        await self._admit(admission)
        metadata = old.metadata
        if not metadata.deletion_timestamp:
            metadata.deletion_timestamp = times.format_time(self._clock.now_seconds())
            old.status.phase = "Terminating"
            metadata.finalizers = self._namespace_finalizers(old, parameters)
            return await self._store_mark(endpoint, entry, old, parameters)
        elif old.spec.finalizers or metadata.finalizers:
            if not old.spec.finalizers:
                self._mark(old)
                return await self._store_mark(endpoint, entry, old, parameters)
            return Outcome(False, old, entry, shows_object=True)
        return await self._remove(endpoint, entry, old, parameters)

    @staticmethod
    def _namespace_finalizers(old: Any, parameters: DeleteParameters) -> list[str]:
        """As for others, but orphanDependents=false asks for a deletion in the foreground."""
        found: list[str] = old.metadata.finalizers
        if parameters.orphan_dependents is not None:
            wanted = [ORPHAN if parameters.orphan_dependents else FOREGROUND]
        elif parameters.propagation_policy is not None:
            wanted = {"Orphan": [ORPHAN], "Foreground": [FOREGROUND]}.get(parameters.propagation_policy, [])
        else:
            return found
        return [name for name in found if name not in (ORPHAN, FOREGROUND)] + wanted


def _warn_of_orphans(request: Request, endpoint: Endpoint, parameters: DeleteParameters) -> None:
    """Warn who deletes a Job without a word about its Pods that they stay."""
    said = parameters.propagation_policy is not None or parameters.orphan_dependents is not None
    if not said and (endpoint.resource.group, endpoint.resource.plural) == ("batch", "jobs"):
        request.warnings.append(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove "
            "them or set propagationPolicy=Orphan to suppress this warning"
        )

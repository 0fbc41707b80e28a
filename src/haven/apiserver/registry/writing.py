"""Create and update of objects: the order of checks is upstream's, because it decides which complaint a client sees.

A create: decode and default, namespace, owners, field managers, mutating admission, identity, the kind's preparation
and validation, validating admission, commit. An update: the same against the newest state, again and again until the
commit finds that state unchanged.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from haven.api.givenempty import gives_empty, mark_given
from haven.api.strategy import Strategy, create_errors, update_errors
from haven.apimachinery import apierrors, serialization, times
from haven.apimachinery.codecs.negotiate import PROTOBUF, Answer, body_media_type
from haven.apimachinery.fielderrors import Path, invalid
from haven.apimachinery.names import Revision
from haven.apiserver.admission.chain import AdmissionChain
from haven.apiserver.admission.interface import CREATE, UPDATE, AdmissionRequest
from haven.apiserver.authorization.interface import Attributes, Authorizer, Verdict, decide, refusal
from haven.apiserver.registry import systemfields
from haven.apiserver.registry.bodies import decode_object, given_tree
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.registry.fieldmanagement import FieldManagement, keep_reset, manager_of
from haven.apiserver.registry.objectversions import asked_revision, refuse_revision
from haven.apiserver.registry.options import WriteParameters, write_parameters
from haven.apiserver.registry.output import answer_form, entry_response, object_response
from haven.apiserver.registry.preconditions import uid_mismatch
from haven.apiserver.registry.recipes import Lesson, Readings
from haven.apiserver.registry.repeating import Repeating
from haven.apiserver.registry.requestobjects import noted
from haven.apiserver.registry.results import GENERATED_NAME_ATTEMPTS, Result, already_exists, ttl_seconds
from haven.apiserver.registry.storage import Reservation, Storages, Write
from haven.apiserver.request import Request, Response, UserInfo
from haven.apiserver.watchcache import Entry
from haven.clock import Clock
from haven.store.interface import TransactionFailed

__all__ = ["Hooks", "Result", "UpdateRequest", "Writing"]

OPTIMISTIC_LOCK = "the object has been modified; please apply your changes to the latest version and try again"


class Hooks(Protocol):
    """What one kind does beside its own object, in the same transaction (IP addresses of Services)."""

    def create(self, obj: Any, *, dry_run: bool) -> Sequence[Write | Reservation]:
        """Complete a new object before it is validated; return what else is to be written."""
        ...

    def update(self, new: Any, old: Any, *, dry_run: bool) -> Sequence[Write | Reservation]:
        """Complete a changed object before it is validated."""
        ...

    def delete(self, old: Any) -> Sequence[Write | Reservation]:
        """Return what else is to be written when an object goes."""
        ...


Compute = Callable[[Any | None, Entry | None], Awaitable[Any]]
"""Makes the new object from the current one, which it must not change. It is called again after a conflict."""


class Part(Protocol):
    """An object's part with a kind of its own (Scale)."""

    @property
    def asked(self) -> Any:
        """What the client wants the part to be; known once the new object is computed."""
        ...

    def show(self, obj: Any) -> Any:
        """Return the part of an object."""
        ...

    def judged(self, obj: Any) -> Any:
        """Return the part of an object as those see it who judge the change."""
        ...

    def put(self, obj: Any, part: Any) -> None:
        """Change the object to what its part became; raise what is wrong with that."""
        ...


@dataclass(slots=True)
class UpdateRequest:
    """An update of one object through one of its endpoints."""

    request: Request
    endpoint: Endpoint
    subresource: str
    strategy: Strategy[Any]
    name: str
    namespace: str
    compute: Compute
    parameters: WriteParameters
    allow_create: bool = False
    uid: str = ""
    is_apply: bool = False
    part: Part | None = None
    """What admission sees instead of the object, where the endpoint is about a part of it."""
    patched: Any = None
    """The plain object that a patch last made."""

    def given_tree(self) -> Any:
        """Return what the client gave as a plain object, if that may tell empty things from missing ones."""
        return self.patched if self.patched is not None else given_tree(self.request)


class Writing:
    """Create and update of stored resources."""

    def __init__(
        self,
        storages: Storages,
        admission: AdmissionChain,
        authorizer: Authorizer,
        fields: FieldManagement,
        clock: Clock,
        chance: random.Random,
        readings: Readings,
        *,
        event_ttl_seconds: int,
    ) -> None:
        self._storages = storages
        self._admission = admission
        self._authorizer = authorizer
        self.fields = fields
        self._clock = clock
        self._chance = chance
        self._event_ttl_seconds = event_ttl_seconds
        self._repeating = Repeating(
            storages, admission, readings, fields.now, chance, event_ttl_seconds=event_ttl_seconds
        )
        self.hooks: dict[apierrors.GroupResource, Hooks] = {}
        self.stamps: dict[apierrors.GroupResource, Callable[[Any, UserInfo], None]] = {}
        """What a new object says about the user who makes it."""

    # ---- bodies

    def body_object(
        self, request: Request, endpoint: Endpoint, parameters: WriteParameters, *, default: bool = True
    ) -> Any:
        """Return the object in a request, of the stored version and with defaults."""
        resource = endpoint.resource
        if request.object is not None:
            obj = serialization.copy(request.object)
            obj.kind, obj.api_version = resource.kind, resource.api_version
        elif endpoint.view is not None:
            content_type = request.headers.get("content-type", "")
            custom = endpoint.view.decode(request.body, content_type, parameters.field_validation, request.warnings)
            return noted(request, custom, endpoint.gvk)
        else:
            obj = self._decoded(request, endpoint, parameters)
        stored = endpoint.conversion.to_stored(obj)
        if default:
            endpoint.strategy.default(stored)
        if request.audit is not None:
            noted(request, endpoint.conversion.to_served(stored), endpoint.gvk)
        return stored

    @staticmethod
    def _decoded(request: Request, endpoint: Endpoint, parameters: WriteParameters) -> Any:
        """Return the object in a body, as it came."""
        tree = decode_object(
            request.body,
            request.headers.get("content-type", ""),
            endpoint.gvk,
            endpoint.schema,
            parameters.field_validation,
            request.warnings,
        )
        obj = serialization.convert(tree, endpoint.resource.type)
        keep_reset(tree, obj)
        return obj

    # ---- create

    async def create(self, request: Request, endpoint: Endpoint) -> Response:
        """Answer a POST to a collection."""
        form = answer_form(request, endpoint)
        parameters = write_parameters(request.query, "CreateOptions")
        manager = manager_of(parameters.field_manager, request)
        lesson: Lesson | None = None
        # What the audit log is to show must be read.
        if endpoint.strategy.likeness is not None and request.audit is None:
            if request.object is None and body_media_type(request.headers.get("content-type", "")) == PROTOBUF:
                request.object = self._decoded(request, endpoint, parameters)
            lesson = self._repeating.look(request, endpoint, parameters, manager)
        result: Result | None = None
        if lesson is not None and lesson.is_learned:
            admission = self._new_request(request, endpoint, lesson.name, parameters)
            result = await self._repeating.again(request, endpoint, admission, lesson)
        elif lesson is not None:
            with self._repeating.learning(request, endpoint, lesson) as learned:
                result = learned.result = await self._create(request, endpoint, parameters, manager)
        if result is None:
            result = await self._create(request, endpoint, parameters, manager)
        return self.respond(request, endpoint, form, result, 201)

    def _new_request(
        self, request: Request, endpoint: Endpoint, name: str, parameters: WriteParameters
    ) -> AdmissionRequest:
        namespace = request.info.namespace if endpoint.resource.namespaced else ""
        return self._admission_request(
            request, endpoint, "", CREATE, namespace or self._own_namespace(endpoint, name), name, parameters
        )

    async def _create(self, request: Request, endpoint: Endpoint, parameters: WriteParameters, manager: str) -> Result:
        obj = self._new_object(request, endpoint, parameters, manager)
        name = obj.metadata.name
        admission = self._new_request(request, endpoint, name, parameters)
        admission.object = obj
        if endpoint.view is not None:
            endpoint.view.admit_create(name)
        await self._admission.admit(admission)
        obj = admission.object
        systemfields.deduplicate_owners(obj, request.warnings, after_admission=True)
        return await self._create_named(request, endpoint, obj, admission, parameters)

    def _new_object(self, request: Request, endpoint: Endpoint, parameters: WriteParameters, manager: str) -> Any:
        """Return the object in a request as admission is to see it."""
        obj = self.body_object(request, endpoint, parameters)
        _check_version(obj, endpoint)
        metadata = obj.metadata
        systemfields.wipe(metadata)
        systemfields.ensure_namespace(metadata, request.info.namespace if endpoint.resource.namespaced else "")
        systemfields.deduplicate_owners(obj, request.warnings, after_admission=False)
        self.fields.created(obj, endpoint, manager)
        return obj

    @staticmethod
    def _own_namespace(endpoint: Endpoint, name: str) -> str:
        """A Namespace counts as being in itself."""
        return name if endpoint.resource.plural == "namespaces" and not endpoint.resource.group else ""

    async def _create_named(
        self, request: Request, endpoint: Endpoint, obj: Any, admission: AdmissionRequest, parameters: WriteParameters
    ) -> Result:
        if obj.metadata.name or not obj.metadata.generate_name:
            return await self.insert(request, endpoint, obj, admission, parameters)
        for attempt in range(GENERATED_NAME_ATTEMPTS):
            last = attempt == GENERATED_NAME_ATTEMPTS - 1
            one = obj if last else serialization.copy(obj)
            try:
                return await self.insert(request, endpoint, one, admission, parameters)
            except apierrors.AlreadyExists:
                if last:
                    raise
        raise AssertionError("unreachable")

    async def insert(
        self,
        request: Request,
        endpoint: Endpoint,
        obj: Any,
        admission: AdmissionRequest,
        parameters: WriteParameters,
    ) -> Result:
        """Store a new object that mutating admission has seen."""
        hooked = endpoint.storage.resource.group_resource in self.hooks
        pristine = serialization.encode(obj) if hooked else b""
        while True:
            try:
                return await self._insert(request, endpoint, obj, admission, parameters)
            except _Taken:  # Somebody reserved the same address or port meanwhile.
                if hooked:
                    obj = serialization.decode(pristine, type(obj))

    async def _insert(
        self,
        request: Request,
        endpoint: Endpoint,
        obj: Any,
        admission: AdmissionRequest,
        parameters: WriteParameters,
    ) -> Result:
        metadata = obj.metadata
        systemfields.fill(metadata, self._clock.now_seconds())
        generated = bool(metadata.generate_name)
        if metadata.generate_name and not metadata.name:
            metadata.name = systemfields.generate_name(metadata.generate_name, self._chance)
        namespace = admission.namespace if endpoint.resource.namespaced else ""
        hooks = self.hooks.get(endpoint.storage.resource.group_resource)
        extra = hooks.create(obj, dry_run=parameters.dry_run) if hooks is not None else ()
        systemfields.ensure_namespace(metadata, namespace)
        strategy = endpoint.strategy
        stamp = self.stamps.get(endpoint.storage.resource.group_resource)
        if stamp is not None:
            stamp(obj, request.user)
        strategy.prepare_for_create(obj)
        self._check_new(request, endpoint, obj)
        admission.object = obj
        await self._admission.validate(admission)
        if admission.operation == CREATE and request.method == "POST" and not parameters.dry_run:
            refuse_revision(metadata)
        if not parameters.dry_run:
            metadata.resource_version = ""
        storage = endpoint.storage
        existing = storage.holder(metadata.namespace, metadata.name)
        if existing is not None:
            raise already_exists(endpoint, existing, generated=generated)
        if parameters.dry_run:
            return Result(object=await endpoint.rehearsed(obj), created=True)
        write = self._write(endpoint, await endpoint.stored(obj), Revision(0))
        try:
            await self._storages.commit([write, *extra])
        except TransactionFailed as error:
            existing = storage.holder(metadata.namespace, metadata.name)
            if error.key == write.key and existing is not None:
                raise already_exists(endpoint, existing, generated=generated) from None
            raise _Taken from error
        entry = storage.get(metadata.namespace, metadata.name)
        if entry is None or entry.uid != metadata.uid:  # Deleted again before we looked.
            return Result(object=obj, created=True)
        return Result(entry=await endpoint.show(entry), created=True)

    def _check_new(self, request: Request, endpoint: Endpoint, obj: Any) -> None:
        """Raise Invalid unless an object may be created; warn; make it canonical."""
        strategy = endpoint.strategy
        errors = create_errors(strategy, obj, namespaced=endpoint.resource.namespaced)
        if errors and mark_given(given_tree(request), obj):
            errors = create_errors(strategy, obj, namespaced=endpoint.resource.namespaced)
        if errors:
            raise apierrors.Invalid.of(endpoint.complaint_kind(strategy, obj), obj.metadata.name, errors)
        request.warnings.extend(strategy.warnings(obj, None))

    def _write(self, endpoint: Endpoint, obj: Any, expected: Revision) -> Write:
        storage = endpoint.storage
        metadata = obj.metadata
        return Write(
            storage,
            storage.key(metadata.namespace, metadata.name),
            obj,
            expected=expected,
            ttl_seconds=ttl_seconds(storage, self._event_ttl_seconds),
        )

    # ---- update

    async def update(self, request: Request, endpoint: Endpoint, subresource: str = "") -> Response:
        """Answer a PUT of an object, or of a subresource that has the object's own kind."""
        info = request.info
        form = answer_form(request, endpoint)
        parameters = write_parameters(request.query, "UpdateOptions")
        obj = self.body_object(request, endpoint, parameters)
        _check_version(obj, endpoint)
        namespace = info.namespace if endpoint.resource.namespaced else ""
        systemfields.ensure_namespace(obj.metadata, namespace)
        systemfields.check_name(obj.metadata, info.name)
        systemfields.deduplicate_owners(obj, request.warnings, after_admission=False)
        manager = manager_of(parameters.field_manager, request)
        pristine: bytes | None = None

        async def compute(_current: Any | None, live: Entry | None) -> Any:
            nonlocal pristine
            if pristine is None:
                pristine = serialization.encode(obj)
                new = obj
            else:
                new = serialization.decode(pristine, type(obj))
            await self.fields.updated(new, live, endpoint, manager, subresource)
            return new

        strategy = endpoint.strategy_of(subresource)
        result = await self.modify(
            UpdateRequest(
                request=request,
                endpoint=endpoint,
                subresource=subresource,
                strategy=strategy,
                name=info.name,
                namespace=namespace,
                compute=compute,
                parameters=parameters,
                allow_create=endpoint.strategy.allow_create_on_update and subresource in ("", "status"),
                uid=obj.metadata.uid,
            )
        )
        return self.respond(request, endpoint, form, result, 201 if result.created else 200)

    async def modify(self, update: UpdateRequest) -> Result:
        """Bring an object to a new state computed from its newest one; raise what refuses it."""
        storage = update.endpoint.storage
        while True:
            live = storage.live(update.namespace, update.name)
            try:
                return await self._modify_once(update, live)
            except TransactionFailed:
                continue  # Somebody was faster; look again.

    async def _modify_once(self, update: UpdateRequest, live: Entry | None) -> Result:
        endpoint, request = update.endpoint, update.request
        if live is None and not update.allow_create:
            raise endpoint.not_found(update.name)
        if update.uid and (live is None or live.uid != update.uid):
            raise uid_mismatch(
                endpoint.group_resource,
                endpoint.storage.resource.group_resource,
                update.namespace,
                update.name,
                wanted=update.uid,
                found=live.uid if live else "",
                dry_run=update.parameters.dry_run,
            )
        kept = live
        if live is not None:
            live = await endpoint.show(live)
        old = live.decoded() if live is not None else None
        new = await update.compute(old, live)
        if live is None:
            asked_revision(new)
        if live is None and new.metadata.uid:
            because = (
                f"uid mismatch: the provided object specified uid {new.metadata.uid}, and no existing object was found"
            )
            raise apierrors.Conflict.of(endpoint.group_resource, update.name, because)
        operation = UPDATE if live is not None else CREATE
        admission = self._admission_request(
            request,
            endpoint,
            update.subresource,
            operation,
            update.namespace or self._own_namespace(endpoint, update.name),
            update.name,
            update.parameters,
        )
        part = update.part
        admission.object, admission.old = (new, old) if part is None else (part.asked, part.show(old))
        if live is None and endpoint.view is not None:
            endpoint.view.admit_create(update.name)
        await self._admission.admit(admission)
        if part is None:
            new = admission.object
        else:
            part.put(new, admission.object)
        systemfields.deduplicate_owners(new, request.warnings, after_admission=True)
        if live is None:
            await self._authorize_create(request, endpoint, update)
            return await self.insert(request, endpoint, new, admission, update.parameters)
        assert old is not None
        self._check_revision(new, live, endpoint)
        hooks = self.hooks.get(endpoint.storage.resource.group_resource)
        extra: Sequence[Write | Reservation] = ()
        if hooks is not None and not update.subresource:
            extra = hooks.update(new, old, dry_run=update.parameters.dry_run)
        self._prepare(new, old, update)
        self.fields.keep_times(new, old)
        admission.object, admission.old = (new, old) if part is None else (part.judged(new), part.judged(old))
        await self._admission.validate(admission)
        if self._is_finished(new, old, endpoint):
            return await self._remove_finished(update, new, live, hooks)
        if update.parameters.dry_run:
            return Result(object=await endpoint.rehearsed(new))
        new.metadata.resource_version = new.metadata.self_link = ""
        write = self._write(endpoint, await endpoint.stored(new), live.revision)
        assert kept is not None
        if not extra and kept.holds(write.value) and not await self._storages.is_stale(write.storage, write.key):
            return Result(entry=live)
        await self._storages.commit([write, *extra])
        entry = endpoint.storage.get(update.namespace, update.name)
        if entry is None or entry.uid != live.uid:
            return Result(object=new)
        return Result(entry=await endpoint.show(entry))

    def _check_revision(self, new: Any, live: Entry, endpoint: Endpoint) -> None:
        revision = asked_revision(new)
        if revision == 0:
            if not endpoint.strategy.allow_unconditional_update:
                kind = apierrors.GroupKind(endpoint.resource.group, endpoint.resource.plural)
                path = Path("metadata").child("resourceVersion")
                raise apierrors.Invalid.of(kind, live.name, [invalid(path, 0, "must be specified for an update")])
            new.metadata.resource_version = str(live.revision)
        elif revision != live.revision:
            raise apierrors.Conflict.of(endpoint.group_resource, live.name, OPTIMISTIC_LOCK)

    def _prepare(self, new: Any, old: Any, update: UpdateRequest) -> None:
        endpoint, strategy = update.endpoint, update.strategy
        systemfields.ensure_namespace(new.metadata, update.namespace)
        new.metadata.generation = old.metadata.generation
        strategy.prepare_for_update(new, old)
        if strategy.counts_empty and new.metadata.generation == old.metadata.generation:
            tree = update.given_tree()
            if tree is not None and gives_empty(tree.get(strategy.counts_empty), getattr(new, strategy.counts_empty)):
                new.metadata.generation += 1
        if strategy.touch is not None:
            strategy.touch(new, old, times.format_time(self._clock.now_seconds()))
        systemfields.prepare_update(new.metadata, old.metadata)
        errors = update_errors(strategy, new, old, namespaced=endpoint.resource.namespaced)
        if errors and mark_given(update.given_tree(), new):
            errors = update_errors(strategy, new, old, namespaced=endpoint.resource.namespaced)
        if strategy.forgiven is not None:
            update.request.warnings.extend(strategy.forgiven())
        if errors:
            raise apierrors.Invalid.of(endpoint.complaint_kind(strategy, new), new.metadata.name, errors)
        update.request.warnings.extend(strategy.warnings(new, old))

    async def _authorize_create(self, request: Request, endpoint: Endpoint, update: UpdateRequest) -> None:
        if request.local and not request.user.name:
            return
        resource = endpoint.resource
        attributes = Attributes(
            user=request.user,
            verb="create",
            namespace=update.namespace,
            group=resource.group,
            version=resource.version,
            resource=resource.plural,
            subresource=update.subresource,
            name=update.name,
            path=request.path,
        )
        decision = await decide(self._authorizer, attributes)
        if decision.verdict is not Verdict.ALLOW:
            raise refusal(attributes, decision.reason)

    @staticmethod
    def _is_finished(new: Any, old: Any, endpoint: Endpoint) -> bool:
        """Tell whether the last finalizer of a deleted object went."""
        if new.metadata.finalizers or not old.metadata.deletion_timestamp:
            return False
        if endpoint.storage.resource.plural == "namespaces" and new.spec.finalizers:
            return False
        return old.metadata.deletion_grace_period_seconds in (None, 0)

    async def _remove_finished(self, update: UpdateRequest, new: Any, live: Entry, hooks: Hooks | None) -> Result:
        if update.parameters.dry_run:
            return Result(object=new)
        storage = update.endpoint.storage
        extra = hooks.delete(live.glimpse) if hooks is not None else ()
        write = Write(storage, storage.key(update.namespace, update.name), None, expected=live.revision)
        await self._storages.commit([write, *extra])
        return Result(object=new)

    # ---- shared

    def _admission_request(
        self,
        request: Request,
        endpoint: Endpoint,
        subresource: str,
        operation: str,
        namespace: str,
        name: str,
        parameters: WriteParameters,
    ) -> AdmissionRequest:
        return AdmissionRequest(
            operation=operation,
            resource=endpoint.resource,
            subresource=subresource,
            namespace=namespace,
            name=name,
            user=request.user,
            dry_run=parameters.dry_run,
            options=_options_of(operation, parameters.tree),
            warnings=request.warnings,
            audit_annotations=request.audit_annotations,
            audit_details=request.audit_details,
            delays=request.waits(),
            path_name=request.info.name,
        )

    @staticmethod
    def respond(request: Request, endpoint: Endpoint, form: Answer, result: Result, status: int) -> Response:
        """Answer with what a write left."""
        if result.entry is not None:
            return entry_response(request, endpoint, form, result.entry, status)
        return object_response(request, endpoint, form, result.object, status)


def _check_version(obj: Any, endpoint: Endpoint) -> None:
    """Raise BadRequest if a custom resource is of another version than the path's."""
    if endpoint.view is not None and obj.api_version != endpoint.resource.api_version:
        raise apierrors.BadRequest(
            f"the API version in the data ({obj.api_version}) does not match the expected API version "
            f"({endpoint.resource.api_version})"
        )


def _options_of(operation: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what admission sees: the options of the operation that a patch, or an update, turned out to be."""
    kind = "CreateOptions" if operation == CREATE else "UpdateOptions"
    if options.get("kind") == kind:
        return options
    return {**{name: value for name, value in options.items() if name != "force"}, "kind": kind}


class _Taken(Exception):
    """What was reserved together with a new object is gone, or the object itself came and went: try again."""

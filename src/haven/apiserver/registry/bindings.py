"""pods/binding and bindings: a Pod is given its node, once.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/binding-v1/
"""

from __future__ import annotations

from typing import Any

from haven.api.core import v1 as core
from haven.api.scheme import GroupVersionKind
from haven.apimachinery import apierrors, meta, serialization, times
from haven.apimachinery.fielderrors import ErrorList, Path, aggregate, not_supported, required
from haven.apimachinery.goformat import quote
from haven.apiserver.admission.chain import AdmissionChain
from haven.apiserver.admission.interface import CREATE, AdmissionRequest
from haven.apiserver.registry import systemfields
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.registry.options import write_parameters
from haven.apiserver.registry.output import answer_form, object_response
from haven.apiserver.registry.requestobjects import body_of
from haven.apiserver.registry.storage import Storages, Write
from haven.apiserver.request import Request, Response
from haven.apiserver.watchcache import Entry
from haven.clock import Clock
from haven.store.interface import TransactionFailed

__all__ = ["Bindings", "condition_set"]

_GVK = GroupVersionKind("", "v1", "Binding")
_PODS_BINDING = apierrors.GroupResource("", "pods/binding")
_PODS = apierrors.GroupResource("", "pods")


class InvalidBinding(apierrors.ApiError):
    """The binding names no node; upstream answers 500 without a reason."""

    code, reason = 500, ""


class Bindings:
    """Handlers of bindings."""

    def __init__(self, storages: Storages, admission: AdmissionChain, clock: Clock) -> None:
        self._storages = storages
        self._admission = admission
        self._clock = clock

    async def create(self, request: Request, endpoint: Endpoint) -> Response:
        """Answer a POST to pods/{name}/binding, or to bindings (then the body names the Pod)."""
        form = answer_form(request, endpoint, tables=False)
        parameters = write_parameters(request.query, "CreateOptions")
        binding: core.Binding = body_of(request, _GVK, parameters)
        namespace = request.info.namespace
        systemfields.ensure_namespace(binding.metadata, namespace)
        name = request.info.name or binding.metadata.name
        admission = AdmissionRequest(
            operation=CREATE,
            resource=endpoint.resource,
            subresource=request.info.subresource,
            namespace=namespace,
            name=name,
            user=request.user,
            object=binding,
            dry_run=parameters.dry_run,
            options=parameters.tree,
            warnings=request.warnings,
            audit_annotations=request.audit_annotations,
            audit_details=request.audit_details,
            delays=request.waits(),
        )
        await self._admission.admit(admission)
        binding = admission.object
        if name != binding.metadata.name:
            raise apierrors.BadRequest("name in URL does not match name in Binding object")
        if errors := _errors(binding):
            raise InvalidBinding(aggregate(errors))
        await self._admission.validate(admission)
        await self._bind(namespace, name, binding, dry_run=parameters.dry_run)
        return object_response(request, endpoint, form, _success(201), 201, served=True)

    async def _bind(self, namespace: str, name: str, binding: core.Binding, *, dry_run: bool) -> None:
        storage = self._storages.of(_PODS)
        if not name:
            raise apierrors.BadRequest("Name parameter required.")
        while True:
            entry = storage.get(namespace, name)
            if entry is None:
                raise apierrors.NotFound.of(_PODS, name)
            pod = self._bound(entry, binding, dry_run=dry_run)
            if dry_run:
                return
            write = Write(storage, storage.key(namespace, name), pod, expected=entry.revision)
            try:
                await self._storages.commit([write])
            except TransactionFailed:
                continue
            return

    def _bound(self, entry: Entry, binding: core.Binding, *, dry_run: bool) -> core.Pod:
        pod = serialization.decode(entry.data, core.Pod)
        wanted = binding.metadata
        if wanted.uid and wanted.uid != entry.uid:
            because = f"Precondition failed: UID in precondition: {wanted.uid}, UID in object meta: {entry.uid}"
            raise apierrors.Conflict.of(_PODS, entry.name, _stored(entry, because, dry_run=dry_run))
        if wanted.resource_version and wanted.resource_version != str(entry.revision):
            because = (
                f"Precondition failed: ResourceVersion in precondition: {wanted.resource_version}, "
                f"ResourceVersion in object meta: {entry.revision}"
            )
            raise apierrors.Conflict.of(_PODS, entry.name, _stored(entry, because, dry_run=dry_run))
        problem = ""
        if pod.metadata.deletion_timestamp:
            problem = f"pod {entry.name} is being deleted, cannot be assigned to a host"
        elif pod.spec.node_name:
            problem = f"pod {entry.name} is already assigned to node {quote(pod.spec.node_name)}"
        elif pod.spec.scheduling_gates:
            problem = f"pod {entry.name} has non-empty .spec.schedulingGates"
        if problem:
            raise apierrors.Conflict.of(_PODS_BINDING, entry.name, problem)
        pod.spec.node_name = binding.target.name
        pod.status.nominated_node_name = ""
        pod.metadata.annotations = {**pod.metadata.annotations, **wanted.annotations}
        pod.metadata.labels = {**pod.metadata.labels, **wanted.labels}
        condition_set(
            pod, core.PodCondition(type="PodScheduled", status="True"), times.format_time(self._clock.now_seconds())
        )
        return pod


def condition_set(pod: core.Pod, condition: core.PodCondition, now: str) -> None:
    """Set a condition of a Pod; its transition time moves only with its status."""
    condition.last_transition_time = now
    condition.observed_generation = pod.metadata.generation if condition.observed_generation else 0
    kept: list[core.PodCondition] = []
    found = False
    for old in pod.status.conditions:
        if old.type == condition.type:
            found = True
            if old.status == condition.status:
                condition.last_transition_time = old.last_transition_time
            kept.append(condition)
        else:
            kept.append(old)
    if not found:
        kept.append(condition)
    pod.status.conditions = kept


def _stored(entry: Entry, because: str, *, dry_run: bool) -> str:
    root = "" if dry_run else "/registry"  # A dry run shows the key without its first part.
    return (
        f"StorageError: invalid object, Code: 4, Key: {root}/pods/{entry.namespace}/{entry.name}, "
        f"ResourceVersion: 0, AdditionalErrorMsg: {because}"
    )


def _errors(binding: core.Binding) -> ErrorList:
    errors: ErrorList = []
    path = Path("target")
    if binding.target.kind not in ("", "Node"):
        errors.append(not_supported(path.child("kind"), binding.target.kind, ["Node", "<empty>"]))
    if not binding.target.name:
        errors.append(required(path.child("name"), ""))
    return errors


def _success(code: int) -> Any:
    return meta.Status(status="Success", code=code)

"""MutatingAdmissionWebhook: webhooks that change objects, one after the other.

Each sees what those before it made. When one changes the object, the whole of admission is gone through once more, in
which those are asked again that have seen an older state and said reinvocationPolicy: IfNeeded.
Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#reinvocation-policy
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from haven.api import scheme
from haven.api.scheme import GroupVersionKind, Resource, subresource_kind
from haven.apimachinery import apierrors, meta, serialization
from haven.apimachinery.apierrors import GroupResource
from haven.apimachinery.fielderrors import Path
from haven.apimachinery.goformat import quote
from haven.apimachinery.patch import json_patch
from haven.apimachinery.patch.errors import PatchError
from haven.apimachinery.schema.gojson import syntax_error
from haven.apimachinery.validation.labels import validate_managed_fields
from haven.apiserver.admission.interface import CONNECT, CREATE, DELETE, UPDATE, AdmissionRequest
from haven.apiserver.admission.webhooks.dispatch import CannotAsk, Dispatcher
from haven.apiserver.admission.webhooks.hooks import Hook, Hooks
from haven.apiserver.admission.webhooks.metrics import ADMIT, WebhookMetrics
from haven.apiserver.admission.webhooks.review import JSON_PATCH, Verdict

__all__ = ["MutatingAdmissionWebhook"]

_PATCHES, _MUTATIONS = "patch.webhook.admission.k8s.io/", "mutation.webhook.admission.k8s.io/"
_FAILED_OPEN = f"failed-open.{_MUTATIONS}"


@dataclass(slots=True)
class _Rounds:
    """Who has seen what, over both rounds: the UIDs of webhooks."""

    outdated: set[str] = field(default_factory=set)
    """Those that want to see changes and have been asked since the last one."""
    asked_again: set[str] = field(default_factory=set)
    output: bytes = b""

    def changed(self) -> None:
        self.asked_again |= self.outdated
        self.outdated.clear()


class MutatingAdmissionWebhook:
    """Asks the webhooks of MutatingWebhookConfigurations."""

    name = "MutatingAdmissionWebhook"
    resources: frozenset[GroupResource] | None = None

    def __init__(self, hooks: Hooks, dispatcher: Dispatcher, metrics: WebhookMetrics) -> None:
        self._hooks = hooks
        self._metrics = metrics
        self._dispatcher = dispatcher

    def handles(self, operation: str) -> bool:
        return operation in (CONNECT, CREATE, DELETE, UPDATE)

    def is_idle(self, request: AdmissionRequest) -> bool:
        return not any(self._dispatcher.concerned(one, request) for one in self._hooks.about(request))

    async def admit(self, request: AdmissionRequest) -> None:
        hooks = self._hooks.about(request)
        if not hooks:
            return
        rounds: _Rounds = request.reinvocation.values.setdefault(self.name, _Rounds())
        if request.reinvocation.is_second_round and rounds.output != serialization.encode(request.object):
            rounds.changed()  # Other plugins have changed the object since.
        try:
            for index, hook in enumerate(hooks):
                await self._consult(index, hook, request, rounds)
        finally:
            rounds.output = serialization.encode(request.object)

    async def _consult(self, index: int, hook: Hook, request: AdmissionRequest, rounds: _Rounds) -> None:
        again = request.reinvocation.is_second_round
        resource = await self._dispatcher.wanted(hook, request, self._metrics.conditions(hook, ADMIT, request))
        if resource is None or (again and hook.uid not in rounds.asked_again):
            return
        place = f"round_{1 if again else 0}_index_{index}"
        mutated = False
        try:
            with self._metrics.asking(hook, ADMIT, request):
                mutated = await self._ask(hook, request, resource, place)
        except CannotAsk as error:
            refusal = self._dispatcher.failed(hook, error)
            if refusal is not None:
                raise refusal from error
            request.audit_annotations.setdefault(_FAILED_OPEN + place, hook.name)
        finally:
            annotation = {"configuration": hook.configuration, "webhook": hook.name, "mutated": mutated}
            request.audit_annotations.setdefault(_MUTATIONS + place, orjson.dumps(annotation).decode())
            if mutated:
                rounds.changed()
                request.reinvocation.is_wanted = True
            if hook.is_reinvocable:
                rounds.outdated.add(hook.uid)

    async def _ask(self, hook: Hook, request: AdmissionRequest, resource: Resource[Any], place: str) -> bool:
        """Return whether the webhook changed the object."""
        obj, old = await self._dispatcher.shown(request, resource)
        verdict = await self._dispatcher.ask(hook, request, resource, obj, old, mutating=True)
        operations = _operations(verdict)
        if not operations:
            return False
        if obj is None:
            text = f"admission webhook {quote(hook.name)} attempted to modify the object"
            raise apierrors.InternalError.because(f"{text}, which is not supported for this operation")
        if verdict.patch_type != JSON_PATCH:
            raise CannotAsk(f"unsupported patch type {quote(verdict.patch_type)}", 400)
        before = serialization.encode(obj)
        try:
            tree = json_patch.apply(orjson.loads(before), operations)
        except PatchError as error:
            raise apierrors.InternalError.because(str(error)) from error
        if not isinstance(tree, dict):
            raise apierrors.InternalError.because("the patched object is no object")
        _check_kind(tree, subresource_kind(resource, request.subresource))
        versions = self._dispatcher.versions
        owners = getattr(request.object, "metadata", None) and request.object.metadata.managed_fields
        request.object = await versions.take(tree, resource, request)
        after = serialization.encode(await versions.show(request.object, resource, request.subresource))
        _restore_owners(request, owners or [])
        detail = {
            "configuration": hook.configuration,
            "webhook": hook.name,
            "patch": [dict(sorted(one.items())) for one in operations],
            "patchType": JSON_PATCH,
        }
        request.audit_details.setdefault(_PATCHES + place, orjson.dumps(detail).decode())
        return after != before


def _check_kind(tree: dict[str, Any], kind: GroupVersionKind) -> None:
    """Refuse an object that was made one of another kind."""
    said = (tree.get("apiVersion") or kind.api_version, tree.get("kind") or kind.kind)
    if said == (kind.api_version, kind.kind):
        return
    group, _, version = str(said[0]).rpartition("/")
    try:
        scheme.kind_type(group, version, str(said[1]))
    except KeyError:
        text = f"no kind {quote(str(said[1]))} is registered for version {quote(str(said[0]))}"
        raise apierrors.InternalError.because(f'{text} in scheme "pkg/api/legacyscheme/scheme.go:30"') from None
    internal = kind.group.split(".")[0] or "core"
    raise apierrors.InternalError.because(
        f"converting ({version}.{said[1]}) to ({internal}.{kind.kind}): unknown conversion"
    )


def _restore_owners(request: AdmissionRequest, before: list[meta.ManagedFieldsEntry]) -> None:
    """Give the owners of fields back if a webhook made a mess of them."""
    metadata = getattr(request.object, "metadata", None)
    if metadata is None or metadata.managed_fields == before:
        return
    errors = validate_managed_fields(metadata.managed_fields, Path("managedFields"))
    if errors:
        metadata.managed_fields = before
        wrong = f"{errors[0].field.rpartition('.')[2]} {errors[0].detail}"
        request.warnings.append(
            ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated "
            f"mutating admission controller; please fix your requests: {wrong}"
        )


def _operations(verdict: Verdict) -> list[Any]:
    if not verdict.patch:
        return []
    try:
        operations = orjson.loads(verdict.patch)
    except orjson.JSONDecodeError:
        complaint = syntax_error(verdict.patch) or "unexpected end of JSON input"
        raise CannotAsk(f"received undecodable patch in webhook response: {complaint}") from None
    if operations is None:
        return []
    if not isinstance(operations, list):
        text = f"json: cannot unmarshal {'object' if isinstance(operations, dict) else 'value'} into Go value"
        raise CannotAsk(f"received undecodable patch in webhook response: {text} of type jsonpatch.Patch")
    for one in operations:
        if not isinstance(one, dict):
            what = {str: "string", list: "array", bool: "bool", type(None): "null"}.get(type(one), "number")
            text = f"json: cannot unmarshal {what} into Go value of type jsonpatch.Operation"
            raise CannotAsk(f"received undecodable patch in webhook response: {text}")
    return operations

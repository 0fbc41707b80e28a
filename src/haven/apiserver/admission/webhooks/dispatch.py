"""Asking one webhook: whether it wants to see a request at all, the call, and what each failure means."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from haven import telemetry
from haven.api.admissionregistration import v1
from haven.api.scheme import Resource
from haven.apimachinery import apierrors
from haven.apimachinery.goformat import quote
from haven.apimachinery.selectors import SelectorError
from haven.apimachinery.validation.names import qualified_name_errors
from haven.apiserver import patience
from haven.apiserver.admission.interface import AdmissionRequest, Objects
from haven.apiserver.admission.matching import first_matching_rule, namespace_matches, object_matches
from haven.apiserver.admission.versions import Versions
from haven.apiserver.admission.webhooks.credentials import Credentials
from haven.apiserver.admission.webhooks.hooks import Hook
from haven.apiserver.admission.webhooks.review import InvalidReview, Verdict, denial, read_review, review_of
from haven.apiserver.webhooks.caller import CallFailed, WebhookCaller, calling_webhook
from haven.apiserver.webhooks.target import Target

__all__ = ["CannotAsk", "ConditionNotes", "Conditions", "Dispatcher"]

_SECONDS = 10  # What configurations have by default.
_log = telemetry.logger("apiserver")


class CannotAsk(Exception):
    """A webhook could not be asked, or its answer makes no sense: its failure policy decides. `code` is for metrics."""

    def __init__(self, message: str, code: int = 503) -> None:
        super().__init__(message)
        self.code = code


class Conditions(Protocol):
    """Evaluates match conditions (CEL)."""

    async def match(
        self,
        conditions: Sequence[v1.MatchCondition],
        request: AdmissionRequest,
        resource: Resource[Any],
        obj: Any,
        old: Any,
        *,
        fails_open: bool,
        told: Callable[[float, int], None] | None = None,
    ) -> bool:
        """Tell whether all conditions hold for the objects as `resource` shows them.

        One that is false settles it. An error refuses the request (raise ApiError), or, if the webhook fails open,
        counts as false.
        """
        ...


@dataclass(frozen=True, slots=True)
class ConditionNotes:
    """Takes down what becomes of a webhook's conditions: seconds and failures of those that do not simply hold, and
    that the webhook is therefore not asked.
    """

    told: Callable[[float, int], None]
    excluded: Callable[[], None]


class Dispatcher:
    """What both kinds of webhooks share."""

    def __init__(self, objects: Objects, versions: Versions, caller: WebhookCaller, conditions: Conditions) -> None:
        self._objects = objects
        self.versions = versions
        self._caller = caller
        self._conditions = conditions
        self.credentials: Credentials | None = None
        """Who we are to webhooks."""

    def concerned(self, hook: Hook, request: AdmissionRequest) -> bool:
        """Tell whether a webhook may want to see requests like this one, as far as its rules tell."""
        try:
            criteria = hook.criteria
        except SelectorError:
            return True  # That is a refusal, which `wanted` words.
        equivalents = self.versions.equivalents(request.resource, request.subresource) if criteria.is_equivalent else ()
        return first_matching_rule(criteria, request, equivalents) is not None

    async def wanted(self, hook: Hook, request: AdmissionRequest, notes: ConditionNotes) -> Resource[Any] | None:
        """Return as which resource a webhook wants to see a request; None if it does not."""
        try:
            criteria = hook.criteria
        except SelectorError as error:
            raise apierrors.InternalError.because(error) from None
        missing: apierrors.ApiError | None = None
        try:
            if not namespace_matches(criteria.namespace_selector, request, self._objects):
                return None
        except apierrors.NotFound as error:
            missing = error  # It only matters if the webhook cares about such requests.
        if not object_matches(criteria.object_selector, request.object, request.old):
            return None
        equivalents = self.versions.equivalents(request.resource, request.subresource) if criteria.is_equivalent else ()
        resource = first_matching_rule(criteria, request, equivalents)
        if resource is None:
            return None
        if missing is not None:
            raise missing
        if hook.webhook.match_conditions:
            obj, old = await self.shown(request, resource)
            if not await self._conditions.match(
                hook.webhook.match_conditions,
                request,
                resource,
                obj,
                old,
                fails_open=hook.fails_open,
                told=notes.told,
            ):
                notes.excluded()
                return None
        return resource

    async def shown(self, request: AdmissionRequest, resource: Resource[Any]) -> tuple[Any, Any]:
        """Return the new and the old object as a resource shows them."""
        subresource = request.subresource
        return (
            await self.versions.show(request.object, resource, subresource),
            await self.versions.show(request.old, resource, subresource),
        )

    async def ask(
        self, hook: Hook, request: AdmissionRequest, resource: Resource[Any], obj: Any, old: Any, *, mutating: bool
    ) -> Verdict:
        """Return an allowing verdict; raise CannotAsk, or ApiError if the webhook denies the request.

        What the verdict says to clients and to the audit log is passed on.
        """
        webhook = hook.webhook
        if request.dry_run:
            if webhook.side_effects is None:
                raise CannotAsk("Webhook SideEffects is nil", 400)
            if webhook.side_effects not in ("None", "NoneOnDryRun"):
                raise apierrors.BadRequest(f"admission webhook {quote(hook.name)} does not support dry run")
        version = hook.review_version
        if version is None:
            text = "webhook does not accept known AdmissionReview versions (v1, v1beta1)"
            raise CannotAsk(f"could not create admission objects: {text}", 400)
        try:
            target = Target.of(webhook.client_config)
            if self.credentials is not None:
                target = self.credentials.complete(target)
        except ValueError as error:
            raise CannotAsk(f"could not get REST client: {error}", 500) from error
        uid = str(uuid.uuid4())
        body = review_of(request, resource, obj, old, version=version, uid=uid)
        try:
            name = f"Call {'mutating' if mutating else 'validating'} webhook"
            about = {
                "webhook": hook.name,
                "configuration": hook.configuration,
                "operation": request.operation,
                "uid": uid,
            }
            with self._caller.span(name, about):
                seconds = min(webhook.timeout_seconds or _SECONDS, patience.remaining_seconds())
                answer = await self._caller.post(target, body, timeout_seconds=seconds)
        except CallFailed as error:
            code = error.status.code if error.status is not None else 503
            raise CannotAsk(f"failed to call webhook: {error}", code) from error
        try:
            verdict = read_review(answer, version=version, uid=uid, mutating=mutating)
        except InvalidReview as error:
            prefix = "received invalid webhook response" if error.is_document else "failed to call webhook"
            raise CannotAsk(f"{prefix}: {error}") from error
        for name, value in verdict.audit_annotations.items():
            key = f"{hook.name}/{name}"
            if qualified_name_errors(key):
                _log.warning("An audit annotation of a webhook has a bad key; it is left out.", key=key)
            else:
                request.audit_annotations.setdefault(key, value)
        request.warnings.extend(verdict.warnings)
        if not verdict.allowed:
            raise denial(hook.name, verdict.status)
        return verdict

    @staticmethod
    def failed(hook: Hook, error: CannotAsk) -> apierrors.InternalError | None:
        """Return the refusal of a request because a webhook could not be asked; None if it passes nevertheless."""
        text = calling_webhook(hook.name, str(error))
        if hook.fails_open:
            _log.warning("A webhook could not be asked; the request passes.", webhook=hook.name, error=text)
            return None
        return apierrors.InternalError.because(text)

"""ValidatingAdmissionWebhook: webhooks that judge the final object, all at the same time."""

from __future__ import annotations

import asyncio
from typing import Any

from haven.api.scheme import Resource
from haven.apimachinery import apierrors
from haven.apimachinery.apierrors import GroupResource
from haven.apiserver.admission.interface import CONNECT, CREATE, DELETE, UPDATE, AdmissionRequest
from haven.apiserver.admission.webhooks.dispatch import CannotAsk, Dispatcher
from haven.apiserver.admission.webhooks.hooks import Hook, Hooks
from haven.apiserver.admission.webhooks.metrics import VALIDATING, WebhookMetrics

__all__ = ["ValidatingAdmissionWebhook"]

_FAILED_OPEN = "failed-open.validating.webhook.admission.k8s.io/"


class ValidatingAdmissionWebhook:
    """Asks the webhooks of ValidatingWebhookConfigurations."""

    name = "ValidatingAdmissionWebhook"
    resources: frozenset[GroupResource] | None = None

    def __init__(self, hooks: Hooks, dispatcher: Dispatcher, metrics: WebhookMetrics) -> None:
        self._hooks = hooks
        self._metrics = metrics
        self._dispatcher = dispatcher

    def handles(self, operation: str) -> bool:
        return operation in (CONNECT, CREATE, DELETE, UPDATE)

    def is_idle(self, request: AdmissionRequest) -> bool:
        return not any(self._dispatcher.concerned(one, request) for one in self._hooks.about(request))

    async def validate(self, request: AdmissionRequest) -> None:
        hooks = self._hooks.about(request)
        if not hooks:
            return
        concerned: list[tuple[Hook, Resource[Any]]] = []
        for hook in hooks:
            resource = await self._dispatcher.wanted(hook, request, self._metrics.conditions(hook, "validate", request))
            if resource is not None:
                concerned.append((hook, resource))
        if not concerned:
            return
        shown: dict[Resource[Any], tuple[Any, Any]] = {}
        for _, resource in concerned:
            if resource not in shown:
                shown[resource] = await self._dispatcher.shown(request, resource)
        refusals: list[apierrors.ApiError] = []
        async with asyncio.TaskGroup() as group:
            for index, (hook, resource) in enumerate(concerned):
                group.create_task(self._consult(index, hook, request, resource, shown[resource], refusals))
        if refusals:
            raise refusals[0]  # The first to answer, as upstream; it has no way to tell of several.

    async def _consult(
        self,
        index: int,
        hook: Hook,
        request: AdmissionRequest,
        resource: Resource[Any],
        shown: tuple[Any, Any],
        refusals: list[apierrors.ApiError],
    ) -> None:
        try:
            with self._metrics.asking(hook, VALIDATING, request):
                await self._dispatcher.ask(hook, request, resource, *shown, mutating=False)
        except CannotAsk as error:
            refusal = self._dispatcher.failed(hook, error)
            if refusal is not None:
                refusals.append(refusal)
            else:
                request.audit_annotations.setdefault(f"{_FAILED_OPEN}round_0_index_{index}", hook.name)
        except apierrors.ApiError as error:
            refusals.append(error)

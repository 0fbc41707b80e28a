"""Both plugins and what they know, put together."""

from __future__ import annotations

from haven.api.admissionregistration import v1
from haven.apiserver.admission.interface import Objects, Plugin
from haven.apiserver.admission.versions import Versions
from haven.apiserver.admission.webhooks.dispatch import Conditions, Dispatcher
from haven.apiserver.admission.webhooks.hooks import Hooks
from haven.apiserver.admission.webhooks.metrics import WebhookMetrics
from haven.apiserver.admission.webhooks.mutating import MutatingAdmissionWebhook
from haven.apiserver.admission.webhooks.validating import ValidatingAdmissionWebhook
from haven.apiserver.webhooks.caller import WebhookCaller
from haven.clock import Clock

__all__ = ["WebhookAdmission"]


class WebhookAdmission:
    """The plugins, and the observers that keep them informed of configurations."""

    def __init__(
        self, objects: Objects, versions: Versions, caller: WebhookCaller, conditions: Conditions, clock: Clock
    ) -> None:
        dispatcher = Dispatcher(objects, versions, caller, conditions)
        mutating = Hooks(v1.MutatingWebhookConfiguration)
        validating = Hooks(v1.ValidatingWebhookConfiguration)
        self.observers = (mutating, validating)
        self.metrics = WebhookMetrics(clock)
        self.mutating: Plugin = MutatingAdmissionWebhook(mutating, dispatcher, self.metrics)
        self.validating: Plugin = ValidatingAdmissionWebhook(validating, dispatcher, self.metrics)

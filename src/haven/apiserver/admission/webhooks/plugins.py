"""Both plugins and what they know, put together."""

from __future__ import annotations

from haven.api.admissionregistration import v1
from haven.apiserver.admission.interface import Objects, Plugin
from haven.apiserver.admission.versions import Versions
from haven.apiserver.admission.webhooks.credentials import parse_credentials
from haven.apiserver.admission.webhooks.dispatch import Conditions, Dispatcher
from haven.apiserver.admission.webhooks.hooks import Hooks
from haven.apiserver.admission.webhooks.metrics import WebhookMetrics
from haven.apiserver.admission.webhooks.mutating import MutatingAdmissionWebhook
from haven.apiserver.admission.webhooks.validating import ValidatingAdmissionWebhook
from haven.apiserver.metrics import make_registry
from haven.apiserver.webhooks.caller import WebhookCaller
from haven.clock import Clock
from haven.metrics.families import Registry

__all__ = ["WebhookAdmission"]


class WebhookAdmission:
    """The plugins, and the observers that keep them informed of configurations."""

    def __init__(
        self,
        objects: Objects,
        versions: Versions,
        caller: WebhookCaller,
        conditions: Conditions,
        clock: Clock,
        registry: Registry | None = None,
    ) -> None:
        self._judging, self._changing = (Dispatcher(objects, versions, caller, conditions) for _ in range(2))
        mutating = Hooks(v1.MutatingWebhookConfiguration)
        validating = Hooks(v1.ValidatingWebhookConfiguration)
        self.observers = (self.changing, self.judging) = (mutating, validating)
        metrics = WebhookMetrics(registry or make_registry(), clock)
        self.mutating: Plugin = MutatingAdmissionWebhook(mutating, self._changing, metrics)
        self.validating: Plugin = ValidatingAdmissionWebhook(validating, self._judging, metrics)

    def mutating_as(self, document: bytes | None) -> Plugin:
        """Return the plugin that changes, with the users of its configuration; raise ConfigError."""
        self._changing.credentials = parse_credentials(document)
        return self.mutating

    def validating_as(self, document: bytes | None) -> Plugin:
        """Return the plugin that judges, with the users of its configuration; raise ConfigError."""
        self._judging.credentials = parse_credentials(document)
        return self.validating

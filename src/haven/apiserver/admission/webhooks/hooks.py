"""The configured webhooks, in the order in which they are asked; every change of a configuration counts at once.

Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from haven.api import scheme
from haven.api.admissionregistration import v1
from haven.api.scheme import Resource
from haven.apiserver.admission.interface import AdmissionRequest
from haven.apiserver.admission.matching import Criteria, is_exempt

__all__ = ["Hook", "Hooks"]

Configuration = v1.MutatingWebhookConfiguration | v1.ValidatingWebhookConfiguration
Webhook = v1.MutatingWebhook | v1.ValidatingWebhook
_REVIEW_VERSIONS = ("v1", "v1beta1")


@dataclass(frozen=True)
class Hook:
    """One webhook of a configuration. `uid` tells it from others of the same name."""

    configuration: str
    uid: str
    webhook: Webhook

    @property
    def name(self) -> str:
        return self.webhook.name

    @cached_property
    def criteria(self) -> Criteria:
        """What it wants to see; raises SelectorError."""
        webhook = self.webhook
        return Criteria.of(webhook.rules, webhook.match_policy, webhook.namespace_selector, webhook.object_selector)

    @property
    def fails_open(self) -> bool:
        """Whether requests pass when it cannot be asked."""
        return self.webhook.failure_policy == "Ignore"

    @property
    def is_reinvocable(self) -> bool:
        """Whether it wants to see changes that others make after it."""
        return getattr(self.webhook, "reinvocation_policy", None) == "IfNeeded"

    @property
    def review_version(self) -> str | None:
        """The first version of AdmissionReview that it and we speak."""
        return next((one for one in self.webhook.admission_review_versions or () if one in _REVIEW_VERSIONS), None)


class Hooks:
    """The webhooks of all configurations of one kind, by the configurations' names. Follows stored objects."""

    def __init__(self, kind: type[Any]) -> None:
        self.resources: Sequence[Resource[Any]] = (scheme.resource_of(kind),)
        self._configurations: dict[str, Configuration] = {}
        self._hooks: tuple[Hook, ...] | None = ()
        self._fixed: tuple[Hook, ...] = ()

    def fix(self, configurations: Sequence[Configuration]) -> None:
        """Take configurations over that the API does not know; their webhooks are asked before all others."""
        self._fixed = tuple(hook for one in configurations for hook in _of(one, "manifest/"))
        self._hooks = None

    def about(self, request: AdmissionRequest) -> tuple[Hook, ...]:
        """Return the webhooks that may look at a request, whatever their rules.

        Those that the API knows may not judge what configures admission: a mistake could not be undone.
        """
        hooks = self.all()
        return self._fixed if hooks and is_exempt(request) else hooks

    def changed(self, resource: Resource[Any], old: Any | None, new: Any | None) -> None:
        if new is None:
            self._configurations.pop(old.metadata.name if old is not None else "", None)
        else:
            self._configurations[new.metadata.name] = new
        self._hooks = None

    def all(self) -> tuple[Hook, ...]:
        """Return the webhooks in the order in which they are asked."""
        if self._hooks is None:
            stored = (hook for name in sorted(self._configurations) for hook in _of(self._configurations[name]))
            self._hooks = (*self._fixed, *stored)
        return self._hooks


def _of(configuration: Configuration, prefix: str = "") -> list[Hook]:
    seen: dict[str, int] = {}
    hooks: list[Hook] = []
    name = configuration.metadata.name
    for webhook in configuration.webhooks:
        number = seen.get(webhook.name, 0)
        seen[webhook.name] = number + 1
        hooks.append(Hook(name, f"{prefix}{name}/{webhook.name}/{number}", webhook))
    return hooks

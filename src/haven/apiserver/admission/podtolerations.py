"""PodTolerationRestriction: tolerations that the Pods of a namespace get, and those that they may have.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#podtolerationrestriction
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from haven.api import scheme
from haven.api.core import v1 as core
from haven.api.core.podresources import qos_class
from haven.api.core.validation.affinity import validate_tolerations
from haven.apimachinery import serialization
from haven.apimachinery.apierrors import GroupResource
from haven.apimachinery.fielderrors import Path
from haven.apiserver.admission.interface import (
    CREATE,
    UPDATE,
    AdmissionRequest,
    Objects,
    PluginFailure,
    namespace_of,
)
from haven.apiserver.admission.tolerations import covers_toleration, merge_tolerations
from haven.apiserver.configfiles import ConfigError, Document, read_document

__all__ = ["PodTolerationRestriction", "TolerationLimits", "parse_tolerations"]

DEFAULTS = "scheduler.alpha.kubernetes.io/defaultTolerations"
WHITELIST = "scheduler.alpha.kubernetes.io/tolerationsWhitelist"
_VERSIONS = frozenset({"podtolerationrestriction.admission.k8s.io/v1alpha1"})
_MEMORY_PRESSURE = core.Toleration(key="node.kubernetes.io/memory-pressure", operator="Exists", effect="NoSchedule")


class _Configuration(Document, frozen=True):
    default: list[core.Toleration] | None = None
    whitelist: list[core.Toleration] | None = None


@dataclass(frozen=True, slots=True)
class TolerationLimits:
    """What holds for namespaces that say nothing themselves."""

    default: Sequence[core.Toleration] = ()
    whitelist: Sequence[core.Toleration] = ()


def parse_tolerations(document: bytes | None) -> TolerationLimits:
    """Return what a configuration says; raise ConfigError."""
    if document is None:
        return TolerationLimits()
    found = read_document(document, _Configuration, "Configuration", _VERSIONS)
    limits = TolerationLimits(found.default or (), found.whitelist or ())
    path = Path("podtolerationrestriction")
    errors = validate_tolerations(list(limits.default), path.child("default"))
    errors += validate_tolerations(list(limits.whitelist), path.child("whitelist"))
    if errors:
        raise ConfigError(f"invalid config: [{' '.join(map(str, errors))}]")
    return limits


class PodTolerationRestriction:
    """Merges a namespace's tolerations into new Pods, and refuses Pods with others than it allows."""

    name = "PodTolerationRestriction"
    resources = frozenset({GroupResource("", "pods")})

    def __init__(self, objects: Objects, limits: TolerationLimits) -> None:
        self._objects = objects
        self._limits = limits
        self._namespaces = scheme.resource_of(core.Namespace)

    def handles(self, operation: str) -> bool:
        return operation in (CREATE, UPDATE)

    async def admit(self, request: AdmissionRequest) -> None:
        if request.subresource:
            return
        pod: core.Pod = request.object
        added: list[core.Toleration] = []
        if request.operation == CREATE:
            own = self._annotated(request, DEFAULTS)
            added += self._limits.default if own is None else own
        if qos_class(pod) != "BestEffort":
            added.append(_MEMORY_PRESSURE)
        if added:
            pod.spec.tolerations = merge_tolerations(pod.spec.tolerations, added)
        await self.validate(request)

    async def validate(self, request: AdmissionRequest) -> None:
        tolerations: list[core.Toleration] = request.object.spec.tolerations if not request.subresource else []
        if not tolerations:
            return
        own = self._annotated(request, WHITELIST)
        allowed, scope = (self._limits.whitelist, "cluster") if own is None else (own, "namespace")
        if allowed and not all(any(covers_toleration(wide, one) for wide in allowed) for one in tolerations):
            raise PluginFailure(
                "pod tolerations (possibly merged with namespace default tolerations) conflict with its"
                f" {scope} whitelist"
            )

    def _annotated(self, request: AdmissionRequest, key: str) -> list[core.Toleration] | None:
        """Return the tolerations in an annotation of the namespace; None if there is no such annotation."""
        text = namespace_of(self._objects, request.namespace).metadata.annotations.get(key)
        if text is None:
            return None
        if not text:
            return []
        try:
            return serialization.decode(text.encode(), list[core.Toleration])
        except (msgspec.DecodeError, ValueError) as error:
            raise PluginFailure(str(error)) from None

"""Which admission plugins run: upstream's defaults, with what an operator switches on and off.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#which-plugins-are-enabled-by-default
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass

from haven.apiserver.admission.certificates import (
    CertificateApproval,
    CertificateSigning,
    CertificateSubjectRestriction,
)
from haven.apiserver.admission.interface import Objects, Plugin
from haven.apiserver.admission.limitranger import LimitRanger
from haven.apiserver.admission.namespacelifecycle import NamespaceLifecycle
from haven.apiserver.admission.network import DefaultIngressClass, DenyServiceExternalIPs
from haven.apiserver.admission.noderestriction import NodeRestriction
from haven.apiserver.admission.ownerreferences import OwnerReferencesPermissionEnforcement
from haven.apiserver.admission.pods import (
    AlwaysPullImages,
    LimitPodHardAntiAffinityTopology,
    PodResizeValidator,
    PodTopologyLabels,
)
from haven.apiserver.admission.podsecurity.plugin import Exemptions, PodSecurity
from haven.apiserver.admission.podsecurity.policy import Policy
from haven.apiserver.admission.policies.plugins import PolicyAdmission
from haven.apiserver.admission.priority import Priority
from haven.apiserver.admission.resourcequota import ResourceQuota
from haven.apiserver.admission.runtimeclass import RuntimeClass
from haven.apiserver.admission.serviceaccount import ServiceAccount
from haven.apiserver.admission.storage import (
    DefaultStorageClass,
    PersistentVolumeClaimResize,
    StorageObjectInUseProtection,
)
from haven.apiserver.admission.switches import AlwaysDeny, EventLimit, EventRateLimit, NamespaceExists
from haven.apiserver.admission.tolerations import (
    DefaultTolerationSeconds,
    ExtendedResourceToleration,
    TaintNodesByCondition,
)
from haven.apiserver.admission.webhooks.plugins import WebhookAdmission
from haven.apiserver.authorization.interface import Authorizer
from haven.clock import Clock

__all__ = ["DEFAULT", "AdmissionSettings", "make_plugins"]

DEFAULT = frozenset(
    {
        "NamespaceLifecycle", "LimitRanger", "ServiceAccount", "TaintNodesByCondition", "PodSecurity", "Priority",
        "DefaultTolerationSeconds", "DefaultStorageClass", "StorageObjectInUseProtection",
        "PersistentVolumeClaimResize", "RuntimeClass", "CertificateApproval", "CertificateSigning",
        "CertificateSubjectRestriction", "DefaultIngressClass", "PodTopologyLabels", "PodResizeValidator",
        "ResourceQuota", "MutatingAdmissionWebhook", "ValidatingAdmissionWebhook", "MutatingAdmissionPolicy",
        "ValidatingAdmissionPolicy",
    }
)  # fmt: skip
"""What upstream runs by default."""


@dataclass(frozen=True)
class AdmissionSettings:
    """What an operator may set on admission."""

    enabled: Collection[str] = ("NodeRestriction",)
    disabled: Collection[str] = ()
    pod_security_defaults: Policy | None = None
    pod_security_exemptions: Exemptions | None = None
    event_limits: tuple[EventLimit, ...] = ()


class UnknownPlugin(ValueError):
    """The settings name a plugin that Haven does not have."""


def make_plugins(
    objects: Objects,
    authorizer: Authorizer,
    clock: Clock,
    chance: random.Random,
    webhooks: WebhookAdmission,
    policies: PolicyAdmission,
    settings: AdmissionSettings | None = None,
) -> list[Plugin]:
    """Return the plugins that are to run; raise UnknownPlugin."""
    settings = settings or AdmissionSettings()
    makers: dict[str, Callable[[], Plugin]] = {
        "AlwaysDeny": AlwaysDeny,
        "AlwaysPullImages": AlwaysPullImages,
        "CertificateApproval": lambda: CertificateApproval(authorizer),
        "CertificateSigning": lambda: CertificateSigning(authorizer),
        "CertificateSubjectRestriction": CertificateSubjectRestriction,
        "DefaultIngressClass": lambda: DefaultIngressClass(objects),
        "DefaultStorageClass": lambda: DefaultStorageClass(objects),
        "DefaultTolerationSeconds": DefaultTolerationSeconds,
        "DenyServiceExternalIPs": DenyServiceExternalIPs,
        "EventRateLimit": lambda: EventRateLimit(settings.event_limits, clock),
        "ExtendedResourceToleration": ExtendedResourceToleration,
        "LimitPodHardAntiAffinityTopology": LimitPodHardAntiAffinityTopology,
        "LimitRanger": lambda: LimitRanger(objects),
        "MutatingAdmissionPolicy": lambda: policies.mutating,
        "MutatingAdmissionWebhook": lambda: webhooks.mutating,
        "NamespaceExists": lambda: NamespaceExists(objects),
        "NamespaceLifecycle": lambda: NamespaceLifecycle(objects),
        "NodeRestriction": lambda: NodeRestriction(objects, authorizer),
        "OwnerReferencesPermissionEnforcement": lambda: OwnerReferencesPermissionEnforcement(authorizer),
        "PersistentVolumeClaimResize": lambda: PersistentVolumeClaimResize(objects),
        "PodResizeValidator": lambda: PodResizeValidator(objects),
        "PodSecurity": lambda: PodSecurity(
            objects, defaults=settings.pod_security_defaults, exemptions=settings.pod_security_exemptions
        ),
        "PodTopologyLabels": lambda: PodTopologyLabels(objects),
        "Priority": lambda: Priority(objects),
        "ResourceQuota": lambda: ResourceQuota(objects, clock),
        "RuntimeClass": lambda: RuntimeClass(objects),
        "ServiceAccount": lambda: ServiceAccount(objects, clock, chance),
        "StorageObjectInUseProtection": StorageObjectInUseProtection,
        "TaintNodesByCondition": TaintNodesByCondition,
        "ValidatingAdmissionPolicy": lambda: policies.validating,
        "ValidatingAdmissionWebhook": lambda: webhooks.validating,
    }
    named = {*settings.enabled, *settings.disabled}
    unknown = sorted(named - makers.keys())
    if unknown:
        raise UnknownPlugin(f"unknown admission plugins: {', '.join(unknown)}")
    chosen = (DEFAULT | set(settings.enabled)) - set(settings.disabled)
    return [makers[name]() for name in sorted(chosen)]

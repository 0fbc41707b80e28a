"""Which admission plugins run: upstream's defaults, with what an operator switches on and off, and how each is made.

A plugin that does not run is not imported.
Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#which-plugins-are-enabled-by-default
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from haven.api.admissionregistration import v1
from haven.api.core import v1 as core
from haven.apimachinery.goformat import aggregate
from haven.apiserver.admission.chain import ORDER
from haven.apiserver.admission.configuration import PluginConfigs
from haven.apiserver.admission.interface import Objects, Plugin
from haven.apiserver.admission.policies.plugins import PolicyAdmission
from haven.apiserver.admission.webhooks.credentials import parse_settings
from haven.apiserver.admission.webhooks.plugins import WebhookAdmission
from haven.apiserver.authorization.interface import Authorizer
from haven.apiserver.configfiles import ConfigError, Document, read_document
from haven.apiserver.webhooks.retrying import Post
from haven.clock import Clock
from haven.metrics.families import Registry

if TYPE_CHECKING:
    from haven.apiserver.admission.manifests import Loaded, Manifests

__all__ = ["DEFAULT", "AdmissionSettings", "Parts", "chosen_plugins", "make_plugins"]

DEFAULT = frozenset(
    {
        "NamespaceLifecycle", "LimitRanger", "ServiceAccount", "TaintNodesByCondition", "PodSecurity", "Priority",
        "DefaultTolerationSeconds", "DefaultStorageClass", "StorageObjectInUseProtection", "PodGroupProtection",
        "PersistentVolumeClaimResize", "RuntimeClass", "CertificateApproval", "CertificateSigning",
        "ClusterTrustBundleAttest", "CertificateSubjectRestriction", "DefaultIngressClass", "PodTopologyLabels",
        "PodGroupWorkloadExists", "NodeDeclaredFeatureValidator", "JobValidation", "PodResizeValidator",
        "ResourceQuota", "MutatingAdmissionWebhook", "ValidatingAdmissionWebhook", "MutatingAdmissionPolicy",
        "ValidatingAdmissionPolicy",
    }
)  # fmt: skip
"""What upstream runs by default."""
OWN_DEFAULT = ("NodeRestriction",)
"""What Haven adds to that unless the operator names others, as every installer of clusters does."""
_POLICY_VERSIONS = frozenset({"apiserver.config.k8s.io/v1"})
_WEBHOOK_KINDS: Mapping[str, type[Any]] = {
    "MutatingAdmissionWebhook": v1.MutatingWebhookConfiguration,
    "ValidatingAdmissionWebhook": v1.ValidatingWebhookConfiguration,
}
_POLICY_KINDS: Mapping[str, tuple[type[Any], type[Any]]] = {
    "MutatingAdmissionPolicy": (v1.MutatingAdmissionPolicy, v1.MutatingAdmissionPolicyBinding),
    "ValidatingAdmissionPolicy": (v1.ValidatingAdmissionPolicy, v1.ValidatingAdmissionPolicyBinding),
}
_GATES = {
    "ClusterTrustBundleAttest": ("ClusterTrustBundle",),
    "JobValidation": ("GenericWorkload", "WorkloadWithJob"),
    "NodeDeclaredFeatureValidator": ("NodeDeclaredFeatures",),
    "PodGroupProtection": ("GenericWorkload",),
    "PodGroupWorkloadExists": ("GenericWorkload",),
    "PodTopologyLabels": ("PodTopologyLabelsAdmission",),
}
"""Plugins that are idle unless one of these feature gates is on."""


class _PolicySettings(Document, frozen=True):
    static_manifests_dir: str = ""


@dataclass(frozen=True)
class AdmissionSettings:
    """What an operator may set on admission. A gate that `states` does not know counts as on."""

    enabled: Collection[str] = OWN_DEFAULT
    disabled: Collection[str] = ()
    configs: PluginConfigs = field(default_factory=PluginConfigs)
    states: Mapping[str, bool] = field(default_factory=dict)
    not_ready_seconds: int = 300
    unreachable_seconds: int = 300


@dataclass(frozen=True)
class Parts:
    """What plugins are made of."""

    objects: Objects
    authorizer: Authorizer
    clock: Clock
    chance: random.Random
    webhooks: WebhookAdmission
    policies: PolicyAdmission
    settings: AdmissionSettings = field(default_factory=AdmissionSettings)
    create_namespace: Callable[[core.Namespace], Awaitable[object]] | None = None
    post_of: Callable[[str, float], Post] | None = None
    """How to post to the server of a kubeconfig, with a first pause in seconds between tries."""
    unrecorded: Objects | None = None
    """What plugins read that are not steady, if notes are taken of what is read through `objects`."""
    manifests: list[Manifests] = field(default_factory=list)
    """The folders of files that plugins turned out to have."""
    registry: Registry | None = None


def chosen_plugins(settings: AdmissionSettings) -> list[str]:
    """Return the names of the plugins that are to run, in order; raise ConfigError."""
    enabled, disabled = list(settings.enabled), list(settings.disabled)
    errors = [
        f'{flag}-admission-plugins plugin "{name}" is unknown'
        for flag, names in (("enable", enabled), ("disable", disabled))
        for name in names
        if name not in ORDER
    ]
    if tuple(enabled) == OWN_DEFAULT:
        enabled = [name for name in enabled if name not in disabled]
    both = sorted(set(enabled) & set(disabled))
    if both:
        errors.append(f"[{' '.join(both)}] in enable-admission-plugins and disable-admission-plugins overlapped")
    if errors:
        raise ConfigError(aggregate(errors))
    wanted = (DEFAULT | set(enabled)) - set(disabled)
    return [name for name in ORDER if name in wanted and _has_work(name, settings.states)]


def _has_work(name: str, states: Mapping[str, bool]) -> bool:
    gates = _GATES.get(name)
    return gates is None or any(states.get(gate, True) for gate in gates)


def make_plugins(parts: Parts) -> list[Plugin]:
    """Return the plugins that are to run, what they keep in files read; raise ConfigError."""
    plugins = [_make(name, parts) for name in chosen_plugins(parts.settings)]
    for one in parts.manifests:
        one.begin("webhook" if one.plugin in _WEBHOOK_KINDS else "policy")
    return plugins


def _make(name: str, parts: Parts) -> Plugin:
    place = _PLAIN.get(name)
    try:
        if place is None:
            return _SPECIAL[name](parts)
        module, needs = place
        made = getattr(_module(module), name)(*(getattr(parts, need) for need in needs))
        return cast("Plugin", made)
    except ConfigError as error:
        raise ConfigError(f'couldn\'t init admission plugin "{name}": {error}') from None


def _module(name: str) -> Any:
    return importlib.import_module(f"haven.apiserver.admission.{name}")


def _event_rate_limit(parts: Parts) -> Plugin:
    from haven.apiserver.admission.eventratelimit import EventRateLimit, parse_limits

    return EventRateLimit(parse_limits(parts.settings.configs.of("EventRateLimit")), parts.clock)


def _image_policy(parts: Parts) -> Plugin:
    from haven.apiserver.admission.imagepolicy import ImagePolicyWebhook, parse_image_policy

    policy = parse_image_policy(parts.settings.configs.of("ImagePolicyWebhook"))
    assert parts.post_of is not None
    return ImagePolicyWebhook(policy, parts.post_of(policy.kubeconfig, policy.backoff_seconds), parts.clock)


def _namespace_auto_provision(parts: Parts) -> Plugin:
    from haven.apiserver.admission.autoprovision import NamespaceAutoProvision

    assert parts.create_namespace is not None
    return NamespaceAutoProvision(parts.objects, parts.create_namespace)


def _pod_node_selector(parts: Parts) -> Plugin:
    from haven.apiserver.admission.podnodeselector import PodNodeSelector, parse_selectors

    return PodNodeSelector(parts.objects, parse_selectors(parts.settings.configs.of("PodNodeSelector")))


def _pod_tolerations(parts: Parts) -> Plugin:
    from haven.apiserver.admission.podtolerations import PodTolerationRestriction, parse_tolerations

    limits = parse_tolerations(parts.settings.configs.of("PodTolerationRestriction"))
    return PodTolerationRestriction(parts.objects, limits)


def _pod_security(parts: Parts) -> Plugin:
    from haven.apiserver.admission.podsecurity.plugin import PodSecurity

    document = parts.settings.configs.of("PodSecurity")
    if document is None:
        return PodSecurity(parts.objects, registry=parts.registry)
    from haven.apiserver.admission.podsecurity.configuration import parse_pod_security

    defaults, exemptions = parse_pod_security(document)
    return PodSecurity(parts.objects, defaults=defaults, exemptions=exemptions, registry=parts.registry)


def _priority(parts: Parts) -> Plugin:
    from haven.apiserver.admission.priority import Priority

    return Priority(parts.objects, of_groups=parts.settings.states.get("WorkloadAwarePreemption", False))


def _resource_quota(parts: Parts) -> Plugin:
    from haven.apiserver.admission.resourcequota import ResourceQuota

    document = parts.settings.configs.of("ResourceQuota")
    if document is None:
        return ResourceQuota(parts.unrecorded or parts.objects, parts.clock)
    from haven.apiserver.admission.limitedresources import parse_limited_resources

    return ResourceQuota(parts.unrecorded or parts.objects, parts.clock, parse_limited_resources(document))


def _default_toleration_seconds(parts: Parts) -> Plugin:
    from haven.apiserver.admission.tolerations import DefaultTolerationSeconds

    return DefaultTolerationSeconds(
        not_ready_seconds=parts.settings.not_ready_seconds, unreachable_seconds=parts.settings.unreachable_seconds
    )


def _mutating_webhooks(parts: Parts) -> Plugin:
    document = parts.settings.configs.of("MutatingAdmissionWebhook")
    plugin = parts.webhooks.mutating_as(document)
    return _with_manifests(plugin, parse_settings(document).static_manifests_dir, parts)


def _validating_webhooks(parts: Parts) -> Plugin:
    document = parts.settings.configs.of("ValidatingAdmissionWebhook")
    plugin = parts.webhooks.validating_as(document)
    return _with_manifests(plugin, parse_settings(document).static_manifests_dir, parts)


def _mutating_policies(parts: Parts) -> Plugin:
    return _policies(parts.policies.mutating, parts)


def _validating_policies(parts: Parts) -> Plugin:
    return _policies(parts.policies.validating, parts)


def _policies(plugin: Plugin, parts: Parts) -> Plugin:
    document = parts.settings.configs.of(plugin.name)
    if document is None:
        return plugin
    settings = read_document(document, _PolicySettings, f"{plugin.name}Configuration", _POLICY_VERSIONS)
    return _with_manifests(plugin, settings.static_manifests_dir, parts)


def _with_manifests(plugin: Plugin, named: str, parts: Parts) -> Plugin:
    if not named:
        return plugin
    from haven.apiserver.admission.manifests import Manifests, directory_of, load_policies, load_webhooks

    directory = directory_of(named, parts.settings.states)
    load: Callable[[str], Loaded]
    apply: Callable[[Loaded], None]
    if plugin.name in _WEBHOOK_KINDS:
        kind = _WEBHOOK_KINDS[plugin.name]
        webhooks = parts.webhooks.changing if plugin is parts.webhooks.mutating else parts.webhooks.judging
        load, apply = partial(load_webhooks, kind=kind), lambda loaded: webhooks.fix(loaded.of(kind))
    else:
        policy, binding = _POLICY_KINDS[plugin.name]
        policies: Any = parts.policies.mutating if policy is v1.MutatingAdmissionPolicy else parts.policies.validating
        load = partial(load_policies, policy=policy, binding=binding)
        apply = lambda loaded: policies.hooks.fix(loaded.of(policy), loaded.of(binding))  # noqa: E731
    parts.manifests.append(Manifests(plugin.name, directory, load, apply, parts.clock))
    return plugin


_PLAIN: dict[str, tuple[str, tuple[str, ...]]] = {
    "AlwaysAdmit": ("switches", ()),
    "AlwaysDeny": ("switches", ()),
    "AlwaysPullImages": ("pods", ()),
    "CertificateApproval": ("certificates", ("authorizer",)),
    "CertificateSigning": ("certificates", ("authorizer",)),
    "CertificateSubjectRestriction": ("certificates", ()),
    "ClusterTrustBundleAttest": ("certificates", ("authorizer",)),
    "DefaultIngressClass": ("network", ("objects",)),
    "DefaultStorageClass": ("storage", ("objects",)),
    "DenyServiceExternalIPs": ("network", ()),
    "ExtendedResourceToleration": ("tolerations", ()),
    "JobValidation": ("workloads", ("objects",)),
    "LimitPodHardAntiAffinityTopology": ("pods", ()),
    "LimitRanger": ("limitranger", ("objects",)),
    "NamespaceExists": ("switches", ("objects",)),
    "NamespaceLifecycle": ("namespacelifecycle", ("objects",)),
    "NodeDeclaredFeatureValidator": ("declaredfeatures", ("objects",)),
    "NodeRestriction": ("noderestriction", ("objects", "authorizer")),
    "OwnerReferencesPermissionEnforcement": ("ownerreferences", ("authorizer",)),
    "PersistentVolumeClaimResize": ("storage", ("objects",)),
    "PodGroupProtection": ("workloads", ()),
    "PodGroupWorkloadExists": ("workloads", ("objects",)),
    "PodResizeValidator": ("pods", ("objects",)),
    "PodTopologyLabels": ("pods", ("objects",)),
    "RuntimeClass": ("runtimeclass", ("objects",)),
    "ServiceAccount": ("serviceaccount", ("objects", "clock", "chance")),
    "StorageObjectInUseProtection": ("storage", ()),
    "TaintNodesByCondition": ("tolerations", ()),
}
"""Where each plugin is, and the parts that it is made of."""
_SPECIAL: dict[str, Callable[[Parts], Plugin]] = {
    "DefaultTolerationSeconds": _default_toleration_seconds,
    "EventRateLimit": _event_rate_limit,
    "ImagePolicyWebhook": _image_policy,
    "MutatingAdmissionPolicy": _mutating_policies,
    "MutatingAdmissionWebhook": _mutating_webhooks,
    "NamespaceAutoProvision": _namespace_auto_provision,
    "PodNodeSelector": _pod_node_selector,
    "PodSecurity": _pod_security,
    "PodTolerationRestriction": _pod_tolerations,
    "Priority": _priority,
    "ResourceQuota": _resource_quota,
    "ValidatingAdmissionPolicy": _validating_policies,
    "ValidatingAdmissionWebhook": _validating_webhooks,
}
assert _PLAIN.keys() | _SPECIAL.keys() == set(ORDER)
